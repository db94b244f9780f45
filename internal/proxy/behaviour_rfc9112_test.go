package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// conformance is one of the 33 strict cases that dropseed/h1spec asks of a server, in our own words.
type conformance struct {
	section string // of RFC 9112, or what else it is about
	name    string
	send    string
	// half: the client sends no more after this, as that suite's does. An answer has to come all the same.
	half bool
	// ok says what is wrong with what came back; "" = nothing.
	ok func(heard) string
}

func statusIn(want ...int) func(heard) string {
	return func(h heard) string {
		if len(h.answers) == 0 || h.answers[0].broken != nil || !slices.Contains(want, h.answers[0].status) {
			return fmt.Sprintf("want one of %v", want)
		}
		return ""
	}
}

// refusedThenClosed wants 400 or an end of the connection, and nothing behind it.
func refusedThenClosed(h heard) string {
	switch {
	case len(h.answers) > 1:
		return "want one answer at most"
	case len(h.answers) == 1 && h.answers[0].status != 400:
		return "want 400"
	case !h.closed:
		return "want the connection closed"
	}
	return ""
}

// accepted wants an answer that is no complaint about the syntax.
func accepted(h heard) string {
	if len(h.answers) == 0 || h.answers[0].status < 200 || h.answers[0].status == 400 || h.answers[0].broken != nil {
		return "want an answer other than 400"
	}
	return ""
}

