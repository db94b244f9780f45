package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

const (
	// soon is how long an answer may take before somebody looks whether the client is still there.
	soon = 100 * time.Millisecond
	// sureTime is how long a kept connection is believed to be open without a look at it, for a request that
	// may be sent again.
	sureTime = 100 * time.Millisecond
	// staleTime is how long a connection may be kept before a request that must not be repeated gets a new one.
	staleTime = time.Second
	// maxIdle is how many connections to one server are kept.
	maxIdle = 256
	// expectTime is how long a server may take to say that it wants a body.
	expectTime = time.Second
	// smallBody is sent together with the head, once it was read.
	smallBody = 4 << 10
	// stopTime is how long the rest of an upload is waited for after the answer to it has ended.
	stopTime  = 50 * time.Millisecond
	copyBlock = 32 << 10
)

// origin is a replica or a server as HTTP/1 reaches it: the connections to it that are kept. It sends and
// receives in the goroutine of the request; only a body that does not come at once has another one.
type origin struct {
	address string
	dial    func(address string) (net.Conn, error)
	blocks  *blocks

	mu   sync.Mutex
	idle []*originConn // the newest is last
}

// blocks are buffers that requests share.
type blocks struct{ pool sync.Pool }

func newBlocks() *blocks {
	return &blocks{sync.Pool{New: func() any { b := make([]byte, copyBlock); return &b }}}
}

func (b *blocks) take() *[]byte    { return b.pool.Get().(*[]byte) }
func (b *blocks) give(buf *[]byte) { b.pool.Put(buf) }

func dialPlain(address string) (net.Conn, error) { return net.DialTimeout("tcp", address, dialTimeout) }

// dialSecure connects to a server by https URL. Without a good certificate there is no connection.
func dialSecure(address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return tls.DialWithDialer(&d, "tcp", address, &tls.Config{NextProtos: []string{"http/1.1"}})
}

// originConn is one connection to a server. One request has it at a time.
type originConn struct {
	net.Conn
	origin *origin
	in     http1.Reader
	out    []byte
	resp   http1.Response
	body   http1.Body
	reply  reply
	used   bool      // it has served a request before
	since  time.Time // it has been idle

	client    responder // of the present request
	armed     bool      // somebody looks whether the client is there
	owes      bool      // the body that was announced is not being sent
	stopWatch func()
	pending   *transfer // of the present request; nil = none

	mu       sync.Mutex // guards what follows: who uploads, and who watches the client, know it too
	turn     int        // rises with each request
	answered bool
	until    time.Time // for the answer; zero = no limit
}

// transfer is a body that is being sent while the answer is waited for.
type transfer struct {
	conn *originConn
	body *sending
	done chan struct{}
	err  error // after done
}

func newOrigin(base *url.URL, blocks *blocks) *origin {
	o := &origin{address: base.Host, dial: dialPlain, blocks: blocks}
	port := "80"
	if base.Scheme == "https" {
		o.dial, port = dialSecure, "443"
	}
	if base.Port() == "" {
		o.address = net.JoinHostPort(base.Hostname(), port)
	}
	return o
}

// send makes one attempt. Its errors are faults.
func (o *origin) send(out *outgoing) (*reply, error) {
	for {
		c, err := o.take(out)
		if err != nil {
			return nil, err
		}
		r, f := c.exchange(out)
		if f == nil {
			return r, nil
		}
		c.discard()
		stale := c.used && (f.kind == unsent || f.kind == lost && out.again) && !out.client.gone()
		if !stale || out.body != nil && (!out.body.repeatable() || out.body.broken() != nil) {
			return nil, f
		}
	}
}

// take gives a kept connection or makes one. What must not be sent twice gets none that may just be closed.
func (o *origin) take(out *outgoing) (*originConn, error) {
	for {
		o.mu.Lock()
		n := len(o.idle)
		if n == 0 {
			o.mu.Unlock()
			break
		}
		c := o.idle[n-1]
		o.idle = o.idle[:n-1]
		o.mu.Unlock()
		idle := time.Since(c.since)
		if idle > idleTimeout || idle > staleTime && !out.again || (idle > sureTime || !out.again) && c.shut() {
			c.Conn.Close()
			continue
		}
		return c, nil
	}
	conn, err := o.dial(o.address)
	if err != nil {
		return nil, &fault{noConnection, err}
	}
	c := &originConn{Conn: conn, origin: o}
	c.in.Reset(c, nil)
	return c, nil
}

// shut reports whether the server has closed the connection, or sent what nobody asked for.
func (c *originConn) shut() bool {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false // TLS: its records say nothing of that
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = err == syscall.EAGAIN
		return true
	})
	return err != nil || !open
}

// closeIdle closes the connections that are kept.
func (o *origin) closeIdle() { o.prune(time.Time{}) }

