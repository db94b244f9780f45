package proxy_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// malformed is one request that has to be refused: with a page of the proxy's, after which it closes the
// connection, and before a back end hears of it.
type malformed struct {
	name string
	send string
	want []int // any of these
	// begun: the fault is in the body, so a back end may have got the beginning of the request, and not more.
	begun bool
	after int // good requests before it on the connection, which are answered 200
}

const (
	toShop = "Host: shop.test\r\n"
	next   = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n"
)

func bad(name, send string, want ...int) malformed {
	if len(want) == 0 {
		want = []int{400}
	}
	return malformed{name: name, send: send, want: want}
}

// badBody is a request with a chunked body that goes wrong.
func badBody(name, body string) malformed {
	m := bad(name, "POST / HTTP/1.1\r\n"+toShop+"Transfer-Encoding: chunked\r\n\r\n"+body)
	m.begun = true
	return m
}

// withHeader is a GET with more lines.
func withHeader(name, lines string, want ...int) malformed {
	return bad(name, "GET / HTTP/1.1\r\n"+toShop+lines+"\r\n\r\n", want...)
}

// uploadOf is a POST with these lines and this body.
func uploadOf(name, lines, body string, want ...int) malformed {
	return bad(name, "POST / HTTP/1.1\r\n"+toShop+lines+"\r\n\r\n"+body, want...)
}

