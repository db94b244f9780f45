package proxy_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy"
)

// The behaviour tests see the proxy as its clients and back ends do, byte by byte, and promise the same of
// each of its engines.

// patient is how long these tests wait for something that should come at once.
const patient = 5 * time.Second

// engines runs a test once on each engine.
func engines(t *testing.T, test func(t *testing.T, engine string)) {
	t.Parallel()
	for _, engine := range []string{"", "general"} {
		t.Run(cmp.Or(engine, "fast"), func(t *testing.T) {
			t.Parallel()
			test(t, engine)
		})
	}
}

// front is a proxy in this process with one app.
type front struct {
	*proxy.Client
	t      *testing.T
	dir    string
	engine string
	addr   string       // "127.0.0.1:41234"
	tls    *tls.Config  // with which it is dialed; nil = without TLS
	stop   func() error // ends it and gives the error of Run
}

// serve runs a proxy until the test ends, which serves shop.test from back ends at these addresses.
func serve(t *testing.T, engine string, backends ...string) *front {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := succeed(t, engine, dir)
	f.push(shopAt(1, backends...))
	return f
}

// succeed runs a proxy on a directory, and takes over from the one that serves there, if one does.
func succeed(t *testing.T, engine, dir string) *front {
	t.Helper()
	return run(t, proxy.Config{Dir: dir, Engine: engine})
}

// run is succeed with some of the configuration.
func run(t *testing.T, c proxy.Config) *front {
	t.Helper()
	// A child that another test is just starting has a copy of every lock until it becomes its program.
	syscall.ForkLock.RLock()
	syscall.ForkLock.RUnlock() //lint:ignore SA2001 it only waits
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan struct{})
	var failed error
	go func() { // owned by the test; ends with ctx; stop waits
		defer close(ended)
		c.HTTP, c.HTTPS, c.Version, c.Takeover, c.Ready = "127.0.0.1:0", "127.0.0.1:0", "test", true, func() { close(ready) }
		c.Log = slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
		pprof.Do(ctx, pprof.Labels("proxy", c.Dir), func(ctx context.Context) { failed = proxy.Run(ctx, c) })
	}()
	f := &front{Client: proxy.Dial(c.Dir), t: t, dir: c.Dir, engine: c.Engine}
	f.stop = sync.OnceValue(func() error {
		cancel()
		<-ended
		return failed
	})
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("proxy: %v", err)
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("proxy did not start: %v", failed)
	}
	info, err := f.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.addr = info.HTTP
	return f
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// shopAt is a table in which one release at these addresses serves shop.test.
func shopAt(revision int64, addresses ...string) spillway.Table {
	www := spillway.Group{Service: "www", Release: 1}
	table := spillway.Table{App: "shop", Revision: revision, Route: spillway.Route{
		Generation: revision,
		Edges: []spillway.Edge{{Service: "www", Hosts: []string{"shop.test"},
			Backends: []spillway.Backend{{Group: www, Release: 1, Weight: spillway.Whole}}}},
	}}
	for i, a := range addresses {
		table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: fmt.Sprintf("www.1-%d", i+1), Group: www, Address: a})
	}
	return table
}

func (f *front) push(table spillway.Table) {
	f.t.Helper()
	if err := f.Push(f.t.Context(), table); err != nil {
		f.t.Fatal(err)
	}
}

// dial opens a connection to the proxy, which everything on it has to be done with in time.
func (f *front) dial() duplex {
	f.t.Helper()
	tcp, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	conn := tcp.(duplex)
	if f.tls != nil {
		conn = tls.Client(tcp, f.tls)
	}
	f.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	return conn
}

// duplex is a connection one half of which can be closed.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// heard is what came back on one connection.
type heard struct {
	answers []reply
	text    string // all of it
	closed  bool   // by the proxy
}

// reply is one answer. Interim ones are replies too.
type reply struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
	broken  error // the body is not whole
}

// statuses is what one sees at first: "200 400 closed".
func (h heard) String() string {
	var words []string
	for _, a := range h.answers {
		words = append(words, fmt.Sprint(a.status))
		if a.broken != nil {
			words = append(words, "broken")
		}
	}
	if h.closed {
		words = append(words, "closed")
	}
	return strings.Join(words, " ")
}

// say sends bytes on a connection of its own, and listens until the proxy closes it or has been silent for
// as long as quiet.
func (f *front) say(text string, quiet time.Duration, methods ...string) heard {
	f.t.Helper()
	conn := f.dial()
	defer conn.Close()
	go io.WriteString(conn, text) // ends with conn; a proxy that refuses need not read it all
	return listen(conn, quiet, methods...)
}

// listen reads what comes on a connection. methods are those of the requests that are answered, as far as
// it matters (HEAD).
func listen(conn net.Conn, quiet time.Duration, methods ...string) heard {
	return listenFor(conn, quiet, math.MaxInt, methods...)
}

var statusLine = regexp.MustCompile(`HTTP/1\.[01] \d\d\d `)

