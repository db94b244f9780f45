package http1

import (
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// RefusedMethod is the method of the request that a Guard puts in the place of one that it refuses.
const RefusedMethod = "X-REFUSED"

// refusedRequest stands for a request that is refused.
const refusedRequest = RefusedMethod + " / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n"

// Guard is a client's connection for a server that reads HTTP/1 less strictly: it gives that server only
// heads that this package has read without an objection, and chunks that it has framed itself. After a
// request that it refuses, the server gets one with RefusedMethod in its place, and then the end, so that
// the server answers in order; Refused says what to answer.
//
// After a request that asks for another protocol the guard passes everything: the server must close the
// connection when it does not switch.
type Guard struct {
	net.Conn
	in      *Reader
	from    io.Reader // what in has read from until the guard came: the connection
	req     Request
	body    Body
	length  int64
	pending []byte // framed, and not given away yet
	raw     bool
	buf     []byte // for chunks
	refused atomic.Pointer[Refusal]
	hurry   chan struct{} // has room for one: nobody waits for a read any more

	watches bool // the present read is for one byte: see wait

	mu      sync.Mutex // guards what follows: reading and its end are of different goroutines
	changed *sync.Cond
	want    time.Time // when reading has to end
	set     time.Time // the same as the connection has it
	reading bool      // from the connection
	look    bool      // somebody wants to know whether the client is there
	closed  bool
}

// near is how much too early a read may end: to set the time costs something.
const near = time.Second

// HalfClosed is how long a client that sends no more is waited with: it may have gone, or still want its answer.
const HalfClosed = time.Second

// NewGuard makes a guard of a connection whose first request was read already. in reads the rest.
func NewGuard(conn net.Conn, in *Reader, first *Request) *Guard {
	g := &Guard{Conn: conn, in: in, hurry: make(chan struct{}, 1)}
	g.changed = sync.NewCond(&g.mu)
	g.from, in.from = in.from, (*timedConn)(g)
	if begun := in.Begun; begun != nil {
		in.Begun = func() {
			if !g.watches { // else a request is being answered: its time is not that of the next head
				begun()
				g.mu.Lock()
				g.set = time.Unix(1, 0) // it has given the connection a time of its own
				g.mu.Unlock()
			}
		}
	}
	g.follow(first)
	return g
}

// follow passes a request on.
func (g *Guard) follow(r *Request) {
	g.mu.Lock()
	g.look = false
	g.mu.Unlock()
	g.pending = append(g.pending[:0], r.raw...)
	g.length, g.raw = r.Length, r.Upgrade || r.Method == http.MethodConnect
	g.body.Start(g.in, g.length)
}

// CloseWrite tells the client that nothing more is sent.
func (g *Guard) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return g.Conn.Close()
}

// Refused is why the last request was refused; nil when it was not.
func (g *Guard) Refused() *Refusal { return g.refused.Load() }

// Read gives what the server may see.
func (g *Guard) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(g.pending) > 0:
			n := copy(p, g.pending)
			g.pending = g.pending[n:]
			return n, nil
		case g.raw:
			return g.in.Read(p)
		case g.refused.Load() != nil:
			return 0, io.EOF
		case !g.body.Done() && g.length != InChunks:
			n, err := g.body.Read(p)
			if err == io.EOF {
				err = nil // of the body, not of the connection
			}
			if n > 0 || err != nil {
				return n, err
			}
		case !g.body.Done():
			if err := g.nextChunk(); err != nil {
				return 0, err
			}
		default:
			g.watches = len(p) == 1
			if err := g.wait(len(p)); err != nil {
				return 0, err
			}
			if err := g.nextHead(); err != nil {
				return 0, err
			}
		}
	}
}

func (g *Guard) nextChunk() error {
	if g.buf == nil {
		g.buf = make([]byte, 8<<10)
	}
	n, err := g.body.Read(g.buf)
	g.pending = AppendChunk(g.pending[:0], g.buf[:n])
	if err == io.EOF {
		g.pending = AppendEnd(g.pending, g.body.Trailer)
		return nil
	}
	if _, ok := err.(malformed); ok {
		// The server has to find that for itself: an error of the connection would end the request.
		g.refused.Store(bad("%s", err))
		g.pending = append(g.pending, "malformed\r\n"...)
		return nil
	}
	return err
}

func (g *Guard) nextHead() error {
	err := g.in.ReadRequest(&g.req)
	if refusal, ok := err.(*Refusal); ok {
		g.refused.Store(refusal)
		g.pending = append(g.pending[:0], refusedRequest...)
		return nil
	}
	switch err {
	case nil:
		g.follow(&g.req)
	case io.EOF:
		timer := time.NewTimer(HalfClosed)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-g.hurry:
		}
	}
	return err
}

// wait lets a read for one byte wait until somebody looks for the client, or it has to end: while a request is
// answered, the server of net/http reads so, only to see the connection end, and gives up when the answer is there.
// That read and its end would cost more than reading the request.
func (g *Guard) wait(n int) error {
	if n > 1 || len(g.in.Buffered()) > 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		switch {
		case g.closed:
			return net.ErrClosed
		case g.look:
			return nil
		case isPast(g.want):
			return os.ErrDeadlineExceeded
		}
		g.changed.Wait()
	}
}

// Look has a waiting read find out from now on, until the next request, whether the client is there.
func (g *Guard) Look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look = true
	g.changed.Broadcast()
}

func isPast(t time.Time) bool { return !t.IsZero() && t.Before(time.Now()) }

// SetReadDeadline is that of net.Conn.
func (g *Guard) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.want = t
	if isPast(t) {
		select {
		case g.hurry <- struct{}{}:
		default: // it hurries already
		}
		g.changed.Broadcast()
	} else {
		select {
		case <-g.hurry: // of a read that has ended
		default:
		}
	}
	if !g.reading {
		return nil // the next read sets it
	}
	g.set = t
	return g.Conn.SetReadDeadline(t)
}

// SetDeadline is that of net.Conn.
func (g *Guard) SetDeadline(t time.Time) error {
	if err := g.SetWriteDeadline(t); err != nil {
		return err
	}
	return g.SetReadDeadline(t)
}

// Close closes the connection.
func (g *Guard) Close() error {
	g.mu.Lock()
	g.closed = true
	g.changed.Broadcast()
	g.mu.Unlock()
	return g.Conn.Close()
}

// timedConn is a guard as its reader sees it: the connection, which gets the time for reading when it is read from.
type timedConn Guard

func (c *timedConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if d := c.want.Sub(c.set); d != 0 && (d < 0 || d > near || c.want.IsZero() || c.set.IsZero()) {
		c.set = c.want
		_ = c.Conn.SetReadDeadline(c.set) // a broken connection shows at the read
	}
	c.reading = true
	c.mu.Unlock()
	n, err := c.from.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	return n, err
}
