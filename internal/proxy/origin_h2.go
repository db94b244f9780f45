package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// streams is a replica as HTTP/2 without TLS reaches it, by the client of net/http. That one itself sends what
// the replica says it has not begun with once more, if the body is still there.
type streams struct {
	base      *url.URL
	transport *http.Transport
}

func newStreams(base *url.URL) *streams {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			d := net.Dialer{Timeout: dialTimeout}
			c, err := d.DialContext(ctx, network, address)
			if err != nil {
				return nil, dialFault(err)
			}
			return c, nil
		},
		DisableCompression:    true,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: answerTimeout,
		Protocols:             new(http.Protocols),
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &streams{base, t}
}

func (s *streams) closeIdle()      { s.transport.CloseIdleConnections() }
func (s *streams) prune(time.Time) {} // the transport does it

func (s *streams) send(out *outgoing) (*reply, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if !out.until.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, out.until)
	}
	stop := out.client.watch(cancel)
	end := func() { stop(); cancel() }
	var begun atomic.Bool // an interim answer has come
	client := out.client  // out may be another request's when the transport calls late
	r := s.request(out).WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			begun.Store(true)
			if code != http.StatusContinue {
				client.interim(code, fieldsOf(http.Header(header)))
			}
			return nil
		},
	}))
	resp, err := s.transport.RoundTrip(r)
	if err != nil {
		end()
		return nil, faultOf(err, begun.Load())
	}
	reply := &reply{
		status: resp.StatusCode, reason: http.StatusText(resp.StatusCode), header: fieldsOf(resp.Header), length: resp.ContentLength,
		body: resp.Body, trailer: func() http1.Fields { return fieldsOf(resp.Trailer) },
		close: func() {
			if out.body != nil {
				out.body.stop()
				if !out.body.whole() {
					out.client.hush()
				}
			}
			resp.Body.Close()
			end()
		},
	}
	if out.call.method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		reply.length = 0
	} else if reply.length < 0 {
		reply.length = http1.InChunks
	}
	return reply, nil
}

// request is the call as net/http sends it.
func (s *streams) request(out *outgoing) *http.Request {
	c := out.call
	path, query, asks := strings.Cut(out.target(), "?")
	u := &url.URL{Scheme: "http", Host: s.base.Host, Opaque: "//" + c.host + path, RawQuery: query, ForceQuery: asks && query == ""}
	if path == "*" {
		u.Opaque, u.Path = "", path
	}
	r := &http.Request{Method: c.method, URL: u, Host: c.host, Header: http.Header{}, Proto: "HTTP/2.0", ProtoMajor: 2, ContentLength: c.length}
	add := func(name, value string) {
		name = http.CanonicalHeaderKey(name)
		r.Header[name] = append(r.Header[name], value)
	}
	out.fields(add)
	if !out.relayed {
		add(bucketHeader, string(out.unit.appendPass(nil)))
	}
	if c.header.Token("TE", "trailers") {
		add("Te", "trailers")
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // else net/http adds its own
	}
	if out.body == nil {
		return r
	}
	if c.trailer != nil {
		r.Trailer = http.Header{}
		for list := range c.header.All("Trailer") {
			for name := range http1.Tokens(list) {
				if c.trails(name) {
					r.Trailer[http.CanonicalHeaderKey(name)] = nil
				}
			}
		}
	}
	r.Body = &streamBody{out.body.start(), c, r.Trailer}
	r.GetBody = func() (io.ReadCloser, error) {
		if !out.body.repeatable() {
			return nil, errors.New("the body was sent already")
		}
		return &streamBody{out.body.start(), c, r.Trailer}, nil
	}
	return r
}

// streamBody is the body of a request, which knows its trailer when it was read.
type streamBody struct {
	*sending
	call    *call
	trailer http.Header // to be filled in; nil = there is none
}

// Read fills the trailer in at the end.
func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.sending.Read(p)
	if err == io.EOF && b.trailer != nil {
		for _, f := range b.call.trailed() {
			if name := http.CanonicalHeaderKey(f.Name); b.trailer.Values(name) != nil || hasKey(b.trailer, name) {
				b.trailer[name] = append(b.trailer[name], f.Value)
			}
		}
	}
	return n, err
}

func hasKey(h http.Header, name string) bool {
	_, ok := h[name]
	return ok
}

// streamError is the shape of what net/http says of a stream that was reset; errors.As fills it in.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "the stream was reset" }

// Codes of resets (RFC 9113, 7).
const (
	protocolError = 1 // what it sent was no answer
	refusedStream = 7 // it has not begun with the request (8.7)
)

// unbegun are what net/http says when a connection ended before the server had begun with the request. It has no
// types for that.
var unbegun = [...]string{"received Server's graceful shutdown GOAWAY", "client conn not usable", "client conn could not be established"}

// faultOf sorts an error of the transport.
func faultOf(err error, begun bool) *fault {
	var known *fault
	var timeout net.Error
	var reset streamError
	text := err.Error()
	switch {
	case errors.As(err, &known):
		return known
	case begun, strings.Contains(text, "malformed"), errors.As(err, &reset) && reset.Code == protocolError:
		return &fault{spoilt, err}
	case errors.As(err, &reset) && reset.Code == refusedStream, slices.ContainsFunc(unbegun[:], func(what string) bool { return strings.Contains(text, what) }):
		return &fault{unsent, err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &fault{late, err}
	}
	return &fault{lost, err}
}
