package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
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
	"GET HTTPS://[::1]:80/%2f?x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"POST http://a.test?x=%zz HTTP/1.1\r\nHost: A.test\r\nContent-Length: 1\r\n\r\nx",
	"OPTIONS http://a.test HTTP/1.0\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n",
	"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nPragma: no-cache\r\nx-a: 2\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n",
}

// tooLong reports whether an input is larger than any head, with something behind it: more shows nothing new, and
// keeps the fuzzer busy with making it smaller.
func tooLong(text []byte) bool { return len(text) > 2*MaxHead }

// stricter names the kind of strictness that net/http has and the reader has not; "" is none of those.
func stricter(err error) string {
	var target *url.Error
	switch {
	case errors.As(err, &target):
		return "net/url reads percent-encoding in a host, and a port, more strictly"
	case strings.Contains(err.Error(), "bad trailer key"):
		return "Trailer announces a field about the framing, which the reader leaves out of the trailer"
	}
	return ""
}

// FuzzReadRequest holds the reader to net/http: it refuses, or it understands the same message and sees the next one
// begin at the same byte. Where it is stricter is its own affair.
func FuzzReadRequest(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h))
		f.Add([]byte(h + "GET /next"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if tooLong(text) {
			return
		}
		var in Reader
		source := bytes.NewReader(text)
		in.Reset(source, nil)
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
		buffered := bufio.NewReaderSize(bytes.NewReader(bytes.TrimPrefix(text, []byte("\r\n"))), len(text)+16)
		theirs, err := http.ReadRequest(buffered)
		if err != nil {
			if stricter(err) == "" {
				t.Fatalf("net/http refuses with %v what is read as %+v", err, req)
			}
			return
		}
		sameLine(t, &req, theirs)
		sameFields(t, requestFields(&req), theirs.Header)
		ours, trailer, err := readBody(&in, req.Length)
		if err != nil {
			return // stricter about chunks, or cut off
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil || !bytes.Equal(ours, body) {
			t.Fatalf("body %q, by net/http %q %v", ours, body, err)
		}
		sameFields(t, trailer, endToEnd(theirs.Trailer))
		left, theirLeft := len(in.Buffered())+source.Len(), buffered.Buffered()
		if left != theirLeft {
			t.Fatalf("%d bytes are left, by net/http %d", left, theirLeft)
		}
	})
}

// sameLine compares what the request line says, and what the header says about the message.
func sameLine(t *testing.T, req *Request, theirs *http.Request) {
	t.Helper()
	host, target := req.Host, theirs.RequestURI
	if u := theirs.URL; u.Host != "" {
		// net/url has undone escapes, in the host and in the path.
		host, _ = url.PathUnescape(host)
		path, query, asked := strings.Cut(req.Target, "?")
		plain, err := url.PathUnescape(path)
		asterisk := req.Target == "*" && req.Method == http.MethodOptions && u.Path == ""
		if !asterisk && (err != nil || plain != u.Path && plain+u.Path != "/" || query != u.RawQuery || asked != (u.ForceQuery || u.RawQuery != "")) {
			t.Fatalf("target %q, by net/http %q", req.Target, u)
		}
		target = req.Target
	}
	switch {
	case theirs.Method != req.Method, theirs.ProtoMinor != req.Minor, !strings.EqualFold(theirs.Host, host), theirs.Close != req.Close:
		t.Fatalf("read as %+v, by net/http as %+v", req, theirs)
	case theirs.ContentLength != req.Length:
		t.Fatalf("length %d, by net/http %d", req.Length, theirs.ContentLength)
	case target != req.Target:
		t.Fatalf("target %q, by net/http %q", req.Target, target)
	case (req.Length == InChunks) != slices.Equal(theirs.TransferEncoding, []string{"chunked"}):
		t.Fatalf("length %d, by net/http %q", req.Length, theirs.TransferEncoding)
	}
}

