//go:build storm

package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// storms gives how many percent of a storm are asked for: STORM=10 is a short one, for a machine with other
// things to do. Unset is 100.
func storms(t *testing.T, full int) int {
	text := os.Getenv("STORM")
	if text == "" {
		return full
	}
	percent, err := strconv.Atoi(text)
	if err != nil || percent < 1 {
		t.Fatalf("STORM=%q is no percentage", text)
	}
	return max(1, full*percent/100)
}

// ledger knows how many times each request was done.
type ledger struct {
	mu   sync.Mutex
	sent int
	done map[string]int
}

func (l *ledger) do(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[id]++
}

// clerk is a back end that does each request with an id once, in its own time. After it was told that it has
// nothing to do any more, each request that still comes is an error.
type clerk struct {
	t        *testing.T
	ledger   *ledger
	server   *http.Server
	addr     string
	released atomic.Bool
}

func hire(t *testing.T, l *ledger) *clerk {
	c := &clerk{t: t, ledger: l}
	c.server = &http.Server{Handler: c}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	go c.server.Serve(listener) // ends with fire, at the latest at the end of the test
	t.Cleanup(func() { c.server.Close() })
	return c
}

func (c *clerk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.released.Load() {
		c.t.Errorf("%s came to a back end that was told that nothing comes any more", r.URL)
	}
	body, err := io.ReadAll(r.Body)
	id := strings.TrimPrefix(r.URL.Path, "/")
	if err != nil || r.Method == http.MethodPost && string(body) != id {
		c.t.Errorf("%s came with the body %q, %v", r.URL, body, err)
	}
	c.ledger.do(id)
	<-time.After(time.Duration(rand.IntN(5)) * time.Millisecond)
	io.WriteString(w, id)
}

// fire kills it: no word to anyone, and all connections cut.
func (c *clerk) fire() {
	c.released.Store(true)
	c.server.Close()
}

// caller sends requests on a connection of its own and repeats none. Each has to be answered 200 with its id.
type caller struct {
	f    *front
	conn net.Conn
	r    *bufio.Reader
}

func (c *caller) call(method, id string) error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.f.addr)
		if err != nil {
			return err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
	}
	c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	head := fmt.Sprintf("%s /%s HTTP/1.1\r\nHost: shop.test\r\n", method, id)
	switch {
	case method == http.MethodGet:
		head += "\r\n"
	case len(id)%2 == 0:
		head += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(id), id)
	default:
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(id), id)
	}
	if _, err := io.WriteString(c.conn, head); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	a, err := readReply(c.r, method)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if a.broken != nil || a.status != 200 || a.body != id {
		return fmt.Errorf("%d %s %v", a.status, shorten(a.body), a.broken)
	}
	if a.header.Get("Connection") == "close" || id[len(id)-1] == '7' { // some like new connections
		c.hangUp()
	}
	return nil
}

