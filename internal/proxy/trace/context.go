// Package trace passes W3C trace context on and exports a span for each request by OTLP.
//
// It knows bytes on the wire and a queue. It must not know how requests are routed, or whose they are.
package trace

import (
	"encoding/hex"
	"math/rand/v2"
)

type (
	// ID identifies a trace. The zero value is none.
	ID [16]byte
	// SpanID identifies a span within a trace. The zero value is none.
	SpanID [8]byte
)

// String is the form in headers and logs: 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// String is the form in headers and logs: 16 lower-case hexadecimal digits.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// Flags of a trace, as in the traceparent header.
const (
	Sampled byte = 1 // somebody records it
	Random  byte = 2 // the last 7 bytes of its ID were drawn at random
)

// Context is where a request stands in a trace. The zero value is no trace.
type Context struct {
	Trace  ID
	Span   SpanID // the sender's; after Child, of the request itself
	Parent SpanID // after Child, the sender's; zero = the request begins the trace
	Flags  byte
}

// Parse reads a traceparent header (https://www.w3.org/TR/trace-context/#traceparent-header), such as
// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01. What a later version may append is not looked at.
func Parse(header string) (c Context, ok bool) {
	const size = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(header) < size || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return Context{}, false
	}
	var version, flags [1]byte
	switch {
	case !unhex(version[:], header[0:2]), version[0] == 0xff,
		version[0] == 0 && len(header) != size, len(header) > size && header[size] != '-',
		!unhex(c.Trace[:], header[3:35]), c.Trace == ID{},
		!unhex(c.Span[:], header[36:52]), c.Span == SpanID{},
		!unhex(flags[:], header[53:55]):
		return Context{}, false
	}
	c.Flags = flags[0] & (Sampled | Random) // the others have no meaning yet, and are to be sent as 0
	return c, true
}

// unhex decodes lower-case digits; upper-case ones are not allowed in the header.
func unhex(to []byte, from string) bool {
	for i := range to {
		high, low := digit(from[2*i]), digit(from[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		to[i] = high<<4 | low
	}
	return true
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// Header is the traceparent header that goes with a request that this one makes: "" of the zero value.
func (c Context) Header() string {
	if c.Trace == (ID{}) {
		return ""
	}
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, c.Trace[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, c.Span[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{c.Flags})
	return string(b)
}

// Child is the context of a span of one's own below c. Without a trace it begins one, which is sampled if
// chance, a number in [0, 1), says so: 0.01 samples one of 100. The decision follows from the ID, as it does in
// other programs that sample by ratio: https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased.
func (c Context) Child(chance float64) Context {
	if c.Trace != (ID{}) {
		c.Parent = c.Span
		c.Span = newSpan()
		return c
	}
	fresh := Context{Span: newSpan(), Flags: Random}
	fill(fresh.Trace[:8], rand.Uint64())
	low := rand.Uint64() | 1 // never the ID that is none
	fill(fresh.Trace[8:], low)
	if float64(low>>8) < chance*(1<<56) { // the part that is random by the flag, and exact as a float
		fresh.Flags |= Sampled
	}
	return fresh
}

func newSpan() (id SpanID) {
	fill(id[:], rand.Uint64()|1)
	return id
}

func fill(to []byte, n uint64) {
	for i := range to {
		to[i] = byte(n >> (56 - 8*i))
	}
}
