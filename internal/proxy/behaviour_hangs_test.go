package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// hangLimit is the timeout of the route to /hang/. That to /left/ has none, so only its client ends a request there.
	hangLimit = 2 * time.Second
	// hangSlack is what a busy machine may take beside a limit, and how soon a back end is to know that its client left:
	// that one sends no more is believed to mean that after a second.
	hangSlack = 4 * time.Second
	// slowUpload is how late something comes that a client has still to send: somebody looks after it by then.
	slowUpload = 200 * time.Millisecond
)

// hang is where a back end stops, with its connection open.
type hang struct {
	name string
	sent string // the answer up to there; by HTTP/2 "" or "." for the head, and the body up to there
	want string // what a client sees after the limit
}

func hangs() []hang {
	const head = "HTTP/1.1 200 OK\r\n"
	broken := "200 broken or closed" // the beginning need not have been sent yet
	half := strings.Repeat("half", 16)
	return []hang{
		{"before the answer", "", "504"},
		{"within the status line", "HTT", "504"},
		{"within the head", head + "Content-Le", "504"},
		{"behind early hints", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "504"},
		{"behind the head, with a length", head + "Content-Length: 128\r\n\r\n", broken},
		{"within a body with a length", head + "Content-Length: 128\r\n\r\n" + half, broken},
		{"before the last byte of a body", head + "Content-Length: 65\r\n\r\n" + half, broken},
		{"within a large body", head + "Content-Length: 1048576\r\n\r\n" + strings.Repeat(half, 8<<10), "200 broken"},
		{"before the last byte of a large body", head + "Content-Length: 524289\r\n\r\n" + strings.Repeat(half, 8<<10), "200 broken"},
		{"behind the head, in chunks", head + "Transfer-Encoding: chunked\r\n\r\n", "200 broken"},
		{"within a chunk", head + "Transfer-Encoding: chunked\r\n\r\n80\r\n" + half, "200 broken"},
		{"behind a chunk", head + "Transfer-Encoding: chunked\r\n\r\n40\r\n" + half + "\r\n", "200 broken"},
		{"within a large chunk", head + "Transfer-Encoding: chunked\r\n\r\n100000\r\n" + strings.Repeat(half, 8<<10), "200 broken"},
		{"before the end of the trailers", head + "Transfer-Encoding: chunked\r\n\r\n40\r\n" + half + "\r\n0\r\n", "200 broken"},
		{"within a body without a length", head + "\r\n" + half, "200 broken"},
		{"within a stream of events", head + "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n", "200 broken"},
	}
}

// caseOfHang is one request that meets a hang.
type caseOfHang struct {
	hang
	client string        // "HTTP/1" or "HTTP/2"
	kind   string        // of request, as visitors know it
	how    string        // the client goes, where it does
	seen   atomic.Int64  // times that the back end got it
	met    chan struct{} // the back end hangs
	ended  chan struct{} // it has heard that it need not go on
}

func (c *caseOfHang) String() string {
	return strings.TrimSpace(fmt.Sprint(c.name, ": ", c.kind, " by ", c.client, " ", c.how))
}

// hanging is a back end. It is told by the last element of the path which case a request is; to /next it answers.
type hanging struct {
	cases []*caseOfHang
	over  <-chan struct{} // closed at the end of the test
}

// of is the case of a path; nil = it is none.
func (h *hanging) of(path string) *caseOfHang {
	i, err := strconv.Atoi(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return nil
	}
	return h.cases[i]
}

func (h *hanging) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		a, err := readHead(in)
		if err != nil {
			return
		}
		if _, err := a.readBody(in); err != nil {
			return
		}
		c := h.of(strings.Fields(a.line)[1])
		if c == nil {
			io.WriteString(conn, plainAnswer)
			continue
		}
		c.seen.Add(1)
		io.WriteString(conn, c.sent)
		c.met <- struct{}{}
		in.ReadByte() // until the proxy closes
		c.ended <- struct{}{}
		return
	}
}