func (c *caller) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// callers send until stop, which checks that each request was done, and once.
func callers(t *testing.T, f *front, l *ledger, n int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for k := range n {
		all.Go(func() { // ends with ctx; stop waits
			c := &caller{f: f}
			defer c.hangUp()
			for i := 0; ctx.Err() == nil; i++ {
				id, method := fmt.Sprintf("%d-%d", k, i), http.MethodGet
				if k%2 == 0 {
					method = http.MethodPost
				}
				l.mu.Lock()
				l.sent++
				l.mu.Unlock()
				if err := c.call(method, id); err != nil {
					t.Errorf("%s %s: %v", method, id, err)
					c.hangUp()
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		cancel()
		all.Wait()
		twice := 0
		for id, n := range l.done {
			if n != 1 {
				if twice++; twice < 10 {
					t.Errorf("%s was done %d times", id, n)
				}
			}
		}
		if l.sent != len(l.done) {
			t.Errorf("%d were sent and %d done", l.sent, len(l.done))
		}
		t.Logf("%d requests", l.sent)
	})
}

// shift is a change of the back ends under load.
type shift struct {
	f        *front
	l        *ledger
	revision int64
	release  int
	table    spillway.Table
	on       []*clerk // in the order of table.Endpoints
}

// add gives the table one more endpoint, of a group.
func (s *shift) add(t *testing.T, release int) {
	c := hire(t, s.l)
	s.on = append(s.on, c)
	s.table.Endpoints = append(s.table.Endpoints, spillway.Endpoint{
		Replica: fmt.Sprintf("www.%d-%s", release, c.addr), Group: spillway.Group{Service: "www", Release: release}, Address: c.addr,
	})
}

func (s *shift) push() {
	s.revision++
	s.table.Revision, s.table.Route.Generation = s.revision, s.revision
	s.f.push(s.table)
}

// retire takes the first endpoints out, and kills them when the proxy says that nothing is under way there.
func (s *shift) retire(t *testing.T, n int, draining bool) {
	gone, fired := s.table.Endpoints[:n:n], s.on[:n:n]
	if draining {
		for i := range gone {
			s.table.Endpoints[i].Draining = true
		}
		s.push()
		s.drained(t, gone)
	}
	s.table.Endpoints = append([]spillway.Endpoint(nil), s.table.Endpoints[n:]...)
	s.on = s.on[n:]
	s.push()
	s.drained(t, gone)
	for _, c := range fired {
		c.fire()
	}
}

func (s *shift) drained(t *testing.T, gone []spillway.Endpoint) {
	eventuallySo(t, "nothing is under way at what left", func() bool {
		report, err := s.f.Report(t.Context(), s.table.App)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range gone {
			if report.InFlight[e.Replica] > 0 {
				return false
			}
		}
		return true
	})
}

// next lets out a release: at a weight first, or at once.
func (s *shift) next(t *testing.T, weight spillway.Share) {
	old := s.release
	s.release++
	n := len(s.on)
	s.add(t, s.release)
	edge := &s.table.Route.Edges[0]
	was, is := spillway.Group{Service: "www", Release: old}, spillway.Group{Service: "www", Release: s.release}
	if weight > 0 {
		edge.Backends = []spillway.Backend{{Group: was, Release: old, Weight: spillway.Whole - weight}, {Group: is, Release: s.release, Weight: weight}}
		s.push()
	}
	edge.Backends = []spillway.Backend{{Group: is, Release: s.release, Weight: spillway.Whole}}
	s.push()
	s.retire(t, n, weight > 0)
}

func newShift(t *testing.T, f *front, l *ledger) *shift { return newShiftOf(t, f, l, "shop") }

func newShiftOf(t *testing.T, f *front, l *ledger, app spillway.Ref) *shift {
	s := &shift{f: f, l: l, revision: 10, release: 1, table: shopAt(10)}
	s.table.App, s.table.Route.Edges[0].Hosts = app, []string{string(app) + ".test"}
	s.add(t, 1)
	s.push()
	return s
}

func newLedger() *ledger { return &ledger{done: map[string]int{}} }

// TestStorm_Swaps replaces the back ends under load, in each way that a platform does it, and kills the old
// ones at once when it may.
func TestStorm_Swaps(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		l := newLedger()
		f := serve(t, engine)
		s := newShift(t, f, l)
		stop := callers(t, f, l, 64)
		defer stop()
		for i := range storms(t, 200) {
			switch i % 4 {
			case 0: // one for one, of the same release
				s.add(t, s.release)
				s.push()
				s.retire(t, len(s.on)-1, i%8 == 0)
			case 1:
				s.next(t, spillway.Percent(30))
			case 2: // more of them, then fewer
				s.add(t, s.release)
				s.add(t, s.release)
				s.push()
				s.retire(t, 2, false)
			case 3:
				s.next(t, 0)
			}
		}
		stop()
	})
}

// TestStorm_RandomSchedules plays random schedules of what can happen to endpoints. A back end that has been
// acknowledged as drained never gets a request, whatever came before.
func TestStorm_RandomSchedules(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		for range storms(t, 10) {
			seed := rand.Uint64()
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0))
				l := newLedger()
				f := serve(t, engine)
				s := newShift(t, f, l)
				stop := callers(t, f, l, 24)
				defer stop()
				for range 40 {
					s.any(t, random)
				}
				stop()
			})
		}
	})
}

// any does one thing of those that can happen.
func (s *shift) any(t *testing.T, random *rand.Rand) {
	switch what := random.IntN(6); {
	case what == 0 && len(s.on) < 5:
		s.add(t, s.release)
		s.push()
	case what == 1 && len(s.on) > 1:
		s.retire(t, 1+random.IntN(len(s.on)-1), random.IntN(2) == 0)
	case what == 2:
		s.next(t, spillway.Percent(random.IntN(90)))
	case what == 3 && len(s.on) > 1: // drained, and wanted again
		s.table.Endpoints[0].Draining = true
		s.push()
		if random.IntN(2) == 0 {
			s.drained(t, s.table.Endpoints[:1])
		}
		s.table.Endpoints[0].Draining = false
		s.push()
	case what == 4: // the same once more
		s.push()
	default:
		<-time.After(time.Duration(random.IntN(10)) * time.Millisecond)
	}
}

