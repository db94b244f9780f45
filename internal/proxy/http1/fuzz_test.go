package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// heads are seeds: what is taken, and what is not.
var heads = []string{
	"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"POST /a%20b?c=d;e HTTP/1.1\r\nhost: A.test:80\r\nContent-Length: 5\r\nX-A:  b\t\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: 1\r\n\r\n",
	"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n",
	"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
}

// FuzzReadRequest holds the reader to net/http: it refuses, or it understands the same message. Where it is stricter
// is its own affair.
func FuzzReadRequest(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var in Reader
		in.Reset(bytes.NewReader(text), nil)
		var req Request
		if err := in.ReadRequest(&req); err != nil {
			var no *Refusal
			if errors.As(err, &no) && (no.Status < 400 || no.Reason == "") {
				t.Fatalf("refused with %d %q", no.Status, no.Reason)
			}
			return
		}
		if req.Method == http.MethodConnect {
			return // nobody serves it
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\r\n")))))
		if err != nil {
			if strings.Contains(err.Error(), "parse") { // net/url is stricter about a query, or about an authority
				return
			}
			t.Fatalf("net/http refuses with %v what is read as %+v", err, req)
		}
		switch {
		case theirs.Method != req.Method, theirs.ProtoMinor != req.Minor, !strings.EqualFold(theirs.Host, req.Host):
			t.Fatalf("read as %+v, by net/http as %+v", req, theirs)
		case theirs.ContentLength != req.Length:
			t.Fatalf("length %d, by net/http %d", req.Length, theirs.ContentLength)
		case theirs.URL.RequestURI() != "" && strings.HasPrefix(theirs.RequestURI, "/") && theirs.RequestURI != req.Target:
			t.Fatalf("target %q, by net/http %q", req.Target, theirs.RequestURI)
		}
		for name, values := range theirs.Header {
			if ours := slices.Collect(req.Fields.All(name)); !slices.Equal(ours, values) {
				t.Fatalf("%s: %q, by net/http %q", name, ours, values)
			}
		}
		ours, trailer, err := readBody(&in, req.Length)
		body, theirErr := io.ReadAll(theirs.Body)
		if err == nil && (theirErr != nil || !bytes.Equal(ours, body)) {
			t.Fatalf("body %q, by net/http %q %v", ours, body, theirErr)
		}
		if err == nil {
			for _, field := range trailer {
				if !slices.Contains(theirs.Trailer.Values(field.Name), field.Value) && theirs.Trailer != nil && hasKey(theirs.Trailer, field.Name) {
					t.Fatalf("trailer %v, by net/http %v", trailer, theirs.Trailer)
				}
			}
		}
	})
}

func hasKey(h http.Header, name string) bool { return h.Values(name) != nil }

func readBody(in *Reader, length int64) (body []byte, trailer Fields, err error) {
	var b Body
	b.Start(in, length)
	body, err = io.ReadAll(&b)
	return body, b.Trailer, err
}

// FuzzReadRequest_InPieces: how bytes arrive does not matter.
func FuzzReadRequest_InPieces(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		read := func(from io.Reader) (Request, string, string) {
			var in Reader
			in.Reset(from, nil)
			var req Request
			if err := in.ReadRequest(&req); err != nil {
				return Request{}, "", err.Error()
			}
			body, _, err := readBody(&in, req.Length)
			if err != nil {
				return req, string(body), err.Error()
			}
			return req, string(body), ""
		}
		one, body, why := read(bytes.NewReader(text))
		two, body2, why2 := read(iotest.OneByteReader(bytes.NewReader(text)))
		if (why == "") != (why2 == "") || one.Method != two.Method || one.Target != two.Target || one.Length != two.Length || !slices.Equal(one.Fields, two.Fields) || body != body2 {
			t.Fatalf("%+v %q %s; byte by byte %+v %q %s", one, body, why, two, body2, why2)
		}
	})
}

// FuzzReadResponse holds the reader of answers to net/http.
func FuzzReadResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
		"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var in Reader
		in.Reset(bytes.NewReader(text), nil)
		var resp Response
		if in.ReadResponse(&resp, http.MethodGet) != nil || resp.Status < 200 || resp.Status == 204 || resp.Status == 304 {
			return // without a body, what is said about one does not matter here
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
		if err != nil {
			t.Fatalf("net/http refuses with %v what is read as %+v", err, resp)
		}
		if theirs.StatusCode != resp.Status {
			t.Fatalf("status %d, by net/http %d", resp.Status, theirs.StatusCode)
		}
		ours, _, err := readBody(&in, resp.Length)
		body, theirErr := io.ReadAll(theirs.Body)
		if err == nil && (theirErr != nil || !bytes.Equal(ours, body)) {
			t.Fatalf("body %q, by net/http %q %v", ours, body, theirErr)
		}
	})
}

// textConn is a connection from which a text comes.
type textConn struct {
	net.Conn
	from io.Reader
}

func (c textConn) Read(p []byte) (int, error) { return c.from.Read(p) }

// FuzzGuard: a server behind it sees what the reader read, and nothing of what it refuses.
func FuzzGuard(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h + h))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var in, plain Reader
		plain.Reset(bytes.NewReader(text), nil)
		from := bytes.NewReader(text)
		in.Reset(from, nil)
		var first Request
		if in.ReadRequest(&first) != nil || first.Upgrade || first.Method == http.MethodConnect {
			return
		}
		g := NewGuard(textConn{from: from}, &in, &first)
		close(g.hurry) // nobody waits
		server := bufio.NewReader(g)
		for range 4 {
			var want Request
			err := plain.ReadRequest(&want)
			got, theirErr := http.ReadRequest(server)
			if err != nil {
				if theirErr == nil && got.Method != RefusedMethod {
					t.Fatalf("the server sees %s %s of what is refused with %v", got.Method, got.RequestURI, err)
				}
				return
			}
			if want.Upgrade || want.Method == http.MethodConnect {
				return
			}
			if theirErr != nil {
				return // stricter
			}
			if got.Method != want.Method {
				t.Fatalf("the server sees %s for %s", got.Method, want.Method)
			}
			ours, _, err := readBody(&plain, want.Length)
			body, theirErr := io.ReadAll(got.Body)
			if (err == nil) != (theirErr == nil) || err == nil && !bytes.Equal(ours, body) {
				t.Fatalf("body %q %v, the server sees %q %v", ours, err, body, theirErr)
			}
			if err != nil {
				return
			}
		}
	})
}
