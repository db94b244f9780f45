package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// page is what a scripted back end answers: the bytes, and perhaps the end of the connection.
type page struct {
	bytes string
	end   bool
}

// script is a back end that answers by the path, and the number of connections that it got.
func script(t *testing.T, pages map[string]page) (addr string, conns *atomic.Int64) {
	conns = new(atomic.Int64)
	return accept(t, func(conn net.Conn) {
		conns.Add(1)
		in := bufio.NewReader(conn)
		for {
			a, err := readHead(in)
			if err != nil {
				return
			}
			if _, err := a.readBody(in); err != nil {
				return
			}
			p := pages[strings.Fields(a.line)[1]]
			if _, err := io.WriteString(conn, p.bytes); err != nil || p.end || p.bytes == "" {
				return
			}
		}
	}), conns
}

func ask(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\n" + toShop + strings.Join(append(lines, "", ""), "\r\n")
}

// answered is what a client has to see for one page.
type answered struct {
	name    string
	method  string // "" = GET
	page    page
	want    string            // "103 200"
	body    string            // of the last answer
	header  map[string]string // "" = must not be there
	trailer string            // "X-Sum: 1"; also with "" it has to fit
}

func answers() []answered {
	ok := func(lines, body string) string { return "HTTP/1.1 200 OK\r\n" + lines + "\r\n" + body }
	return []answered{
		{name: "length", page: page{bytes: ok("Content-Length: 5\r\n", "hello")}, want: "200", body: "hello", header: map[string]string{"Content-Length": "5", "Transfer-Encoding": ""}},
		{name: "length nought", page: page{bytes: ok("Content-Length: 0\r\n", "")}, want: "200", header: map[string]string{"Content-Length": "0"}},
		{name: "chunked", page: page{bytes: ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")}, want: "200", body: "hello", header: map[string]string{"Content-Length": "", "Transfer-Encoding": "chunked"}},
		{name: "trailers", page: page{bytes: ok("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")}, want: "200", body: "hello", trailer: "X-Sum: 1"},
		{name: "trailers that were not announced", page: page{bytes: ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")}, want: "200", body: "hello", trailer: "X-Sum: 1"},
		{name: "to the end of the connection", page: page{bytes: ok("", "hello"), end: true}, want: "200", body: "hello", header: map[string]string{"Transfer-Encoding": "chunked"}},
		{name: "HTTP/1.0 back end", page: page{bytes: "HTTP/1.0 200 OK\r\n\r\nhello", end: true}, want: "200", body: "hello"},
		{name: "HTTP/1.0 back end with a length", page: page{bytes: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", end: true}, want: "200", body: "hello"},
		{name: "back end that closes", page: page{bytes: ok("Content-Length: 5\r\nConnection: close\r\n", "hello"), end: true}, want: "200", body: "hello", header: map[string]string{"Connection": ""}},
		{name: "HEAD", method: "HEAD", page: page{bytes: ok("Content-Length: 5\r\n", "")}, want: "200", header: map[string]string{"Content-Length": "5"}},
		{name: "HEAD of chunks", method: "HEAD", page: page{bytes: ok("Transfer-Encoding: chunked\r\n", "")}, want: "200"},
		{name: "204", page: page{bytes: "HTTP/1.1 204 No Content\r\n\r\n"}, want: "204", header: map[string]string{"Content-Length": "", "Transfer-Encoding": ""}},
		{name: "304", page: page{bytes: "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"}, want: "304", header: map[string]string{"Etag": `"a"`, "Transfer-Encoding": ""}},
		{name: "304 with a length", page: page{bytes: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"}, want: "304", header: map[string]string{"Transfer-Encoding": ""}},
		{name: "early hints", page: page{bytes: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok("Content-Length: 2\r\n", "ok")}, want: "103 200", body: "ok", header: map[string]string{"Link": ""}},
		{name: "several interim answers", page: page{bytes: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 3) + "HTTP/1.1 102 Processing\r\n\r\n" + ok("Content-Length: 2\r\n", "ok")}, want: "103 103 103 102 200", body: "ok"},
		{name: "100 that nobody asked for", page: page{bytes: "HTTP/1.1 100 Continue\r\n\r\n" + ok("Content-Length: 2\r\n", "ok")}, want: "200", body: "ok"},
		{name: "reason of its own", page: page{bytes: "HTTP/1.1 299 Fine, thanks\r\nContent-Length: 0\r\n\r\n"}, want: "299"},
		{name: "no reason", page: page{bytes: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"}, want: "200"},
		{name: "status 999", page: page{bytes: "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"}, want: "999"},
		{name: "several cookies", page: page{bytes: ok("Set-Cookie: a=1\r\nContent-Length: 0\r\nset-cookie: b=2\r\nSet-Cookie: a=3\r\n", "")}, want: "200", header: map[string]string{"Set-Cookie": "a=1|b=2|a=3"}},
		{name: "fields of one connection", page: page{bytes: ok("Connection: X-One, keep-alive\r\nX-One: 1\r\nX-Two: 2\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 0\r\n", "")}, want: "200",
			header: map[string]string{"X-One": "", "X-Two": "2", "Keep-Alive": "", "Connection": "", "Proxy-Authenticate": "", "Upgrade": ""}},
		{name: "release of somebody else", page: page{bytes: ok("X-Spillway-Release: 99\r\nContent-Length: 0\r\n", "")}, want: "200", header: map[string]string{"X-Spillway-Release": "1"}},
		{name: "Server, Date and Via are the back end's", page: page{bytes: ok("Server: a\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nVia: 1.1 b\r\nContent-Length: 0\r\n", "")}, want: "200",
			header: map[string]string{"Server": "a", "Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Via": "1.1 b"}},
		{name: "no type is guessed", page: page{bytes: ok("Content-Length: 6\r\n", "<html>")}, want: "200", body: "<html>", header: map[string]string{"Content-Type": ""}},
		{name: "empty and odd values", page: page{bytes: ok("X-A:\r\nX-B: \xc3\xa4\tb\r\nContent-Length: 0\r\n", "")}, want: "200", header: map[string]string{"X-B": "\xc3\xa4\tb"}},
		{name: "compressed body is left alone", page: page{bytes: ok("Content-Encoding: gzip\r\nContent-Length: 3\r\n", "\x1f\x8b\x08")}, want: "200", body: "\x1f\x8b\x08", header: map[string]string{"Content-Encoding": "gzip", "Content-Length": "3"}},
		{name: "200 lines", page: page{bytes: ok(strings.Repeat("X-A: b\r\n", 200)+"Content-Length: 0\r\n", "")}, want: "200"},
		{name: "line of 30 KB", page: page{bytes: ok("X-A: "+strings.Repeat("b", 30<<10)+"\r\nContent-Length: 0\r\n", "")}, want: "200"},
		{name: "2 MB", page: page{bytes: ok(fmt.Sprintf("Content-Length: %d\r\n", 2<<20), strings.Repeat("a", 2<<20))}, want: "200", body: strings.Repeat("a", 2<<20)},
	}
}

// TestBehaviour_PassesAnswers asks twice on one connection: after an answer of any kind it is good for another.
func TestBehaviour_PassesAnswers(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		rows, pages := answers(), map[string]page{"/ok": {bytes: plainAnswer}}
		for i, a := range rows {
			pages[fmt.Sprint("/", i)] = a.page
		}
		addr, _ := script(t, pages)
		f := serve(t, engine, addr)
		for i, a := range rows {
			t.Run(a.name, func(t *testing.T) { a.check(t, f, fmt.Sprint("/", i)) })
		}
	})
}

func (a answered) check(t *testing.T, f *front, path string) {
	method := a.method
	if method == "" {
		method = "GET"
	}
	conn := f.dial()
	defer conn.Close()
	io.WriteString(conn, strings.Replace(ask(path), "GET", method, 1))
	r := bufio.NewReader(conn)
	var seen []string
	var last reply
	for last.status < 200 {
		var err error
		if last, err = readReply(r, method); err != nil || last.broken != nil {
			t.Fatalf("after %v: %v %v", seen, err, last.broken)
		}
		seen = append(seen, fmt.Sprint(last.status))
		if last.status == 103 && last.header.Get("Link") != "</a>" {
			t.Errorf("early hints: %v", last.header)
		}
	}
	if got := strings.Join(seen, " "); got != a.want || last.body != a.body {
		t.Errorf("got %s %s, want %s %s", got, shorten(last.body), a.want, shorten(a.body))
	}
	for name, want := range a.header {
		if got := strings.Join(last.header.Values(name), "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	trailer := ""
	for name, values := range last.trailer {
		trailer += name + ": " + strings.Join(values, ",")
	}
	if trailer != a.trailer {
		t.Errorf("trailer %q, want %q", trailer, a.trailer)
	}
	io.WriteString(conn, ask("/ok"))
	if next, err := readReply(r, "GET"); err != nil || next.body != "ok" {
		t.Errorf("the next request on the connection: %d %s %v", next.status, shorten(next.body), err)
	}
}

// upgrades is a back end that switches protocols, greets in the same write, and echoes until the end.
func upgrades(t *testing.T) string {
	return accept(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if a, err := readHead(in); err != nil || !slices.Equal(a.header["upgrade"], []string{"websocket"}) {
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
		io.Copy(conn, in)
	})
}

const switching = "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"

func TestBehaviour_SwitchesProtocolsWithoutLosingAByte(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, upgrades(t))
		big := strings.Repeat("0123456789abcdef", 16<<10) // more than any buffer
		for _, c := range []struct{ name, with, later string }{
			{"nothing with it", "", "later"},
			{"bytes with the request", "early", "later"},
			{"bytes with the request only", "early", ""},
			{"many bytes with the request", big, "later"},
			{"many bytes later", "", big},
		} {
			t.Run(c.name, func(t *testing.T) {
				conn := f.dial()
				go io.WriteString(conn, switching+c.with) // ends with conn
				r := bufio.NewReader(conn)
				a, err := readReply(r, "GET")
				if err != nil || a.status != 101 || a.header.Get("Upgrade") != "websocket" || a.header.Get("Sec-Websocket-Accept") != "x" || a.header.Get("X-Spillway-Release") != "1" {
					t.Fatalf("%d %v %v", a.status, a.header, err)
				}
				go func() { // ends with conn
					io.WriteString(conn, c.later)
					conn.CloseWrite()
				}()
				got, err := io.ReadAll(r)
				if want := "welcome" + c.with + c.later; err != nil || string(got) != want {
					t.Errorf("got %s %v, want %s", shorten(string(got)), err, shorten(want))
				}
			})
		}
		t.Run("refused by the back end", func(t *testing.T) {
			if h := f.say(strings.Replace(switching, "websocket", "other", 1)+"early", time.Second); len(h.answers) == 0 || h.answers[0].status != 400 {
				t.Errorf("%q", h)
			}
		})
	})
}

// TestBehaviour_DoesNotSwitchUnasked: an answer 101 to a plain request is no answer.
func TestBehaviour_DoesNotSwitchUnasked(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		addr, _ := script(t, map[string]page{"/": {bytes: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + plainAnswer}})
		f := serve(t, engine, addr)
		if h := f.say(ask("/", "Connection: close"), 2*time.Second); h.String() != "502 closed" {
			t.Errorf("%q: %s", h, shorten(h.text))
		}
	})
}

// TestBehaviour_TellsWhomItForwardsFor: only a client on this machine is believed.
func TestBehaviour_TellsWhomItForwardsFor(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		spoof := ask("/", "X-Forwarded-For: 203.0.113.9", "x-forwarded-for: 203.0.113.8", "X-Forwarded-Proto: https", "X-Forwarded-Host: other.test", "Forwarded: for=203.0.113.9", "X-Spillway-Rescued: 1", "X-Spillway-Synthetic: 1", "X-Spillway-Bucket: 1", "Connection: close")
		conn := f.dial()
		io.WriteString(conn, spoof)
		io.ReadAll(conn)
		check := func(who string, want map[string]string) {
			t.Helper()
			_, requests := backend.take()
			if len(requests) != 1 {
				t.Fatalf("%s: %d requests", who, len(requests))
			}
			for name, value := range want {
				if got := strings.Join(requests[0].header[name], ", "); got != value {
					t.Errorf("%s: %s: %q, want %q", who, name, got, value)
				}
			}
		}
		check("a client on this machine", map[string]string{
			"x-forwarded-for": "203.0.113.9, 203.0.113.8, 127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": "other.test",
			"x-spillway-rescued": "", "x-spillway-synthetic": "",
		})
		own := ownAddress(t)
		far, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: own.AsSlice()}}).Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		far.SetDeadline(time.Now().Add(patient))
		io.WriteString(far, spoof)
		io.ReadAll(far)
		check("a client elsewhere", map[string]string{
			"x-forwarded-for": own.String(), "x-forwarded-proto": "http", "x-forwarded-host": "shop.test", "forwarded": "",
			"x-spillway-rescued": "", "x-spillway-synthetic": "",
		})
	})
}

