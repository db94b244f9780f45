package proxy

import (
	"net"
	"sync"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

const (
	// bodyWait is how long the head of an answer waits for its body.
	bodyWait = time.Millisecond
	// readAhead is how much is read at once, at least where there is room for it.
	readAhead = 4 << 10
	// maxGathered is the most that waits, and is put together.
	maxGathered = 8 << 10
)

// http2Conn is a client's connection as the server of net/http speaks HTTP/2 on it. That asks for the 9 bytes of each
// frame's header by themselves, and writes the head of an answer before it looks for the body: so here
// is read ahead, and a head waits a moment for what follows. Either would cost a record of TLS and a system call.
type http2Conn struct {
	net.Conn
	in *http1.Reader // with what was read already

	mu    sync.Mutex // guards what follows, and writing: the timer writes too
	place place
	held  []byte
	timer *time.Timer
	err   error // of the timer's write
}

// Read reads ahead.
func (c *http2Conn) Read(p []byte) (int, error) {
	if len(c.in.Buffered()) == 0 && len(p) < readAhead {
		if err := c.in.Fill(); err != nil {
			return 0, err
		}
	}
	return c.in.Read(p)
}

// Write writes, or keeps what a body must follow. That is written with the next write, or after bodyWait.
func (c *http2Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	waits := c.place.pass(p)
	if all := len(c.held) + len(p); all > maxGathered {
		if err := c.release(); err != nil {
			return 0, err
		}
		return c.Conn.Write(p)
	}
	switch {
	case waits:
		c.held = append(c.held, p...)
		c.wait()
		return len(p), nil
	case len(c.held) == 0:
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	if err := c.release(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// wait has what is held written in a while, if nothing follows. c.mu is held.
func (c *http2Conn) wait() {
	if c.timer == nil {
		c.timer = time.AfterFunc(bodyWait, c.late)
		return
	}
	c.timer.Reset(bodyWait)
}

func (c *http2Conn) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = c.release()
}

// release writes what is held. c.mu is held.
func (c *http2Conn) release() error {
	if len(c.held) == 0 {
		return nil
	}
	c.timer.Stop() // if it goes off just now, it finds nothing, or the next head: that is written early
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	return err
}

// place is where in the frames of HTTP/2 a stream of bytes is.
type place struct {
	header [9]byte // of the frame, as far as it was passed
	have   int     // bytes of it
	left   int     // bytes of its payload that are not passed yet
}

// pass goes past the bytes of p, and reports whether they end with a frame that another of the same stream must
// follow: a HEADERS frame that does not end its stream.
func (f *place) pass(p []byte) bool {
	const headers, endStream = 0x1, 0x1
	for len(p) > 0 {
		if f.left == 0 && f.have == len(f.header) {
			f.have = 0
		}
		if f.have < len(f.header) {
			n := copy(f.header[f.have:], p)
			p = p[n:]
			if f.have += n; f.have < len(f.header) {
				return false
			}
			f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
		}
		n := min(f.left, len(p))
		f.left -= n
		p = p[n:]
	}
	return f.left == 0 && f.have == len(f.header) && f.header[3] == headers && f.header[4]&endStream == 0
}
