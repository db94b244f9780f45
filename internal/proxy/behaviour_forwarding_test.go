package proxy_test

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// unusual is a legal request, and what a back end has to get of it.
type unusual struct {
	name string
	send string
	line string // "" = the first line of send
	// lines are all header lines, without those of the framing and those that the proxy adds. Names in lower
	// case; lines of one name in order. "" = as in send.
	lines   []string
	framing string // "", "none", "length" or "chunked". "": no body, be it said or not
	body    string
	answers int // final answers; 0 = 1
}

// added are the fields that the proxy sets.
func added(name string) bool {
	return strings.HasPrefix(name, "x-forwarded-") || name == "x-spillway-bucket" || name == "connection"
}

func get(name, target, line string) unusual {
	return unusual{name: name, send: "GET " + target + " HTTP/1.1\r\n" + toShop + "\r\n", line: line}
}

func targets() []unusual {
	long := "/" + strings.Repeat("a", 8<<10)
	return []unusual{
		get("plain", "/", ""),
		get("semicolon in the query", "/?a=1;b=2&c", ""),
		get("broken escape in the query", "/?a=%zz&b=%", ""),
		get("empty query", "/a?", ""),
		get("question marks in the query", "/a??b?c", ""),
		get("slashes in the query", "/a?b=/../c//d", ""),
		get("escaped slash", "/a%2Fb%2f", ""),
		get("escaped letters stay escaped", "/%61%7E%41", ""),
		get("escaped percent", "/a%25b%252e%252e", ""),
		get("escaped backslash", "/a%5Cb", ""),
		get("escaped space and plus", "/a%20b+c", ""),
		get("escaped bytes above ASCII", "/%C3%A4%ff", ""),
		get("escaped LF", "/a%0ab", ""),
		get("every mark that a path may have", "/-._~!$&'()*+,;=:@", ""),
		get("brackets and braces", "/a[1]{b}|c^d`e\"f<g>", ""),
		get("two slashes", "//a//b//", ""),
		get("three slashes that look like a host", "///other.test/", ""),
		get("dots that are names", "/.a/..b/c../...", ""),
		get("dots before an escaped slash", "/a/..%2Fb", ""),
		get("dots and a parameter", "/a/..;/b", ""),
		get("path of 8 KB", long, ""),
		get("query of 8 KB", "/?"+long, ""),
		// Dot segments are taken out, so that a rule and the back end mean the same path.
		get("dot segment", "/a/./b", "GET /a/b HTTP/1.1"),
		get("two dots", "/a/b/../c", "GET /a/c HTTP/1.1"),
		get("two dots at the end", "/a/b/..", "GET /a/ HTTP/1.1"),
		get("dot at the end", "/a/.", "GET /a/ HTTP/1.1"),
		get("two dots above the root", "/../../etc/passwd", "GET /etc/passwd HTTP/1.1"),
		get("escaped dots", "/a/%2e%2E/b", "GET /b HTTP/1.1"),
		get("one of two dots escaped", "/a/.%2e/b", "GET /b HTTP/1.1"),
		get("escaped dot segment", "/a/%2e/b", "GET /a/b HTTP/1.1"),
		get("dots keep escapes beside them", "/a%2Fb/../c%20d", "GET /c%20d HTTP/1.1"),
		get("dots before a query", "/a/../b?c=/../d", "GET /b?c=/../d HTTP/1.1"),
		get("absolute form", "http://shop.test/a?b", "GET /a?b HTTP/1.1"),
		get("absolute form without a path", "http://shop.test", "GET / HTTP/1.1"),
		get("absolute form with only a query", "http://shop.test?a", "GET /?a HTTP/1.1"),
		get("scheme in upper case", "HTTP://shop.test/a", "GET /a HTTP/1.1"),
		get("absolute form with dots", "http://shop.test/a/../b", "GET /b HTTP/1.1"),
		{name: "asterisk", send: "OPTIONS * HTTP/1.1\r\n" + toShop + "\r\n"},
		{name: "OPTIONS of a path", send: "OPTIONS /a HTTP/1.1\r\n" + toShop + "\r\n"},
		{name: "method that nobody knows", send: "BREW /pot HTTP/1.1\r\n" + toShop + "\r\n"},
		{name: "method with marks", send: "M-SEARCH!~ /a HTTP/1.1\r\n" + toShop + "\r\n"},
		{name: "method in lower case", send: "get / HTTP/1.1\r\n" + toShop + "\r\n"},
		{name: "HTTP/1.0", send: "GET /a HTTP/1.0\r\n" + toShop + "\r\n", line: "GET /a HTTP/1.1"},
		{name: "HTTP/1.0 in absolute form without a host", send: "GET http://shop.test/a HTTP/1.0\r\n\r\n", line: "GET /a HTTP/1.1", lines: []string{"host: shop.test"}},
	}
}

