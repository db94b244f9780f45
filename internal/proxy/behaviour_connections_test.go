package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// holding is a back end that says by the path what it does with a body that the client holds back.
func holding(t *testing.T) string {
	return accept(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		a, err := readHead(in)
		if err != nil {
			return
		}
		switch strings.Fields(a.line)[1] {
		case "/refuse":
			io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			return
		case "/expect":
			io.WriteString(conn, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		case "/continue":
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := a.readBody(in)
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
		}
	})
}

func TestBehaviour_AsksForABodyOnlyWhenItIsWanted(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, holding(t))
		for _, c := range []struct {
			path, version string
			wait          bool // the client sends its body when it is asked for it
			want          string
		}{
			{"/continue", "HTTP/1.1", true, "100 200"},
			{"/read", "HTTP/1.1", true, "100 200"}, // a back end that knows no 100 gets the body after a while
			{"/refuse", "HTTP/1.1", true, "413"},
			{"/expect", "HTTP/1.1", true, "417"},
			{"/read", "HTTP/1.1", false, "100 200 or 200"},
			{"/read", "HTTP/1.0", false, "200"},
		} {
			t.Run(fmt.Sprint(c.path, " ", c.version, " ", c.wait), func(t *testing.T) {
				conn := f.dial()
				head := "POST " + c.path + " " + c.version + "\r\n" + toShop + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
				if !c.wait {
					head += "hello"
				}
				io.WriteString(conn, head)
				r := bufio.NewReader(conn)
				var seen []string
				var last reply
				for last.status < 200 {
					var err error
					if last, err = readReply(r, "POST"); err != nil {
						t.Fatalf("after %v: %v", seen, err)
					}
					seen = append(seen, fmt.Sprint(last.status))
					if last.status == 100 && c.wait {
						io.WriteString(conn, "hello")
					}
				}
				if got := strings.Join(seen, " "); got != c.want && !strings.HasPrefix(c.want, got+" or") && !strings.HasSuffix(c.want, "or "+got) {
					t.Errorf("got %s, want %s", got, c.want)
				}
				if last.status == 200 && last.body != "hello" {
					t.Errorf("the back end got %q", last.body)
				}
			})
		}
	})
}

func TestBehaviour_KeepsAndClosesConnections(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		stream := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
		addr, conns := script(t, map[string]page{
			"/ok": {bytes: plainAnswer}, "/stream": {bytes: stream}, "/hints": {bytes: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plainAnswer},
			"/end": {bytes: "HTTP/1.1 200 OK\r\n\r\nhello", end: true}, "/204": {bytes: "HTTP/1.1 204 No Content\r\n\r\n"},
		})
		f := serve(t, engine, addr)
		old := func(path string, lines ...string) string {
			return strings.Replace(ask(path, lines...), "HTTP/1.1", "HTTP/1.0", 1)
		}
		for _, c := range []struct{ name, send, want, body string }{
			{"two requests", ask("/ok") + ask("/ok", "Connection: close"), "200 200 closed", "ok"},
			{"close", ask("/ok", "Connection: close"), "200 closed", "ok"},
			{"close in upper case among others", ask("/ok", "Connection: keep-alive, CLOSE"), "200 closed", "ok"},
			{"close on a second line", ask("/ok", "Connection: X-A", "Connection: close"), "200 closed", "ok"},
			{"nothing behind close is answered", ask("/ok", "Connection: close") + ask("/ok"), "200 closed", "ok"},
			{"HTTP/1.0", old("/ok"), "200 closed", "ok"},
			{"HTTP/1.0 and nothing behind it", old("/ok") + old("/ok"), "200 closed", "ok"},
			{"HTTP/1.0 with keep-alive", old("/ok", "Connection: keep-alive") + old("/ok", "Connection: Keep-Alive") + old("/ok"), "200 200 200 closed", "ok"},
			{"HTTP/1.0 with close and keep-alive", old("/ok", "Connection: keep-alive, close") + old("/ok"), "200 closed", "ok"},
			{"HTTP/1.0 gets no chunks", old("/stream"), "200 closed", "hello"},
			{"HTTP/1.0 with keep-alive gets no chunks", old("/stream", "Connection: keep-alive"), "200 closed", "hello"},
			{"HTTP/1.0 and an answer to the end", old("/end"), "200 closed", "hello"},
			{"HTTP/1.0 gets no interim answer", old("/hints"), "200 closed", "ok"},
			{"HTTP/1.0 with keep-alive and no body", old("/204", "Connection: keep-alive") + old("/ok"), "204 200 closed", "ok"},
			{"pipeline of many kinds", ask("/stream") + ask("/204") + ask("/end") + ask("/ok") + ask("/stream", "Connection: close"), "200 204 200 200 200 closed", "hello"},
		} {
			t.Run(c.name, func(t *testing.T) {
				h := f.say(c.send, 2*time.Second)
				if h.String() != c.want || h.answers[len(h.answers)-1].body != c.body {
					t.Errorf("got %q, want %q: %s", h, c.want, shorten(h.text))
				}
				if strings.Contains(c.name, "no chunks") && strings.Contains(h.text, "chunked") {
					t.Errorf("a client of HTTP/1.0 got chunks: %s", shorten(h.text))
				}
			})
		}
		t.Run("a client that closes costs no connection to the back end", func(t *testing.T) {
			f.say(ask("/ok", "Connection: close"), time.Second)
			before := conns.Load()
			for range 10 {
				f.say(ask("/ok", "Connection: close"), time.Second)
			}
			if n := conns.Load() - before; n > 3 { // one may be wanted while another is just being put back
				t.Errorf("10 requests made %d connections to the back end", n)
			}
		})
	})
}

