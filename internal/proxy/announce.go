package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
func (p *plane) needOf(peer, local netip.Addr) need {
	switch {
	case !p.headers:
		return noHeader
	case here(peer, local):
		return mayHave
	case p.trust.lists(peer):
		return mustHave
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

// from notes the address of the client behind a connection, and whether it is believed for whom it speaks.
func (f *front) from(ip netip.Addr) {
	f.client, f.ours = ip, f.plane.trust.trusts(ip, f.local.Addr())
	if f.peer = ""; ip.IsValid() {
		f.peer = ip.WithZone("").String()
	}
}

// introduced learns who is behind a connection to a public address, if somebody in front of us says it. A bad header
// ends the connection: nothing is owed to who speaks another protocol, no error page either.
func (f *front) introduced() bool {
	if f.listener.private {
		return true
	}
	n := f.plane.needOf(f.client, f.local.Addr())
	if n == noHeader {
		return true
	}
	said, head, err := readAnnouncement(f.tcp, n)
	if err != nil {
		f.plane.complain("connection closed", "address", f.listener.address, "peer", f.peer, "error", err)
		return false
	}
	if f.first = head; said != nil {
		f.from(addressOf(said.client))
	}
	return true
}

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