// prune closes those that were kept since before a moment. The zero time closes all.
func (o *origin) prune(before time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.idle[:0]
	for _, c := range o.idle {
		if before.IsZero() || c.since.Before(before) {
			c.Conn.Close()
		} else {
			kept = append(kept, c)
		}
	}
	clear(o.idle[len(kept):])
	o.idle = kept
}

// Read reads from the server. When that takes long, somebody has to look whether the client is still there.
func (c *originConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 || err == nil || c.armed || !isTimeout(err) {
		return n, err
	}
	c.arm()
	return c.Conn.Read(p)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func (c *originConn) arm() {
	c.mu.Lock()
	c.armed = true
	_ = c.SetReadDeadline(c.until) // a broken connection shows at the next read
	c.mu.Unlock()
	turn := c.turn
	c.stopWatch = c.client.watch(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.turn == turn {
			_ = c.SetDeadline(time.Unix(1, 0))
		}
	})
	if c.client.gone() {
		_ = c.SetDeadline(time.Unix(1, 0))
	}
}

// expires sets the time for the answer. c.mu is held.
func (c *originConn) expires(until time.Time) {
	c.until = until
	if c.armed && !c.client.gone() {
		_ = c.SetReadDeadline(until)
	}
}

// exchange sends a request and waits for the head of its answer.
func (c *originConn) exchange(out *outgoing) (*reply, *fault) {
	c.client, c.armed, c.owes, c.pending = out.client, false, false, nil
	c.mu.Lock()
	c.turn++
	c.answered, c.until = false, time.Time{}
	c.mu.Unlock()
	now := time.Now()
	if f := c.request(out, now); f != nil {
		return nil, f
	}
	interim := false
	for {
		err := c.in.ReadResponse(&c.resp, out.call.method)
		switch {
		case err != nil && isTimeout(err) && !out.client.gone():
			if !c.owes {
				return nil, &fault{late, fmt.Errorf("no answer within %s: %w", out.limit, err)}
			}
			c.transfer(out) // it does not say whether it wants the body
		case http1.IsMalformed(err), err != nil && (interim || len(c.in.Buffered()) > 0):
			return nil, &fault{spoilt, noReason(err)}
		case err != nil:
			return nil, &fault{lost, noReason(err)}
		case c.resp.Status == http.StatusSwitchingProtocols:
			return c.switched(out)
		case c.resp.Status >= 200:
			return c.final(out), nil
		case c.resp.Status != http.StatusContinue: // the client gets that when its body is first read
			interim = true
			out.client.interim(c.resp.Status, c.resp.Fields)
		case c.owes:
			interim = true
			c.transfer(out)
		default:
			interim = true
		}
	}
}

// request writes head and body, or begins to write the body.
func (c *originConn) request(out *outgoing, now time.Time) *fault {
	_ = c.SetReadDeadline(now.Add(soon)) // a broken connection shows at once
	c.until = out.due(now)
	c.out = out.appendHead(c.out[:0])
	small := out.body != nil && !out.call.expect && 0 < out.call.length && out.call.length <= smallBody
	if small {
		n := len(c.out)
		c.out = append(c.out, make([]byte, out.call.length)...)
		if _, err := io.ReadFull(out.body.start(), c.out[n:]); err != nil {
			return &fault{unsent, err}
		}
		now = time.Now()
		_ = c.SetReadDeadline(now.Add(soon))
		c.until = out.due(now)
	}
	n, err := c.Write(c.out)
	if cap(c.out) > 4*smallBody {
		c.out = nil
	}
	switch {
	case err != nil && n == 0:
		return &fault{unsent, err}
	case err != nil && out.body != nil:
		return nil // it may have answered already
	case err != nil:
		return &fault{lost, err}
	case out.body != nil && !small && out.call.expect:
		c.owes = true
		c.until = time.Now().Add(expectTime)
	case out.body != nil && !small:
		c.transfer(out)
	}
	return nil
}

// transfer begins to send the body.
func (c *originConn) transfer(out *outgoing) {
	t := &transfer{conn: c, body: out.body.start(), done: make(chan struct{})}
	c.pending, c.owes = t, false
	c.mu.Lock()
	c.expires(out.until)
	c.mu.Unlock()
	// Owned by the request, which waits for it in finish; ends with the body or when a side is closed.
	go t.run(out)
}

func (t *transfer) run(out *outgoing) {
	defer close(t.done)
	c := t.conn
	block := c.origin.blocks.take()
	defer c.origin.blocks.give(block)
	t.err = t.copy(out, *block)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered {
		c.expires(out.due(time.Now()))
	}
	if t.err != nil && out.body.broken() != nil {
		c.Conn.Close() // the server must not take what it has for the whole
	}
}

