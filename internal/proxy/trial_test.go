package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestTripwire_CostsADeadCandidateFiveFailures(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	var hits atomic.Int64
	stable := replica(t, text("old"))
	table := divided(1, spillway.Percent(5), stable, replica(t, func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.WriteHeader(500)
	}))
	r.push(table)
	candidates := usersAt(0, 500, 10)
	for i, user := range candidates {
		for _, other := range usersAt(500, spillway.Whole, 3) {
			r.get("/", "X-User", fmt.Sprint(other))
		}
		if a := r.get("/", "X-User", user); a.status != 200 {
			t.Errorf("user %d: %+v", i, a)
		}
	}
	expect := func(r *running, when string) {
		t.Helper()
		expectTripped(r, when, &hits, candidates)
	}
	if n := hits.Load(); n > 5 || n < 3 {
		t.Errorf("the candidate failed %d requests, want 3 to 5", n)
	}
	expect(r, "tripped")
	memory := r.report().Memory

	table.Revision, table.Route.Generation = 2, 2
	table.Route.Edges[0].Backends[0].Weight, table.Route.Edges[0].Backends[1].Weight = 0, spillway.Whole
	r.push(table)
	expect(r, "after a table with a higher weight")

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, false)
	expect(r, "after a restart")

	fresh := start(t, tempDir(t), false)
	table.Route.Trial.Memory = memory
	fresh.push(table)
	expect(fresh, "elsewhere, from the memory")

	back := divided(3, 0, stable, "127.0.0.1:1")
	back.Route.Trial = nil
	r.push(back)
	table.Revision, table.Route.Trial.ID, table.Route.Trial.Memory = 4, 8, memory
	r.push(table)
	if e := r.report().Evidence; e.Trial != 8 || e.Tripped || e.Requests != 0 {
		t.Errorf("a new trial begins with %+v", e)
	}
}

// expectTripped checks that the candidate, which has cost 5 failures at most, is out of the route.
func expectTripped(r *running, when string, hits *atomic.Int64, users []string) {
	r.t.Helper()
	report := r.report()
	e := report.Evidence
	if e.Verdict != spillway.Harmful || !e.Tripped || e.Failures > 5 || e.At.IsZero() {
		r.t.Errorf("%s: evidence %+v", when, e)
	}
	if b := report.Edges[0].Backends; b[0].Weight != spillway.Whole || b[1].Weight != 0 {
		r.t.Errorf("%s: serves %v", when, b)
	}
	before := hits.Load()
	for _, user := range users {
		if a := r.get("/", "X-User", user); a.release != "1" {
			r.t.Errorf("%s: %+v", when, a)
		}
	}
	if hits.Load() != before {
		r.t.Errorf("%s: the candidate still gets requests", when)
	}
}

func TestTripwire_IsOnDiskBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	r.push(divided(1, spillway.Percent(5), replica(t, text("old")), replica(t, status(500))))
	for _, user := range usersAt(0, 500, 3) {
		r.get("/", "X-User", user)
	}
	for i := 0; !r.report().Evidence.Tripped; i++ {
		r.get("/", "X-User", usersAt(0, 500, 4+i)[3+i])
	}
	// What a kill would leave: read by a second plane, without the first being stopped.
	p := &plane{dir: dir, log: testLog(t), apps: map[spillway.Ref]*app{}, endpoints: map[endpointKey]*endpoint{}, listeners: map[string]*listener{}, missing: map[string]string{}}
	p.reroute()
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	report, err := p.report(shop)
	if err != nil || !report.Evidence.Tripped {
		t.Errorf("on disk: %+v %v", report.Evidence, err)
	}
}

func TestTripwire_TellsWatchers(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(divided(1, spillway.Percent(5), replica(t, text("old")), refused(t)))
	ctx, cancel := context.WithCancel(t.Context())
	tripped, watched := make(chan bool, 100), make(chan struct{})
	go func() { // ends with ctx, the test waits
		defer close(watched)
		r.Watch(ctx, func(spillway.Ref) {
			if report, err := r.Report(ctx, shop); err == nil {
				tripped <- report.Evidence.Tripped
			}
		})
	}()
	<-tripped
	for _, user := range usersAt(0, 500, 8) {
		if a := r.get("/", "X-User", user); a.status != 200 {
			t.Errorf("%+v", a)
		}
	}
	for !<-tripped {
	}
	cancel()
	<-watched
}

func TestTripwire_LeavesAFirstReleaseAlone(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := divided(1, spillway.Whole, "127.0.0.1:1", replica(t, status(500)))
	table.Route.Edges[0].Backends = table.Route.Edges[0].Backends[1:]
	table.Endpoints = table.Endpoints[1:]
	r.push(table)
	for range 30 {
		if a := r.get("/"); a.status != 500 || a.release != "2" {
			t.Fatalf("%+v", a)
		}
	}
	e := r.report().Evidence
	if e.Verdict != spillway.Harmful || e.Tripped || e.Failures != 30 {
		t.Errorf("evidence %+v", e)
	}
	if w := r.report().Edges[0].Backends[0].Weight; w != spillway.Whole {
		t.Errorf("weight %s", w)
	}
}

