package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fault is what a back end does to the first request that it gets. Two replicas share it: once it has
// happened, both answer "ok".
type fault struct {
	name string
	// act has the head of the request, and says whether the connection goes on as if nothing had been.
	act  func(conn *net.TCPConn, in *bufio.Reader, a *arrival) bool
	kept bool // it happens on a connection that has served before
	// What the client sees, and how many times a back end got the request, for a GET, a POST with a length,
	// and a POST in chunks: "502 1", "200 2", "200 broken 1". One word for all three is enough.
	want []string
	big  bool // the POSTs are of 1 MB
	key  bool // the POSTs have an Idempotency-Key
}

// What is right follows from two rules: a request that a back end may have begun with is sent once more only
// if it may be done twice, and after the first byte of an answer nothing is sent once more.
func faults() []fault {
	never, once := []string{"502 1"}, []string{"200 1"}
	repeated := []string{"200 2", "502 1", "502 1"}
	broken := []string{"200 broken 1"} // after nothing at all, clients would ask once more
	raw := func(text string) func(*net.TCPConn, *bufio.Reader, *arrival) bool {
		return func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			a.readBody(in)
			io.WriteString(c, text)
			return false
		}
	}
	head := "HTTP/1.1 200 OK\r\n"
	return append(broken502(raw, never), []fault{
		{name: "closes when it has the head", act: hangUp, want: repeated},
		{name: "closes when it has the head, on a kept connection", act: hangUp, kept: true, want: repeated},
		{name: "resets when it has the head", act: resets, want: repeated},
		{name: "resets when it has the head, on a kept connection", act: resets, kept: true, want: repeated},
		{name: "closes when it has the whole request", act: raw(""), want: repeated},
		{name: "resets when it has the whole request", act: then(raw(""), resets), want: repeated},
		{name: "closes in front of a request with a key", act: raw(""), key: true, want: []string{"200 2", "200 2", "200 2"}},
		{name: "closes in front of a long request with a key", act: hangUp, key: true, big: true, want: []string{"200 2", "200 2 or 502 1", "200 2 or 502 1"}}, // more may have been read than is kept
		{name: "resets within a long request", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			if len(a.header["content-length"])+len(a.header["transfer-encoding"]) > 0 {
				io.CopyN(io.Discard, in, 200<<10)
			}
			return resets(c, in, a)
		}, big: true, want: repeated},
		{name: "sends no more and then nothing", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			a.readBody(in)
			c.CloseWrite()
			in.ReadByte() // until the proxy closes
			return false
		}, want: repeated},
		{name: "closes within the head of the answer", act: raw(head + "Content-Le"), want: never},
		{name: "resets within the head of the answer", act: then(raw(head+"Content-Le"), flushed, resets), want: never},
		{name: "closes within the status line", act: raw("HTT"), want: never},
		{name: "closes within the body", act: raw(head + "Content-Length: 100\r\n\r\npart"), want: broken},
		{name: "resets within the body", act: then(raw(head+"Content-Length: 100\r\n\r\npart"), flushed, resets), want: broken},
		{name: "closes behind a chunk", act: raw(head + "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"), want: broken},
		{name: "closes before the end of the trailers", act: raw(head + "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nX-Sum: 1\r\n"), want: broken},
		{name: "chunk of letters", act: raw(head + "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n"), want: broken},
		{name: "chunk without its end", act: raw(head + "Transfer-Encoding: chunked\r\n\r\n4\r\npart4\r\npart\r\n0\r\n\r\n"), want: broken},
		{name: "resets an answer that goes to the end of the connection", act: then(raw(head+"\r\npart"), flushed, resets), want: broken},
		{name: "early hints and no answer", act: raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), want: never},
		{name: "early hints and an answer", act: raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plainAnswer), want: once},
		{name: "100 and no answer", act: raw("HTTP/1.1 100 Continue\r\n\r\n"), want: never},
		{name: "1000 interim answers", act: raw(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000) + plainAnswer), want: []string{"502 1 or 200 1"}},
		{name: "answer without a length", act: raw(head + "\r\nok"), want: once},
		{name: "answer without a length, half closed", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			raw(head+"\r\nok")(c, in, a)
			c.CloseWrite()
			in.ReadByte() // until the proxy closes
			return false
		}, want: once},
		{name: "half closed behind the answer", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			raw(plainAnswer)(c, in, a)
			c.CloseWrite()
			in.ReadByte() // until the proxy closes
			return false
		}, want: once},
		{name: "second answer behind the first", act: raw(plainAnswer + strings.ReplaceAll(plainAnswer, "ok", "no")), want: once},
		{name: "second answer behind the first, on a connection that stays", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			raw(plainAnswer+strings.ReplaceAll(plainAnswer, "ok", "no"))(c, in, a)
			return true
		}, want: once},
		{name: "more bytes than the length", act: raw(head + "Content-Length: 2\r\n\r\nokmore"), want: once},
		{name: "bytes behind 204", act: raw("HTTP/1.1 204 No Content\r\n\r\nmore"), want: []string{"204 1"}},
		{name: "500", act: raw("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno"), want: []string{"500 1"}},
		{name: "503 that may be asked again", act: raw("HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno"), want: []string{"503 1"}},
		{name: "answers 413 before the body and closes", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			c.CloseWrite()
			io.Copy(io.Discard, in)
			return false
		}, big: true, want: []string{"413 1"}},
		{name: "answers 413 before the body and resets", act: then(func(c *net.TCPConn, in *bufio.Reader, _ *arrival) bool {
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			return false
		}, flushed, hangUp), big: true, want: []string{"413 1"}},
		{name: "answers 200 before the body and reads on", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			io.WriteString(c, plainAnswer)
			_, err := a.readBody(in)
			return err == nil
		}, big: true, want: once},
		{name: "reads slowly", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			a.readBody(bufio.NewReader(&slow{in}))
			io.WriteString(c, plainAnswer)
			return false
		}, big: true, want: once},
		{name: "writes slowly", act: func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
			a.readBody(in)
			for _, b := range []byte(plainAnswer) {
				<-time.After(time.Millisecond)
				c.Write([]byte{b})
			}
			return true
		}, want: once},
	}...)
}

