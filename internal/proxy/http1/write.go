package http1

import "strconv"

// IsHop reports whether a field is about one connection, and goes no further (RFC 9110, 7.6.1).
func IsHop(name string) bool {
	switch len(name) {
	case 2:
		return equalFold(name, "TE")
	case 7:
		return equalFold(name, "Upgrade") || equalFold(name, "Trailer")
	case 10:
		return equalFold(name, "Connection") || equalFold(name, "Keep-Alive")
	case 16:
		return equalFold(name, "Proxy-Connection")
	case 17:
		return equalFold(name, "Transfer-Encoding")
	case 18:
		return equalFold(name, "Proxy-Authenticate")
	case 19:
		return equalFold(name, "Proxy-Authorization")
	}
	return false
}

// Passes reports whether a field goes further: it is not about the connection, nor named in Connection. named
// is Request.Named or Response.Named.
func (f Fields) Passes(name string, named bool) bool {
	return !IsHop(name) && !(named && f.Token("Connection", name))
}

// Is reports whether two names of fields are the same.
func Is(name, other string) bool { return equalFold(name, other) }

// AppendField appends a line of a header.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// AppendFraming appends the field that says how long a body is: a length, or InChunks.
func AppendFraming(b []byte, length int64) []byte {
	if length == InChunks {
		return append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, length, 10)
	return append(b, "\r\n"...)
}

// AppendChunk appends data as a chunk; none is no chunk, as that would be the last.
func AppendChunk(b, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	b = AppendChunkSize(b, len(data))
	b = append(b, data...)
	return append(b, "\r\n"...)
}

// AppendChunkSize appends the line before n bytes of a chunk. CR LF has to follow these.
func AppendChunkSize(b []byte, n int) []byte {
	b = strconv.AppendInt(b, int64(n), 16)
	return append(b, "\r\n"...)
}

// AppendEnd appends the last chunk and a trailer.
func AppendEnd(b []byte, trailer Fields) []byte {
	b = append(b, "0\r\n"...)
	for _, f := range trailer {
		b = AppendField(b, f.Name, f.Value)
	}
	return append(b, "\r\n"...)
}
