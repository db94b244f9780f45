package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// TestBehaviour_SaysWhyABodyIsTooLarge: whether its length was told before or not.
func TestBehaviour_SaysWhyABodyIsTooLarge(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		table := shopAt(1, backend.addr)
		table.Route.Edges[0].Target = "www"
		table.Route.Rules = []spillway.HTTPRule{{Hosts: []string{"shop.test"}, To: []spillway.Target{{Service: "www", Weight: 1}}, MaxBody: 1024}}
		f := serve(t, engine, backend.addr)
		table.Revision, table.Route.Generation = 2, 2
		f.push(table)
		big := strings.Repeat("a", 2000)
		for request, want := range map[string]string{
			"Content-Length: 2000\r\n\r\n" + big:                                "route shop.test/*: a body of 2000 bytes is larger than 1Ki",
			"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + big + "\r\n0\r\n\r\n": "route shop.test/*: the body is larger than 1Ki",
		} {
			if a := f.one("POST / HTTP/1.1\r\n" + toShop + request); a.status != 413 || a.header.Get("X-Spillway-Reason") != want {
				t.Errorf("answered %d %q, want %q", a.status, a.header.Get("X-Spillway-Reason"), want)
			}
		}
	})
}

// TestBehaviour_SaysThatABodyIsTooSlow takes as long as a slow client may.
func TestBehaviour_SaysThatABodyIsTooSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		for _, length := range []int{100, 100_000} { // sent with the head, and behind it
			t.Run(fmt.Sprint(length), func(t *testing.T) {
				t.Parallel()
				conn := f.dial()
				fmt.Fprintf(conn, "POST / HTTP/1.1\r\n"+toShop+"Content-Length: %d\r\n\r\n0123456789", length)
				h := listen(conn, 30*time.Second)
				if h.String() != "408 closed" || !strings.Contains(h.text, "Spillway: the body of the request came slower than 256 bytes a second after 20s.") || strings.Contains(h.text, "127.0.0.1") {
					t.Errorf("answered %s: %s", h, shorten(h.text))
				}
			})
		}
		t.Run("HTTP/2", func(t *testing.T) {
			t.Parallel()
			body, hold := io.Pipe()
			defer hold.Close()
			r, err := http.NewRequest("POST", "http://"+f.addr, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Host, r.ContentLength = "shop.test", 100
			c := &http.Client{Transport: &http.Transport{Protocols: http2Only()}, Timeout: 30 * time.Second}
			defer c.CloseIdleConnections()
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if text, err := io.ReadAll(resp.Body); resp.StatusCode != 408 || !strings.Contains(string(text), "came slower than 256 bytes a second") {
				t.Errorf("answered %s: %s, %v", resp.Status, text, err)
			}
		})
	})
}

// TestBehaviour_LogsWhatWasRefusedUnread: who it was and how long it took; of what was not read, nothing is said.
func TestBehaviour_LogsWhatWasRefusedUnread(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := guarded(t, engine, shopAt(1, record(t, plainAnswer).addr))
		const twice = "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"
		f.one(stranger + "PUT /zzz HTTP/1.1\r\n" + toShop + twice)
		f.logged(1)      // which may be after the answer
		conn := f.dial() // the second request of a connection, in two parts
		io.WriteString(conn, stranger+"GET / HTTP/1.1\r\n"+toShop+"\r\n")
		in := bufio.NewReader(conn)
		if a, err := readReply(in, "GET"); a.status != 200 {
			t.Fatal(a, err)
		}
		f.logged(2)
		io.WriteString(conn, "PUT /zz")
		<-time.After(500 * time.Millisecond) // it may read the first part late
		io.WriteString(conn, "z HTTP/1.1\r\n"+toShop+twice)
		if a, err := readReply(in, "PUT"); a.status != 400 {
			t.Fatal(a, err)
		}
		lines := f.logged(3)
		for i, line := range []map[string]any{lines[0], lines[2]} {
			for _, key := range []string{"method", "path", "protocol", "host"} {
				if _, said := line[key]; said {
					t.Errorf("line %d says %s %q", i, key, line[key])
				}
			}
			if line["client"] != "203.0.113.9" || line["scheme"] != "http" || line["status"] != 400.0 || line["reason"] != "Content-Length is not one number" {
				t.Errorf("logged was %v", line)
			}
		}
		if took, _ := lines[2]["duration_ms"].(float64); took < 100 || took > 5000 {
			t.Errorf("a head of which one part came 500 ms later took %v ms", took)
		}
	})
}

// TestBehaviour_LogsHowLongAHeadTook takes as long as a head may.
func TestBehaviour_LogsHowLongAHeadTook(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	engines(t, func(t *testing.T, engine string) {
		f := guarded(t, engine, shopAt(1, record(t, plainAnswer).addr))
		conn := f.dial()
		io.WriteString(conn, stranger+"GET / HT")
		if h := listen(conn, 20*time.Second); h.String() != "408 closed" {
			t.Errorf("answered %s", h)
		}
		line := f.logged(1)[0]
		if took, _ := line["duration_ms"].(float64); took < 9900 || line["client"] != "203.0.113.9" || line["method"] != nil {
			t.Errorf("logged was %v", line)
		}
	})
}

// TestBehaviour_AnswersHTTPWhereTLSIsSpoken, and not what is neither.
func TestBehaviour_AnswersHTTPWhereTLSIsSpoken(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := guarded(t, engine, shopAt(1, backend.addr))
		f.secured(shopAt(2, backend.addr))
		f.tls = nil
		long := "X-A: " + strings.Repeat("a", 8<<10) + "\r\n"
		for _, request := range []string{"GET / HTTP/1.1\r\n" + toShop + "\r\n", "POST /a HTTP/1.1\r\n" + toShop + long + "Content-Length: 5\r\n\r\nhello", "PUT /zzz HTTP/1.1\r\n"} {
			h := f.say(stranger+request, patient)
			if h.String() != "400 closed" || !strings.Contains(h.text, "Spillway: this port speaks HTTPS, and the request came by HTTP.") {
				t.Errorf("%s: answered %s: %s", shorten(request), h, shorten(h.text))
			}
		}
		for _, text := range []string{"\x00\x01\x02\x03\x04\x05", "hello, world\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
			if h := f.say(text, patient); !h.closed || strings.Contains(h.text, "HTTP/1.1") {
				t.Errorf("%q: answered %s", text, h)
			}
		}
		line := f.logged(3)[0]
		if line["client"] != "203.0.113.9" || line["status"] != 400.0 || line["method"] != nil || !strings.Contains(fmt.Sprint(line["reason"]), "HTTPS") {
			t.Errorf("logged was %v", line)
		}
		if _, requests := backend.take(); len(requests) > 0 {
			t.Errorf("the back end got %d requests", len(requests))
		}
	})
}

// free is an address where nothing listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// logged waits for n lines of the access log of a guarded proxy.
func (f *front) logged(n int) (lines []map[string]any) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patient); ; <-tick.C {
		text, err := os.ReadFile(filepath.Join(f.dir, "access.log"))
		if err == nil && bytes.Count(text, []byte("\n")) >= n {
			for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				m := map[string]any{}
				if err := json.Unmarshal([]byte(line), &m); err != nil {
					f.t.Fatalf("%s: %v", line, err)
				}
				lines = append(lines, m)
			}
			return lines
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%d lines of the access log never came: %q, %v", n, text, err)
		}
	}
}
