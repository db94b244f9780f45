package proxy

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// raw opens a connection to the proxy and sends text on it.
func (r *running) raw(text string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		r.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// echo switches protocols and sends back what it gets, until the client has sent everything.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
	w.Header().Set("Connection", "Upgrade")
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.Copy(conn, buffered)
}

const upgrade = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"

func TestRun_SwitchesProtocols(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := alone(1, replica(t, echo))
	r.push(table)
	// The first bytes of the new protocol come with the request, as from an eager client.
	conn, reader := r.raw(upgrade + "early")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("X-Spillway-Release") != "1" {
		t.Fatalf("%+v %v", resp, err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "early" {
		t.Fatalf("early bytes: %q %v", got, err)
	}
	if n := r.report().InFlight["www.1-1"]; n != 1 {
		t.Errorf("an upgraded connection counts %d in flight", n)
	}
	other := alone(1, replica(t, text("other")))
	other.App, other.Route.Edges[0].Hosts = "other", nil
	for i := range int64(3) {
		other.Revision, table.Revision = i+1, i+2
		r.push(other)
		r.push(table)
	}
	io.WriteString(conn, "after")
	conn.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(reader); err != nil || string(rest) != "after" {
		t.Errorf("after table changes: %q %v", rest, err)
	}
	eventually(t, "nothing in flight", func() bool { return r.report().InFlight["www.1-1"] == 0 })
}

func TestRun_FlushesEvents(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	next := make(chan struct{})
	r.push(divided(1, spillway.Whole, "127.0.0.1:1", replica(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-next
		io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-next
	})))
	_, reader := r.raw("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
	resp, err := http.ReadResponse(reader, nil) // comes before any event
	if err != nil {
		t.Fatal(err)
	}
	if e := r.report().Evidence; e.Requests != 1 || e.Failures != 0 {
		t.Errorf("an event stream is judged at its end only: %+v", e)
	}
	next <- struct{}{}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || line != "data: 1\n" {
		t.Errorf("first event: %q %v", line, err)
	}
	close(next)
}

func TestRun_PassesInterimAnswersAndExpectations(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.Copy(w, req.Body)
	})))
	var links []string
	continued := 0
	trace := &httptrace.ClientTrace{
		Got100Continue: func() { continued++ },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				links = append(links, h.Get("Link"))
			}
			return nil
		},
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: 20 * time.Second}}
	for path, want := range map[string]int{"/": 200, "/no": 417} {
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", r.url+path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.test"
		req.Header.Set("Expect", "100-continue")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || (want == 200 && string(text) != "body") || resp.Header.Get("Link") != "" {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, text, resp.Header)
		}
	}
	if len(links) != 1 || links[0] != "</style.css>; rel=preload" || continued != 1 {
		t.Errorf("early hints %q, continued %d times", links, continued)
	}
}

func TestRun_PassesTrailersBothWays(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.Copy(w, req.Body)
		w.Header().Set("X-Sum", "got "+req.Trailer.Get("X-Client"))
		if req.URL.Path == "/more" {
			w.Header().Set(http.TrailerPrefix+"X-More", "unannounced")
		}
	})))
	for path, more := range map[string]string{"/": "", "/more": "unannounced"} {
		req, err := http.NewRequest("POST", r.url+path, struct{ io.Reader }{strings.NewReader("body")})
		if err != nil {
			t.Fatal(err)
		}
		req.Host, req.Trailer = "shop.test", http.Header{"X-Client": {"sent"}}
		resp, err := newClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "body" || resp.Trailer.Get("X-Sum") != "got sent" || resp.Trailer.Get("X-More") != more {
			t.Errorf("%s: %q %v, trailer %v", path, body, err, resp.Trailer)
		}
	}
}

func TestRun_PassesBigBodies(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.ContentLength > 0 && req.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(req.ContentLength))
		}
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, req.Body) // answers while it still reads
	})))
	data := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	for _, path := range []string{"/length", "/chunked"} {
		body := io.Reader(strings.NewReader(string(data)))
		if path == "/chunked" {
			body = struct{ io.Reader }{body}
		}
		a, err := r.do("POST", path, body)
		if err != nil || sha256.Sum256([]byte(a.body)) != sha256.Sum256(data) {
			t.Errorf("%s: %d bytes, %v", path, len(a.body), err)
		}
	}
}

func TestRun_PassesAnEarlyAnswerToALongUpload(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, status(http.StatusRequestEntityTooLarge))))
	conn, reader := r.raw("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\nfirst")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%+v %v", resp, err)
	}
	conn.Close()
}