// TestBehaviour_AnswersAPipelineInOrder sends it whole, in two pieces at every place, and byte by byte.
func TestBehaviour_AnswersAPipelineInOrder(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, accept(t, func(conn net.Conn) {
			in := bufio.NewReader(conn)
			for {
				a, err := readHead(in)
				if err != nil {
					return
				}
				body, err := a.readBody(in)
				if err != nil {
					return
				}
				text := strings.Fields(a.line)[1] + body
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			}
		}))
		pipeline := ask("/1") + "POST /2 HTTP/1.1\r\n" + toShop + "Content-Length: 5\r\n\r\nhello" +
			"POST /3 HTTP/1.1\r\n" + toShop + "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n" + ask("/4") + ask("/5", "Connection: close")
		check := func(t *testing.T, pieces ...string) {
			t.Helper()
			conn := f.dial()
			defer conn.Close()
			go func() { // ends with conn
				for _, p := range pieces {
					io.WriteString(conn, p)
				}
			}()
			h := listen(conn, patient)
			got := ""
			for _, a := range h.answers {
				got += a.body
			}
			if got != "/1/2hello/3hello/4/5" || !h.closed {
				t.Errorf("%d pieces, the first of %d bytes: %q %q", len(pieces), len(pieces[0]), h, got)
			}
		}
		check(t, pipeline)
		check(t, strings.Split(pipeline, "")...)
		for i := 1; i < len(pipeline); i += 3 {
			check(t, pipeline[:i], pipeline[i:])
		}
	})
}

// TestBehaviour_StreamsBothWays: what a client sends reaches the back end before its end, and the other way,
// at the same time.
func TestBehaviour_StreamsBothWays(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, accept(t, func(conn net.Conn) {
			in := bufio.NewReader(conn)
			if _, err := readHead(in); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			io.Copy(conn, in) // the chunks of the client are those of the answer
		}))
		conn := f.dial()
		io.WriteString(conn, "POST / HTTP/1.1\r\n"+toShop+"Transfer-Encoding: chunked\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 6)
		for i := range 20 {
			word := fmt.Sprintf("word%02d", i)
			fmt.Fprintf(conn, "6\r\n%s\r\n", word)
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
				t.Fatalf("got %q %v, want %s", got, err, word)
			}
		}
		io.WriteString(conn, "0\r\n\r\n")
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("the end: %q %v", rest, err)
		}
	})
}

// TestBehaviour_AnswersAClientThatSendsNoMore: it has said everything, and not that it goes.
func TestBehaviour_AnswersAClientThatSendsNoMore(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, accept(t, func(conn net.Conn) {
			in := bufio.NewReader(conn)
			if a, err := readHead(in); err == nil {
				a.readBody(in)
				<-time.After(100 * time.Millisecond)
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
			}
		}))
		for _, send := range []string{ask("/"), "POST / HTTP/1.1\r\n" + toShop + "Content-Length: 5\r\n\r\nhello"} {
			conn := f.dial()
			io.WriteString(conn, send)
			conn.CloseWrite()
			if h := listen(conn, patient); h.String() != "200 closed" {
				t.Errorf("%.4s: %q", send, h)
			}
		}
	})
}
