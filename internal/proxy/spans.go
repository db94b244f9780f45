package proxy

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/trace"
)

// methods are those that the name of a span may have: others would make as many names as clients like.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}

// spanOf is a request as it is exported, with the names of
// https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span and some of ours. All strings
// are copies, because the request's own may not outlive it.
func spanOf(r *record) trace.Span {
	s := trace.Span{Context: r.trace.Context, State: clip(r.trace.state), Name: "HTTP", Begin: r.began, End: r.began.Add(r.whole)}
	a := attrs(make([]trace.Attr, 0, 24))
	if c := r.call; c != nil {
		if s.Name = strings.Clone(c.method); !slices.Contains(methods, c.method) {
			s.Name = "HTTP"
			a.text("http.request.method", "_OTHER")
			a.text("http.request.method_original", c.method)
		} else {
			a.text("http.request.method", c.method)
		}
		a.call(c)
	}
	if r.route != "" {
		s.Name += " " + r.route
		a.text("spillway.route", r.route)
	}
	if code := r.status; code != 0 {
		a.number("http.response.status_code", int64(code))
	}
	a.number("http.request.body.size", r.in)
	a.number("http.response.body.size", r.out)
	a.place(r)
	switch {
	case r.refused != notRefused:
		a.text("error.type", refusals[r.refused])
		a.text("spillway.reason", r.why)
	case r.broken:
		a.text("error.type", "broken")
		a.text("spillway.reason", r.why)
	case r.left:
		a.text("error.type", "client_left")
	case r.status >= 500:
		a.text("error.type", strconv.Itoa(r.status))
	}
	if r.status >= 500 || r.broken { // that of a client is none of the server's
		if s.Failed = clip(r.why); s.Failed == "" {
			s.Failed = "status " + strconv.Itoa(r.status)
		}
	}
	s.Attrs = a
	return s
}

// attrs are the attributes of a span that is being made.
type attrs []trace.Attr

// text adds an attribute that is not empty.
func (a *attrs) text(key, value string) {
	if value != "" {
		*a = append(*a, trace.Attr{Key: key, Value: clip(value)})
	}
}

func (a *attrs) number(key string, n int64) { *a = append(*a, trace.Attr{Key: key, Value: n}) }

// flag adds an attribute that is true.
func (a *attrs) flag(key string, is bool) {
	if is {
		*a = append(*a, trace.Attr{Key: key, Value: true})
	}
}

func (a *attrs) call(c *call) {
	a.text("url.scheme", schemeOf(c))
	a.text("url.path", c.path)
	a.text("url.query", withoutSecrets(c.query))
	host, port, err := net.SplitHostPort(c.host)
	if err != nil {
		host = c.host
	}
	a.text("server.address", host)
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		a.number("server.port", int64(n))
	}
	if c.client.IsValid() {
		a.text("client.address", c.client.Unmap().String())
	}
	version := strconv.Itoa(c.major)
	if c.major < 2 {
		version += "." + strconv.Itoa(c.minor)
	}
	a.text("network.protocol.version", version)
	a.text("user_agent.original", c.header.Get("User-Agent"))
}

func (a *attrs) place(r *record) {
	if r.edge != nil {
		a.text("spillway.app", string(r.edge.app.ref))
		a.text("spillway.service", r.edge.spec.Service)
		a.text("spillway.from", r.edge.spec.From.Service)
		a.number("spillway.bucket", int64(r.bucket))
	}
	if r.arm != nil {
		if r.arm.Release != 0 {
			a.number("spillway.release", int64(r.arm.Release))
		}
		a.text("spillway.track", trackName(r.arm))
		a.flag("spillway.candidate", r.arm.candidate)
		a.text("spillway.replica", r.replica)
	}
	if r.retries > 0 {
		a.number("http.request.resend_count", int64(r.retries))
	}
	a.flag("spillway.rescued", r.rescued)
	if r.first > 0 {
		a.number("spillway.first_byte_us", int64(r.first/time.Microsecond))
	}
	if r.dial > 0 {
		a.number("spillway.connect_us", int64(r.dial/time.Microsecond))
	}
}

// clip copies a string, without what is no UTF-8 or too long.
func clip(s string) string {
	if len(s) > maxField {
		s = s[:maxField]
	}
	return strings.Clone(strings.ToValidUTF8(s, "\ufffd"))
}