// ownAddress is an address of this machine that is not its loopback: from there to 127.0.0.1, a client looks
// to the proxy like one from elsewhere.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			return prefix.Addr()
		}
	}
	t.Skip("this machine has no address but its loopback, so nobody can come from elsewhere")
	return netip.Addr{}
}

// TestBehaviour_PassesASlowBodyInPieces: the back end goes on when the client has got what there is so far.
func TestBehaviour_PassesASlowBodyInPieces(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		const pieces = 4
		next := make(chan struct{})
		f := serve(t, engine, accept(t, func(conn net.Conn) {
			if _, err := readHead(bufio.NewReader(conn)); err != nil {
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", pieces)
			for range next {
				io.WriteString(conn, "x")
			}
		}))
		defer close(next)
		conn := f.dial()
		conn.SetDeadline(time.Now().Add(patient))
		io.WriteString(conn, ask("/"))
		r := bufio.NewReader(conn)
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatalf("the head is kept back: %v", err)
			}
		}
		for i := range pieces {
			next <- struct{}{}
			if _, err := r.ReadByte(); err != nil {
				t.Fatalf("piece %d is kept back: %v", i+1, err)
			}
		}
	})
}

// TestBehaviour_PassesEventsAtOnce measures how long an event takes from the write of the back end to the
// client, as the median of many: single ones may meet a busy machine.
func TestBehaviour_PassesEventsAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		for _, framing := range []string{"", "Transfer-Encoding: chunked\r\n"} {
			sent, next := make(chan time.Time, 1), make(chan struct{})
			f := serve(t, engine, accept(t, func(conn net.Conn) {
				if _, err := readHead(bufio.NewReader(conn)); err != nil {
					return
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"+framing+"\r\n")
				for range next {
					sent <- time.Now()
					event := "data: 1\n\n"
					if framing != "" {
						event = fmt.Sprintf("%x\r\n%s\r\n", len(event), event)
					}
					io.WriteString(conn, event)
				}
			}))
			conn := f.dial()
			conn.SetDeadline(time.Now().Add(2 * patient))
			io.WriteString(conn, ask("/"))
			r := bufio.NewReader(conn)
			for line := ""; line != "\r\n"; { // the head comes before any event
				var err error
				if line, err = r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			var took []time.Duration
			for range 51 {
				next <- struct{}{}
				for line := ""; !strings.HasPrefix(line, "data: "); {
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				took = append(took, time.Since(<-sent))
			}
			close(next)
			slices.Sort(took)
			if m := took[len(took)/2]; m > 5*time.Millisecond {
				t.Errorf("with %q: an event takes %v in the median, %v at most", framing, m, took[len(took)-1])
			}
		}
	})
}