// ServeHTTP is serve by HTTP/2.
func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	c := h.of(r.URL.Path)
	if c == nil || r.ProtoMajor != 2 {
		io.WriteString(w, r.Proto)
		return
	}
	c.seen.Add(1)
	if c.sent != "" {
		io.WriteString(w, c.sent[1:])
		http.NewResponseController(w).Flush()
	}
	c.met <- struct{}{}
	select {
	case <-r.Context().Done():
		c.ended <- struct{}{}
	case <-h.over:
	}
}

// front serves the back end, which speaks HTTP/2 without TLS or not, with a time limit below /hang/.
func (h *hanging) front(t *testing.T, engine string, h2 bool) *front {
	f := serve(t, engine)
	var table spillway.Table
	if h2 {
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		table = speaking(t, shopAt(2, s.Listener.Addr().String()), "h2c")
	} else {
		table = shopAt(2, accept(t, h.serve))
	}
	table.Route.Edges[0].Target = "www"
	table.Route.Rules = []spillway.HTTPRule{{
		Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: "/hang"},
		To: []spillway.Target{{Service: "www"}}, Timeout: spillway.Duration(hangLimit),
	}}
	f.push(table)
	return f
}

// visitor is a client with one connection, which it keeps for as long as it can.
type visitor interface {
	// ask sends a request and says what it sees: "200", "200 broken", "closed". Its end is that of ctx.
	ask(ctx context.Context, kind, path string) string
	hangUp()
}

// visit makes a client.
func (f *front) visit(client string) visitor {
	if client == "HTTP/1" {
		return &visitor1{f: f}
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	v := &visitor2{f: f, client: &http.Client{Transport: transport}}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			v.connected(conn)
		}
		return conn, err
	}
	return v
}

// line is the connection of a visitor, the last one that it made.
type line struct {
	mu   sync.Mutex // it is cut from elsewhere
	conn net.Conn
}

func (l *line) connected(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
}

func (l *line) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
	}
}

type visitor1 struct {
	line
	f  *front
	in *bufio.Reader // nil = there is no connection
}

func (v *visitor1) ask(ctx context.Context, kind, path string) string {
	if v.in == nil {
		conn, err := net.Dial("tcp", v.f.addr)
		if err != nil {
			return err.Error()
		}
		v.connected(conn)
		v.in = bufio.NewReader(conn)
	}
	v.conn.SetDeadline(time.Now().Add(2 * patient))
	defer context.AfterFunc(ctx, v.hangUp)()
	v.send(kind, path)
	return v.answered()
}

// send sends a request, and what comes behind it.
func (v *visitor1) send(kind, path string) {
	text := strings.Replace((&faultyBackend{}).request(kind), "/fault", path, 1)
	switch kind {
	case "slow POST":
		text = fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Length: 8000\r\n\r\n%s", path, toShop, strings.Repeat("slow", 2000))
		rest, conn := text[len(text)-2:], v.conn
		text = text[:len(text)-2]
		time.AfterFunc(slowUpload, func() { io.WriteString(conn, rest) })
	case "GET before the next":
		text += ask("/next")
	case "GET, and the next later":
		conn := v.conn
		time.AfterFunc(slowUpload, func() { io.WriteString(conn, ask("/next")) })
	}
	io.WriteString(v.conn, text)
}

