package proxy

import (
	"crypto/tls"
	"net"
	"net/url"
	"sync"
	"syscall"
	"time"
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
	for ; ; out.now = (time.Time{}) {
		if out.now.IsZero() {
			out.now = time.Now()
		}
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
		idle := out.now.Sub(c.since)
		if idle > idleTimeout || idle > staleTime && !out.again || (idle > sureTime || !out.again) && c.shut() {
			c.Conn.Close()
			continue
		}
		return c, nil
	}
	conn, err := o.dial(o.address)
	if err != nil {
		return nil, dialFault(err)
	}
	out.now = time.Now()
	c := &originConn{Conn: conn, origin: o, asking: newAsking(conn)}
	c.in.Reset(c, nil)
	c.ready, c.done = c.body.Ready, c.finish
	c.slow = func() bool { return c.armed }
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
	_ = c.SetReadDeadline(time.Time{}) // that of the request before may be over
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
