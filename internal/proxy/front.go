package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// The fast engine reads HTTP/1.1 by itself, in one goroutine for a connection, without maps and contexts.
// Whatever is out of the ordinary goes on to the general engine, with the bytes that were read already.

const (
	// coarse is how exact the times of idle and slow clients are: setting them costs something.
	coarse = 5 * time.Second
	// sendTime is how long a client may take nothing of its answer.
	sendTime = 60 * time.Second
	// lingerTime is how long a client may still send after an answer that is the last of its connection.
	lingerTime  = 2 * time.Second
	lingerBytes = 1 << 20
)

// preface begins a connection that speaks HTTP/2 without TLS.
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// The states of a front.
const (
	busy int32 = iota
	idle
	closed
)

// front is a client's connection, and the responder of the request that it has now.
type front struct {
	plane    *plane
	listener *listener
	conn     net.Conn
	wire     *net.TCPConn // whatever it speaks
	tcp      *net.TCPConn // conn, unless it speaks TLS
	tls      *tls.Conn    // conn, if it speaks TLS
	http2    bool         // it is what the client speaks
	guard    *http1.Guard // once the general engine has the connection
	peer     string
	client   netip.Addr
	local    netip.AddrPort
	ours     bool
	first    []byte // that the client sent already, behind a header of the PROXY protocol
	state    atomic.Int32
	left     atomic.Bool // the client went away
	hushed   atomic.Bool // its body is not read any more

	in      http1.Reader
	req     http1.Request
	body    http1.Body
	call    call
	x       exchange
	up      *upload // of the request; nil when it has no body
	out     []byte  // of the answer, not written yet
	block   *[]byte
	begun   bool // the answer proper has begun
	chunked bool
	broken  bool // the connection is of no more use
	last    bool // the answer is the last of the connection
	read    time.Time
	wrote   time.Time

	writing sync.Mutex // of interim answers, which come from two goroutines
}

func (l *listener) front(conn *net.TCPConn) *front {
	f := &front{plane: l.plane, listener: l, conn: conn, wire: conn, tcp: conn}
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		f.local = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	f.from(addressOf(conn.RemoteAddr()))
	return f
}

// run serves the connection to its end, or gives it to the general engine.
func (f *front) run() {
	given := false
	defer func() {
		if broken := recover(); broken != nil { // one request must not end all the others
			f.plane.log.Error("a request broke the proxy", "client", f.peer, "method", f.call.method, "host", f.call.host, "path", f.call.path, "panic", broken, "stack", string(debug.Stack()))
		}
		if f.listener.forget(f); !given {
			f.conn.Close()
			f.listener.conns.Add(-1)
		}
	}()
	if !f.introduced() {
		return
	}
	if f.listener.tls != nil {
		if err := f.handshake(); err != nil {
			return
		}
		switch f.tls.ConnectionState().NegotiatedProtocol {
		case acmez.ACMETLS1Protocol:
			return // it has seen the certificate that it wanted to see
		case "h2":
			f.http2 = true
		}
	}
	f.x.now = time.Now()
	f.in.Reset(f.conn, f.first)
	f.in.Begun = f.headBegun
	for f.await() {
		if f.special() {
			given = f.giveGuarded()
			return
		}
		if !f.answer() {
			return
		}
	}
	if b := f.in.Buffered(); f.http2 && bytes.HasPrefix(b, preface) {
		given = f.give(&http2Conn{Conn: f.conn, in: &f.in, allowance: newAllowance(), linger: f.linger, cut: func() {
			f.plane.complain("a client sends HTTP/2 frames that are good for nothing, its connection is closed", "client", f.peer)
		}})
	}
}

// handshake speaks TLS from here on.
func (f *front) handshake() error {
	tcp := f.tcp
	f.tls = tls.Server(&carrier{tcp, f}, f.listener.tls)
	f.conn, f.tcp = f.tls, nil
	if err := f.tls.SetDeadline(time.Now().Add(headerTimeout)); err != nil {
		return err
	}
	if err := f.tls.HandshakeContext(f.plane.base); err != nil {
		f.plane.seen.handshakes.Add(1)
		f.plane.log.Debug("tls handshake", "client", f.peer, "error", err)
		f.explainTLS(tcp, err)
		return err
	}
	return f.tls.SetDeadline(time.Time{})
}

