package proxy

import (
	"net"
	"sync"
)

// handoff is the listener at which the general engine gets its connections.
type handoff struct {
	address net.Addr
	ready   chan net.Conn
	ended   chan struct{}
	once    sync.Once
}

// given is a connection on its way to the general engine, with what the fast one knows of it.
type given struct {
	net.Conn
	front *front
}

// CloseWrite tells the client that nothing more is sent.
func (g *given) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return g.Conn.Close()
}

// carrier is what TLS is spoken on.
type carrier struct {
	*net.TCPConn
	front *front
}

// Read gives what was read with a header of the PROXY protocol first.
func (c *carrier) Read(p []byte) (int, error) {
	if first := c.front.first; len(first) > 0 {
		n := copy(p, first)
		c.front.first = first[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}

func newHandoff(address net.Addr) *handoff {
	return &handoff{address: address, ready: make(chan net.Conn), ended: make(chan struct{})}
}

// give reports whether the general engine has the connection now.
func (h *handoff) give(c net.Conn) bool {
	select {
	case h.ready <- c:
		return true
	case <-h.ended:
		return false
	}
}

// Accept gives the next connection.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case <-h.ended:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.ended) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.address }
