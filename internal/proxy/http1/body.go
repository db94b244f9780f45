package http1

import (
	"bytes"
	"errors"
	"io"
)

const (
	maxChunkLine = 1 << 10
	maxTrailer   = 16 << 10 // bytes of a trailer
	// maxBeside is how many bytes the lines before chunks may have beyond those of the data.
	maxBeside = 1 << 10
)

// Body reads the body behind a head. The zero value is none.
type Body struct {
	in      *Reader
	left    int64 // of the body, or of the chunk
	chunked bool
	toEnd   bool
	begun   bool // a chunk was read: the next one begins with the CR LF behind it
	last    bool // the last chunk was read: the trailer comes
	data    int  // bytes of chunks
	beside  int  // bytes of what is said about them
	trailed int  // bytes of the trailer
	loose   bool
	err     error

	// Trailer is there when Read has given io.EOF.
	Trailer Fields
}

// Start has the body read from behind a head: length bytes, InChunks or ToTheEnd.
func (b *Body) Start(in *Reader, length int64) {
	*b = Body{in: in, left: max(length, 0), chunked: length == InChunks, toEnd: length == ToTheEnd, Trailer: b.Trailer[:0]}
	if length == 0 {
		b.err = io.EOF
	}
}

// StartLoose is Start for the body of an answer: some servers write white space behind the size of a chunk.
func (b *Body) StartLoose(in *Reader, length int64) {
	b.Start(in, length)
	b.loose = true
}

// Done reports whether the whole body was read.
func (b *Body) Done() bool { return b.err == io.EOF || b.in == nil }

// Ready reports whether Read gives something without waiting for the connection.
func (b *Body) Ready() bool {
	if b.in == nil || b.err != nil {
		return true
	}
	rest := b.in.Buffered()
	if b.chunked && b.left == 0 {
		if b.begun {
			rest = rest[min(2, len(rest)):] // the end of the chunk before
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 || b.last || len(rest) > 0 && rest[0] == '0' { // the trailer may be waited for
			return bytes.Contains(rest, []byte("\n\r\n"))
		}
		return i+1 < len(rest)
	}
	return len(rest) > 0
}

// Skip takes n bytes as read that somebody has taken from the connection.
func (b *Body) Skip(n int64) {
	if b.left -= n; b.left == 0 && !b.chunked && !b.toEnd {
		b.err = io.EOF
	}
}

// Read gives io.EOF at the end of the body, with its last bytes where the length is known, and
// io.ErrUnexpectedEOF where the connection ends before.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil || b.in == nil {
		if b.in == nil {
			return 0, io.EOF
		}
		return 0, b.err
	}
	if b.chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			if !isTimeout(err) { // else whoever set the time may go on
				b.err = err
			}
			return 0, err
		}
	}
	if !b.toEnd && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.in.Read(p)
	if !b.toEnd {
		b.left -= int64(n)
	}
	switch {
	case err == io.EOF && b.toEnd, err == nil && b.left == 0 && !b.chunked && !b.toEnd:
		b.err = io.EOF
	case err != nil && isTimeout(err):
		return n, err
	case err != nil:
		b.err = noEOF(err)
	}
	return n, b.err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// nextChunk reads the line before a chunk; behind the last one the trailer, and gives io.EOF.
func (b *Body) nextChunk() error {
	if b.last {
		return b.readTrailer()
	}
	if b.begun {
		line, err := b.in.line(2)
		if err != nil {
			return err
		}
		if len(line) > 0 {
			return malformed("a chunk is longer than it says")
		}
		b.begun = false
	}
	line, err := b.in.line(maxChunkLine)
	if err != nil {
		return err
	}
	if b.loose {
		line = bytes.TrimRight(line, " \t")
	}
	n, ok := parseChunk(line)
	if b.beside += len(line); b.beside > maxBeside+b.data {
		return malformed("more is said about the chunks than is in them")
	}
	b.data += int(min(n, maxBeside))
	if !ok {
		return malformed("the size of a chunk is not a hexadecimal number")
	}
	if b.left, b.begun, b.last = n, true, n == 0; n > 0 {
		return nil
	}
	return b.readTrailer()
}

// parseChunk reads the size of a chunk. What may be behind it, after a semicolon, has no meaning here, but
// must be text.
func parseChunk(line []byte) (n int64, ok bool) {
	i := 0
	for ; i < len(line); i++ {
		d := HexDigit(line[i])
		if d < 0 {
			break
		}
		if n = n<<4 | int64(d); n >= 1<<58 {
			return 0, false
		}
	}
	if i == 0 || i > 16 {
		return 0, false
	}
	return n, i == len(line) || line[i] == ';' && isValue(string(line[i:]))
}

// HexDigit is the value of a hexadecimal digit; -1 for another character.
func HexDigit(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// readTrailer reads the fields behind the last chunk. Those that would say something about the message that
// has passed already are left out (RFC 9110, 6.5.1).
func (b *Body) readTrailer() error {
	for {
		line, err := b.in.line(maxTrailer)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		if b.trailed += len(line); b.trailed > maxTrailer || len(b.Trailer) == MaxFields {
			return malformed("the trailer is too large")
		}
		f, refusal := parseField(string(line))
		if refusal != nil {
			return malformed(refusal.Reason)
		}
		if !IsHop(f.Name) && !equalFold(f.Name, "Content-Length") && !equalFold(f.Name, "Host") {
			b.Trailer = append(b.Trailer, f)
		}
	}
}
