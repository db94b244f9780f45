package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// faulty is a replica that misbehaves and counts the requests that reached it.
func faulty(t *testing.T, kind string, hits *atomic.Int64) string {
	t.Helper()
	switch kind {
	case "refuses":
		return refused(t)
	case "accepts and closes":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() { // ends when the listener is closed, at the end of the test
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Read(make([]byte, 1)) // so that something was sent for sure
				hits.Add(1)
				c.Close()
			}
		}()
		return l.Addr().String()
	}
	return replica(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		switch kind {
		case "resets":
			io.Copy(io.Discard, r.Body)
			reset(w, r)
		case "resets within the answer":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "part")
			http.NewResponseController(w).Flush()
			reset(w, r)
		case "answers 500":
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(500)
		}
	})
}

// TestRun_RetriesOnlyWhatIsSafe pairs a faulty replica with a good one of the same release, and as a
// candidate with a good stable one. ok: the client gets the good answer. hits: how often the faulty one
// may have seen the request at most.
func TestRun_RetriesOnlyWhatIsSafe(t *testing.T) {
	t.Parallel()
	type want struct{ get, post, key bool }
	for kind, w := range map[string]struct{ sameRelease, candidate want }{
		"refuses":                  {want{true, true, true}, want{true, true, true}},
		"accepts and closes":       {want{true, false, true}, want{true, false, true}},
		"resets":                   {want{true, false, true}, want{true, false, true}},
		"resets within the answer": {want{}, want{}},
		"answers 500":              {want{}, want{true, false, true}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var hits atomic.Int64
			r := start(t, tempDir(t), false)
			bad, good := faulty(t, kind, &hits), replica(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
			check := func(name string, want bool, method string, header ...string) {
				t.Helper()
				hits.Store(0)
				a, err := r.do(method, "/", strings.NewReader(map[string]string{"POST": "payload"}[method]), header...)
				if got := err == nil && a.status == 200; got != want {
					t.Errorf("%s: %+v %v, want success %v", name, a, err, want)
				}
				if got := a.body; want && method == "POST" && got != "payload" {
					t.Errorf("%s: the good replica got %q", name, got)
				}
				if n := hits.Load(); n > 1 {
					t.Errorf("%s: the faulty replica got it %d times", name, n)
				}
			}
			user := usersAt(0, 5000, 1)[0]
			r.push(divided(1, spillway.Percent(50), good, bad))
			check("candidate GET", w.candidate.get, "GET", "X-User", user)
			check("candidate POST", w.candidate.post, "POST", "X-User", user)
			check("candidate POST with key", w.candidate.key, "POST", "X-User", user, "Idempotency-Key", "1")

			r.push(alone(2, bad, good))
			for i := range 6 { // the choice is random when both are idle: be sure to meet the faulty one
				if !w.sameRelease.get || !w.sameRelease.post {
					break
				}
				check(fmt.Sprint("GET ", i), true, "GET")
				check(fmt.Sprint("POST ", i), true, "POST")
			}
			for range 6 {
				if w.sameRelease.get {
					check("GET", true, "GET")
				}
				if w.sameRelease.key {
					check("POST with key", true, "POST", "Idempotency-Key", "1")
				}
			}
		})
	}
}

func TestRun_AnswersFromStableWhatTheCandidateFails(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, status(500))))
	for _, user := range usersAt(0, 5000, 2) {
		if a := r.get("/", "X-User", user); a.status != 200 || a.release != "1" || a.body != "old" {
			t.Errorf("%+v", a)
		}
	}
	e := r.report().Evidence
	if e.Requests != 2 || e.Failures != 2 || e.Baseline != 0 {
		t.Errorf("evidence %+v, want the candidate's 2 failures and nothing of stable", e)
	}
	counts := r.report().Counts
	if c := counts["www.2"]; c.Requests != 2 || c.Failures != 2 {
		t.Errorf("counts of the candidate %+v", c)
	}
	if c := counts["www.1"]; c.Requests != 2 || c.Failures != 0 || c.P50 == 0 {
		t.Errorf("counts of stable %+v", c)
	}
}

func TestRun_NamesTheReleaseThatDidNotAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, reset)))
	a, err := r.do(http.MethodPost, "/", strings.NewReader("x"))
	if err != nil || a.status != 502 || a.header.Get("X-Spillway-Release") != "1" || a.header.Get("X-Spillway-Reason") == "" {
		t.Errorf("%+v, %v; want 502 of release 1 with a reason", a, err)
	}
}

