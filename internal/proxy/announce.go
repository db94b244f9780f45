package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/spillway-dev/spillway"
)

// announcement is what a header of the PROXY protocol says of a connection: from where the client came, and
// which address it asked for. nil: nothing, and the connection speaks for itself.
type announcement struct{ client, server *net.TCPAddr }

// need says whether connections of somebody begin with a header of the PROXY protocol.
type need int

const (
	noHeader need = iota
	mayHave       // one that begins with it is believed
	mustHave      // one without is closed
)

// needOf says what is expected of a peer at an HTTP address. From this machine, where the server's own
// requests and those of a replaced proxy come from, a header is accepted and not asked for, because the
// beginning of a request is never taken for one.
func (p *plane) needOf(peer netip.Addr) need {
	switch {
	case !p.headers:
		return noHeader
	case p.trust.lists(peer) && !p.trust.here(peer):
		return mustHave
	case p.trust.here(peer):
		return mayHave
	}
	return noHeader
}

// needOfTCP is needOf at an address of a service that speaks TCP. Where the client waits for the server to speak
// first, waiting for a header that need not come would be a pause; so it comes from those who are listed.
func (p *plane) needOfTCP(peer netip.Addr) need {
	if p.headers && p.trust.lists(peer) {
		return mustHave
	}
	return noHeader
}

// readAnnouncement reads the header with which a connection begins, within headerTimeout. head is what was read
// beyond it. After an error the connection is of no use.
func readAnnouncement(conn net.Conn, n need) (a *announcement, head []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return nil, nil, err
	}
	buffered := bufio.NewReaderSize(conn, 512)
	awaitLine(buffered)
	h, err := proxyproto.Read(buffered)
	switch {
	case errors.Is(err, proxyproto.ErrNoProxyProtocol) && n == mayHave:
	case err != nil:
		return nil, nil, fmt.Errorf("header of the PROXY protocol: %w", err)
	default:
		a = announced(h)
	}
	head, err = buffered.Peek(buffered.Buffered())
	if err != nil {
		return nil, nil, err
	}
	return a, head, conn.SetReadDeadline(time.Time{})
}

// awaitLine has the whole line of a header of version 1 in the buffer, which may come in parts: the library takes only one
// that is there. Whatever is wrong with it, the library finds.
func awaitLine(r *bufio.Reader) {
	const longest = 107
	if begin, err := r.Peek(len(proxyproto.SIGV1)); err != nil || !bytes.Equal(begin, proxyproto.SIGV1) {
		return
	}
	for n := len(proxyproto.SIGV1) + 1; n <= longest; n++ {
		if line, err := r.Peek(n); err != nil || line[n-1] == '\n' {
			return
		}
	}
}

// announced is what a header says; nil for a connection of the sender's own (a probe), or of another kind.
func announced(h *proxyproto.Header) *announcement {
	client, server, ok := h.TCPAddrs()
	if !ok || h.Command.IsLocal() {
		return nil
	}
	return &announcement{client, server}
}

// headerFor is the header with which a connection to a replica begins.
func headerFor(version spillway.Announce, a announcement) ([]byte, error) {
	v := byte(2)
	if version == spillway.AnnounceV1 {
		v = 1
	}
	return proxyproto.HeaderProxyFromAddrs(v, a.client, a.server).Format()
}

// announcedListener gives connections that know who is behind them.
type announcedListener struct {
	*net.TCPListener
	plane *plane
}

// behindOthers is the listener, with the addresses that peers announce if that is asked for.
func (p *plane) behindOthers(tcp *net.TCPListener) net.Listener {
	if !p.headers {
		return tcp
	}
	return announcedListener{tcp, p}
}

// Accept never waits for a header: the first to use the connection does.
func (l announcedListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	n := l.plane.needOf(addressOf(conn.RemoteAddr()))
	if n == noHeader {
		return conn, nil
	}
	return &announcedConn{Conn: conn, need: n, plane: l.plane}, nil
}

// announcedConn is a connection that begins with a header, or may. It is read by the first Read or RemoteAddr; one that
// is malformed ends the connection.
type announcedConn struct {
	net.Conn
	need  need
	plane *plane

	once sync.Once
	head []byte // of what follows, not yet read
	said *announcement
	err  error
}

func (c *announcedConn) begin() error {
	c.once.Do(func() {
		if c.said, c.head, c.err = readAnnouncement(c.Conn, c.need); c.err != nil {
			c.plane.complain("connection closed", "peer", c.Conn.RemoteAddr(), "error", c.err)
			c.Conn.Close()
		}
	})
	return c.err
}

func (c *announcedConn) Read(b []byte) (int, error) {
	if c.begin() != nil {
		return 0, io.EOF // nothing is owed to who speaks another protocol, no error page either
	}
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// RemoteAddr is the address of the client behind the connection.
func (c *announcedConn) RemoteAddr() net.Addr {
	if c.begin() == nil && c.said != nil {
		return c.said.client
	}
	return c.Conn.RemoteAddr()
}

// CloseWrite ends one direction of an upgraded connection.
func (c *announcedConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// complaints says when something was logged last that could be said at every connection.
type complaints struct{ last atomic.Int64 }

// complain logs what goes wrong with connections of others, at most once a second.
func (p *plane) complain(what string, facts ...any) {
	now := time.Now().UnixNano()
	if last := p.complaints.last.Load(); now-last < int64(time.Second) || !p.complaints.last.CompareAndSwap(last, now) {
		return
	}
	p.log.Log(p.base, slog.LevelWarn, what, facts...)
}