// await waits for a request and reads its head. false: there is none, or it was refused.
func (f *front) await() bool {
	if len(f.in.Buffered()) == 0 {
		if f.x.now.Sub(f.read) > coarse {
			f.read = f.x.now
			_ = f.conn.SetReadDeadline(f.read.Add(clientIdle)) // a broken connection shows at the next read
		}
		f.state.Store(idle)
		if f.listener.sealed.Load() {
			return false
		}
		err := f.in.Fill()
		if !f.state.CompareAndSwap(idle, busy) || err != nil {
			return false
		}
	}
	if b := f.in.Buffered(); f.http2 || f.tcp != nil && len(b) >= 4 && bytes.HasPrefix(preface, b[:4]) {
		f.awaitPreface()
		return false
	}
	var no *http1.Refusal
	err := f.in.ReadRequest(&f.req)
	switch {
	case errors.As(err, &no):
		f.turnDown(&refusal{status: no.Status, reason: no.Reason})
		return false
	case err != nil && isTimeout(err) && len(f.in.Buffered()) > 0:
		f.turnDown(&refusal{status: http.StatusRequestTimeout, reason: fmt.Sprintf("the head of the request did not come within %s", headerTimeout)})
		return false
	}
	return err == nil
}

// awaitPreface reads until it is clear whether the preface is there.
func (f *front) awaitPreface() {
	f.http2 = true
	f.headBegun()
	for len(f.in.Buffered()) < len(preface) && bytes.HasPrefix(preface, f.in.Buffered()) {
		if f.in.Fill() != nil {
			return
		}
	}
	if b := f.in.Buffered(); !bytes.HasPrefix(b, preface) && f.tls == nil { // else it would not understand the answer
		f.turnDown(&refusal{status: http.StatusBadRequest, reason: "the request line is not METHOD TARGET HTTP/1.1"})
	}
}

// headBegun: the rest of the head has to come soon.
func (f *front) headBegun() {
	f.read = time.Time{} // so that the next wait sets its own time
	_ = f.conn.SetReadDeadline(time.Now().Add(headerTimeout))
}

// special reports whether the request is for the general engine.
func (f *front) special() bool {
	r := &f.req
	return f.listener.slow || r.Upgrade || r.Expect || r.Minor == 0 || r.Method == http.MethodConnect
}

// giveGuarded gives the connection to the general engine, with the request that was just read.
func (f *front) giveGuarded() bool {
	f.guard = http1.NewGuard(f.conn, &f.in, &f.req)
	return f.give(f.guard)
}

// give has the general engine serve the connection.
func (f *front) give(conn net.Conn) bool {
	_ = f.conn.SetDeadline(time.Time{})
	return f.listener.handoff.give(&given{Conn: conn, front: f})
}

// answer answers the request that was read, and reports whether another may follow.
func (f *front) answer() bool {
	p := f.plane
	p.active.Add(1)
	defer p.active.Add(-1)
	r := &f.req
	f.call = call{
		method: r.Method, header: r.Fields, named: r.Named, major: 1, minor: r.Minor, length: r.Length,
		peer: f.peer, client: f.client, local: f.local, secure: f.tls != nil, ours: f.ours,
	}
	f.call.aim(r.Host, r.Target)
	failed, add := f.x.failed[:0], f.x.head.add[:0]
	f.x = exchange{plane: p, call: &f.call, client: f, find: f.listener.find, failed: failed, head: head{add: add}, fast: true}
	f.begun, f.chunked, f.last = false, false, r.Close
	f.body.Start(&f.in, r.Length)
	if r.Length != 0 {
		// New for each request: an attempt that failed may still look at that of an earlier one.
		f.up = &upload{from: &slowBody{from: &f.body, rush: f.rush, length: r.Length}}
		f.x.body = f.up
		if r.Length < 0 {
			f.call.trailer = func() http1.Fields { return f.body.Trailer }
		}
	}
	f.x.serve()
	f.giveBlock()
	if f.broken {
		return false
	}
	if f.x.body != nil && !f.up.whole() {
		f.settleBody()
	}
	if f.last {
		f.linger()
		return false
	}
	return true
}

// settleBody deals with a body that nobody wanted to the end: nobody reads it any more.
func (f *front) settleBody() {
	f.up.stop()
	f.hush()
	f.up.reading.Lock()   // whoever was reading has stopped
	f.up.reading.Unlock() //lint:ignore SA2001 it only waits
	f.last = true
}

// linger closes a connection so that the client can read the last answer: with unread input there would be
// a reset, which takes the answer away.
func (f *front) linger() {
	half, ok := f.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = f.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, f.conn, lingerBytes) // whatever comes, the connection is closed
}

