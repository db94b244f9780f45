package proxy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

var www5 = spillway.Group{Service: "www", Release: 5} // of the track canary

// canary is a table in which a track has the highest buckets, up to share, beside stable. Who carries
// X-Canary: yes or any cookie canary belongs to it, and canary.test leads there.
func canary(revision int64, share spillway.Share, stable, track string) spillway.Table {
	t := alone(revision, stable)
	t.Cohort.Key = []spillway.KeySource{{Kind: "header", Name: "X-User"}}
	of5 := spillway.Backend{Group: www5, Release: 5, Weight: share, Track: "canary"}
	t.Route.Edges[0].Backends = []spillway.Backend{of5, {Group: www1, Release: 1, Weight: spillway.Whole - share}}
	t.Route.Edges[0].Rules = []spillway.Rule{
		{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Canary"}, Value: "yes"}, Track: "gone"},
		{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Canary"}, Value: "yes"}, Track: "canary"},
		{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "cookie", Name: "canary"}, Value: "*"}, Track: "canary"},
	}
	of5.Weight = spillway.Whole
	t.Route.Edges = append(t.Route.Edges, spillway.Edge{Service: "www", Hosts: []string{"canary.test"}, Only: "canary", Backends: []spillway.Backend{of5}})
	if track != "" {
		t.Endpoints = append(t.Endpoints, spillway.Endpoint{Replica: "www.5-1", Group: www5, Address: track})
	}
	return t
}

// tried makes the release of the track the candidate of a trial against stable.
func tried(t spillway.Table) spillway.Table {
	t.Route.Trial = &spillway.Trial{ID: 9, Release: 5, Stable: 1, Candidate: []spillway.Group{www5}, Budget: 20, Margin: spillway.Percent(1), Tolerance: 100, Track: "canary"}
	return t
}

// evidenceOf is the judge's state in a report.
func evidenceOf(t *testing.T, report spillway.Report) judge.State {
	t.Helper()
	var m memory
	if err := json.Unmarshal(report.Memory, &m); err != nil {
		t.Fatal(err)
	}
	return m.State
}

func TestTracks_AreReachedByBucketByRuleAndByHost(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(canary(1, spillway.Percent(10), replica(t, text("old")), replica(t, text("canary"))))
	high, low := usersAt(9000, spillway.Whole, 1)[0], usersAt(0, 9000, 1)[0]
	for _, c := range []struct {
		release string
		header  []string
	}{
		{"5", []string{"X-User", high}},
		{"1", []string{"X-User", low}},
		{"5", []string{"X-User", low, "X-Canary", "yes"}},
		{"1", []string{"X-User", low, "X-Canary", "no"}},
		{"5", []string{"X-User", low, "Cookie", "canary=whatever"}},
		{"5", []string{"X-User", low, "Cookie", "a=b; canary="}},
		{"1", []string{"X-User", low, "Cookie", "canaries=1"}},
		{"5", []string{"X-User", low, "Host", "canary.test"}},
	} {
		if a := r.get("/", c.header...); a.release != c.release {
			t.Errorf("%v: release %s, want %s", c.header, a.release, c.release)
		}
	}
}

func TestTracks_GiveNoCookieToUsersOfARule(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(canary(1, spillway.Percent(10), replica(t, text("old")), replica(t, text("canary"))))
	if a := r.get("/", "X-Canary", "yes"); a.header.Get("Set-Cookie") != "" || a.release != "5" {
		t.Errorf("by rule: %+v", a)
	}
	if a := r.get("/"); a.header.Get("Set-Cookie") == "" {
		t.Errorf("a stranger: %+v", a)
	}
	r.push(canary(2, 0, replica(t, text("old")), replica(t, text("canary"))))
	if a := r.get("/"); a.header.Get("Set-Cookie") != "" || a.release != "1" {
		t.Errorf("a stranger where only rules lead to the track: %+v", a)
	}
}

