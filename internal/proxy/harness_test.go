package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

const shop = spillway.Ref("shop")

var (
	www1 = spillway.Group{Service: "www", Release: 1} // stable
	www2 = spillway.Group{Service: "www", Release: 2} // candidate
)

// running is a proxy in this process.
type running struct {
	*Client
	t    *testing.T
	dir  string
	url  string
	tls  string       // https://…
	stop func() error // ends it and gives the error of Run
}

// tempDir is short enough for a socket.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs a proxy until the test ends.
func start(t *testing.T, dir string, takeover bool) *running {
	t.Helper()
	return startWith(t, dir, Config{Takeover: takeover})
}

// startSeen runs a proxy whose requests are seen.
func startSeen(t *testing.T, dir string, takeover bool, seen Seen) *running {
	t.Helper()
	return startWith(t, dir, Config{Takeover: takeover, Seen: seen})
}

// startWith is start with some of the configuration.
func startWith(t *testing.T, dir string, c Config) *running {
	t.Helper()
	// A child that another test is just starting has a copy of every lock until it becomes its program.
	syscall.ForkLock.RLock()
	syscall.ForkLock.RUnlock() //lint:ignore SA2001 it only waits
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan struct{})
	var err error
	go func() { // owned by the test; ends with ctx; stop waits
		defer close(ended)
		c.Dir, c.HTTP, c.HTTPS, c.Version, c.Log, c.Engine = dir, "127.0.0.1:0", "127.0.0.1:0", "test", testLog(t), cmp.Or(c.Engine, os.Getenv("SPILLWAY_ENGINE"))
		c.Ready = func() { close(ready) }
		err = Run(ctx, c)
	}()
	r := &running{Client: Dial(dir), t: t, dir: dir}
	r.stop = sync.OnceValue(func() error {
		cancel()
		<-ended
		return err
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("proxy: %v", err)
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("proxy did not start: %v", err)
	}
	info, err := r.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.url, r.tls = "http://"+info.HTTP, "https://"+info.HTTPS
	return r
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (r *running) push(t spillway.Table) {
	r.t.Helper()
	if err := r.Push(r.t.Context(), t); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) report() spillway.Report {
	r.t.Helper()
	report, err := r.Report(r.t.Context(), shop)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// answer is what a client got.
type answer struct {
	status  int
	release string
	body    string
	header  http.Header
	close   bool // it was the last of its connection
}

// do sends a request with the host shop.test, without following anything.
func (r *running) do(method, path string, body io.Reader, header ...string) (answer, error) {
	return do(newClient(), r.url, method, path, body, header...)
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: 20 * time.Second}
}

func do(c *http.Client, url, method, path string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequest(method, url+path, body)
	if err != nil {
		return answer{}, err
	}
	req.Host = "shop.test"
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("X-Spillway-Release"), string(text), resp.Header, resp.Close}, err
}

func (r *running) get(path string, header ...string) answer {
	r.t.Helper()
	a, err := r.do(http.MethodGet, path, nil, header...)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// replica starts a server and gives its address.
func replica(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// reset sends an RST without an answer.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

// refused is an address where nothing listens. It is not on 127.0.0.1, where a parallel test's server
// might come to listen.
func refused(t *testing.T) string { return free(t, "127.0.0.2") }

// unused is an address for a private listener.
func unused(t *testing.T) string { return free(t, "127.0.0.3") }

func free(t *testing.T, ip string) string {
	t.Helper()
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// alone is a table in which one release serves shop.test.
func alone(revision int64, addresses ...string) spillway.Table {
	t := spillway.Table{App: shop, Revision: revision, Route: spillway.Route{
		Generation: revision,
		Edges: []spillway.Edge{{Service: "www", Hosts: []string{"shop.test"},
			Backends: []spillway.Backend{{Group: www1, Release: 1, Weight: spillway.Whole}}}},
	}}
	for i, a := range addresses {
		t.Endpoints = append(t.Endpoints, spillway.Endpoint{Replica: fmt.Sprintf("www.1-%d", i+1), Group: www1, Address: a})
	}
	return t
}

// divided is a table in which a candidate is tried at a weight; users are known by X-User.
func divided(revision int64, weight spillway.Share, stable, candidate string) spillway.Table {
	t := alone(revision, stable)
	t.Cohort.Key = []spillway.KeySource{{Kind: "header", Name: "X-User"}}
	t.Route.Edges[0].Backends = []spillway.Backend{
		{Group: www1, Release: 1, Weight: spillway.Whole - weight},
		{Group: www2, Release: 2, Weight: weight},
	}
	t.Route.Trial = &spillway.Trial{ID: 7, Release: 2, Stable: 1, Candidate: []spillway.Group{www2}, Budget: 20, Margin: spillway.Percent(1), Tolerance: 100}
	t.Endpoints = append(t.Endpoints, spillway.Endpoint{Replica: "www.2-1", Group: www2, Address: candidate})
	return t
}

// userAt gives keys of users whose buckets are in [from, to).
func usersAt(from, to spillway.Share, n int) []string {
	var users []string
	for i := 0; len(users) < n; i++ {
		if key := fmt.Sprint("user-", i); Bucket(shop, key) >= from && Bucket(shop, key) < to {
			users = append(users, key)
		}
	}
	return users
}

// eventually waits for something that has no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func wantError(t *testing.T, err, want error, text string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error %v; want %v with %q", err, want, text)
	}
}

func usec(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