// broken502 are answers that nobody can make sense of.
func broken502(raw func(string) func(*net.TCPConn, *bufio.Reader, *arrival) bool, never []string) (rows []fault) {
	for name, answer := range map[string]string{
		"nonsense":                     "nonsense\r\n\r\n",
		"bytes of TLS":                 "\x15\x03\x01\x00\x02\x02\x16",
		"no status":                    "HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"status of letters":            "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
		"status of two digits":         "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
		"status of four digits":        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/2.0":                     "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"two lengths":                  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
		"negative length":              "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
		"length of letters":            "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
		"chunks and a length":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"coding that is not known":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"line without a colon":         "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok",
		"space before a colon":         "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok",
		"NUL in a value":               "HTTP/1.1 200 OK\r\nX-A: b\x00c\r\nContent-Length: 2\r\n\r\nok",
		"bare CR in a value":           "HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: c=1\r\nContent-Length: 2\r\n\r\nok",
		"head of 2 MB":                 "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 2000) + "Content-Length: 2\r\n\r\nok",
		"line of 2 MB":                 "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("b", 2<<20) + "\r\nContent-Length: 2\r\n\r\nok",
		"switches protocols unasked":   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
		"interim answer with a status": "HTTP/1.1 099 Odd\r\n\r\n" + plainAnswer,
	} {
		rows = append(rows, fault{name: "answers with " + name, act: raw(answer), want: never})
	}
	slices.SortFunc(rows, func(a, b fault) int { return strings.Compare(a.name, b.name) })
	return rows
}

func hangUp(c *net.TCPConn, _ *bufio.Reader, _ *arrival) bool { c.Close(); return false }

func resets(c *net.TCPConn, _ *bufio.Reader, _ *arrival) bool {
	c.SetLinger(0)
	c.Close()
	return false
}

// flushed lets what was written arrive: a reset would take it away.
func flushed(*net.TCPConn, *bufio.Reader, *arrival) bool {
	<-time.After(50 * time.Millisecond)
	return false
}

func then(acts ...func(*net.TCPConn, *bufio.Reader, *arrival) bool) func(*net.TCPConn, *bufio.Reader, *arrival) bool {
	return func(c *net.TCPConn, in *bufio.Reader, a *arrival) bool {
		for _, act := range acts {
			act(c, in, a)
		}
		return false
	}
}

// slow reads 32 KB every millisecond.
type slow struct{ from io.Reader }

func (s *slow) Read(p []byte) (int, error) {
	<-time.After(time.Millisecond)
	return s.from.Read(p[:min(len(p), 32<<10)])
}

// faultyBackend is two replicas of one fault.
type faultyBackend struct {
	fault
	armed atomic.Bool  // the next request meets the fault
	acted atomic.Bool  // it has done what it does
	seen  atomic.Int64 // requests for /fault
	conns [2]atomic.Int64
}

func (b *faultyBackend) replica(t *testing.T, i int) string {
	return accept(t, func(conn net.Conn) {
		b.conns[i].Add(1)
		in := bufio.NewReader(conn)
		for {
			a, err := readHead(in)
			if err != nil {
				return
			}
			if strings.Contains(a.line, "/fault") {
				b.seen.Add(1)
				if b.armed.CompareAndSwap(true, false) {
					if b.act(conn.(*net.TCPConn), in, a) {
						b.acted.Store(true)
						continue
					}
					conn.Close()
					b.acted.Store(true)
					return
				}
			}
			if _, err := a.readBody(in); err != nil {
				return
			}
			io.WriteString(conn, plainAnswer)
		}
	})
}