func TestStandIn_IsStableOnly(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := canary(1, spillway.Percent(10), replica(t, text("old")), "")
	r.push(table)
	for _, header := range [][]string{{"X-User", usersAt(9000, spillway.Whole, 1)[0]}, {"X-Canary", "yes"}} {
		if a := r.get("/", header...); a.release != "1" {
			t.Errorf("%v without a replica of the track: %+v", header, a)
		}
	}
	table = canary(2, spillway.Percent(10), replica(t, text("old")), refused(t))
	r.push(table)
	for range 3 { // also when nobody can connect to it, and when it is cold
		if a := r.get("/", "X-Canary", "yes"); a.release != "1" {
			t.Errorf("with a dead replica of the track: %+v", a)
		}
	}
	none := divided(1, spillway.Percent(50), "", replica(t, text("new"))) // neither candidate nor track stands in for stable
	none.App, none.Route.Edges[0].Hosts, none.Endpoints = "other", []string{"other.test"}, none.Endpoints[1:]
	none.Route.Edges[0].Backends[0].Weight -= 1000
	none.Route.Edges[0].Backends = slices.Insert(none.Route.Edges[0].Backends, 0, spillway.Backend{Group: www5, Release: 5, Weight: 1000, Track: "canary"})
	none.Endpoints = append(none.Endpoints, spillway.Endpoint{Replica: "www.5-1", Group: www5, Address: replica(t, text("canary"))})
	r.push(none)
	none.Route.Edges[0].Backends[1].Weight, none.Route.Edges[0].Backends[2].Weight = spillway.Whole-1000, 0
	none.App, none.Route.Edges[0].Hosts = "zero", []string{"zero.test"}
	r.push(none)
	user := "user-0" // of stable in both
	for i := 1; Bucket("other", user) < 5000 || Bucket("other", user) >= 9000 || Bucket("zero", user) >= 9000; i++ {
		user = fmt.Sprint("user-", i)
	}
	var all sync.WaitGroup
	for host, want := range map[string]string{"canary.test": "track canary: no ready replica of www.5", "other.test": "no ready replica of www.1", "zero.test": "no ready replica of www.1"} {
		if host == "canary.test" {
			r.push(canary(3, spillway.Percent(10), replica(t, text("old")), ""))
		}
		all.Go(func() { // ends with the answer, the test waits
			if a, err := r.do("GET", "/", nil, "Host", host, "X-User", user); err != nil || a.status != 503 || a.header.Get("X-Spillway-Reason") != want {
				t.Errorf("%s: %+v %v, want 503 because of %s", host, a, err, want)
			}
		})
	}
	all.Wait()
}

func TestTracks_SayWhyTheirHostIsClosed(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := alone(1, replica(t, text("old")))
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{Service: "www", Hosts: []string{"off.test"}, Only: "standby", Closed: "the old colour was stopped"})
	r.push(table)
	if a := r.get("/", "Host", "off.test"); a.status != 503 || a.header.Get("X-Spillway-Reason") != "standby: the old colour was stopped" {
		t.Errorf("%+v", a)
	}
}

func TestTripwire_SendsTheUsersOfATrackToStable(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(tried(canary(1, spillway.Percent(10), replica(t, text("old")), replica(t, status(500)))))
	users := usersAt(9000, spillway.Whole, 8)
	for _, user := range users {
		r.get("/", "X-User", user)
		r.get("/", "X-Canary", "yes")
		for _, other := range usersAt(0, 9000, 3) {
			r.get("/", "X-User", other)
		}
	}
	report := r.report()
	if e := report.Evidence; !e.Tripped || e.Verdict != spillway.Harmful {
		t.Fatalf("evidence %+v", e)
	}
	if b := report.Edges[0].Backends; b[0].Weight != 0 || b[1].Weight != spillway.Whole {
		t.Errorf("serves %v", b)
	}
	before := report.Counts["www.5"].Requests
	for _, header := range [][]string{{"X-User", users[0]}, {"X-Canary", "yes"}, {"Cookie", "canary=1"}} {
		if a, err := r.do("POST", "/", strings.NewReader("x"), header...); err != nil || a.release != "1" || a.status != 200 {
			t.Errorf("%v: %+v %v", header, a, err)
		}
	}
	if after := r.report().Counts["www.5"].Requests; after != before {
		t.Errorf("the candidate got %d requests more", after-before)
	}
}

func TestTrial_TakesOnlyCandidateAndBaselineForEvidence(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := divided(1, spillway.Percent(5), replica(t, text("old")), replica(t, text("new")))
	table.Route.Edges[0].Backends[0].Weight -= 2000
	table.Route.Edges[0].Backends = slices.Insert(table.Route.Edges[0].Backends, 0, spillway.Backend{Group: www5, Release: 5, Weight: 2000, Track: "canary"})
	table.Route.Edges[0].Rules = canary(1, 0, "", "").Route.Edges[0].Rules
	table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: "www.5-1", Group: www5, Address: replica(t, status(500))})
	r.push(table)
	r.get("/", "X-User", usersAt(0, 500, 1)[0])
	r.get("/", "X-User", usersAt(500, 8000, 1)[0])
	for range 5 {
		if a := r.get("/", "X-User", usersAt(8000, spillway.Whole, 1)[0]); a.status != 500 || a.release != "5" {
			t.Errorf("%+v", a)
		}
	}
	r.get("/", "X-Canary", "yes")
	if e := r.report().Evidence; e.Requests != 1 || e.Baseline != 1 || e.BaseFails != 0 {
		t.Errorf("evidence %+v", e)
	}
	table.Revision, table.Route.Edges[0].Backends[1].Release = 2, 3 // stable is not what it is compared with
	r.push(table)
	r.get("/", "X-User", usersAt(500, 8000, 1)[0])
	if e := r.report().Evidence; e.Baseline != 1 {
		t.Errorf("evidence %+v", e)
	}
}

