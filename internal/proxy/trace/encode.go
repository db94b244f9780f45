package trace

import (
	"encoding/binary"
	"time"
)

// Span is a request as it is exported: of the kind server.
type Span struct {
	Context
	State  string // the tracestate header as it came
	Name   string
	Begin  time.Time
	End    time.Time
	Attrs  []Attr
	Failed string // why it counts as an error; "" = it does not
}

// Attr is one attribute. Value is a string, an int64 or a bool.
type Attr struct {
	Key   string
	Value any
}

// message is a message of Protocol Buffers that is being written. Only what OTLP needs is here; the numbers of
// fields are from https://github.com/open-telemetry/opentelemetry-proto, where they do not change any more.
type message []byte

const (
	varint  = 0 // types of fields on the wire
	fixed64 = 1
	sized   = 2
	fixed32 = 5
)

func (m *message) tag(field, kind int) { *m = binary.AppendUvarint(*m, uint64(field<<3|kind)) }

func (m *message) number(field int, n int64) {
	m.tag(field, varint)
	*m = binary.AppendUvarint(*m, uint64(n))
}

func (m *message) time(field int, t time.Time) {
	m.tag(field, fixed64)
	*m = binary.LittleEndian.AppendUint64(*m, uint64(t.UnixNano()))
}

func (m *message) text(field int, s string) {
	if s == "" {
		return
	}
	m.tag(field, sized)
	*m = binary.AppendUvarint(*m, uint64(len(s)))
	*m = append(*m, s...)
}

// within writes a message as a field of another.
func (m *message) within(field int, write func(*message)) {
	var inner message
	write(&inner)
	m.tag(field, sized)
	*m = binary.AppendUvarint(*m, uint64(len(inner)))
	*m = append(*m, inner...)
}

// encode makes an ExportTraceServiceRequest.
func encode(resource []Attr, scope, version string, spans []Span) []byte {
	var m message
	m.within(1, func(m *message) { // ResourceSpans
		m.within(1, func(m *message) { m.attrs(1, resource) })
		m.within(2, func(m *message) { // ScopeSpans
			m.within(1, func(m *message) {
				m.text(1, scope)
				m.text(2, version)
			})
			for i := range spans {
				m.within(2, spans[i].write)
			}
		})
	})
	return m
}

func (s *Span) write(m *message) {
	const server, failed = 2, 2
	m.text(1, string(s.Trace[:]))
	m.text(2, string(s.Span[:]))
	m.text(3, s.State)
	// The flags of the trace, and whether the parent is in another process, which is always known here.
	flags := uint32(s.Flags) | 1<<8
	if s.Parent != (SpanID{}) {
		m.text(4, string(s.Parent[:]))
		flags |= 1 << 9
	}
	m.text(5, s.Name)
	m.number(6, server)
	m.time(7, s.Begin)
	m.time(8, s.End)
	m.attrs(9, s.Attrs)
	if s.Failed != "" {
		m.within(15, func(m *message) {
			m.text(2, s.Failed)
			m.number(3, failed)
		})
	}
	m.tag(16, fixed32)
	*m = binary.LittleEndian.AppendUint32(*m, flags)
}

func (m *message) attrs(field int, attrs []Attr) {
	for _, a := range attrs {
		m.within(field, func(m *message) {
			m.text(1, a.Key)
			m.within(2, func(m *message) {
				switch v := a.Value.(type) {
				case string:
					m.text(1, v)
				case bool:
					if v {
						m.number(2, 1)
					}
				case int64:
					m.number(3, v)
				}
			})
		})
	}
}
