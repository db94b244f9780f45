package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// sink is a connection to a replica that keeps what is sent.
type sink struct {
	net.Conn
	sent   bytes.Buffer
	closed bool
}

func (s *sink) Write(p []byte) (int, error)      { return s.sent.Write(p) }
func (s *sink) Close() error                     { s.closed = true; return nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// forwarded is a request as a client has sent it, and what a replica gets of it.
type forwarded struct {
	req     http1.Request
	body    []byte
	trailer http1.Fields
	err     error // of the body
	call    *call
	sink    sink
}

// The ways in which requests are forwarded, as bits.
const (
	trusted    = 1 << iota // the client is believed
	onlyOne                // the connection is not to be kept
	toHeir                 // to the next proxy
	underAPath             // to a server by URL
	wayBits    = iota
)

// forward sends the request that text begins with to a replica. false: it is refused, or nobody serves it.
func (fw *forwarded) forward(t *testing.T, text []byte, ways byte) bool {
	var in, plain http1.Reader
	in.Reset(bytes.NewReader(text), nil)
	plain.Reset(bytes.NewReader(text), nil)
	if in.ReadRequest(&fw.req) != nil || fw.req.Method == http.MethodConnect {
		return false
	}
	var again http1.Request
	if err := plain.ReadRequest(&again); err != nil {
		t.Fatal(err)
	}
	var read, sent http1.Body
	read.Start(&plain, again.Length)
	fw.body, fw.err = io.ReadAll(&read)
	fw.trailer = read.Trailer
	r := &fw.req
	c := &call{
		method: r.Method, header: r.Fields, named: r.Named, major: 1, minor: r.Minor, length: r.Length, expect: r.Expect, upgrade: r.Upgrade,
		peer: "192.0.2.7", client: netip.MustParseAddr("192.0.2.7"), ours: ways&trusted != 0,
	}
	c.aim(r.Host, r.Target)
	fw.call = c
	out := &outgoing{call: c, host: c.host, client: &recorder{}, base: &url.URL{Scheme: "http", Host: "a"}, last: ways&onlyOne != 0, relayed: ways&toHeir != 0, limit: time.Minute}
	if ways&underAPath != 0 {
		out.base.Path = "/under/"
	}
	sent.Start(&in, r.Length)
	if r.Length != 0 {
		out.body = &upload{from: &sent}
		c.trailer = func() http1.Fields { return sent.Trailer }
	}
	conn := &originConn{Conn: &fw.sink, origin: &origin{blocks: newBlocks()}}
	f := conn.request(out, time.Now())
	if conn.owes {
		conn.transfer(out)
	}
	if conn.pending != nil {
		<-conn.pending.done
	}
	if f != nil && fw.err == nil {
		t.Fatalf("a whole request is not sent: %v", f)
	}
	return f == nil
}

// ownFields are what the proxy says itself, or does not let pass; the rest is the client's.
var ownFields = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Proxy-Authenticate", "Proxy-Authorization",
	"Host", "Content-Length", "Expect", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", bucketHeader, rescuedHeader, syntheticHeader,
}

// clients are the fields of a request that have to reach a replica as they are.
func (fw *forwarded) clients(own []string) http.Header {
	clients := http.Header{}
	for _, f := range fw.req.Fields {
		clients.Add(f.Name, f.Value)
	}
	for _, list := range clients["Connection"] {
		for token := range strings.SplitSeq(list, ",") {
			defer clients.Del(strings.Trim(token, " \t"))
		}
	}
	for name := range clients {
		own, plain := own, strings.ReplaceAll(name, "_", "-")
		if plain != name {
			own = ownFields // nobody is trusted with that spelling
		}
		if slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, plain) }) || speaksForOthers(plain, own) {
			delete(clients, name)
		}
	}
	return clients
}

// speaksForOthers reports whether a field says who asks, as proxies do; whom they trust may say some of it.
func speaksForOthers(name string, own []string) bool {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "x-spillway-") {
		return true
	}
	return slices.Contains(own, "Forwarded") && (name == "x-real-ip" || strings.HasPrefix(name, "x-forwarded-"))
}

