package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// TestMain is also the second process of the hand-over test: with the variable set it runs a proxy.
func TestMain(m *testing.M) {
	dir := os.Getenv("PROXY_TEST_DIR")
	if dir == "" {
		os.Exit(runTests(m))
	}
	err := Run(context.Background(), Config{Dir: dir, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", Engine: os.Getenv("PROXY_TEST_ENGINE"), Takeover: true, Ready: func() { fmt.Println("ready") }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runTests runs the tests with an authority for certificates, more of them at a time than there are
// processors: most only wait, for a hold or a second to pass.
func runTests(m *testing.M) int {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "8")
	}
	dir, err := os.MkdirTemp("", "proxy")
	if err == nil {
		defer os.RemoveAll(dir)
		err = trustedBy(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// process starts a proxy in a process of its own, which takes over, and returns when it serves.
func process(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROXY_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	return cmd
}

// crowd sends GETs and POSTs over kept and new connections until stop, and counts what fails.
type crowd struct {
	sent, failed atomic.Int64
	stop         func()
}

func newCrowd(t *testing.T, urls ...string) *crowd {
	c := &crowd{}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() { // ends with ctx; stop waits
			client := &http.Client{Transport: &http.Transport{
				DisableKeepAlives: i%3 == 0, TLSClientConfig: testAuthority.clientConfig("shop.test"), ForceAttemptHTTP2: i < 3,
			}, Timeout: 30 * time.Second}
			defer client.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("%d-%d", i, n)
				method, body := "GET", io.Reader(nil)
				if i%2 == 0 {
					method, body = "POST", strings.NewReader(id)
				}
				a, err := do(client, urls[n%len(urls)], method, "/"+id, body)
				c.sent.Add(1)
				if err != nil || a.status != 200 || a.body != id {
					c.failed.Add(1)
					t.Errorf("%s %s: %+v %v", method, id, a, err)
				}
			}
		})
	}
	c.stop = sync.OnceFunc(func() {
		cancel()
		clients.Wait()
	})
	t.Cleanup(c.stop)
	return c
}

// served counts more requests of the crowd, so that a proxy has had work before the next takes over.
func (c *crowd) served(t *testing.T, more int64) {
	t.Helper()
	from := c.sent.Load()
	eventually(t, "requests are answered", func() bool { return c.sent.Load() > from+more })
}

// counting is a replica that answers with the path, and fails the test when it gets one twice.
func counting(t *testing.T) string {
	var mu sync.Mutex
	seen := map[string]bool{}
	return replica(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		if seen[r.URL.Path] {
			t.Errorf("%s came twice", r.URL.Path)
		}
		seen[r.URL.Path] = true
		mu.Unlock()
		io.WriteString(w, strings.TrimPrefix(r.URL.Path, "/"))
	})
}

// withPrivate adds a private address that leads to the public edge's backend.
func withPrivate(table spillway.Table, address string) spillway.Table {
	table.Listeners = []spillway.EdgeListener{{Service: "www", From: www2, Address: address}}
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{Service: "www", From: www2, Backends: table.Route.Edges[0].Backends})
	return table
}

func TestTakeover_LosesNothing(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	address := unused(t)
	r := start(t, dir, false)
	table := withPrivate(alone(1, counting(t)), address)
	r.push(table)
	crowd := newCrowd(t, r.url, "http://"+address)
	for i := range int64(4) {
		crowd.served(t, 50)
		next := start(t, dir, true)
		if next.url != r.url {
			t.Fatalf("the heir serves %s instead of %s", next.url, r.url)
		}
		table.Revision = i + 2
		next.push(table)
		if got := next.report().Revision; got != table.Revision {
			t.Errorf("revision %d", got)
		}
		r = next
	}
	crowd.served(t, 50)
	crowd.stop()
	t.Logf("%d requests", crowd.sent.Load())
}

func TestTakeover_ByAnotherProcessLosesNothing(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	address := unused(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 1, "shop.test")
	r.push(secured(withPrivate(alone(1, counting(t)), address), files))
	crowd := newCrowd(t, r.url, r.tls, "http://"+address)
	pid := os.Getpid()
	for range 2 {
		crowd.served(t, 50)
		process(t, dir)
		info, err := r.Info(t.Context())
		if err != nil || info.PID == pid || "http://"+info.HTTP != r.url || len(info.Private) != 1 || info.Leaving {
			t.Errorf("info %+v %v", info, err)
		}
		pid = info.PID
	}
	crowd.served(t, 50)
	crowd.stop()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if a := r.get("/x"); a.body != "x" {
		t.Errorf("%+v", a)
	}
	t.Logf("%d requests", crowd.sent.Load())
}

func TestTakeover_CountsWhatTheOldProxyStillHas(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	entered, finish := make(chan struct{}), make(chan struct{})
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			close(entered)
			<-finish
			w.WriteHeader(500)
		}
	}))
	r.push(table)
	user := usersAt(0, 5000, 1)[0]
	r.get("/", "X-User", user)
	done := make(chan answer)
	go func() { // ends with the answer, which the test waits for
		a, _ := r.do("POST", "/slow", nil, "X-User", user)
		done <- a
	}()
	<-entered
	next := start(t, dir, true)
	if report := next.report(); report.InFlight["www.2-1"] != 1 || report.Evidence.Requests != 1 {
		t.Errorf("the heir reports %v and %+v", report.InFlight, report.Evidence)
	}
	table.Revision, table.Endpoints = 2, table.Endpoints[:1]
	next.push(table)
	if n := next.report().InFlight["www.2-1"]; n != 1 {
		t.Errorf("an endpoint that left has %d in flight, want 1", n)
	}
	last := start(t, dir, true) // and over two generations
	if n := last.report().InFlight["www.2-1"]; n != 1 {
		t.Errorf("the second heir counts %d in flight, want 1", n)
	}
	close(finish)
	if a := <-done; a.status != 500 {
		t.Errorf("the open request: %+v", a)
	}
	eventually(t, "the count falls", func() bool { return last.report().InFlight["www.2-1"] == 0 })
}