func lengths() []malformed {
	return []malformed{
		uploadOf("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"),
		uploadOf("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\n"+next+"0\r\n\r\n"),
		uploadOf("CL.TE with equal meaning", "Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
		uploadOf("CL 0 and TE", "Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
		uploadOf("CL and TE that is not known", "Content-Length: 5\r\nTransfer-Encoding: xchunked", "hello", 400, 501),
		uploadOf("CL and empty TE", "Content-Length: 5\r\nTransfer-Encoding:", "hello"),
		uploadOf("two lengths", "Content-Length: 5\r\nContent-Length: 7", "hello!!"),
		uploadOf("two lengths, the other way", "Content-Length: 7\r\nContent-Length: 5", "hello!!"),
		uploadOf("the same length twice", "Content-Length: 5\r\nContent-Length: 5", "hello"),
		uploadOf("a list of lengths", "Content-Length: 5, 7", "hello!!"),
		uploadOf("a list of the same length", "Content-Length: 5, 5", "hello"),
		uploadOf("a length and nothing", "Content-Length: 5,", "hello"),
		uploadOf("plus", "Content-Length: +5", "hello"),
		uploadOf("minus", "Content-Length: -5", "hello"),
		uploadOf("minus nought", "Content-Length: -0", ""),
		uploadOf("hexadecimal length", "Content-Length: 0x5", "hello"),
		uploadOf("hexadecimal letters", "Content-Length: a", "0123456789"),
		uploadOf("fraction", "Content-Length: 5.0", "hello"),
		uploadOf("exponent", "Content-Length: 1e1", "0123456789"),
		uploadOf("underscore", "Content-Length: 1_0", "0123456789"),
		uploadOf("space within a length", "Content-Length: 1 0", "0123456789"),
		uploadOf("quoted length", `Content-Length: "5"`, "hello"),
		uploadOf("empty length", "Content-Length:", "hello"),
		uploadOf("blank length", "Content-Length:   ", "hello"),
		uploadOf("words for a length", "Content-Length: five", "hello"),
		uploadOf("length beyond 64 bits", "Content-Length: 18446744073709551621", "hello"),
		uploadOf("length beyond 63 bits", "Content-Length: 9223372036854775808", "hello"),
		uploadOf("vertical tab in a length", "Content-Length: \x0b5", "hello"),
		uploadOf("NUL behind a length", "Content-Length: 5\x00", "hello"),
		uploadOf("wide digit", "Content-Length: ５", "hello"),
		uploadOf("length in a folded line", "Content-Length:\r\n 5", "hello"),
		uploadOf("space before the colon of a length", "Content-Length : 5", "hello"),
		uploadOf("tab before the colon of a length", "Content-Length\t: 5", "hello"),
		bad("TRACE with a body", "TRACE / HTTP/1.1\r\n"+toShop+"Content-Length: 5\r\n\r\nhello", 400, 405),
		bad("CONNECT", "CONNECT shop.test:80 HTTP/1.1\r\n"+toShop+"\r\n", 400, 405, 501),
		bad("CONNECT with a body", "CONNECT shop.test:80 HTTP/1.1\r\n"+toShop+"Content-Length: 5\r\n\r\nhello", 400, 405, 501),
	}
}

func codings() []malformed {
	te := func(name, lines string, want ...int) malformed { return uploadOf(name, lines, "0\r\n\r\n", want...) }
	return []malformed{
		te("TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, 501),
		te("TE twice, one of them nonsense", "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", 400),
		te("TE twice, nonsense first", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", 400, 501),
		te("chunked chunked", "Transfer-Encoding: chunked, chunked", 400, 501),
		te("chunked is not final", "Transfer-Encoding: chunked, gzip"),
		te("chunked and identity", "Transfer-Encoding: chunked, identity"),
		te("gzip chunked", "Transfer-Encoding: gzip, chunked", 400, 501),
		te("identity", "Transfer-Encoding: identity", 400, 501),
		te("identity chunked", "Transfer-Encoding: identity, chunked", 400, 501),
		te("coding that is not known", "Transfer-Encoding: nonsense", 400, 501),
		te("xchunked", "Transfer-Encoding: xchunked", 400, 501),
		te("chunked with a parameter", "Transfer-Encoding: chunked;q=1", 400, 501),
		te("quoted chunked", `Transfer-Encoding: "chunked"`, 400, 501),
		te("comma before chunked", "Transfer-Encoding: , chunked", 400, 501),
		te("comma behind chunked", "Transfer-Encoding: chunked,", 400, 501),
		te("empty coding", "Transfer-Encoding:", 400, 501),
		te("vertical tab before chunked", "Transfer-Encoding: \x0bchunked", 400, 501),
		te("form feed behind chunked", "Transfer-Encoding: chunked\x0c", 400, 501),
		te("NUL behind chunked", "Transfer-Encoding: chunked\x00", 400, 501),
		te("bytes above ASCII behind chunked", "Transfer-Encoding: chunked\xa0", 400, 501),
		te("folded chunked", "Transfer-Encoding:\r\n chunked"),
		te("space before the colon of TE", "Transfer-Encoding : chunked"),
		te("TE in a name with a dot", "Transfer.Encoding : chunked"),
		te("bare CR before chunked", "Transfer-Encoding:\rchunked"),
		te("TE behind a bare CR", "X-A: b\rTransfer-Encoding: chunked"),
		te("TE behind a bare LF", "X-A: b\nTransfer-Encoding: chunked"),
		te("TE with a space in front", "X-A: b\r\n Transfer-Encoding: chunked"),
		bad("TE on HTTP/1.0", "POST / HTTP/1.0\r\n"+toShop+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
		bad("TE on HTTP/1.0 that stays open", "POST / HTTP/1.0\r\n"+toShop+"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
	}
}

func chunks() []malformed {
	return []malformed{
		badBody("chunk size of letters", "Z\r\nhello\r\n0\r\n\r\n"),
		badBody("empty chunk size", "\r\nhello\r\n0\r\n\r\n"),
		badBody("signed chunk size", "+5\r\nhello\r\n0\r\n\r\n"),
		badBody("negative chunk size", "-5\r\nhello\r\n0\r\n\r\n"),
		badBody("chunk size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
		badBody("chunk size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
		badBody("chunk size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
		badBody("chunk size of 64 bits", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
		badBody("space before a chunk size", " 5\r\nhello\r\n0\r\n\r\n"),
		badBody("space within a chunk size", "0 5\r\nhello\r\n0\r\n\r\n"),
		badBody("tab before a chunk size", "\t5\r\nhello\r\n0\r\n\r\n"),
		badBody("no CRLF behind a chunk", "5\r\nhello0\r\n\r\n"),
		badBody("longer chunk than its size", "5\r\nhello!\r\n0\r\n\r\n"),
		badBody("LF behind a chunk size", "5\nhello\r\n0\r\n\r\n"),
		badBody("CR behind a chunk size", "5\rhello\r\n0\r\n\r\n"),
		badBody("LF behind a chunk", "5\r\nhello\n0\r\n\r\n"),
		badBody("CR behind a chunk", "5\r\nhello\r0\r\n\r\n"),
		badBody("LF behind the last chunk", "5\r\nhello\r\n0\n\r\n"),
		badBody("LF at the end", "5\r\nhello\r\n0\r\n\n"),
		badBody("NUL in a chunk size", "5\x00\r\nhello\r\n0\r\n\r\n"),
		badBody("LF in a chunk extension", "5;a\nhello\r\n0\r\n\r\n"),
		badBody("CR in a chunk extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
		badBody("NUL in a chunk extension", "5;a=\x00\r\nhello\r\n0\r\n\r\n"),
		badBody("chunk extension of 20 KB", "5;a="+strings.Repeat("b", 20<<10)+"\r\nhello\r\n0\r\n\r\n"),
		badBody("small chunks with large extensions", strings.Repeat("1;"+strings.Repeat("b", 200)+"\r\nx\r\n", 500)+"0\r\n\r\n"),
		badBody("trailer without a colon", "5\r\nhello\r\n0\r\nX-Sum\r\n\r\n"),
		badBody("trailer with a space before the colon", "5\r\nhello\r\n0\r\nX-Sum : 1\r\n\r\n"),
		badBody("folded trailer", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n"),
		badBody("NUL in a trailer", "5\r\nhello\r\n0\r\nX-Sum: \x00\r\n\r\n"),
		badBody("LF behind a trailer", "5\r\nhello\r\n0\r\nX-Sum: 1\n\r\n"),
		badBody("trailer of 64 KB", "5\r\nhello\r\n0\r\nX-Sum: "+strings.Repeat("1", 64<<10)+"\r\n\r\n"),
	}
}

func headers() []malformed {
	return []malformed{
		bad("bare LF everywhere", "GET / HTTP/1.1\nHost: shop.test\n\n"),
		bad("bare LF behind the request line", "GET / HTTP/1.1\nHost: shop.test\r\n\r\n"),
		bad("bare LF behind a line", "GET / HTTP/1.1\r\nHost: shop.test\nX-A: b\r\n\r\n"),
		bad("bare LF at the end", "GET / HTTP/1.1\r\nHost: shop.test\r\n\n"),
		bad("bare CR behind a line", "GET / HTTP/1.1\r\nHost: shop.test\rX-A: b\r\n\r\n"),
		withHeader("CR CR LF", "X-A: b\r"),
		withHeader("bare CR in a value", "X-A: b\rc"),
		withHeader("folded line", "X-A: b\r\n c"),
		withHeader("folded line with a tab", "X-A: b\r\n\tc"),
		withHeader("empty folded line", "X-A: b\r\n "),
		bad("folded first line", "GET / HTTP/1.1\r\n Host: shop.test\r\n\r\n"),
		bad("space before the first line", "GET / HTTP/1.1\r\n X-A: b\r\n"+toShop+"\r\n"),
		withHeader("NUL in a value", "X-A: b\x00c"),
		withHeader("control byte in a value", "X-A: b\x01c"),
		withHeader("DEL in a value", "X-A: b\x7fc"),
		withHeader("ESC in a value", "X-A: \x1b[2J"),
		withHeader("NUL in a name", "X\x00A: b"),
		withHeader("control byte in a name", "X\x01A: b"),
		withHeader("byte above ASCII in a name", "X\xc3\xa4: b"),
		withHeader("space before a colon", "X-A : b"),
		withHeader("tab before a colon", "X-A\t: b"),
		withHeader("space in a name", "X A: b"),
		withHeader("brackets in a name", "X(A): b"),
		withHeader("quote in a name", `"X-A": b`),
		withHeader("at in a name", "X@A: b"),
		withHeader("slash in a name", "X/A: b"),
		withHeader("empty name", ": b"),
		withHeader("only a colon", ":"),
		withHeader("line without a colon", "X-A"),
		withHeader("second request line", "GET /smuggled HTTP/1.1"),
		withHeader("line of 40 KB", "X-A: "+strings.Repeat("b", 40<<10), 431),
		withHeader("name of 40 KB", strings.Repeat("b", 40<<10)+": a", 431),
		withHeader("64 KB of lines", strings.TrimSuffix(strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 64), "\r\n"), 431),
		withHeader("200 lines", strings.TrimSuffix(strings.Repeat("X-A: b\r\n", 200), "\r\n"), 431),
		withHeader("5000 lines", strings.TrimSuffix(strings.Repeat("a:b\r\n", 5000), "\r\n"), 431),
		withHeader("expectation that is not known", "Expect: a miracle", 417),
		withHeader("Upgrade without Connection and a length in dispute", "Upgrade: websocket\r\nContent-Length: 5\r\nContent-Length: 6"),
	}
}

func hosts() []malformed {
	host := func(name, line string) malformed { return bad(name, "GET / HTTP/1.1\r\n"+line+"\r\n") }
	return []malformed{
		host("no host", ""),
		host("two hosts", toShop+"Host: other.test\r\n"),
		host("the same host twice", toShop+toShop),
		host("two hosts apart", toShop+"X-A: b\r\nHost: other.test\r\n"),
		host("empty host", "Host:\r\n"),
		host("blank host", "Host:   \r\n"),
		host("list of hosts", "Host: shop.test, other.test\r\n"),
		host("host with userinfo", "Host: user@shop.test\r\n"),
		host("host with a space", "Host: shop test\r\n"),
		host("host with a tab", "Host: shop\ttest\r\n"),
		host("host with a path", "Host: shop.test/admin\r\n"),
		host("host with a query", "Host: shop.test?a\r\n"),
		host("host with a fragment", "Host: shop.test#a\r\n"),
		host("host with a backslash", "Host: shop.test\\a\r\n"),
		host("host with a scheme", "Host: http://shop.test\r\n"),
		host("host with NUL", "Host: shop\x00.test\r\n"),
		host("host with a port of letters", "Host: shop.test:http\r\n"),
		host("host with a negative port", "Host: shop.test:-80\r\n"),
		host("host with two ports", "Host: shop.test:80:81\r\n"),
		host("host with a port that is too large", "Host: shop.test:65536\r\n"),
		host("open bracket", "Host: [::1\r\n"),
		host("byte above ASCII in a host", "Host: sh\xc3\xb6p.test\r\n"),
		host("folded host", "Host:\r\n shop.test\r\n"),
		host("space before the colon of the host", "Host : shop.test\r\n"),
		bad("no host on HTTP/1.1 in absolute form", "GET http://shop.test/ HTTP/1.1\r\n\r\n"),
		bad("absolute form and another host", "GET http://shop.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n"),
		bad("absolute form of another host", "GET http://other.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
		bad("absolute form and another port", "GET http://shop.test:81/ HTTP/1.1\r\nHost: shop.test:82\r\n\r\n"),
		bad("absolute form with userinfo", "GET http://user:secret@shop.test/ HTTP/1.1\r\n"+toShop+"\r\n"),
		bad("absolute form of another scheme", "GET ftp://shop.test/ HTTP/1.1\r\n"+toShop+"\r\n"),
		bad("absolute form without a host", "GET http:///a HTTP/1.1\r\n"+toShop+"\r\n"),
		bad("absolute form with one slash", "GET http:/shop.test/ HTTP/1.1\r\n"+toShop+"\r\n"),
	}
}

func lines() []malformed {
	line := func(name, line string, want ...int) malformed { return bad(name, line+"\r\n"+toShop+"\r\n", want...) }
	return []malformed{
		line("HTTP/0.9", "GET /"),
		line("HTTP/0.9 with its number", "GET / HTTP/0.9", 400, 505),
		line("HTTP/1.2", "GET / HTTP/1.2", 400, 505),
		line("HTTP/2.0", "GET / HTTP/2.0", 400, 505),
		line("HTTP/3", "GET / HTTP/3", 400, 505),
		line("HTTP/1", "GET / HTTP/1", 400, 505),
		line("HTTP/1.10", "GET / HTTP/1.10", 400, 505),
		line("HTTP/01.1", "GET / HTTP/01.1", 400, 505),
		line("HTTP/1.1.1", "GET / HTTP/1.1.1", 400, 505),
		line("HTTP/1.1x", "GET / HTTP/1.1x", 400, 505),
		line("lower case http/1.1", "GET / http/1.1", 400, 505),
		line("HTTPS/1.1", "GET / HTTPS/1.1", 400, 505),
		line("HTTP 1.1", "GET / HTTP 1.1", 400, 505),
		line("no version and a space", "GET / "),
		line("two spaces behind the method", "GET  / HTTP/1.1"),
		line("two spaces before the version", "GET /  HTTP/1.1"),
		line("tab behind the method", "GET\t/ HTTP/1.1"),
		line("tab before the version", "GET /\tHTTP/1.1"),
		line("space at the end", "GET / HTTP/1.1 "),
		line("space in front", " GET / HTTP/1.1"),
		line("more words", "GET / HTTP/1.1 HTTP/1.1"),
		line("space in the target", "GET /a b HTTP/1.1"),
		line("CR in the target", "GET /a\rb HTTP/1.1"),
		line("NUL in the target", "GET /a\x00b HTTP/1.1"),
		line("control byte in the target", "GET /a\x01b HTTP/1.1"),
		line("DEL in the target", "GET /a\x7fb HTTP/1.1"),
		line("NUL in the query", "GET /?a\x00b HTTP/1.1"),
		line("fragment in the target", "GET /a#b HTTP/1.1"),
		line("backslash in the target", "GET /a\\..\\b HTTP/1.1"),
		line("escaped NUL in the path", "GET /a%00b HTTP/1.1"),
		line("half an escape", "GET /a%2 HTTP/1.1"),
		line("escape of letters", "GET /a%zz HTTP/1.1"),
		line("target without a slash", "GET index.html HTTP/1.1"),
		line("target of a host", "GET shop.test:80 HTTP/1.1"),
		line("asterisk for GET", "GET * HTTP/1.1"),
		line("target of a query", "GET ?a=b HTTP/1.1"),
		line("no method", "/ HTTP/1.1"),
		line("empty method", " / HTTP/1.1"),
		line("brackets in the method", "G(E)T / HTTP/1.1"),
		line("colon in the method", "GET: / HTTP/1.1"),
		line("byte above ASCII in the method", "G\xc3\xa4T / HTTP/1.1"),
		line("NUL in the method", "G\x00ET / HTTP/1.1"),
		line("target of 40 KB", "GET /"+strings.Repeat("a", 40<<10)+" HTTP/1.1", 414),
		line("query of 40 KB", "GET /?"+strings.Repeat("a", 40<<10)+" HTTP/1.1", 414),
		line("method of 40 KB", strings.Repeat("A", 40<<10)+" / HTTP/1.1", 400, 414, 431, 501),
		bad("an answer for a request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
		bad("bytes of TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n"),
		bad("nonsense", "\xff\xfe\xfd\r\n\r\n"),
		bad("PROXY line that nobody asked for", "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\nGET / HTTP/1.1\r\n"+toShop+"\r\n"),
		bad("preface of HTTP/2 with a header", "PRI * HTTP/2.0\r\n"+toShop+"\r\nSM\r\n\r\n", 400, 505),
	}
}

// seconds are requests that come behind good ones on the same connection.
func seconds() []malformed {
	good := "GET /good HTTP/1.1\r\n" + toShop + "\r\n"
	post := "POST /good HTTP/1.1\r\n" + toShop + "Content-Length: 5\r\n\r\nhello"
	var rows []malformed
	for _, m := range []malformed{
		bad("bare LF behind a good request", good+"GET / HTTP/1.1\n"+toShop+"\r\n"),
		bad("CL and TE behind a good request", good+"POST / HTTP/1.1\r\n"+toShop+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		bad("nonsense behind a body", post+"x\r\n\r\n"),
		bad("longer body than its length", post+"{GET / HTTP/1.1\r\n"+toShop+"\r\n"),
		bad("no host behind a good request", good+"GET / HTTP/1.1\r\n\r\n"),
		bad("large line behind a good request", good+"GET / HTTP/1.1\r\n"+toShop+"X-A: "+strings.Repeat("b", 40<<10)+"\r\n\r\n", 431),
	} {
		m.after = 1
		rows = append(rows, m)
	}
	return rows
}

func TestBehaviour_RefusesWhatIsMalformed(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		rows := everythingMalformed()
		if len(rows) < 200 {
			t.Errorf("%d rows, there were over 200", len(rows))
		}
		for _, m := range rows {
			t.Run(m.name, func(t *testing.T) { m.check(t, f, backend, m.send+next) })
		}
	})
}

// TestBehaviour_RefusesWhatIsMalformedInPieces: what comes byte by byte is judged as the whole.
func TestBehaviour_RefusesWhatIsMalformedInPieces(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		for _, m := range everythingMalformed() {
			if len(m.send) < 400 {
				t.Run(m.name, func(t *testing.T) { m.check(t, f, backend, strings.Split(m.send+next, "")...) })
			}
		}
	})
}

// everythingMalformed is every row, those last of which the back end may get the beginning: it may come late.
func everythingMalformed() []malformed {
	return slices.Concat(lengths(), codings(), headers(), hosts(), lines(), seconds(), chunks())
}

// check sends a malformed request with a good one at its heels, piece by piece.
func (m malformed) check(t *testing.T, f *front, backend *recorder, pieces ...string) {
	backend.take()
	conn := f.dial()
	defer conn.Close()
	go func() { // ends with conn; a proxy that refuses need not read it all
		for _, p := range pieces {
			io.WriteString(conn, p)
		}
	}()
	h := listenFor(conn, 2*time.Second, m.after+2)
	answers := h.answers
	for i := range m.after {
		if len(answers) == 0 || answers[0].status != 200 {
			t.Errorf("answer %d: %v, want 200", i+1, h)
			break
		}
		answers = answers[1:]
	}
	switch {
	case len(answers) == 0:
		t.Errorf("answered %q, want %v", h, m.want)
	case !slices.Contains(m.want, answers[0].status):
		t.Errorf("answered %q, want %v: %s", h, m.want, shorten(h.text))
	case len(answers) > 1:
		t.Errorf("answered %q: something came behind the refusal", h)
	case answers[0].broken != nil:
		t.Errorf("the refusal is not whole: %v: %s", answers[0].broken, shorten(h.text))
	}
	if !h.closed {
		t.Error("the connection was left open")
	}
	n, requests := backend.take()
	whole := 0
	for _, a := range requests {
		if a.whole {
			whole++
		}
		if strings.Contains(a.line, "smuggled") {
			t.Errorf("a request was smuggled: %s", shorten(a.raw))
		}
	}
	if whole > m.after || !m.begun && m.after == 0 && n > 0 {
		t.Errorf("the back end has got %d bytes, %d whole requests: %s", n, whole, fmt.Sprintf("%+v", requests))
	}
}
