package proxy

import (
	"encoding/binary"
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
	in        *http1.Reader // with what was read already
	allowance *allowance
	cut       func() // is told of a flood
	linger    func() // lets the client read what it was told, before the connection ends

	mu    sync.Mutex // guards what follows, and writing: the timer writes too
	place place
	held  []byte
	timer *time.Timer
	whole chan struct{} // closed at the end of the frame that goAway waits for
	gone  bool          // the client was sent away: what follows is not for it
	err   error         // of the timer's write
}

// Read reads ahead. It ends a flood of frames.
func (c *http2Conn) Read(p []byte) (int, error) {
	if len(c.in.Buffered()) == 0 && len(p) < readAhead {
		if err := c.in.Fill(); err != nil {
			return 0, err
		}
	}
	n, err := c.in.Read(p)
	if why := c.allowance.read(p[:n]); why != nil {
		c.cut()
		c.goAway()
		c.linger()
		return 0, why
	}
	return n, err
}

// goAway tells the client that it sends too much (RFC 9113, 6.8), if it still reads. A frame of which a part is
// written comes to its end first: net/http writes what fills its buffer.
func (c *http2Conn) goAway() {
	const enhanceYourCalm = 0xb
	end := time.Now().Add(time.Second)
	_ = c.SetWriteDeadline(end) // also of what is being written: the client may not take it
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.place.between() {
		whole := make(chan struct{})
		c.whole = whole
		c.mu.Unlock()
		select {
		case <-whole:
		case <-time.After(time.Until(end)):
		}
		c.mu.Lock()
		if c.whole = nil; !time.Now().Before(end) {
			return
		}
	}
	b := append(c.held, 0, 0, 8, frameGoAway, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, c.allowance.stream)
	b = binary.BigEndian.AppendUint32(b, enhanceYourCalm)
	c.held, c.gone = nil, true
	_, _ = c.Conn.Write(b) // the connection ends, whatever comes of it
}

// Write writes, or keeps what a body must follow. That is written with the next write, or after bodyWait.
func (c *http2Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return len(p), nil // net/http would close the connection upon an error, and take from the client what it was told
	}
	if c.err != nil {
		return 0, c.err
	}
	waits, frames := c.place.pass(p)
	if c.whole != nil && c.place.between() {
		defer close(c.whole) // is written by then
		c.whole = nil
	}
	c.allowance.answered(frames, len(p))
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
	if err := c.release(); err != nil {
		c.err = err
	}
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

// Of a frame of HTTP/2 (RFC 9113, 4.1).
const (
	frameHeader  = 9 // bytes
	frameData    = 0x0
	frameHeaders = 0x1
	frameReset   = 0x3
	frameGoAway  = 0x7
	endStream    = 0x1
)

// place is where in the frames of HTTP/2 a stream of bytes is.
type place struct {
	header [frameHeader]byte // of the frame, as far as it was passed
	have   int               // bytes of it
	left   int               // bytes of its payload that are not passed yet
}

func (f *place) kind() byte       { return f.header[3] }
func (f *place) endsStream() bool { return f.header[4]&endStream != 0 }

// between reports whether the next byte begins a frame.
func (f *place) between() bool { return f.left == 0 && (f.have == 0 || f.have == frameHeader) }

// next goes past a part of p, to the end of a frame's header or payload at most. begins: that was a header.
func (f *place) next(p []byte) (rest []byte, begins bool) {
	if f.have == frameHeader && f.left > 0 {
		n := min(f.left, len(p))
		f.left -= n
		return p[n:], false
	}
	if f.have == frameHeader {
		f.have = 0
	}
	n := copy(f.header[f.have:], p)
	if f.have += n; f.have < frameHeader {
		return p[n:], false
	}
	f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	return p[n:], true
}

// pass goes past the bytes of p, and counts the frames of answers that begin in them. waits: they end with a frame that
// another of the same stream must follow, a HEADERS frame that does not end its stream.
func (f *place) pass(p []byte) (waits bool, answers int) {
	for len(p) > 0 {
		var begins bool
		if p, begins = f.next(p); begins && (f.kind() == frameHeaders || f.kind() == frameData) {
			answers++
		}
	}
	return f.between() && f.kind() == frameHeaders && !f.endsStream(), answers
}
