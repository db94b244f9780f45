package http1

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// Limits of a head, in bytes and lines.
const (
	MaxHead   = 32 << 10 // request line or status line, and header
	MaxTarget = 16 << 10
	MaxFields = 128

	// smallBuffer is what a reader holds while nothing large is read: an idle connection costs no more.
	smallBuffer = 4 << 10
)

// ErrFull is a head of more than MaxHead bytes: the buffer of a reader grows no further.
var ErrFull = errors.New("the head is larger than 32 KiB")

// Reader reads a connection through a buffer that grows with a large head and shrinks after it. The zero
// value is of no use; Reset makes it so.
type Reader struct {
	// Begun is called once for a head of which only a part has come, before the rest is waited for. nil is fine.
	Begun func()
	// Since is when a part of the present head had come; zero = it came at once.
	Since time.Time

	from io.Reader
	buf  []byte
	r, w int // buf[r:w] is not read yet
}

// Reset has the reader read from another connection, after the bytes given, which it copies.
func (r *Reader) Reset(from io.Reader, first []byte) {
	r.from, r.r, r.w = from, 0, 0
	if len(r.buf) < len(first) || len(r.buf) == 0 {
		r.buf = make([]byte, max(smallBuffer, len(first)))
	}
	r.w = copy(r.buf, first)
}

// Buffered gives what is there and not read yet. It is the reader's own, until the next call.
func (r *Reader) Buffered() []byte { return r.buf[r.r:r.w] }

// Discard takes n of the buffered bytes as read.
func (r *Reader) Discard(n int) {
	if r.r += n; r.r == r.w {
		r.r, r.w = 0, 0
		if len(r.buf) > smallBuffer {
			r.buf = make([]byte, smallBuffer)
		}
	}
}

// Fill reads once from the connection, behind what is buffered. It makes the buffer larger if need be, up to
// MaxHead; then it gives an error.
func (r *Reader) Fill() error {
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.w == len(r.buf) {
		if len(r.buf) >= MaxHead {
			return ErrFull
		}
		larger := make([]byte, min(4*len(r.buf), MaxHead))
		copy(larger, r.buf)
		r.buf = larger
	}
	n, err := r.from.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Read gives what is buffered, or else reads from the connection without a copy.
func (r *Reader) Read(p []byte) (int, error) {
	if r.r == r.w {
		return r.from.Read(p)
	}
	n := copy(p, r.buf[r.r:r.w])
	r.Discard(n)
	return n, nil
}

// head gives the length of the head that begins the buffered bytes, with the empty line at its end; 0 when
// it is not there yet. A head with bare line feeds ends too: whoever parses it refuses it.
func (r *Reader) head() int {
	b := r.Buffered()
	n := 0
	if i := bytes.Index(b, []byte("\n\r\n")); i >= 0 {
		b, n = b[:i+1], i+3
	}
	if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
		return i + 2
	}
	return n
}

// line gives the next line without its end, which is CR LF. It takes the line as read; the text is the
// reader's own, until the next call. limit is its longest length.
func (r *Reader) line(limit int) ([]byte, error) {
	for {
		b := r.Buffered()
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			if i > limit { // first, as without the end of the line
				return nil, malformed("a line is too long")
			}
			if i == 0 || b[i-1] != '\r' {
				return nil, malformed("a line ends without CR LF")
			}
			line := b[:i-1]
			r.r += i + 1 // not Discard: it may let go of the buffer
			return line, nil
		}
		if len(b) > limit {
			return nil, malformed("a line is too long")
		}
		if err := r.Fill(); err != nil {
			return nil, noEOF(err)
		}
	}
}

// malformed is what is wrong with an answer or a body, where the connection is fine.
type malformed string

// IsMalformed reports whether an error is about what was read, and not about the connection.
func IsMalformed(err error) bool {
	_, ok := err.(malformed)
	return ok
}

func (m malformed) Error() string { return string(m) }

// noEOF is an end that came too early.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