func TestRun_SaysBadGatewayWhenNothingListens(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, refused(t)))
	if a := r.get("/"); a.status != 502 || !strings.Contains(a.header.Get("X-Spillway-Reason"), "www.1-1 cannot be connected to") {
		t.Errorf("%+v", a)
	}
}

func TestRun_WaitsForAReplicaThatRestarts(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := unused(t)
	r.push(alone(1, address))
	done := make(chan answer)
	go func() { // ends with the answer, which the test waits for
		a, _ := r.do("POST", "/", strings.NewReader("x"))
		done <- a
	}()
	eventually(t, "the first attempt has failed", func() bool { return r.report().Counts["www.1"].Failures > 0 })
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	s := &http.Server{Handler: text("back")}
	go s.Serve(l) // ends with Close
	defer s.Close()
	if a := <-done; a.body != "back" {
		t.Errorf("%+v", a)
	}
}

func TestPick_TakesTheLeastBusyAndNeverGivesUpTheLast(t *testing.T) {
	now := time.Now()
	a, b, c := &endpoint{}, &endpoint{}, &endpoint{}
	b.inFlight.Store(1)
	c.inFlight.Store(1000)
	taken := map[*endpoint]int{}
	for range 3000 {
		taken[pick([]*endpoint{a, b, c}, nil, now)]++
	}
	if taken[c] != 0 || taken[a] < taken[b] {
		t.Errorf("taken %d %d %d", taken[a], taken[b], taken[c])
	}
	a.chill(now)
	b.chill(now)
	if got := pick([]*endpoint{a, c}, nil, now); got != c {
		t.Error("a cold endpoint is taken although another is there")
	}
	if got := pick([]*endpoint{a, b}, []*endpoint{b}, now); got != a {
		t.Error("the last endpoint is given up")
	}
	if got := pick([]*endpoint{a}, nil, now.Add(2*cooling)); got != a {
		t.Error("cold for ever")
	}
	c.closed.Store(true)
	if got := pick([]*endpoint{c}, nil, now); got != nil {
		t.Error("a closed endpoint is taken")
	}
}

func TestRun_DrainsAnEndpoint(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	entered, finish := make(chan struct{}), make(chan struct{})
	var late atomic.Int64
	slow := replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/slow" {
			late.Add(1)
			return
		}
		close(entered)
		<-finish
		io.WriteString(w, "done")
	})
	r.push(alone(1, slow))
	changed := make(chan spillway.Ref, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { // ends with ctx, the test waits
		defer close(watched)
		r.Watch(ctx, func(a spillway.Ref) { changed <- a })
	}()
	defer func() { cancel(); <-watched }()
	<-changed // that it is connected
	done := make(chan answer)
	go func() { // ends with the answer, which the test waits for
		a, _ := r.do("GET", "/slow", nil)
		done <- a
	}()
	<-entered
	table := alone(2, replica(t, text("other")))
	table.Endpoints[0].Replica = "www.1-9"
	table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: "www.1-1", Group: www1, Address: slow, Draining: true})
	r.push(table)
	for range 20 {
		if a := r.get("/"); a.body != "other" {
			t.Fatalf("%+v", a)
		}
	}
	if n := r.report().InFlight; n["www.1-1"] != 1 || n["www.1-9"] != 0 {
		t.Errorf("in flight %v", n)
	}
	table.Revision, table.Endpoints = 3, table.Endpoints[:1]
	r.push(table)
	if n := r.report().InFlight["www.1-1"]; n != 1 {
		t.Errorf("an endpoint that left the table has %d in flight, want 1", n)
	}
	for ; len(changed) > 0; <-changed {
	}
	close(finish)
	if a := <-done; a.body != "done" {
		t.Errorf("the open request: %+v", a)
	}
	if app := <-changed; app != shop {
		t.Errorf("watch says %s", app)
	}
	if n := r.report().InFlight["www.1-1"]; n != 0 || late.Load() != 0 {
		t.Errorf("in flight %d, late requests %d", n, late.Load())
	}
}