// answered reads an answer.
func (v *visitor1) answered() string {
	for {
		a, err := readReply(v.in, "GET")
		switch {
		case err == nil && a.status < 200:
			continue
		case err != nil && isTimeout(err), a.broken != nil && isTimeout(a.broken):
			return "silence"
		case err != nil:
			v.leave()
			return "closed"
		case a.broken == nil:
			return fmt.Sprint(a.status)
		}
		if _, err := v.in.ReadByte(); err == nil || isTimeout(err) {
			return fmt.Sprint(a.status, " broken, and the connection is open")
		}
		v.leave()
		return fmt.Sprint(a.status, " broken")
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

func (v *visitor1) leave() {
	v.hangUp()
	v.in = nil
}

type visitor2 struct {
	line
	f      *front
	client *http.Client
}

func (v *visitor2) ask(ctx context.Context, kind, path string) string {
	var body io.Reader
	method := http.MethodPost
	switch kind {
	case "slow POST":
		from, to := io.Pipe()
		time.AfterFunc(slowUpload, func() { io.WriteString(to, strings.Repeat("slow", 2000)); to.Close() })
		body = from
	case "POST":
		body = strings.NewReader("hello")
	case "chunked":
		body = io.MultiReader(strings.NewReader("hello"))
	default:
		method = http.MethodGet
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patient)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+v.f.addr+path, body)
	if err != nil {
		return err.Error()
	}
	r.Host = "shop.test"
	resp, err := v.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return "silence"
		}
		return "closed"
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		return resp.Proto
	}
	switch _, err := io.Copy(io.Discard, resp.Body); {
	case ctx.Err() != nil:
		return fmt.Sprint(resp.StatusCode, " and silence")
	case err != nil:
		return fmt.Sprint(resp.StatusCode, " broken")
	}
	return fmt.Sprint(resp.StatusCode)
}

func (f *front) report() spillway.Report {
	f.t.Helper()
	r, err := f.Report(f.t.Context(), "shop")
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// reports waits for something that a report says.
func (f *front) reports(what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * patient); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("never: %s", what)
		}
	}
}

// goroutines counts those of the proxy, without those that wait for something to do: Run has a label, which whatever it
// starts inherits.
func (f *front) goroutines() (n int, text string) {
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		f.t.Fatal(err)
	}
	for block := range strings.SplitSeq(all.String(), "\n\n") {
		resting := strings.Contains(block, "(*crew).member") && !strings.Contains(block, "(*task).run")
		if strings.Contains(block, `"proxy":"`+f.dir+`"`) && !resting {
			some := 0
			fmt.Sscan(block, &some)
			n += some
			text += block + "\n"
		}
	}
	return n, text
}

// comesBackTo waits until the proxy has no more goroutines than before.
func (f *front) comesBackTo(before int) {
	f.t.Helper()
	var now int
	var text string
	for deadline := time.Now().Add(2 * patient); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if now, text = f.goroutines(); now <= before {
			return
		}
	}
	f.t.Errorf("%d goroutines before and %d now:\n%s", before, now, text)
}

// heard waits until the back end has heard of the end, and gives how long that took since began.
func (c *caseOfHang) heard(t *testing.T, began time.Time) time.Duration {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(2 * patient):
		t.Errorf("%s: the back end never hears that it need not go on", c)
	}
	return time.Since(began)
}

// TestBehaviour_EndsWhatABackEndLeavesOpen: at the limit of the route the client sees that there is no answer, or that
// it is not whole, the back end that it need not go on, and the failure is counted as one of the release.
func TestBehaviour_EndsWhatABackEndLeavesOpen(t *testing.T) {
	kinds := []string{"GET", "POST", "chunked", "slow POST"}
	hangsBy(t, kinds, []string{""}, func(t *testing.T, f *front, cases []*caseOfHang, each func(func(i int, c *caseOfHang))) {
		each(func(i int, c *caseOfHang) {
			v := f.visit(c.client)
			defer v.hangUp()
			began := time.Now()
			got := v.ask(t.Context(), c.kind, fmt.Sprint("/hang/", i))
			took := time.Since(began)
			if !slices.Contains(strings.Split(c.want, " or "), got) {
				t.Errorf("%s: got %s, want %s", c, got, c.want)
			}
			if took < hangLimit || took > hangLimit+hangSlack {
				t.Errorf("%s: the end came after %v, with a limit of %v", c, took, hangLimit)
			}
			if took := c.heard(t, began); took > hangLimit+hangSlack {
				t.Errorf("%s: the back end heard of the end after %v", c, took)
			}
			if n := c.seen.Load(); n != 1 {
				t.Errorf("%s: the back end got it %d times", c, n)
			}
			if got := v.ask(t.Context(), "GET", "/next"); got != "200" {
				t.Errorf("%s: the next request: %s", c, got)
			}
		})
		f.reports("nothing in flight", func() bool { return f.report().InFlight["www.1-1"] == 0 })
		if now, n := f.report().Counts["www.1"], int64(len(cases)); now.Requests != 2*n || now.Failures != n {
			t.Errorf("counted %d of %d as failed, want %d of %d", now.Failures, now.Requests, n, 2*n)
		}
	})
}