func TestTripwire_SendsUsersBackFromAHundredPercent(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(divided(1, spillway.Whole, replica(t, text("old")), replica(t, status(500))))
	failed := 0
	for range 60 {
		if a, err := r.do(http.MethodPost, "/", strings.NewReader("x")); err != nil || a.status != 200 {
			failed++
		}
	}
	if failed > 20 || !r.report().Evidence.Tripped {
		t.Errorf("%d failed, evidence %+v", failed, r.report().Evidence)
	}
}

// TestAdmit_BoundsWhatManyClientsCost: POSTs are not answered from stable, so each failure is a user's.
func TestAdmit_BoundsWhatManyClientsCost(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	full := make(chan struct{})
	var hits atomic.Int64
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, func(w http.ResponseWriter, _ *http.Request) {
		if hits.Add(1) == 20 {
			close(full)
		}
		<-full // as many at once as are admitted
		w.WriteHeader(500)
	}))
	r.push(table)
	var failed atomic.Int64
	var clients sync.WaitGroup
	for _, user := range usersAt(0, 5000, 200) {
		clients.Go(func() { // ends with its answer, the test waits
			a, err := r.do(http.MethodPost, "/", strings.NewReader("x"), "X-User", user)
			if err != nil || a.status != 200 {
				failed.Add(1)
			}
		})
	}
	clients.Wait()
	if hits.Load() != 20 || failed.Load() != 20 {
		t.Errorf("%d reached the candidate, %d failed; want the budget of 20", hits.Load(), failed.Load())
	}
	if e := r.report().Evidence; !e.Tripped || e.Failures != 20 {
		t.Errorf("evidence %+v", e)
	}
}

func TestTrial_CountsEachAnswerBeforeTheClientHasIt(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	big := strings.Repeat("x", 100_000)
	r.push(divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/big" {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		}
		if req.URL.Path != "/small" {
			w.Write([]byte(big))
		}
	})))
	users := usersAt(0, 5000, 12)
	for i, path := range []string{"/small", "/big", "/chunked", "/small", "/big", "/chunked"} {
		r.get(path, "X-User", users[i])
		r.get(path, "X-User", usersAt(5000, spillway.Whole, 1)[0])
		if e := r.report().Evidence; e.Requests != int64(i+1) || e.Baseline != int64(i+1) {
			t.Errorf("after %d answers each: %+v", i+1, e)
		}
	}
}

func TestTrial_CountsAnAnswerThatBreaksOffAsFailed(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var hits atomic.Int64
	r.push(divided(1, spillway.Percent(50), replica(t, text("old")), faulty(t, "resets within the answer", &hits)))
	if _, err := r.do("GET", "/", nil, "X-User", usersAt(0, 5000, 1)[0]); err == nil {
		t.Error("the client does not notice that the answer is not whole")
	}
	if e := r.report().Evidence; e.Failures != 1 {
		t.Errorf("evidence %+v", e)
	}
}

func TestTrial_CountsTheFirstErrorOfAUserOnly(t *testing.T) {
	trial, err := newTrial(spillway.Trial{ID: 1, Budget: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		trial.observe(shop, outcome{Candidate: true, Weight: 500, Failed: true, Key: 1}, false)
	}
	if e := trial.evidence(); e.Verdict == spillway.Harmful || e.Failures != 50 {
		t.Errorf("one user with 50 errors: %+v", e)
	}
	again, err := newTrial(spillway.Trial{ID: 1, Budget: 1000, Memory: trial.memory(nil)})
	if err != nil || !again.repeated(1) || again.repeated(2) || again.repeated(0) {
		t.Errorf("the users are forgotten: %v", err)
	}
	if _, err := newTrial(spillway.Trial{ID: 1, Memory: []byte(`{"version": 2}`)}); err == nil {
		t.Error("a memory of another version is read")
	}
}

func TestTrial_SkipsTheCandidatesOwnCalls(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := unused(t)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	backend := spillway.Group{Service: "backend", Release: 2}
	table.Route.Trial.Candidate = append(table.Route.Trial.Candidate, backend)
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{Service: "backend", From: www2, Backends: []spillway.Backend{{Group: backend, Release: 2, Weight: spillway.Whole}}})
	table.Listeners = []spillway.EdgeListener{{Service: "backend", From: www2, Address: address}}
	table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: "backend.2-1", Group: backend, Address: replica(t, status(500))})
	r.push(table)
	if a, err := do(newClient(), "http://"+address, "GET", "/", nil); err != nil || a.status != 500 {
		t.Errorf("%+v %v", a, err)
	}
	report := r.report()
	if report.Evidence.Requests != 0 || report.Counts["backend.2"].Failures != 1 {
		t.Errorf("evidence %+v, counts %v", report.Evidence, report.Counts)
	}
}

func TestTrial_DividesAnUnchangedServicesCallsByTheBucket(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := unused(t)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	table.Route.Edges[0].Hosts, table.Route.Edges[0].From = nil, spillway.Group{Service: "front", Release: 1}
	table.Listeners = []spillway.EdgeListener{{Service: "www", From: table.Route.Edges[0].From, Address: address}}
	r.push(table)
	for bucket, want := range map[string]string{"0": "2", "4999": "2", "5000": "1", "9999": "1"} {
		if a, err := do(newClient(), "http://"+address, "GET", "/", nil, bucketHeader, bucket); err != nil || a.release != want {
			t.Errorf("bucket %s: %+v %v, want release %s", bucket, a, err, want)
		}
	}
	if e := r.report().Evidence; e.Requests != 2 || e.Baseline != 2 {
		t.Errorf("evidence %+v", e)
	}
}