func conformances() []conformance {
	host := toShop
	hello := "5\r\nhello\r\n0\r\n\r\n"
	return []conformance{
		{"request line", "a plain GET is answered", "GET / HTTP/1.1\r\n" + host + "\r\n", true, statusIn(200)},
		{"request line", "a POST with a length is taken", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", true, accepted},
		{"request line", "the asterisk form is understood", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", true, accepted},
		{"request line", "the absolute form is understood", "GET http://shop.test/ HTTP/1.1\r\n" + host + "\r\n", true, accepted},
		{"request line", "the authority form of CONNECT is understood", "CONNECT shop.test:443 HTTP/1.1\r\n" + host + "\r\n", true, accepted},
		{"request line", "another major version is refused", "GET / HTTP/2.0\r\n" + host + "\r\n", true, statusIn(400, 505)},
		{"request line", "a line without a version is refused", "GET /\r\n" + host + "\r\n", true, statusIn(400)},
		{"header", "no Host", "GET / HTTP/1.1\r\n\r\n", true, statusIn(400)},
		{"header", "two Hosts", "GET / HTTP/1.1\r\n" + host + "Host: other.test\r\n\r\n", true, statusIn(400)},
		{"header", "a Host with a space", "GET / HTTP/1.1\r\nHost: shop test\r\n\r\n", true, statusIn(400)},
		{"header", "a name with a space", "GET / HTTP/1.1\r\n" + host + "X A: b\r\n\r\n", true, statusIn(400)},
		{"header", "a folded line", "GET / HTTP/1.1\r\n" + host + "  more\r\n\r\n", true, statusIn(400)},
		{"header", "a space before the colon", "GET / HTTP/1.1\r\nHost : shop.test\r\n\r\n", true, statusIn(400)},
		{"header", "NUL in a value", "GET / HTTP/1.1\r\nHost: shop\x00.test\r\n\r\n", true, statusIn(400)},
		{"body", "chunks are taken", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n" + hello, true, accepted},
		{"body", "chunks on HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n" + hello, true, statusIn(400)},
		{"body", "chunks and a length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + hello, true, statusIn(400)},
		{"body", "chunks and a length end the connection", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + hello + next, false, refusedThenClosed},
		{"body", "a coding that is not known", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: nonsense\r\n\r\nhello", true, statusIn(400, 501)},
		{"body", "chunked is not the last coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, gzip\r\n\r\n" + hello + next, false, refusedThenClosed},
		{"body", "a length that is no number", "POST / HTTP/1.1\r\n" + host + "Content-Length: xyz\r\n\r\nhello", true, statusIn(400)},
		{"body", "two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello!!", true, statusIn(400)},
		{"body", "a chunk size that is no number", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nZ\r\nhello\r\n0\r\n\r\n" + next, false, refusedThenClosed},
		{"body", "a chunk without its end", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n" + next, false, refusedThenClosed},
		{"answer", "HEAD has no body", "HEAD / HTTP/1.1\r\n" + host + "\r\n", true, func(h heard) string {
			if _, body, _ := strings.Cut(h.text, "\r\n\r\n"); len(h.answers) == 0 || body != "" {
				return "want a head and nothing behind it"
			}
			return ""
		}},
		{"answer", "a refusal says where it ends", "g(e)t / HTTP/1.1\r\n" + host + "\r\n", true, func(h heard) string {
			if len(h.answers) == 0 {
				return "want an answer"
			}
			head := h.answers[0].header
			if head.Get("Content-Length") == "" && head.Get("Transfer-Encoding") == "" && !strings.EqualFold(head.Get("Connection"), "close") {
				return "want a length, chunks or Connection: close"
			}
			return ""
		}},
		{"connection", "it closes when it is asked to", "GET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", false, answeredAndClosed},
		{"connection", "HTTP/1.0 closes", "GET / HTTP/1.0\r\n" + host + "\r\n", false, answeredAndClosed},
		{"limits", "a request line of 9 KB", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\n" + host + "\r\n", true, anyAnswer},
		{"limits", "102 lines", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 101) + "\r\n", true, anyAnswer},
		{"limits", "a line of 9 KB", "GET / HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("b", 9000) + "\r\n\r\n", true, anyAnswer},
	}
}

func answeredAndClosed(h heard) string {
	if len(h.answers) != 1 || h.answers[0].status != 200 || !h.closed {
		return "want 200 and the connection closed"
	}
	return ""
}

func anyAnswer(h heard) string {
	if len(h.answers) != 1 || h.answers[0].broken != nil {
		return "want one whole answer"
	}
	return ""
}

// TestBehaviour_ConformsToRFC9112 has the two of the 33 cases in it that take two steps.
func TestBehaviour_ConformsToRFC9112(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		rows := conformances()
		if len(rows)+2 != 33 {
			t.Errorf("%d cases, want 33", len(rows)+2)
		}
		for _, c := range rows {
			t.Run(c.section+": "+c.name, func(t *testing.T) {
				conn := f.dial()
				defer conn.Close()
				// A proxy that has refused already may not take the rest.
				_, _ = io.WriteString(conn, c.send)
				if c.half {
					_ = conn.CloseWrite()
				}
				method, _, _ := strings.Cut(c.send, " ")
				if h := listen(conn, 2*time.Second, method); c.ok(h) != "" {
					t.Errorf("answered %q: %s: %s", h, c.ok(h), shorten(h.text))
				}
				if a := f.say("GET / HTTP/1.1\r\n"+toShop+"Connection: close\r\n\r\n", time.Second); a.String() != "200 closed" {
					t.Errorf("afterwards a plain request was answered %q", a)
				}
			})
		}
		t.Run("connection: it stays open", func(t *testing.T) { keepsOpen(t, f) })
		t.Run("body: it asks for a body that is held back", func(t *testing.T) { asksForBody(t, f) })
	})
}

func keepsOpen(t *testing.T, f *front) {
	conn := f.dial()
	r := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
		if a, err := readReply(r, "GET"); err != nil || a.status != 200 {
			t.Errorf("%d %v", a.status, err)
		}
	}
}

func asksForBody(t *testing.T, f *front) {
	conn := f.dial()
	r := bufio.NewReader(conn)
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if a, err := readReply(r, "POST"); err != nil || a.status != 100 {
		t.Fatalf("%d %v, want 100", a.status, err)
	}
	io.WriteString(conn, "hello")
	if a, err := readReply(r, "POST"); err != nil || a.status != 200 {
		t.Errorf("%d %v, want 200", a.status, err)
	}
}