// TestBehaviour_TellsAHangingBackEndThatItsClientLeft: soon, without a failure of the release, and nothing is left of it.
func TestBehaviour_TellsAHangingBackEndThatItsClientLeft(t *testing.T) {
	kinds := []string{"GET", "POST", "chunked", "slow POST", "GET before the next", "GET, and the next later"}
	hangsBy(t, kinds, []string{"that is taken back", "that is hung up"}, func(t *testing.T, f *front, _ []*caseOfHang, each func(func(i int, c *caseOfHang))) {
		each(func(i int, c *caseOfHang) {
			v := f.visit(c.client)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan string, 1)
			go func() { done <- v.ask(ctx, c.kind, fmt.Sprint("/left/", i)) }() // ends with ctx
			select {
			case <-c.met:
			case got := <-done:
				t.Errorf("%s: %s", c, got)
				return
			}
			if c.kind == "GET, and the next later" {
				<-time.After(2 * slowUpload)
			}
			began := time.Now()
			if c.how == "that is hung up" {
				v.hangUp()
			} else {
				cancel()
			}
			if took := c.heard(t, began); took > hangSlack {
				t.Errorf("%s: the back end heard of it after %v", c, took)
			}
			cancel()
			<-done
			v.hangUp()
		})
		f.reports("nothing in flight", func() bool { return f.report().InFlight["www.1-1"] == 0 })
		if n := f.report().Counts["www.1"].Failures; n != 0 {
			t.Errorf("%d were counted as failures of the release", n)
		}
	})
}

// hangsBy runs a test on each engine, with back ends of each protocol, and with each way to hang, client, kind of request
// and way to go. each runs something for all of these at once. Behind the test nothing must be left over.
func hangsBy(t *testing.T, kinds, hows []string, test func(t *testing.T, f *front, cases []*caseOfHang, each func(func(i int, c *caseOfHang)))) {
	engines(t, func(t *testing.T, engine string) {
		rows := map[bool][]hang{false: hangs(), true: {
			{"before the answer", "", "504"}, {"behind the head", ".", "200 broken"}, {"within the body", "." + strings.Repeat("half", 16), "200 broken"},
		}}
		for h2, rows := range rows {
			t.Run(fmt.Sprint("h2c ", h2), func(t *testing.T) {
				h := &hanging{over: t.Context().Done()}
				for _, row := range rows {
					for _, client := range []string{"HTTP/1", "HTTP/2"} {
						for _, kind := range kinds {
							for _, how := range hows {
								h.cases = append(h.cases, &caseOfHang{hang: row, client: client, kind: kind, how: how, met: make(chan struct{}, 9), ended: make(chan struct{}, 9)})
							}
						}
					}
				}
				f := h.front(t, engine, h2)
				before, _ := f.goroutines()
				test(t, f, h.cases, func(do func(int, *caseOfHang)) {
					var all sync.WaitGroup
					for i, c := range h.cases {
						all.Go(func() { do(i, c) }) // ends by its limits of time
					}
					all.Wait()
				})
				f.push(shopAt(3)) // connections that are kept to the back end are no use any more
				f.comesBackTo(before)
			})
		}
	})
}