func TestTrial_CountsWhatWasChosenWithoutComparing(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(tried(canary(1, spillway.Percent(10), replica(t, text("old")), replica(t, text("canary")))))
	for range 3 {
		r.get("/", "X-Canary", "yes")
		r.get("/", "Host", "canary.test")
	}
	if s := evidenceOf(t, r.report()); s.Candidate.Requests != 6 || s.Sample.Requests != 0 {
		t.Errorf("by rule and by host: %+v", s)
	}
	r.get("/", "X-User", usersAt(9000, spillway.Whole, 1)[0])
	r.get("/", "X-User", usersAt(0, 9000, 1)[0])
	if s := evidenceOf(t, r.report()); s.Sample.Requests != 1 || s.Baseline.Requests != 1 {
		t.Errorf("by bucket: %+v", s)
	}
}

func TestOdds_AreRoundedUp(t *testing.T) {
	of := func(candidate, baseline, other spillway.Share) spillway.Share {
		e := &edge{home: -1, arms: []arm{{Backend: spillway.Backend{Weight: other, Track: "canary"}}, {Backend: spillway.Backend{Weight: baseline}, baseline: true}, {Backend: spillway.Backend{Weight: candidate}, candidate: true}}}
		return e.odds()
	}
	for _, c := range []struct{ candidate, baseline, other, want spillway.Share }{
		{500, 7500, 2000, 625}, {500, 9500, 0, 500}, {2, 1, 9997, 6667}, {1, 2, 9997, 3334}, {1, 9998, 1, 2},
		{0, 10_000, 0, 0}, {10_000, 0, 0, 10_000}, {9_998, 1, 1, 9_999}, {0, 0, 10_000, 0},
	} {
		if got := of(c.candidate, c.baseline, c.other); got != c.want {
			t.Errorf("%d of %d + %d: odds %d, want %d", c.candidate, c.candidate, c.baseline, got, c.want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		other := spillway.Share(random.IntN(9_999))
		candidate := 1 + spillway.Share(random.IntN(int(spillway.Whole-other-1)))
		baseline := spillway.Whole - other - candidate
		exact := float64(candidate) / float64(candidate+baseline) * float64(spillway.Whole)
		if got := float64(of(candidate, baseline, other)); got < exact-1e-9 || got >= exact+1 || (baseline > 0 && got >= float64(spillway.Whole)) {
			t.Fatalf("%d and %d: odds %g, exactly %g", candidate, baseline, got, exact)
		}
	}
}

func TestEdge_ACandidateBelowMovesNobodyOfATrack(t *testing.T) {
	for bucket := range spillway.Whole {
		for _, w := range []spillway.Share{0, 1, 500, 5000, 8000} {
			e := &edge{home: 1, arms: []arm{{Backend: spillway.Backend{Weight: 2000, Track: "canary"}}, {Backend: spillway.Backend{Weight: 8000 - w}}, {Backend: spillway.Backend{Weight: w}, candidate: true}}}
			if got := e.arm(bucket); (got == 0) != (bucket >= 8000) || (got == 2) != (bucket < w) {
				t.Fatalf("bucket %d is of arm %d with the candidate at %s", bucket, got, w)
			}
		}
	}
}

// edgesOf are the edges of a table as a proxy has them whose replicas answer without sockets.
func edgesOf(t *testing.T, table spillway.Table) []*edge {
	t.Helper()
	p := handler(t)
	p.serveTable(t, table)
	routes := p.routing.Load()
	var edges []*edge
	for _, e := range table.Route.Edges {
		edges = append(edges, routes.ways.hosts[e.Hosts[0]].rest.first())
	}
	return edges
}

func TestEdge_SendsNobodyToATrippedCandidate(t *testing.T) {
	e := edgesOf(t, tried(canary(1, spillway.Percent(10), "127.0.0.1:1", "127.0.0.1:5")))[0]
	r := asks("X-Canary", "yes")
	if i, _ := e.chosen(r, 0); i != 0 || e.arm(9999) != 0 || e.home != 1 {
		t.Fatalf("before: by rule %d, by bucket %d", i, e.arm(9999))
	}
	e.trial.harmful.Store(true)
	if i, _ := e.chosen(r, 0); i != 1 || e.arm(9999) != 1 || e.odds() != 0 {
		t.Errorf("tripped: by rule %d, by bucket %d, odds %s", i, e.arm(9999), e.odds())
	}
}