// TestStorm_HandOvers replaces the proxy again and again under load. Sockets count up over it, each for a
// while that is shorter than the drain.
func TestStorm_HandOvers(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		l := newLedger()
		f := serve(t, engine)
		s := newShift(t, f, l)
		echo := shopAt(1, upgrades(t))
		echo.App, echo.Route.Edges[0].Hosts = "echo", []string{"echo.test"}
		f.push(echo)
		stop := callers(t, f, l, 32)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		var sockets sync.WaitGroup
		var counted atomic.Int64
		for range 16 {
			sockets.Go(func() { // ends with ctx; the test waits
				for ctx.Err() == nil {
					countUp(ctx, t, f.addr, "echo.test", 2*time.Second, &counted)
				}
			})
		}
		for i := range storms(t, 50) {
			heir := succeed(t, engine, f.dir)
			if heir.addr != f.addr {
				t.Fatalf("the heir serves %s instead of %s", heir.addr, f.addr)
			}
			s.f = heir
			if i%5 == 0 { // tables go on
				s.add(t, s.release)
				s.push()
				s.retire(t, 1, false)
			}
			<-time.After(20 * time.Millisecond) // some requests for each
		}
		cancel()
		sockets.Wait()
		stop()
		t.Logf("%d messages", counted.Load())
	})
}

// countUp opens a socket and has it say numbers, none of which may get lost.
func countUp(ctx context.Context, t *testing.T, addr, host string, long time.Duration, counted *atomic.Int64) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("socket: %v", err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(long + 20*time.Second))
	io.WriteString(conn, strings.Replace(switching, "shop.test", host, 1))
	r := bufio.NewReader(conn)
	if a, err := readReply(r, "GET"); err != nil || a.status != 101 {
		t.Errorf("socket: %d %v", a.status, err)
		return
	}
	if _, err := io.ReadFull(r, make([]byte, len("welcome"))); err != nil {
		t.Errorf("socket: %v", err)
		return
	}
	end := time.Now().Add(long)
	for i := 0; time.Now().Before(end) && ctx.Err() == nil; i++ {
		fmt.Fprintf(conn, "%d\n", i)
		if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintln(i) {
			t.Errorf("socket: number %d came back as %q, %v", i, line, err)
			return
		}
		counted.Add(1)
		<-time.After(10 * time.Millisecond)
	}
}

// TestStorm_ChangesOfAnotherApp: what happens to one app cuts no stream of another.
func TestStorm_ChangesOfAnotherApp(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := serve(t, engine, upgrades(t))
		events := make(chan struct{})
		feed := shopAt(1, accept(t, func(conn net.Conn) {
			if _, err := readHead(bufio.NewReader(conn)); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range events {
				io.WriteString(conn, "6\r\ndata\n\n\r\n")
			}
			io.WriteString(conn, "0\r\n\r\n")
		}))
		feed.App, feed.Route.Edges[0].Hosts = "feed", []string{"feed.test"}
		f.push(feed)
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var streams sync.WaitGroup
		var counted, open atomic.Int64
		for range storms(t, 500) {
			streams.Go(func() { // ends with ctx; the test waits
				open.Add(1)
				countUp(ctx, t, f.addr, "shop.test", time.Minute, &counted)
			})
		}
		feeds := storms(t, 50)
		var heard atomic.Int64
		for range feeds {
			streams.Go(func() { heard.Add(follow(t, f.addr)) }) // ends with the feed; the test waits
		}
		eventuallySo(t, "all streams are open", func() bool {
			report, err := f.Report(t.Context(), "feed")
			return err == nil && report.InFlight["www.1-1"] == feeds && counted.Load() > 2*open.Load()
		})
		go func() { // ends with done; the test waits for what it does
			defer close(events)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-done:
					return
				}
				select {
				case events <- struct{}{}:
				case <-done:
					return
				}
			}
		}()
		s := newShiftOf(t, f, newLedger(), "other")
		for range storms(t, 100) {
			s.next(t, spillway.Percent(10))
		}
		if err := f.Remove(t.Context(), "other"); err != nil {
			t.Error(err)
		}
		close(done)
		cancel()
		streams.Wait()
		t.Logf("%d numbers on %d sockets, %d events on %d feeds", counted.Load(), open.Load(), heard.Load(), feeds)
	})
}

// follow listens to the feed until it ends, as it should.
func follow(t *testing.T, addr string) (heard int64) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("feed: %v", err)
		return 0
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: feed.test\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("feed: %v", err)
		return 0
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("feed: cut after %d bytes: %v", len(text), err)
	}
	return int64(len(text) / len("data\n\n"))
}

// eventuallySo waits for something that has no signal.
func eventuallySo(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
