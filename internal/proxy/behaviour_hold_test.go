package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// echoing is a back end that switches protocols when it is asked to, and says back what comes then. It counts the
// requests that it gets.
func echoing(t *testing.T, asked *atomic.Int64) string {
	return accept(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for {
			a, err := readHead(in)
			if err != nil {
				return
			}
			asked.Add(1)
			if len(a.header["upgrade"]) == 0 {
				io.WriteString(conn, plainAnswer)
				continue
			}
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello")
			io.Copy(conn, in)
			return
		}
	})
}

// socket is a client's WebSocket. Its frames are those of the back end, sent back as they came.
type socket struct {
	conn duplex
	in   *bufio.Reader
}

// shake sends a handshake.
func (f *front) shake() *socket {
	f.t.Helper()
	conn := f.dial()
	conn.SetDeadline(time.Now().Add(4 * patient))
	io.WriteString(conn, ask("/socket", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
	return &socket{conn, bufio.NewReader(conn)}
}

// shaken waits for the answer to the handshake, and for the first word of the back end.
func (s *socket) shaken(t *testing.T) {
	t.Helper()
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the handshake: %+v, %v", resp, err)
	}
	s.hears(t, "\x81\x05hello")
}

func (s *socket) hears(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s.in, got); err != nil || string(got) != want {
		t.Fatalf("heard %q %v, want %q", got, err, want)
	}
}

// talks sends frames and hears each of them again.
func (s *socket) talks(t *testing.T, word string) {
	t.Helper()
	for range 20 {
		frame := "\x81\x84\x00\x00\x00\x00" + word // masked with zeros, as it were
		io.WriteString(s.conn, frame)
		s.hears(t, frame)
	}
}

// TestBehaviour_HoldsHandshakesAndNoSockets: an open WebSocket goes on while its app is held, and one that is asked for
// waits like any request.
func TestBehaviour_HoldsHandshakesAndNoSockets(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		var asked atomic.Int64
		f := serve(t, engine, echoing(t, &asked))
		hold := func(wait time.Duration) {
			t.Helper()
			if _, err := f.Hold(t.Context(), "shop", wait); err != nil {
				t.Fatal(err)
			}
		}
		open := f.shake()
		open.shaken(t)
		open.talks(t, "then")
		hold(time.Minute)
		open.talks(t, "late")
		late, plain := f.shake(), f.dial()
		io.WriteString(plain, ask("/", "Connection: close"))
		f.reports("two requests wait", func() bool { h := f.report().Hold; return h != nil && h.Waiting == 2 })
		open.talks(t, "held")
		if n := asked.Load(); n != 1 {
			t.Errorf("the back end got %d requests, want the first handshake only", n)
		}
		if n := f.report().InFlight["www.1-1"]; n != 1 {
			t.Errorf("%d in flight, want the open socket", n)
		}
		hold(0)
		late.shaken(t)
		late.talks(t, "mine")
		open.talks(t, "past")
		if h := listen(plain, patient); h.String() != "200 closed" {
			t.Errorf("the request that was held beside: %q", h)
		}
		open.conn.Close()
		late.conn.Close()
		f.reports("nothing is in flight", func() bool { return f.report().InFlight["www.1-1"] == 0 })
		if n := asked.Load(); n != 3 {
			t.Errorf("the back end got %d requests, want 3", n)
		}
	})
}

// TestBehaviour_ForgetsWhatWasHeldWhenItsClientLeft: it waits no more, and no back end hears of it, whatever the client
// has sent or has still to send.
func TestBehaviour_ForgetsWhatWasHeldWhenItsClientLeft(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		// More than the proxy reads ahead, and less than the kernel has room for: the end is behind it.
		upload := fmt.Sprintf("POST / HTTP/1.1\r\n%sContent-Length: 40000\r\n\r\n%s", toShop, strings.Repeat("0123456789", 4000))
		var asked atomic.Int64
		f := serve(t, engine, echoing(t, &asked))
		before, _ := f.goroutines()
		if _, err := f.Hold(t.Context(), "shop", time.Minute); err != nil {
			t.Fatal(err)
		}
		var all []net.Conn
		for _, send := range []string{
			ask("/"),
			ask("/") + ask("/"),
			ask("/", "Connection: Upgrade", "Upgrade: websocket"),
			(&faultyBackend{}).request("POST"),
			(&faultyBackend{}).request("chunked"),
			strings.TrimSuffix((&faultyBackend{}).request("POST"), "llo"),
			upload,
			upload[:len(upload)/2],
			"POST / HTTP/1.1\r\n" + toShop + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
		} {
			conn := f.dial()
			conn.SetDeadline(time.Now().Add(4 * patient))
			go io.WriteString(conn, send) // ends with conn
			all = append(all, conn)
			f.reports("it waits", func() bool { return f.report().Hold.Waiting == len(all) })
		}
		for _, conn := range all {
			conn.Close()
		}
		f.reports("none waits", func() bool { return f.report().Hold.Waiting == 0 })
		f.comesBackTo(before)
		if _, err := f.Hold(t.Context(), "shop", 0); err != nil {
			t.Fatal(err)
		}
		if h := f.say(ask("/", "Connection: close"), patient); h.String() != "200 closed" || asked.Load() != 1 {
			t.Errorf("behind the hold: %q; the back end got %d requests, want 1", h, asked.Load())
		}
	})
}

// TestBehaviour_RefusesAHandshakeThatWasHeldTooLong with a page, as any request.
func TestBehaviour_RefusesAHandshakeThatWasHeldTooLong(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		var asked atomic.Int64
		f := serve(t, engine, echoing(t, &asked))
		if _, err := f.Hold(t.Context(), "shop", 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		s := f.shake()
		a, err := readReply(s.in, "GET")
		if err != nil || a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "Spillway: shop is held") || asked.Load() != 0 {
			t.Errorf("%d %q %v; the back end got %d requests", a.status, a.body, err, asked.Load())
		}
	})
}
