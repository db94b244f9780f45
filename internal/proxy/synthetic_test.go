package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestSynthetic_IsDealtHalfAndHalf(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	key, err := SyntheticKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	echo := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			fmt.Fprintf(w, "%s %q %s", name, req.Header.Values(syntheticHeader), req.Header.Get(bucketHeader)[:1])
		}
	}
	r.push(divided(1, spillway.Percent(1), replica(t, echo("old")), replica(t, echo("new"))))
	n := map[string]int{}
	for range 80 {
		a := r.get("/", syntheticHeader, key)
		n[a.body]++
		if a.header.Get("Set-Cookie") != "" {
			t.Errorf("a cookie: %+v", a)
		}
	}
	// 80 at even odds: outside of 15 to 65 once in 10^8 runs.
	if n[`old ["1"] +`] < 15 || n[`new ["1"] +`] < 15 || n[`old ["1"] +`]+n[`new ["1"] +`] != 80 {
		t.Errorf("dealt %v", n)
	}
	s := evidenceOf(t, r.report())
	if s.Sample.Requests != int64(n[`new ["1"] +`]) || s.Baseline.Requests != int64(n[`old ["1"] +`]) {
		t.Errorf("evidence %+v of %v", s, n)
	}
	for _, wrong := range []string{"1", "", key + "0", key[1:]} {
		a := r.get("/", syntheticHeader, wrong, "X-User", usersAt(100, spillway.Whole, 1)[0])
		if len(a.body) < 6 || a.body[:6] != "old []" {
			t.Errorf("with the key %q: %+v", wrong, a)
		}
	}
	r.push(divided(2, spillway.Whole, replica(t, echo("old")), replica(t, echo("new"))))
	for range 10 { // what has no users gets none from here
		if a := r.get("/", syntheticHeader, key); a.release != "2" {
			t.Errorf("at 100%%: %+v", a)
		}
	}
}

// TestSynthetic_IsJudgedAtEvenOdds: at a weight of 1 % an error at the candidate is strong evidence; at even
// odds it is not, and five cannot trip anything.
func TestSynthetic_IsJudgedAtEvenOdds(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	key, err := SyntheticKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.push(divided(1, spillway.Percent(1), replica(t, text("old")), replica(t, status(500))))
	for r.report().Evidence.Failures < 5 {
		r.get("/", syntheticHeader, key)
	}
	if e := r.report().Evidence; e.Tripped {
		t.Errorf("after 5 failures at even odds: %+v", e)
	}
	for !r.report().Evidence.Tripped {
		r.get("/", syntheticHeader, key)
	}
	if e := r.report().Evidence; e.Failures > 10 {
		t.Errorf("it took %+v", e)
	}
}

func TestToss_StaysOnItsTwoSides(t *testing.T) {
	e := &edge{home: 1, arms: []arm{
		{Backend: spillway.Backend{Weight: 2000, Track: "canary"}}, {Backend: spillway.Backend{Weight: 7900}, baseline: true},
		{Backend: spillway.Backend{Weight: 70}, candidate: true}, {Backend: spillway.Backend{Weight: 30}, candidate: true},
	}}
	seen := map[int]int{}
	for range 2000 {
		u := e.toss()
		if u.tossed != e || u.key != 0 || string(u.appendPass(nil))[0] != '+' {
			t.Fatalf("%+v", u)
		}
		seen[e.arm(u.bucket)]++
	}
	if seen[0] != 0 || seen[1] < 800 || seen[1] > 1200 || seen[2] < 2*seen[3]-200 || seen[3] == 0 {
		t.Errorf("dealt %v", seen)
	}
}

// TestSynthetic_ReachesWhatOnlyARuleLeadsTo: all users are of servers outside.
func TestSynthetic_ReachesWhatOnlyARuleLeadsTo(t *testing.T) {
	table := divided(1, 0, "127.0.0.1:1", "127.0.0.1:2")
	edge := &table.Route.Edges[0]
	edge.Backends[0].Weight, edge.Backends[0].Within, edge.Backends[1].Within = 0, 9900, 100
	edge.Backends = slices.Insert(edge.Backends, 0, spillway.Backend{Track: "legacy", URLs: []string{"http://127.0.0.1:9"}, Weight: spillway.Whole})
	e := edgesOf(t, table)[0]
	seen := map[int]int{}
	for range 400 {
		x := &exchange{plane: e.app.plane, call: asks("X-None", ""), who: e.toss()}
		i, weight := x.belongs(e)
		if weight != spillway.Percent(50) {
			t.Fatalf("%+v: arm %d with the weight %s", x.who, i, weight)
		}
		seen[i]++
	}
	if seen[0] != 0 || seen[1] < 120 || seen[2] < 120 {
		t.Errorf("dealt %v", seen)
	}
	e.trial.harmful.Store(true)
	if u := e.toss(); u.tossed != nil {
		t.Errorf("after the trip: %+v", u)
	}
}

func TestTrial_TakesNothingFurtherBehindASyntheticRequestForEvidence(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := unused(t)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	table.Route.Edges[0].Hosts, table.Route.Edges[0].From = nil, spillway.Group{Service: "front", Release: 1}
	table.Listeners = []spillway.EdgeListener{{Service: "www", From: table.Route.Edges[0].From, Address: address}}
	r.push(table)
	for bucket, want := range map[string]string{"+0": "2", "+4999": "2", "+5000": "1"} {
		if a, err := do(newClient(), "http://"+address, "GET", "/", nil, bucketHeader, bucket); err != nil || a.release != want {
			t.Errorf("bucket %s: %+v %v, want release %s", bucket, a, err, want)
		}
	}
	if s := evidenceOf(t, r.report()); s.Candidate.Requests != 2 || s.Sample.Requests != 0 || s.Baseline.Requests != 0 {
		t.Errorf("evidence %+v", s)
	}
}

func TestSyntheticKey_IsMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	if _, err := SyntheticKey(dir); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("before the first start: %v", err)
	}
	if err := start(t, dir, false).stop(); err != nil {
		t.Fatal(err)
	}
	first, err := SyntheticKey(dir)
	if err != nil || len(first) != 64 {
		t.Fatalf("%q %v", first, err)
	}
	path := filepath.Join(dir, "synthetic.key")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	start(t, dir, false).stop()
	if again, err := SyntheticKey(dir); again != first {
		t.Errorf("a second start makes another: %v", err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Config{Dir: dir, HTTP: "127.0.0.1:0"}); !errors.Is(err, spillway.ErrInvalid) {
		t.Errorf("a bad key: %v", err)
	}
}