// rush sets when the next bytes of the body must be there.
func (f *front) rush(until time.Time) {
	f.read = time.Time{}
	_ = f.conn.SetReadDeadline(until) // a broken connection shows at the next read
	if f.hushed.Load() {
		_ = f.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (f *front) hush() {
	f.hushed.Store(true)
	_ = f.conn.SetReadDeadline(time.Unix(1, 0))
}

func (f *front) interim(status int, header http1.Fields) {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.begun {
		return
	}
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for _, h := range header {
		if !http1.IsHop(h.Name) {
			b = http1.AppendField(b, h.Name, h.Value)
		}
	}
	_ = f.send(append(b, "\r\n"...)) // a broken connection shows at the answer proper
}

func (f *front) begin(h *head) error {
	f.writing.Lock()
	f.begun = true
	f.writing.Unlock()
	f.block = f.plane.blocks.take()
	b := append((*f.block)[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(h.status), 10)
	b = append(b, ' ')
	b = append(b, h.reason...)
	b = append(b, "\r\n"...)
	h.fields(func(name, value string) { b = http1.AppendField(b, name, value) })
	bodiless := f.call.method == http.MethodHead || h.status == http.StatusNoContent || h.status == http.StatusNotModified
	switch {
	case bodiless && (h.length < 0 || h.status == http.StatusNoContent):
	case h.length < 0:
		f.chunked = true
		for v := range h.header.All("Trailer") {
			b = http1.AppendField(b, "Trailer", v)
		}
		b = http1.AppendFraming(b, http1.InChunks)
	default:
		b = http1.AppendFraming(b, h.length)
	}
	if f.last = f.last || h.last || f.x.body != nil && !f.up.whole(); f.last {
		b = append(b, "Connection: close\r\n"...)
	}
	f.out = append(b, "\r\n"...)
	return nil
}

func (f *front) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	const around = 16 // of a chunk
	if len(f.out)+len(p)+around > cap(f.out) {
		if f.chunked {
			f.out = http1.AppendChunkSize(f.out, len(p))
		}
		if err := f.flush(); err != nil {
			return err
		}
		if len(p)+around > cap(f.out) {
			if err := f.send(p); err != nil || !f.chunked {
				return err
			}
			f.out = append(f.out, "\r\n"...)
			return nil
		}
		f.out = append(f.out, p...)
		if f.chunked {
			f.out = append(f.out, "\r\n"...)
		}
		return nil
	}
	if f.chunked {
		f.out = http1.AppendChunk(f.out, p)
	} else {
		f.out = append(f.out, p...)
	}
	return nil
}

func (f *front) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	err := f.send(f.out)
	f.out = f.out[:0]
	return err
}

// send writes to the client, who has to take it within sendTime.
func (f *front) send(p []byte) error {
	if now := time.Now(); now.Sub(f.wrote) > coarse {
		f.wrote = now
		_ = f.conn.SetWriteDeadline(now.Add(sendTime)) // a broken connection shows at once
	}
	_, err := f.conn.Write(p)
	if err != nil {
		f.broken = true
	}
	return err
}

func (f *front) splice(from *net.TCPConn, n int64) (int64, error) {
	if f.tcp == nil || f.chunked {
		return 0, nil
	}
	if err := f.flush(); err != nil {
		return 0, err
	}
	f.giveBlock() // it may take the client long
	f.wrote = time.Now()
	_ = f.conn.SetWriteDeadline(f.wrote.Add(sendTime))
	return io.CopyN(f.tcp, from, n)
}

func (f *front) end(trailer http1.Fields) error {
	if f.chunked {
		f.out = http1.AppendEnd(f.out, trailer)
	}
	return f.flush()
}

func (f *front) giveBlock() {
	f.out = nil
	if f.block != nil {
		f.plane.blocks.give(f.block)
		f.block = nil
	}
}

// abort ends the connection behind what there is of the answer. Without that a client would take the end for that of
// an idle connection, and send the request once more.
func (f *front) abort() {
	_ = f.flush() // it is broken either way
	f.broken = true
}

func (f *front) gone() bool { return f.left.Load() }

// watch reads on while an answer is waited for: that is how the end of the connection is seen. What comes
// instead is the next request. While there is a body to be read, and behind the next request, it only looks.
func (f *front) watch(call func()) (stop func()) {
	if f.left.Load() {
		return func() {}
	}
	looks := f.x.body != nil && !f.up.whole()
	if !looks {
		f.rush(time.Time{})
	}
	done, enough := make(chan struct{}), make(chan struct{})
	// Owned by the request, which calls stop; ends when something comes, or by stop.
	go func() {
		defer close(done)
		var err error
		if !looks {
			err = f.in.Fill()
		}
		if isTimeout(err) || (err == nil || errors.Is(err, http1.ErrFull)) && !f.leaves(f.x.body, enough) {
			return
		}
		if err == io.EOF { // it may only have nothing more to say
			timer := time.NewTimer(http1.HalfClosed)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-enough:
				return
			}
		}
		f.left.Store(true)
		call()
	}()
	return sync.OnceFunc(func() {
		close(enough)
		if looks {
			<-done
			return
		}
		_ = f.conn.SetReadDeadline(time.Unix(1, 0)) // a broken connection shows at the next read
		<-done
		f.read = time.Time{}
	})
}

// takeOver is for the general engine only.
func (f *front) takeOver() (net.Conn, []byte, error) {
	return nil, nil, errors.New("not by the fast engine")
}