// listenFor is listen that has heard enough after so many answers.
func listenFor(conn net.Conn, quiet time.Duration, enough int, methods ...string) heard {
	var all bytes.Buffer
	var h heard
	buf := make([]byte, 64<<10)
	for {
		conn.SetReadDeadline(time.Now().Add(quiet))
		n, err := conn.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			h.closed = !errors.Is(err, os.ErrDeadlineExceeded)
			break
		}
		if len(statusLine.FindAll(all.Bytes(), -1)) >= enough {
			break
		}
	}
	h.text = all.String()
	r := bufio.NewReader(&all)
	for {
		if _, err := r.Peek(1); err != nil {
			return h
		}
		method := "GET"
		if len(methods) > 0 {
			method = methods[0]
		}
		a, err := readReply(r, method)
		if err != nil {
			h.answers = append(h.answers, reply{broken: err})
			return h
		}
		if a.status >= 200 && len(methods) > 0 {
			methods = methods[1:]
		}
		h.answers = append(h.answers, a)
		if a.status == http.StatusSwitchingProtocols {
			return h
		}
	}
}

// readReply reads the next answer, be it an interim one.
func readReply(r *bufio.Reader, method string) (reply, error) {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	a := reply{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode < 200 {
		return a, nil
	}
	body, err := io.ReadAll(resp.Body)
	a.body, a.trailer, a.broken = string(body), resp.Trailer, err
	if resp.Close {
		a.header.Set("Connection", "close") // or HTTP/1.0, which means the same; the reader took it away
	}
	if len(resp.TransferEncoding) > 0 {
		a.header.Set("Transfer-Encoding", strings.Join(resp.TransferEncoding, ", "))
	}
	return a, nil
}

// arrival is one request as a back end got it.
type arrival struct {
	line   string              // "GET / HTTP/1.1"
	header map[string][]string // by lower-case name, as they came
	raw    string              // the head
	body   string
	whole  bool // to the end of its body
}

// recorder is a back end that notes everything that it gets, and answers each whole request with its answer.
type recorder struct {
	addr string

	mu       sync.Mutex
	bytes    int
	requests []*arrival
}

const plainAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

// record starts a recorder.
func record(t *testing.T, answer string) *recorder {
	t.Helper()
	r := &recorder{}
	r.addr = accept(t, func(conn net.Conn) {
		in := bufio.NewReader(io.TeeReader(conn, (*counterOf)(r)))
		for r.one(in) {
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
	})
	return r
}

// accept starts a back end that does something with each connection, and closes it then.
func accept(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var handlers sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		handlers.Wait()
	})
	go func() { // owned by the test; ends when the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			handlers.Go(func() { // ends when its connection does
				defer conn.Close()
				handle(conn)
			})
		}
	}()
	return l.Addr().String()
}

// counterOf counts the bytes of a recorder.
type counterOf recorder

func (c *counterOf) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += len(p)
	return len(p), nil
}

// one notes the next request of a connection. It reports whether the whole of it came.
func (r *recorder) one(in *bufio.Reader) bool {
	a, err := readHead(in)
	if err != nil {
		return false
	}
	r.mu.Lock()
	r.requests = append(r.requests, a)
	r.mu.Unlock()
	body, err := a.readBody(in)
	r.mu.Lock()
	defer r.mu.Unlock()
	a.body, a.whole = body, err == nil
	return err == nil
}

// readHead reads the head of a request: what the proxy sends has to be plain.
func readHead(in *bufio.Reader) (*arrival, error) {
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			return nil, err
		}
		if line == "\r\n" {
			break
		}
	}
	a := &arrival{raw: head.String(), header: map[string][]string{}}
	lines := strings.Split(strings.TrimSuffix(a.raw, "\r\n\r\n"), "\r\n")
	a.line = lines[0]
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(name)
		a.header[name] = append(a.header[name], strings.TrimSpace(value))
	}
	_, err := http.ReadRequest(bufio.NewReader(strings.NewReader(a.raw)))
	return a, err
}

// readBody reads the body that the head announces.
func (a *arrival) readBody(in *bufio.Reader) (string, error) {
	if len(a.header["transfer-encoding"]) > 0 {
		return readChunks(in)
	}
	length := 0
	for _, v := range a.header["content-length"] {
		fmt.Sscan(v, &length)
	}
	text := make([]byte, length)
	n, err := io.ReadFull(in, text)
	return string(text[:n]), err
}

// readChunks reads a chunked body up to and with its trailers, which it gives as "body|Name: value".
func readChunks(in *bufio.Reader) (string, error) {
	var body strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return body.String(), io.ErrUnexpectedEOF
		}
		var size int64
		if _, err := fmt.Sscanf(line, "%x\r\n", &size); err != nil {
			return body.String(), fmt.Errorf("chunk size %q", line)
		}
		if size == 0 {
			break
		}
		if _, err := io.CopyN(&body, in, size); err != nil {
			return body.String(), io.ErrUnexpectedEOF
		}
		if end, err := in.ReadString('\n'); err != nil || end != "\r\n" {
			return body.String(), io.ErrUnexpectedEOF
		}
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return body.String(), io.ErrUnexpectedEOF
		}
		if line == "\r\n" {
			return body.String(), nil
		}
		body.WriteString("|" + strings.TrimSpace(line))
	}
}

// take gives what has come since the last call.
func (r *recorder) take() (bytes int, requests []arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.requests {
		requests = append(requests, *a)
	}
	bytes, r.bytes, r.requests = r.bytes, 0, nil
	return bytes, requests
}

// shorten is a text as a message can show it.
func shorten(s string) string {
	if len(s) > 300 {
		return fmt.Sprintf("%.200q … %q (%d bytes)", s, s[len(s)-60:], len(s))
	}
	return fmt.Sprintf("%q", s)
}