// TestRun_LosesNothingWhileTablesChange is the swap storm: replicas leave the table, and may be stopped
// as soon as the push has returned and nothing is in flight.
func TestRun_LosesNothingWhileTablesChange(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var mu sync.Mutex
	seen := map[string]int{}
	gone := make([]atomic.Bool, 3)
	var onGone atomic.Int64
	addresses := make([]string, 3)
	for i := range addresses {
		addresses[i] = replica(t, func(w http.ResponseWriter, req *http.Request) {
			if gone[i].Load() {
				onGone.Add(1)
			}
			id, _ := io.ReadAll(req.Body)
			mu.Lock()
			seen[string(id)+req.URL.RawQuery]++
			mu.Unlock()
		})
	}
	r.push(alone(1, addresses...))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var sent, bad atomic.Int64
	var clients sync.WaitGroup
	for k := range 8 {
		clients.Go(func() { storm(ctx, r, k, &sent, &bad) }) // ends with ctx, the test waits
	}
	pushes := 0
	for revision := int64(2); ctx.Err() == nil; revision++ {
		out := int(revision) % 3
		table := alone(revision, addresses...)
		table.Endpoints = append(table.Endpoints[:out], table.Endpoints[out+1:]...)
		gone[(out+2)%3].Store(false)
		r.push(table)
		eventually(t, "drained", func() bool { return r.report().InFlight[fmt.Sprintf("www.1-%d", out+1)] == 0 })
		gone[out].Store(true)
		pushes++
	}
	clients.Wait()
	if int(sent.Load()) != len(seen) || bad.Load() != 0 || onGone.Load() != 0 || pushes < 3 {
		t.Errorf("%d sent, %d seen, %d failed, %d on a removed endpoint, %d pushes", sent.Load(), len(seen), bad.Load(), onGone.Load(), pushes)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("request %s was done %d times", id, n)
		}
	}
	t.Logf("%d requests, %d pushes", sent.Load(), pushes)
}

// storm sends requests with ids of their own, GETs or POSTs, until ctx ends.
func storm(ctx context.Context, r *running, k int, sent, bad *atomic.Int64) {
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%d-%d", k, i)
		method, path, body := "POST", "/", io.Reader(strings.NewReader(id))
		if k%2 == 0 {
			method, path, body = "GET", "/?"+id, nil
		}
		sent.Add(1)
		if a, err := do(c, r.url, method, path, body); err != nil || a.status != 200 {
			bad.Add(1)
			r.t.Errorf("%s %s: %+v %v", method, id, a, err)
		}
	}
}

func TestRun_BlamesNobodyWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	entered := make(chan struct{}, 10)
	r.push(divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, func(w http.ResponseWriter, req *http.Request) {
		entered <- struct{}{}
		<-req.Context().Done()
	})))
	user := usersAt(0, 5000, 1)[0]
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.test"
		req.Header.Set("X-User", user)
		left := make(chan struct{})
		go func() { // ends with ctx, the test waits
			defer close(left)
			if resp, err := newClient().Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		<-entered
		cancel()
		<-left
	}
	eventually(t, "nothing in flight", func() bool { return r.report().InFlight["www.2-1"] == 0 })
	report := r.report()
	if e := report.Evidence; e.Requests != 0 || e.Failures != 0 {
		t.Errorf("evidence %+v", e)
	}
	if c := report.Counts["www.2"]; c.Requests != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestRun_BlamesTheClientForABrokenBody(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(divided(1, spillway.Whole, replica(t, text("old")), replica(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(w, req.Body)
	})))
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	reply, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(reply, []byte("HTTP/1.1 400 ")) {
		t.Errorf("%q %v", reply, err)
	}
	if e := r.report().Evidence; e.Failures != 0 {
		t.Errorf("evidence %+v", e)
	}
}

func TestUpload_IsReadOnceAndSentAgain(t *testing.T) {
	u := &upload{from: strings.NewReader(strings.Repeat("x", keptBody))}
	first := u.start()
	if _, err := io.ReadFull(first, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	again, err := io.ReadAll(u.start())
	if err != nil || len(again) != keptBody || !u.repeatable() {
		t.Errorf("second attempt read %d bytes, %v", len(again), err)
	}
	if _, err := first.Read(make([]byte, 1)); err != errSuperseded {
		t.Errorf("the first attempt still reads: %v", err)
	}
	u = &upload{from: strings.NewReader(strings.Repeat("x", keptBody+1))}
	whole, err := io.ReadAll(u.start())
	if err != nil || len(whole) != keptBody+1 || u.repeatable() {
		t.Errorf("a long body: %d bytes, %v, repeatable %v", len(whole), err, u.repeatable())
	}
}
