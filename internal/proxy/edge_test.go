package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestEdge_HoldsNobodyWhomStableCanHave(t *testing.T) {
	table := canary(1, spillway.Percent(10), "127.0.0.1:1", "")
	table.Route.Edges[1].Backends = append(table.Route.Edges[1].Backends, spillway.Backend{Group: www1, Release: 1})
	for i, e := range edgesOf(t, table) {
		x := &exchange{plane: e.app.plane, call: asks("X-Canary", "yes"), client: &recorder{}, who: unit{bucket: 9999}}
		if got, want := x.deal(e), []int{1, -1}[i]; got != want {
			t.Errorf("on the edge of %v without a replica of the track: arm %d, want %d", e.spec.Hosts, got, want)
		}
	}
}

func TestEdge_ComparesWithStableOnly(t *testing.T) {
	table := divided(1, 1000, "127.0.0.1:1", "127.0.0.1:2")
	table.Route.Edges[0].Backends[0].Weight -= 2000
	table.Route.Edges[0].Backends = slices.Insert(table.Route.Edges[0].Backends, 0,
		spillway.Backend{Group: www5, Release: 1, Weight: 1000, Track: "canary"}, // the same release, for other users
		spillway.Backend{Release: 1, Weight: 1000, Track: "legacy", URLs: []string{"http://127.0.0.1:9"}})
	var is []string
	for _, a := range edgesOf(t, table)[0].arms {
		is = append(is, fmt.Sprint(a.candidate, a.baseline))
	}
	if got := strings.Join(is, ", "); got != "false false, false false, false true, true false" {
		t.Errorf("candidate and baseline: %s", got)
	}
}

// TestRules_KeepUsersOnTheirSideOfStable: all users are of servers outside, and those of a rule are divided
// between stable and its candidate.
func TestRules_KeepUsersOnTheirSideOfStable(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := divided(1, 0, replica(t, text("old")), replica(t, text("new")))
	edge := &table.Route.Edges[0]
	edge.Backends[0].Weight, edge.Backends[0].Within, edge.Backends[1].Within = 0, 5000, 5000
	edge.Backends = slices.Insert(edge.Backends, 0, spillway.Backend{Track: "legacy", URLs: []string{"http://" + replica(t, text("legacy"))}, Weight: spillway.Whole})
	edge.Rules = []spillway.Rule{{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-New"}, Value: "*"}}}
	table.Route.Trial.Budget = 1000 // admission is not what is tested here
	r.push(table)
	if a := r.get("/"); a.body != "legacy" {
		t.Errorf("without the header: %+v", a)
	}
	seen := map[string]int{}
	for range 40 {
		first := r.get("/", "X-New", "1")
		cookie, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
		seen[first.body]++
		if again := r.get("/", "X-New", "1", "Cookie", cookie); cookie == "" || again.body != first.body {
			t.Fatalf("second request: %+v, the first one was answered by %s with the cookie %q", again, first.body, cookie)
		}
	}
	if seen["old"]+seen["new"] != 40 || seen["old"] == 0 || seen["new"] == 0 {
		t.Errorf("40 users of the rule: %v", seen)
	}
	if s := evidenceOf(t, r.report()); s.Sample.Requests+s.Baseline.Requests != 80 {
		t.Errorf("evidence %+v", s)
	}
}

func TestEdge_TellsWhatATripLeaves(t *testing.T) {
	table := divided(1, 1000, "127.0.0.1:1", "127.0.0.1:2")
	table.Route.Edges[0].Backends[0].Within, table.Route.Edges[0].Backends[1].Within = 9000, 1000
	e := edgesOf(t, table)[0]
	e.trial.harmful.Store(true)
	for i, b := range e.served().Backends {
		want := []spillway.Share{spillway.Whole, 0}[i]
		if b.Weight != want || b.Within != want {
			t.Errorf("%s: weight %s, within %s, want %s", b.Group, b.Weight, b.Within, want)
		}
	}
	if b := e.spec.Backends[1]; b.Weight != 1000 || b.Within != 1000 {
		t.Errorf("the table was changed: %+v", b)
	}
}

// TestExchange_WaitsWhereItIs: the user's bucket has come to servers by URL while the request was held.
func TestExchange_WaitsWhereItIs(t *testing.T) {
	e := edgesOf(t, legacy(1, spillway.Percent(50), "127.0.0.1:1", "http://127.0.0.1:9"))[0]
	changed := make(chan struct{})
	close(changed)
	x := &exchange{plane: e.app.plane, call: asks("X-None", ""), client: &recorder{}, who: unit{bucket: 9000}}
	if err := x.wait(e, changed); err == nil || !strings.Contains(err.Error(), "www@legacy") {
		t.Errorf("not dealt yet: %v, want a refusal at once", err)
	}
	x.dealt, x.arm = true, "www.1"
	if err := x.wait(e, changed); err != nil {
		t.Errorf("dealt to stable: %v, want a wait", err)
	}
}