func fields() []unusual {
	with := func(name, sent string, lines ...string) unusual {
		u := unusual{name: name, send: "GET / HTTP/1.1\r\n" + toShop + sent + "\r\n\r\n"}
		if lines != nil {
			u.lines = append([]string{"host: shop.test"}, lines...)
		}
		return u
	}
	host := func(name, host string) unusual {
		return unusual{name: name, send: "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"}
	}
	return []unusual{
		host("host in upper case", "SHOP.Test"),
		host("host with a port", "shop.test:8080"),
		host("host with an empty port", "shop.test:"),
		host("host with a dot at the end", "shop.test."),
		{name: "no space behind a colon", send: "GET / HTTP/1.1\r\nHost:shop.test\r\nX-A:b\r\n\r\n"},
		{name: "name of the host in upper case", send: "GET / HTTP/1.1\r\nHOST: shop.test\r\n\r\n"},
		with("spaces around a value", "X-A: \t b c \t ", "x-a: b c"),
		with("empty value", "X-A:\r\nX-B: \t"),
		with("empty value between others", "X-A: 1\r\nX-A:\r\nX-A: 2"),
		with("one name on several lines", "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nX-A: 1"),
		with("cookies on several lines", "Cookie: a=1\r\nCookie: b=2"),
		with("value with commas", "X-A: a, b,,c"),
		with("value with bytes above ASCII", "X-A: \xc3\xa4\xff"),
		with("value with a tab", "X-A: a\tb"),
		with("value with quotes and colons", `X-A: "b: c"; d="\"e"`),
		with("every mark that a name may have", "!#$%&'*+-.^_`|~9a: b"),
		with("name with an underscore", "x_a: b"),
		with("name of one letter", "a: b"),
		with("value of 16 KB", "X-A: "+strings.Repeat("b", 16<<10)),
		with("90 lines", strings.TrimSuffix(strings.Repeat("X-A: b\r\n", 90), "\r\n")),
		with("no field is added", "Accept: */*"),
		with("Accept-Encoding is left as it is", "Accept-Encoding: br;q=1.0, *;q=0"),
		with("User-Agent is left as it is", "User-Agent: curl/8"),
		with("Authorization and Date", "Authorization: Basic YTpi\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT"),
		with("range and conditions", "Range: bytes=0-1\r\nIf-Range: \"a\"\r\nIf-None-Match: W/\"b\", *"),
		with("fields of one connection", "Connection: keep-alive, X-One , x-two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\nKeep-Alive: timeout=5", "x-three: 3"),
		with("fields of one connection, named twice", "Connection: X-One\r\nConnection: close, X-Two\r\nX-One: 1\r\nX-Two: 2", []string{}...),
		with("fields of proxies", "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic YTpi\r\nProxy-Authenticate: Basic\r\nX-A: b", "x-a: b"),
		with("Upgrade without Connection", "Upgrade: websocket\r\nX-A: b", "x-a: b"),
		with("Upgrade to h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nX-A: b", "x-a: b"),
		with("TE without trailers", "TE: gzip\r\nConnection: TE\r\nX-A: b", "x-a: b"),
		with("TE with trailers", "TE: trailers\r\nConnection: TE", "te: trailers"),
		with("Connection cannot take the host away", "Connection: host, x-forwarded-for\r\nX-A: b", "x-a: b"),
		with("length nought", "Content-Length: 0"),
		with("header that looks like TE", "Transfer_Encoding: chunked\r\nContent_Length: 5", []string{}...),
		with("trace context", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nTracestate: a=1"),
	}
}

func bodies() []unusual {
	post := func(name, lines, body string) string {
		return "POST /" + strings.ReplaceAll(name, " ", "-") + " HTTP/1.1\r\n" + toShop + lines + "\r\n" + body
	}
	big := strings.Repeat("0123456789abcdef", 8<<10) // 128 KB
	var chunked strings.Builder
	for i := 0; i < len(big); i += 1000 {
		piece := big[i:min(len(big), i+1000)]
		fmt.Fprintf(&chunked, "%X\r\n%s\r\n", len(piece), piece)
	}
	rows := []unusual{
		{name: "POST without a body", send: post("a", "", "")},
		{name: "POST of length nought", send: post("a", "Content-Length: 0\r\n", "")},
		{name: "POST with a length", send: post("a", "Content-Length: 5\r\n", "hello"), framing: "length", body: "hello"},
		{name: "length with noughts in front", send: post("a", "Content-Length: 0000000005\r\n", "hello"), framing: "length", body: "hello"},
		{name: "length in lower case with spaces", send: post("a", "content-length: \t 5 \r\n", "hello"), framing: "length", body: "hello"},
		{name: "GET with a body", send: "GET / HTTP/1.1\r\n" + toShop + "Content-Length: 5\r\n\r\nhello", framing: "length", body: "hello"},
		{name: "DELETE with a body", send: "DELETE / HTTP/1.1\r\n" + toShop + "Content-Length: 5\r\n\r\nhello", framing: "length", body: "hello"},
		{name: "Connection cannot take the length away", send: post("a", "Connection: content-length\r\nContent-Length: 5\r\n", "hello"), framing: "length", body: "hello"},
		{name: "HTTP/1.0 with a body", send: "POST / HTTP/1.0\r\n" + toShop + "Content-Length: 5\r\n\r\nhello", line: "POST / HTTP/1.1", framing: "length", body: "hello"},
		{name: "body that looks like a request", send: post("a", fmt.Sprintf("Content-Length: %d\r\n", len(next)), next), framing: "length", body: next},
		{name: "length of 128 KB", send: post("a", fmt.Sprintf("Content-Length: %d\r\n", len(big)), big), framing: "length", body: big},
	}
	for _, c := range []struct{ name, te, sent, body string }{
		{"chunked", "chunked", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"chunked in mixed case", " \tChunKed ", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"empty chunked", "chunked", "0\r\n\r\n", ""},
		{"several chunks", "chunked", "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "hello"},
		{"chunk sizes with noughts in front", "chunked", "0005\r\nhello\r\n000\r\n\r\n", "hello"},
		{"hexadecimal chunk sizes", "chunked", "A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a"},
		{"chunk extensions", "chunked", "5;a;b=c;d=\"e\"\r\nhello\r\n0;f\r\n\r\n", "hello"},
		{"chunks with CRLF within", "chunked", "7\r\nhe\r\nllo\r\n0\r\n\r\n", "he\r\nllo"},
		{"chunk that looks like the end", "chunked", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"},
		{"chunked request in a chunk", "chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(next), next), next},
		{"128 KB of chunks", "chunked", chunked.String() + "0\r\n\r\n", big},
	} {
		rows = append(rows, unusual{name: c.name, send: post("a", "Transfer-Encoding:"+c.te+"\r\n", c.sent), framing: "chunked", body: c.body})
	}
	trailer := post("a", "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	return append(rows,
		unusual{name: "trailers", send: trailer, framing: "chunked", body: "hello|X-Sum: 1"},
		unusual{name: "CRLF behind a body", send: post("a", "Content-Length: 5\r\n", "hello") + "\r\n" + "GET /b HTTP/1.1\r\n" + toShop + "\r\n", framing: "length", body: "hello", answers: 2})
}

func TestBehaviour_PassesWhatIsUnusual(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		for _, u := range slices.Concat(targets(), fields(), bodies()) {
			t.Run(u.name, func(t *testing.T) { u.check(t, f, backend) })
		}
	})
}

func (u unusual) check(t *testing.T, f *front, backend *recorder) {
	backend.take()
	conn := f.dial()
	defer conn.Close()
	go io.WriteString(conn, u.send) // ends with conn
	r := bufio.NewReader(conn)
	for i := range max(1, u.answers) {
		if a, err := readReply(r, "GET"); err != nil || a.status != 200 || a.body != "ok" {
			t.Errorf("answer %d: %d %s %v, want 200", i+1, a.status, shorten(a.body), err)
			return
		}
	}
	_, requests := backend.take()
	if len(requests) != max(1, u.answers) {
		t.Fatalf("the back end got %d requests", len(requests))
	}
	got := requests[0]
	head, _, _ := strings.Cut(u.send, "\r\n\r\n")
	sent := strings.Split(head, "\r\n")
	if want := cmp.Or(u.line, sent[0]); got.line != want {
		t.Errorf("the back end got %s, want %s", shorten(got.line), shorten(want))
	}
	if !got.whole || got.body != u.body {
		t.Errorf("the back end got the body %s, want %s", shorten(got.body), shorten(u.body))
	}
	u.checkFraming(t, got.header)
	want := map[string][]string{}
	if u.lines == nil {
		u.lines = sent[1:]
	}
	for _, line := range u.lines {
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(name)
		if !slices.Contains([]string{"content-length", "transfer-encoding", "connection", "trailer"}, name) {
			want[name] = append(want[name], strings.Trim(value, " \t"))
		}
	}
	maps.DeleteFunc(got.header, func(name string, _ []string) bool {
		return added(name) || slices.Contains([]string{"content-length", "transfer-encoding", "trailer"}, name)
	})
	if !maps.EqualFunc(got.header, want, slices.Equal) {
		t.Errorf("the back end got %s, want %s", shorten(fmt.Sprint(got.header)), shorten(fmt.Sprint(want)))
	}
}

// checkFraming wants one way in which the length of the body is told.
func (u unusual) checkFraming(t *testing.T, header map[string][]string) {
	t.Helper()
	length, coding := header["content-length"], header["transfer-encoding"]
	ok := false
	switch u.framing {
	case "":
		ok = len(coding) == 0 && (len(length) == 0 || slices.Equal(length, []string{"0"}))
	case "length":
		ok = len(coding) == 0 && slices.Equal(length, []string{fmt.Sprint(len(u.body))})
	case "chunked":
		ok = slices.Equal(coding, []string{"chunked"}) && len(length) == 0
	}
	if !ok {
		t.Errorf("framing: Content-Length %q, Transfer-Encoding %q; want %q", length, coding, u.framing)
	}
}
