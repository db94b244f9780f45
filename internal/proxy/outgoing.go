package proxy

import (
	"net/url"
	"strings"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// outgoing is a call on its way to a replica, to a server by URL, or to an heir.
type outgoing struct {
	call   *call
	host   string    // as the client said it, whatever the route makes of it
	body   *upload   // nil when there is none
	client responder // has interim answers passed on, and knows when the client goes away
	base   *url.URL  // of the server; its path goes before the call's
	unit   unit      // who is behind the call
	trace  traceState
	synthetic,
	rescued,
	mirror bool // see the headers of these names
	relayed bool          // to an heir, which finds out by itself who is behind the call
	last    bool          // the connection is not to be kept
	now     time.Time     // when the attempt begins; zero = now
	again   bool          // it may be sent once more when a kept connection turns out to be dead
	limit   time.Duration // from the end of the request to the first byte of the answer
	until   time.Time     // the answer has to be whole by then; zero = no limit
}

// due is when the answer has to begin, if all of the request was sent now.
func (o *outgoing) due(now time.Time) time.Time {
	due := now.Add(o.limit)
	if !o.until.IsZero() && o.until.Before(due) {
		return o.until
	}
	return due
}

// target is what the server is asked for.
func (o *outgoing) target() string {
	prefix := strings.TrimSuffix(o.base.EscapedPath(), "/")
	if prefix == "" {
		return o.call.target
	}
	return prefix + strings.TrimPrefix(o.call.target, "*")
}

// forwardedFor is the chain of clients up to the one that is connected here.
func (c *call) forwardedFor() string {
	if !c.ours {
		return c.peer
	}
	chain := ""
	for v := range c.header.All("X-Forwarded-For") {
		chain += v + ", "
	}
	return chain + c.peer
}

// fields calls add for each header field that the server gets, but for Host and those about the connection.
func (o *outgoing) fields(add func(name, value string)) {
	c, parent := o.call, o.trace.Header()
	for i := range c.header {
		f := &c.header[i]
		if parent != "" && isTrace(f.Name) {
			continue
		}
		if c.passes(f.Name) || o.relayed && isOurs(f.Name) && c.header.Passes(f.Name, c.named) {
			add(f.Name, f.Value)
		}
	}
	if parent != "" {
		add("Traceparent", parent)
		if o.trace.state != "" {
			add("Tracestate", o.trace.state)
		}
	}
	add("X-Forwarded-For", c.forwardedFor())
	host := o.host
	if c.ours {
		if told := c.header.Get("X-Forwarded-Host"); told != "" {
			host = told
		}
	}
	add("X-Forwarded-Host", host)
	add("X-Forwarded-Proto", c.scheme())
	if o.synthetic {
		add(syntheticHeader, "1")
	}
	if o.rescued {
		add(rescuedHeader, "1")
	}
	if o.mirror {
		add(mirrorHeader, "1")
	}
	if c.expect && o.body != nil {
		add("Expect", "100-continue")
	}
}

// appendHead appends the head of the request as HTTP/1.1.
func (o *outgoing) appendHead(b []byte) []byte {
	c := o.call
	b = append(b, c.method...)
	b = append(b, ' ')
	b = append(b, o.target()...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = http1.AppendField(b, "Host", c.host)
	o.fields(func(name, value string) { b = http1.AppendField(b, name, value) })
	if !o.relayed {
		b = append(b, bucketHeader+": "...)
		b = o.unit.appendPass(b)
		b = append(b, "\r\n"...)
	}
	switch {
	case c.upgrade:
		b = append(b, "Connection: Upgrade\r\n"...)
		b = http1.AppendField(b, "Upgrade", c.header.Get("Upgrade"))
	case o.last:
		b = append(b, "Connection: close\r\n"...)
	}
	if c.header.Token("TE", "trailers") {
		b = append(b, "TE: trailers\r\n"...)
	}
	if o.body != nil || c.method == "POST" || c.method == "PUT" || c.method == "PATCH" {
		b = http1.AppendFraming(b, c.length)
	}
	return append(b, "\r\n"...)
}