// FuzzForward: what goes to a replica is, to net/http, exactly the request that the reader has read.
func FuzzForward(f *testing.F) {
	for _, text := range []string{
		"GET /a/../b?c=d%zz HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nx-a: 2\r\nConnection: x-b, close\r\nX-B: 3\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Forwarded-For: b\r\n\r\nhellomore",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: 1\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhel",
		"POST http://a.test?x HTTP/1.1\r\nHost: a.test\r\nForwarded: for=x\r\nContent-Length: 0\r\n\r\n",
		"DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"REPORT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"PATCH / HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nConnection: host, content-length\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Spillway-Bucket: 1\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("x", 5001),
	} {
		for ways := range byte(1 << wayBits) {
			f.Add([]byte(text), ways)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, ways byte) {
		if len(text) > 2*http1.MaxHead {
			return // more shows nothing new
		}
		fw := new(forwarded)
		if !fw.forward(t, text, ways%(1<<wayBits)) {
			return
		}
		sent := fw.sink.sent.Bytes()
		in := bufio.NewReaderSize(bytes.NewReader(sent), len(sent)+16)
		got, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http refuses with %v what is sent: %q", err, sent)
		}
		var strict http1.Reader // net/http takes a length that is said twice
		strict.Reset(bytes.NewReader(sent), nil)
		nowhere := fw.req.Host == "" // HTTP/1.0 may say nothing of a host; HTTP/1.1 has to, and the reader wants a name
		if err := strict.ReadRequest(new(http1.Request)); err != nil && !nowhere && !grown(err, text) {
			t.Fatalf("the reader refuses with %v what is sent: %q", err, sent)
		}
		fw.sameHead(t, got, ways)
		body, err := io.ReadAll(got.Body)
		switch {
		case fw.err != nil:
			if err == nil || !fw.sink.closed {
				t.Fatalf("the body ends with %v and passes for whole: %q", fw.err, sent)
			}
			return
		case err != nil || !bytes.Equal(body, fw.body):
			t.Fatalf("body %q, sent is %q %v", fw.body, body, err)
		case fw.sink.closed || in.Buffered() > 0:
			t.Fatalf("%d bytes are sent behind the request: %q", in.Buffered(), sent)
		}
		trailer := http.Header{}
		for _, field := range fw.trailer {
			trailer.Add(field.Name, field.Value)
		}
		sameHeader(t, trailer, got.Trailer)
	})
}

// grown reports whether a head is refused only because the fields of the proxy have made it larger than heads may be.
func grown(err error, text []byte) bool {
	var no *http1.Refusal
	if !errors.As(err, &no) {
		return false
	}
	large := no.Status == http.StatusRequestHeaderFieldsTooLarge || no.Status == http.StatusRequestURITooLong
	return large && (len(text) > http1.MaxHead/2 || bytes.Count(text, []byte("\n")) > http1.MaxFields/2)
}

// sameHead compares what a client has sent with what a replica got.
func (fw *forwarded) sameHead(t *testing.T, got *http.Request, ways byte) {
	t.Helper()
	path, query, asked := strings.Cut(fw.req.Target, "?")
	want := forwardedPath(path)
	if ways&underAPath != 0 {
		want = "/under" + strings.TrimPrefix(want, "*")
	}
	if asked {
		want += "?" + query
	}
	length := fw.req.Length
	if got.Method != fw.req.Method || got.RequestURI != want || got.Host != fw.req.Host || got.ContentLength != length || got.ProtoMinor != 1 {
		t.Fatalf("read as %+v, sent is %+v", fw.req, got)
	}
	if fw.req.Upgrade != (got.Header.Get("Upgrade") != "") || got.Close != (ways&onlyOne != 0 && !fw.req.Upgrade) {
		t.Fatalf("read as %+v, sent is %+v", fw.req, got)
	}
	if takes := slices.Contains([]string{"POST", "PUT", "PATCH"}, got.Method); takes && length == 0 && got.Header.Get("Content-Length") != "0" {
		t.Fatalf("the server is not told that there is no body: %+v", got)
	}
	header := got.Header.Clone()
	if ways&trusted == 0 {
		if header.Get("X-Forwarded-For") != "192.0.2.7" || header.Get("X-Forwarded-Host") != fw.req.Host || header.Get("X-Forwarded-Proto") != "http" {
			t.Fatalf("the client speaks for others: %q", header)
		}
	}
	own := ownFields
	if ways&trusted != 0 { // it may say that
		own = slices.DeleteFunc(slices.Clone(own), func(name string) bool { return name == "Forwarded" })
	} else if header.Values("Forwarded") != nil {
		t.Fatalf("the client speaks for others: %q", header)
	}
	for _, name := range own {
		header.Del(name)
	}
	sameHeader(t, fw.clients(own), header)
}

func sameHeader(t *testing.T, want, got http.Header) {
	t.Helper()
	for name := range got {
		made := name == "Cache-Control" && want.Get("Pragma") == "no-cache" // by net/http
		if want[name] == nil && !made {
			t.Fatalf("%s: %q is sent, and nobody said it", name, got[name])
		}
	}
	for name, values := range want {
		if !slices.Equal(values, got[name]) {
			t.Fatalf("%s: %q, sent is %q", name, values, got[name])
		}
	}
}