func TestBehaviour_SurvivesFaultsOfBackEnds(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		for _, row := range faults() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				b := &faultyBackend{fault: row}
				f := serve(t, engine, b.replica(t, 0), b.replica(t, 1))
				for i, kind := range []string{"GET", "POST", "chunked"} {
					b.check(t, f, kind, row.want[min(i, len(row.want)-1)])
				}
			})
		}
	})
}

// check sends one request into the fault, and one behind it that must not be the worse for it.
func (b *faultyBackend) check(t *testing.T, f *front, kind, want string) {
	for b.kept && (b.conns[0].Load() == 0 || b.conns[1].Load() == 0) {
		f.say(ask("/", "Connection: close"), patient)
	}
	b.acted.Store(false)
	b.seen.Store(0)
	b.armed.Store(true)
	conn := f.dial()
	defer conn.Close()
	go io.WriteString(conn, b.request(kind)) // ends with conn
	r := bufio.NewReader(conn)
	got, why := "closed", ""
	for {
		a, err := readReply(r, "GET")
		if err == nil && a.status < 200 {
			continue
		}
		if err == nil {
			got, why = fmt.Sprint(a.status), a.header.Get("X-Spillway-Reason")
			if a.broken != nil {
				got += " broken"
			} else if a.status == 200 && a.body != "ok" {
				t.Errorf("%s: body %s", kind, shorten(a.body))
			}
		}
		break
	}
	got += fmt.Sprint(" ", b.seen.Load())
	for tick := time.Now(); !b.armed.Load() && !b.acted.Load() && time.Since(tick) < time.Second; {
		<-time.After(time.Millisecond) // a connection that it ends must be closed before the next request
	}
	if !slices.Contains(strings.Split(want, " or "), got) {
		t.Errorf("%s: got %s, want %s %s", kind, got, want, why)
	}
	if h := f.say(ask("/next", "Connection: close"), 2*time.Second); h.String() != "200 closed" || h.answers[0].body != "ok" {
		t.Errorf("%s: the next request: %q %s", kind, h, shorten(h.text))
	}
}

func (b *faultyBackend) request(kind string) string {
	body, lines := "hello", ""
	if b.big {
		body = strings.Repeat("0123456789abcdef", 64<<10)
	}
	if b.key {
		lines = "Idempotency-Key: 1\r\n"
	}
	switch kind {
	case "POST":
		return fmt.Sprintf("POST /fault HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s", toShop, lines, len(body), body)
	case "chunked":
		return fmt.Sprintf("POST /fault HTTP/1.1\r\n%s%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", toShop, lines, len(body), body)
	}
	return ask("/fault")
}

// TestBehaviour_SurvivesBackEndsThatAreNotThere: what no back end can have seen goes to another one.
func TestBehaviour_SurvivesBackEndsThatAreNotThere(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		gone := func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.2:0") // no other test listens there
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			return l.Addr().String()
		}
		for _, c := range []struct{ name, want string }{{"one of two refuses", "200 1"}, {"both refuse", "502 0"}, {"one of two has closed its kept connections", "200 1"}} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				for _, kind := range []string{"GET", "POST", "chunked"} {
					b := &faultyBackend{fault: fault{act: hangUp}}
					var f *front
					switch c.name {
					case "one of two refuses":
						f = serve(t, engine, gone(t), b.replica(t, 0))
					case "both refuse":
						f = serve(t, engine, gone(t), gone(t))
					default:
						f = serve(t, engine, closesIdle(t, b))
						f.say(ask("/", "Connection: close"), patient)
						<-time.After(50 * time.Millisecond) // the end of the idle connection has come by now
					}
					for range 5 {
						b.seen.Store(0)
						h := f.say(strings.Replace(b.request(kind), "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1), 4*time.Second)
						got := "closed"
						if len(h.answers) > 0 {
							got = fmt.Sprint(h.answers[0].status)
						}
						if got += fmt.Sprint(" ", b.seen.Load()); got != c.want {
							t.Errorf("%s: got %s, want %s", kind, got, c.want)
						}
						if c.name == "both refuse" {
							break
						}
						<-time.After(20 * time.Millisecond)
					}
				}
			})
		}
	})
}

// closesIdle is a back end that closes each connection behind one answer, without having said so.
func closesIdle(t *testing.T, b *faultyBackend) string {
	return accept(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		a, err := readHead(in)
		if err != nil {
			return
		}
		if _, err := a.readBody(in); err == nil {
			b.seen.Add(1)
			io.WriteString(conn, plainAnswer)
		}
	})
}