func (t *transfer) copy(out *outgoing, block []byte) error {
	const frame = 16 // bytes around a chunk
	chunked := out.call.length < 0
	for {
		n, err := t.body.Read(block[frame : len(block)-2])
		if n > 0 {
			data := block[frame : frame+n]
			if chunked {
				data = framed(block, n)
			}
			_ = t.conn.SetWriteDeadline(time.Now().Add(out.limit)) // a broken connection shows at once
			if _, err := t.conn.Write(data); err != nil {
				return err
			}
		}
		if err == io.EOF && chunked {
			var trailer http1.Fields
			if out.call.trailer != nil {
				trailer = out.call.trailer()
			}
			_, err = t.conn.Write(http1.AppendEnd(block[:0], trailer))
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// framed makes a chunk of the n bytes behind the first 16 of the block, in place.
func framed(block []byte, n int) []byte {
	var size [16]byte
	line := http1.AppendChunkSize(size[:0], n)
	from := 16 - len(line)
	copy(block[from:], line)
	return append(block[from:16+n], "\r\n"...)
}

// final is the answer proper. Its body is read through the connection.
func (c *originConn) final(out *outgoing) *reply {
	c.mu.Lock()
	c.answered = true
	c.expires(out.until)
	c.mu.Unlock()
	c.body.Start(&c.in, c.resp.Length)
	c.reply = reply{
		status: c.resp.Status, reason: c.resp.Reason, header: c.resp.Fields, named: c.resp.Named, length: c.resp.Length,
		body: &c.body, ready: c.body.Ready, close: c.finish,
	}
	if c.resp.Length == http1.InChunks {
		c.reply.trailer = func() http1.Fields { return c.body.Trailer }
	}
	if tcp, ok := c.Conn.(*net.TCPConn); ok && c.resp.Length > 0 {
		c.reply.plain, c.reply.skip = tcp, c.body.Skip
	}
	return &c.reply
}

// switched is the answer of a server that goes on in another protocol.
func (c *originConn) switched(out *outgoing) (*reply, *fault) {
	if !out.call.upgrade {
		return nil, &fault{spoilt, errors.New("it switched protocols without being asked")}
	}
	c.mu.Lock()
	c.answered = true
	c.expires(time.Time{})
	c.mu.Unlock()
	c.unwatch()
	_ = c.SetDeadline(time.Time{}) // a broken connection shows at once
	c.armed = true                 // nobody looks after the client any more but who reads from it
	c.reply = reply{status: c.resp.Status, reason: c.resp.Reason, header: c.resp.Fields, named: c.resp.Named, switched: &joined{c}, close: func() { c.Conn.Close() }}
	return &c.reply, nil
}

// joined is a connection to a server after the protocol was switched.
type joined struct{ c *originConn }

func (j *joined) Read(p []byte) (int, error)  { return j.c.in.Read(p) }
func (j *joined) Write(p []byte) (int, error) { return j.c.Conn.Write(p) }
func (j *joined) Close() error                { return j.c.Conn.Close() }

// CloseWrite tells the server that the client sends no more.
func (j *joined) CloseWrite() error {
	if half, ok := j.c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return j.c.Conn.Close()
}

func (c *originConn) unwatch() {
	if c.stopWatch != nil {
		c.stopWatch()
		c.stopWatch = nil
	}
}

// discard ends a connection after a failed attempt.
func (c *originConn) discard() {
	c.unwatch()
	c.Conn.Close()
	if t := c.pending; t != nil {
		t.body.upload.stop() // if it reads from the client just now, the next attempt goes on where it is
	}
}

// finish ends a request whose answer was passed on, or given up. It keeps the connection if nothing speaks
// against that.
func (c *originConn) finish() {
	c.unwatch()
	keep := !c.resp.Close && !c.owes && c.body.Done() && len(c.in.Buffered()) == 0
	if t := c.pending; t != nil {
		keep = t.ended() && keep
	}
	c.pending, c.client = nil, nil
	c.mu.Lock()
	c.turn++
	c.mu.Unlock()
	if !keep {
		c.Conn.Close()
		return
	}
	c.used, c.since = true, time.Now()
	o := c.origin
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.idle) >= maxIdle {
		c.Conn.Close()
		return
	}
	o.idle = append(o.idle, c)
}

// ended waits a moment for an upload whose answer is complete, and reports whether all of it was sent.
func (t *transfer) ended() bool {
	select {
	case <-t.done:
		return t.err == nil
	default:
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-t.done:
		return t.err == nil
	case <-timer.C:
	}
	t.body.upload.stop()
	t.conn.client.hush()
	t.conn.Conn.Close()
	<-t.done
	return false
}

// noReason is an error of a connection as people read it.
func noReason(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return io.EOF
	}
	return err
}
