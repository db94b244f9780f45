package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// originConn is one connection to a server. One request has it at a time.
type originConn struct {
	net.Conn
	origin *origin
	in     http1.Reader
	out    []byte
	resp   http1.Response
	body   http1.Body
	reply  reply
	ready  func() bool // body.Ready, and functions of the connection: made once
	slow   func() bool
	done   func()
	used   bool      // it has served a request before
	since  time.Time // it has been idle

	asking    *asking
	due       []byte    // of the present request, to be written before its answer is read
	unsent    bool      // nothing of it could be written
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

// Read reads from the server. When that takes long, somebody has to look whether the client is still there.
func (c *originConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if n > 0 || err == nil || c.armed || !isTimeout(err) {
		return n, err
	}
	c.arm()
	return c.Conn.Read(p)
}

// read writes what is due, then reads.
func (c *originConn) read(p []byte) (int, error) {
	due := c.due
	if c.due = nil; due == nil {
		return c.Conn.Read(p)
	}
	sent, n, err := c.asking.ask(due, p)
	if cap(due) > 4*smallBody {
		c.out = nil // a large head is not to stay with a kept connection
	}
	switch {
	case n > 0:
		return n, nil
	case err != nil && !isTimeout(err):
		c.unsent = sent == 0
		return 0, err
	case sent == len(due) && err == nil:
		return 0, io.EOF
	case sent == len(due):
		return 0, err
	}
	n, err = c.Conn.Write(due[sent:])
	if c.unsent = err != nil && sent+n == 0; c.unsent {
		return 0, err
	}
	return c.Conn.Read(p) // it may have answered already
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// arm has somebody look after the client, who gets what there is of the answer.
func (c *originConn) arm() {
	_ = c.client.flush() // a broken connection shows at the next write
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
	c.client, c.armed, c.owes, c.pending, c.due, c.unsent = out.client, false, false, nil, nil, false
	c.mu.Lock()
	c.turn++
	c.answered, c.until = false, time.Time{}
	c.mu.Unlock()
	if f := c.request(out, out.now); f != nil {
		return nil, f
	}
	interim := false
	for {
		err := c.in.ReadResponse(&c.resp, out.call.method)
		switch {
		case c.unsent:
			return nil, &fault{unsent, err}
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
		out.body.filled()
		now = time.Now()
		_ = c.SetReadDeadline(now.Add(soon))
		c.until = out.due(now)
	}
	if c.asking != nil && (out.body == nil || small) {
		c.due = c.out
		return nil
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

// final is the answer proper. Its body is read through the connection.
func (c *originConn) final(out *outgoing) *reply {
	c.mu.Lock()
	c.answered = true
	c.expires(out.until)
	c.mu.Unlock()
	c.body.StartLoose(&c.in, c.resp.Length)
	c.reply = reply{
		status: c.resp.Status, reason: c.resp.Reason, header: c.resp.Fields, named: c.resp.Named, length: c.resp.Length,
		body: &c.body, ready: c.ready, slow: c.slow, close: c.done,
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

// noReason is an error of a connection as people read it.
func noReason(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return io.EOF
	}
	return err
}
