package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
)

// Codes of a close frame (RFC 6455, 7.4.1, and the registry there).
const (
	goingAway      = 1001 // the proxy stops
	serviceRestart = 1012 // the replica was stopped: the client may come again at once
)

// frames follows the frames that a server sends on a WebSocket (RFC 6455, 5.2), so that a close frame can be put
// behind the last whole one. The zero value is at the beginning of a frame.
type frames struct {
	head   [10]byte // of the frame, as far as it was read
	n      int
	left   uint64 // bytes of its payload to come
	closed bool   // a close frame has passed
}

// pass takes note of bytes that are passed on.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(uint64(len(p)), f.left)
			p, f.left = p[n:], f.left-n
			continue
		}
		f.head[f.n] = p[0]
		f.n++
		p = p[1:]
		if f.n < f.size() {
			continue
		}
		f.closed = f.closed || f.head[0]&0x0f == 8
		switch {
		case f.size() == 4:
			f.left = uint64(binary.BigEndian.Uint16(f.head[2:4]))
		case f.size() == 10:
			f.left = binary.BigEndian.Uint64(f.head[2:10])
		default:
			f.left = uint64(f.head[1] & 0x7f)
		}
		if f.head[1]&0x80 != 0 {
			f.left += 4 // a server must not mask; its key belongs to what is passed over
		}
		f.n = 0
	}
}

// size is how long the head of the frame is, as far as that is known.
func (f *frames) size() int {
	switch {
	case f.n < 2 || f.head[1]&0x7f < 126:
		return 2
	case f.head[1]&0x7f == 126:
		return 4
	}
	return 10
}

// whole reports whether a frame may follow, and nothing was said about the end yet.
func (f *frames) whole() bool { return f.n == 0 && f.left == 0 && !f.closed }

// closeFrame says why the connection ends.
func closeFrame(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x88, byte(2 + len(reason))}, code), reason...)
}

// socket is a client's WebSocket, as the answers of the replica go to it.
type socket struct {
	net.Conn
	mu     sync.Mutex // the end of the proxy comes from another goroutine
	frames frames
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.Conn.Write(p)
	s.frames.pass(p[:n])
	return n, err
}

// bye tells the client why the connection ends, unless it knows, or is in the middle of a frame.
func (s *socket) bye(code uint16, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frames.whole() {
		_, _ = s.Conn.Write(closeFrame(code, reason)) // the client is gone, or closes now
		s.frames.closed = true
	}
}

// CloseWrite tells the client that nothing more comes.
func (s *socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return s.Conn.Close()
}

// ReadFrom hides that of the connection, which would pass bytes on without our seeing them.
func (s *socket) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{s}, r) }

func isWebSocket(h *head) bool { return strings.EqualFold(h.header.Get("Upgrade"), "websocket") }
