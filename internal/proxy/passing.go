package proxy

import (
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// passes reports whether a field of the request goes further as it came: it is not about the connection, and the proxy
// neither says itself what it says nor drops it.
func (c *call) passes(name string) bool {
	return c.header.Passes(name, c.named) && !withheld(name, c.ours) && !disguised(name)
}

// withheld reports whether the proxy itself says what a field says, or is not to say it at all. ours: the client is
// trusted with whom it forwards for.
func withheld(name string, ours bool) bool {
	if len(name) > 2 && name[1] == '-' && name[0]|0x20 == 'x' {
		switch {
		case begins(name, "X-Spillway-"):
			return true
		case begins(name, "X-Forwarded-"):
			return !ours || http1.Is(name, "X-Forwarded-For") || http1.Is(name, "X-Forwarded-Host") || http1.Is(name, "X-Forwarded-Proto")
		}
		return !ours && http1.Is(name, "X-Real-Ip")
	}
	switch len(name) {
	case 4:
		return http1.Is(name, "Host")
	case 6:
		return http1.Is(name, "Expect")
	case 9:
		return !ours && http1.Is(name, "Forwarded")
	case 14:
		return http1.Is(name, "Content-Length")
	}
	return false
}

func begins(name, prefix string) bool {
	return len(name) >= len(prefix) && http1.Is(name[:len(prefix)], prefix)
}

// disguised reports whether a field is another spelling of one that its sender may not say: CGI and WSGI make the same
// variable of X_Forwarded_For and X-Forwarded-For. No proxy writes it so, hence a trusted one is not asked.
func disguised(name string) bool {
	if strings.IndexByte(name, '_') < 0 {
		return false
	}
	name = dashed(name)
	return http1.IsHop(name) || withheld(name, false)
}

// dashed is the spelling of a name without underscores.
func dashed(name string) string { return strings.ReplaceAll(name, "_", "-") }

// isOurs reports whether a field tells a proxy who is behind a call.
func isOurs(name string) bool { return http1.Is(name, bucketHeader) || http1.Is(name, syntheticHeader) }

// isTrace reports whether a field says where a call stands in a trace.
func isTrace(name string) bool { return http1.Is(name, "Traceparent") || http1.Is(name, "Tracestate") }

// trailed is the trailer of a request as it goes further, once its body was read.
func (c *call) trailed() http1.Fields {
	if c.trailer == nil {
		return nil
	}
	trailer := c.trailer()
	if !slices.ContainsFunc(trailer, func(f http1.Field) bool { return !c.trails(f.Name) }) {
		return trailer
	}
	return slices.DeleteFunc(slices.Clone(trailer), func(f http1.Field) bool { return !c.trails(f.Name) })
}

// trails reports whether a field goes further in a trailer. Some servers merge it with the header, so it must say nothing
// that would not pass there, nor what was decided about by the header (RFC 9110, 6.5.1).
func (c *call) trails(name string) bool {
	plain := dashed(name)
	return c.header.Passes(name, c.named) && !http1.IsHop(plain) && !withheld(plain, false) && !headOnly(plain)
}

// headOnly reports whether a field has its meaning before the body only: who asks, on what condition, and what the body is.
func headOnly(name string) bool {
	if begins(name, "If-") {
		return true
	}
	switch len(name) {
	case 5:
		return http1.Is(name, "Range")
	case 6:
		return http1.Is(name, "Cookie")
	case 12:
		return http1.Is(name, "Content-Type") || http1.Is(name, "Max-Forwards")
	case 13:
		return http1.Is(name, "Authorization") || http1.Is(name, "Content-Range") || http1.Is(name, "Cache-Control")
	case 16:
		return http1.Is(name, "Content-Encoding")
	}
	return false
}

// unedited are the fields of a request that a rule does not set or remove, however they are spelled.
func unedited(h http1.Fields, edit *spillway.HeaderEdit) http1.Fields {
	return slices.DeleteFunc(slices.Clone(h), func(f http1.Field) bool { return edits(edit, dashed(f.Name)) || edits(edit, f.Name) })
}

// edits reports whether a rule sets or removes a field.
func edits(edit *spillway.HeaderEdit, name string) bool {
	return slices.ContainsFunc(edit.Remove, func(n string) bool { return http1.Is(n, name) }) ||
		slices.ContainsFunc(edit.Set, func(f spillway.HeaderField) bool { return http1.Is(f.Name, name) })
}