// requestFields are those of a request that net/http leaves in its header.
func requestFields(req *Request) (fields Fields) {
	for _, field := range req.Fields {
		switch {
		case Is(field.Name, "Host"), Is(field.Name, "Transfer-Encoding"):
		case Is(field.Name, "Trailer") && req.Length == InChunks:
		default:
			fields = append(fields, field)
		}
	}
	return fields
}

// sameFields compares fields both ways: the same names, and the same values of each in the same order.
func sameFields(t *testing.T, fields Fields, theirs http.Header) {
	t.Helper()
	ours := http.Header{}
	for _, field := range fields {
		name := textproto.CanonicalMIMEHeaderKey(field.Name)
		ours[name] = append(ours[name], field.Value)
	}
	for name, values := range ours {
		if !slices.Equal(values, theirs[name]) {
			t.Fatalf("%s: %q, by net/http %q", name, values, theirs[name])
		}
	}
	for name, values := range theirs {
		made := name == "Cache-Control" && ours.Get("Pragma") == "no-cache" // net/http has them say the same
		if ours[name] == nil && len(values) > 0 && !made {
			t.Fatalf("%s is not there, by net/http %q", name, values)
		}
	}
}

// endToEnd are the fields of a trailer without those that the reader leaves out.
func endToEnd(trailer http.Header) http.Header {
	kept := http.Header{}
	for name, values := range trailer {
		if !IsHop(name) && name != "Content-Length" && name != "Host" {
			kept[name] = values
		}
	}
	return kept
}

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
		if len(text) > smallBuffer { // each byte of a head has the whole of it looked through
			return
		}
		one := readAll(bytes.NewReader(text))
		two := readAll(iotest.OneByteReader(bytes.NewReader(text)))
		if one != two {
			t.Fatalf("%s\nbyte by byte\n%s", one, two)
		}
	})
}

// FuzzGuard: a server behind it sees what the reader read, and nothing of what it refuses.
func FuzzGuard(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h + h))
		f.Add([]byte(heads[2] + h))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if tooLong(text) {
			return
		}
		var in, plain Reader
		plain.Reset(bytes.NewReader(text), nil)
		in.Reset(bytes.NewReader(text), nil)
		var first Request
		if in.ReadRequest(&first) != nil {
			return
		}
		g := NewGuard(nil, &in, &first)
		close(g.hurry) // nobody waits
		server := bufio.NewReaderSize(g, 4*MaxHead)
		for range 4 {
			if !guarded(t, g, &plain, server) {
				return
			}
		}
	})
}

// guarded compares the next request of a client with what the server behind a guard sees, and reports whether another
// one may follow.
func guarded(t *testing.T, g *Guard, plain *Reader, server *bufio.Reader) bool {
	var want Request
	err := plain.ReadRequest(&want)
	got, theirErr := http.ReadRequest(server)
	var no *Refusal
	switch {
	case errors.As(err, &no):
		if theirErr != nil || got.Method != RefusedMethod || !got.Close || g.Refused() == nil || *g.Refused() != *no {
			t.Fatalf("the server sees %+v, %v of what is refused with %v, and is told %v", got, theirErr, err, g.Refused())
		}
		return false
	case err != nil:
		if theirErr == nil {
			t.Fatalf("the server sees %s %s where the client ends with %v", got.Method, got.RequestURI, err)
		}
		return false
	case want.Upgrade || want.Method == http.MethodConnect:
		return false
	case theirErr != nil:
		if stricter(theirErr) == "" {
			t.Fatalf("the server refuses with %v what is read as %+v", theirErr, want)
		}
		return false
	}
	sameLine(t, &want, got)
	sameFields(t, requestFields(&want), got.Header)
	ours, trailer, err := readBody(plain, want.Length)
	body, theirErr := io.ReadAll(got.Body)
	if (err == nil) != (theirErr == nil) || err == nil && !bytes.Equal(ours, body) {
		t.Fatalf("body %q %v, the server sees %q %v", ours, err, body, theirErr)
	}
	if err != nil {
		if IsMalformed(err) != (g.Refused() != nil) {
			t.Fatalf("the body has %v, told is %v", err, g.Refused())
		}
		return false
	}
	sameFields(t, trailer, got.Trailer)
	return true
}