func TestTakeover_JudgesTheOldProxysLastAnswers(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	var waiting sync.WaitGroup
	waiting.Add(5)
	finish := make(chan struct{})
	r.push(divided(1, spillway.Percent(5), replica(t, text("old")), replica(t, func(w http.ResponseWriter, req *http.Request) {
		waiting.Done()
		<-finish
		w.WriteHeader(500)
	})))
	var clients sync.WaitGroup
	for _, user := range usersAt(0, 500, 5) {
		clients.Go(func() { // ends with the answer, the test waits
			if a, err := r.do("GET", "/", nil, "X-User", user); err != nil || a.status != 200 || a.body != "old" {
				t.Errorf("%+v %v", a, err)
			}
		})
	}
	waiting.Wait()
	next := start(t, dir, true)
	close(finish)
	clients.Wait()
	eventually(t, "the heir knows all failures", func() bool { return next.report().Evidence.Failures >= 5 })
	if e := next.report().Evidence; !e.Tripped {
		t.Errorf("the heir did not trip: %+v", e)
	}
	if e := next.report().Evidence; e.Failures != 5 {
		t.Errorf("evidence %+v", e)
	}
	if err := next.stop(); err != nil {
		t.Fatal(err)
	}
	if again := start(t, dir, false); !again.report().Evidence.Tripped {
		t.Error("the trip was not saved by the heir")
	}
}

func TestTakeover_KeepsUpgradedConnections(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	r.push(alone(1, replica(t, echo)))
	conn, reader := r.raw(upgrade)
	if resp, err := http.ReadResponse(reader, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%+v %v", resp, err)
	}
	for i := range 3 {
		next := start(t, dir, true)
		word := fmt.Sprint("word ", i)
		io.WriteString(conn, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != word {
			t.Fatalf("after hand-over %d: %q %v", i, got, err)
		}
		if n := next.report().InFlight["www.1-1"]; n != 1 {
			t.Errorf("after hand-over %d: %d in flight", i, n)
		}
	}
	conn.(*net.TCPConn).CloseWrite()
	io.ReadAll(reader)
}

func TestTakeover_LeavesTheOldProxyWhenTheHeirFails(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	r.push(table)
	in, err := inherit(dir)
	if err != nil {
		t.Fatal(err)
	}
	if in.lock == nil || len(in.sockets) != 2 {
		t.Fatalf("inherited %v", in.sockets)
	}
	if _, err := inherit(dir); err == nil || !strings.Contains(err.Error(), "being replaced") {
		t.Errorf("a second heir: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "snapshot.json"))
	if err != nil || !json.Valid(text) {
		t.Errorf("snapshot: %v", err)
	}
	in.close() // dies before it serves
	table.Revision = 2
	r.push(table) // waits until the old one has noticed
	if a := r.get("/"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	next := start(t, dir, true)
	if a := next.get("/"); a.status != 200 {
		t.Errorf("%+v", a)
	}
}

func TestTakeover_IsNotWaitedForWhenTheHeirIsKilled(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	entered, finish := make(chan struct{}), make(chan struct{})
	r.push(alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			close(entered)
			<-finish
		}
		io.WriteString(w, "done")
	})))
	done := make(chan answer)
	go func() { // ends with the answer, which the test waits for
		a, _ := r.do("GET", "/slow", nil)
		done <- a
	}()
	<-entered
	heir := process(t, dir)
	if err := heir.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	heir.Wait()
	for _, takeover := range []bool{false, true} {
		if a := start(t, dir, takeover).get("/"); a.body != "done" {
			t.Errorf("takeover %v: %+v", takeover, a)
		}
	}
	close(finish)
	if a := <-done; a.body != "done" {
		t.Errorf("the open request: %+v", a)
	}
}

func TestTakeover_StartsAloneWhenNobodyServes(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), true)
	r.push(alone(1, replica(t, text("shop"))))
	if a := r.get("/"); a.body != "shop" {
		t.Errorf("%+v", a)
	}
}

func TestRun_FinishesOpenRequestsWhenStopped(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	entered, finish := make(chan struct{}), make(chan struct{})
	r.push(alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			close(entered)
			<-finish
		}
		io.WriteString(w, "done")
	})))
	kept := &http.Client{Transport: &http.Transport{}}
	defer kept.CloseIdleConnections()
	done := make(chan answer)
	go func() { // ends with the answer, which the test waits for
		a, _ := do(kept, r.url, "GET", "/slow", nil)
		done <- a
	}()
	<-entered
	stopped := make(chan error)
	go func() { stopped <- r.stop() }() // the test waits
	eventually(t, "it accepts no more", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(finish)
	if a := <-done; a.body != "done" || !a.close {
		t.Errorf("the open request: %+v", a)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := runtimeLeftovers(r.dir); len(n) != 0 {
		t.Errorf("left in the directory: %v", n)
	}
}

// runtimeLeftovers are files that only a running proxy should have.
func runtimeLeftovers(dir string) (left []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, socketName) || strings.HasSuffix(name, ".tmp") {
			left = append(left, name)
		}
	}
	return left
}
