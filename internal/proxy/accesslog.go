package proxy

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spillway-dev/spillway/internal/proxy/trace"
)

// maxField is how many bytes of one value a line of the access log has at most.
const maxField = 1024

// secretWords make a parameter of a query a secret, when its name has one of them. So much is a guess; but a
// log is read by more people than the requests were meant for.
var secretWords = [...]string{"token", "secret", "passw", "pwd", "key", "auth", "sig", "session", "code", "jwt", "credential", "otp", "csrf"}

const redacted = "REDACTED"

// line is a line of JSON that is being written.
type line struct{ b []byte }

func (l *line) name(name string) {
	if l.b[len(l.b)-1] != '{' {
		l.b = append(l.b, ',')
	}
	l.b = append(l.b, '"')
	l.b = append(l.b, name...)
	l.b = append(l.b, '"', ':')
}

// text writes a value that is not empty, like the others here.
func (l *line) text(name, value string) {
	if value == "" {
		return
	}
	l.name(name)
	l.b = appendJSON(l.b, value)
}

func (l *line) number(name string, n int64) {
	if n == 0 {
		return
	}
	l.name(name)
	l.b = strconv.AppendInt(l.b, n, 10)
}

func (l *line) flag(name string, is bool) {
	if is {
		l.name(name)
		l.b = append(l.b, "true"...)
	}
}

// millis writes a time in milliseconds, to the microsecond.
func (l *line) millis(name string, d time.Duration) {
	if d <= 0 {
		return
	}
	l.name(name)
	us := d.Microseconds()
	l.b = strconv.AppendInt(l.b, us/1000, 10)
	if us %= 1000; us != 0 {
		l.b = append(l.b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
	}
}

// appendLine writes a request as an object of JSON in one line. What is empty or 0 is left out, but for the
// status and how long it took. There are no cookies, no other field of the header than those here, and no
// values of parameters whose names look like secrets.
func appendLine(b []byte, r *record) []byte {
	l := line{append(b, '{')}
	l.name("time")
	l.b = append(l.b, '"')
	l.b = r.began.UTC().AppendFormat(l.b, "2006-01-02T15:04:05.000Z07:00")
	l.b = append(l.b, '"')
	l.whereto(r)
	if r.call != nil {
		l.call(r.call)
	}
	l.name("status")
	l.b = strconv.AppendInt(l.b, int64(r.code()), 10)
	l.millis("duration_ms", max(r.whole, time.Microsecond))
	l.millis("first_byte_ms", r.first)
	l.millis("connect_ms", r.dial)
	l.number("bytes_in", r.in)
	l.number("bytes_out", r.out)
	l.number("retries", int64(r.retries))
	l.flag("rescued", r.rescued)
	if r.failing != nil {
		l.number("failed_release", int64(r.failing.Release))
	}
	l.flag("client_left", r.left)
	l.flag("broken", r.broken)
	l.text("refused", refusals[r.refused])
	l.text("reason", r.why)
	l.flag("fast", r.fast)
	l.traced(r)
	return append(l.b, '}')
}

// whereto is where the request went.
func (l *line) whereto(r *record) {
	if r.edge != nil {
		l.text("app", string(r.edge.app.ref))
		l.text("service", r.edge.spec.Service)
		l.text("from", r.edge.spec.From.Service)
		l.name("bucket")
		l.b = strconv.AppendInt(l.b, int64(r.bucket), 10)
	}
	l.text("route", r.route)
	if r.arm != nil {
		l.number("release", int64(r.arm.Release))
		l.text("track", trackName(r.arm))
		l.flag("candidate", r.arm.candidate)
		l.text("replica", r.replica)
	}
}

// trackName is the track of an arm in words: what is tried for stable is of it.
func trackName(a *arm) string {
	if a.Track == "" {
		return "stable"
	}
	return a.Track
}

func (l *line) call(c *call) {
	l.text("method", c.method)
	l.text("scheme", schemeOf(c))
	l.text("host", c.host)
	l.text("path", c.path)
	l.text("query", withoutSecrets(c.query))
	if c.major > 0 { // else there was no head that could be read
		l.name("protocol")
		l.b = append(l.b, `"HTTP/`...)
		l.b = strconv.AppendInt(l.b, int64(c.major), 10)
		if c.major < 2 {
			l.b = append(l.b, '.')
			l.b = strconv.AppendInt(l.b, int64(c.minor), 10)
		}
		l.b = append(l.b, '"')
	}
	if c.client.IsValid() {
		l.text("client", c.client.Unmap().String())
	}
	l.text("user_agent", c.header.Get("User-Agent"))
	referer, _, _ := strings.Cut(c.header.Get("Referer"), "?") // whatever is in the query of another page
	l.text("referer", referer)
	l.text("request_id", c.header.Get("X-Request-Id"))
}

func schemeOf(c *call) string {
	if c.secure {
		return "https"
	}
	return "http"
}

// traced is the trace that the request belongs to, be it recorded here or by others only.
func (l *line) traced(r *record) {
	t := r.trace.Context
	if t.Trace == (trace.ID{}) && r.call != nil {
		t, _ = parentOf(r.call)
		t.Span = trace.SpanID{}
	}
	if t.Trace != (trace.ID{}) {
		l.text("trace_id", t.Trace.String())
	}
	if t.Span != (trace.SpanID{}) {
		l.text("span_id", t.Span.String())
	}
}

// withoutSecrets is a query in which the values of parameters that look like secrets are replaced.
func withoutSecrets(query string) string {
	if query == "" {
		return ""
	}
	var out []byte // nil while it is the same
	for at := 0; at <= len(query); {
		end := at + strings.IndexAny(query[at:]+"&", "&;")
		pair := query[at:end]
		if name, value, ok := strings.Cut(pair, "="); ok && value != "" && secret(name) {
			if out == nil {
				out = append(make([]byte, 0, len(query)), query[:at]...)
			}
			out = append(append(append(out, name...), '='), redacted...)
		} else if out != nil {
			out = append(out, pair...)
		}
		if out != nil && end < len(query) {
			out = append(out, query[end])
		}
		at = end + 1
	}
	if out == nil {
		return query
	}
	return string(out)
}

// secret reports whether a parameter of that name, as it is in the query, looks like a secret. A name that cannot
// be read is taken for one.
func secret(name string) bool {
	name, err := url.QueryUnescape(name)
	name = strings.ToLower(name)
	return err != nil || slices.ContainsFunc(secretWords[:], func(word string) bool { return strings.Contains(name, word) })
}

const hexDigits = "0123456789abcdef"

// appendJSON writes a string of JSON that is safe to read in a terminal too: control characters are escaped,
// also those above ASCII, and what is no UTF-8 is replaced. What is longer than maxField is cut.
func appendJSON(b []byte, s string) []byte {
	cut := len(s) > maxField
	if cut {
		s = s[:maxField]
	}
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r < 0xa0, r == '\u2028', r == '\u2029', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069': // C1, line ends, directions
				b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			default:
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
	}
	if cut {
		b = append(b, "…"...)
	}
	return append(b, '"')
}
