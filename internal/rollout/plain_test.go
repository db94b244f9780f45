package rollout_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

const plainly = "there is no gateway"

// plain has the world divide users by replicas from now on, and count nothing.
func (w *world) plain(served spillway.Share, seconds int) {
	w.t.Helper()
	for range seconds {
		w.run(1)
		w.obs.Plain, w.obs.Evidence = plainly, nil
		w.obs.Served.Edges = slices.Clone(w.obs.Served.Edges)
		for i, e := range w.obs.Served.Edges {
			if len(e.Backends) == 2 {
				both := slices.Clone(e.Backends)
				both[0].Weight, both[1].Weight = spillway.Whole-served, served
				w.obs.Served.Edges[i].Backends = both
			}
		}
	}
}

func TestPlan_SaysWhatStepsAreByReplicas(t *testing.T) {
	canary := web(spillway.Canary, 1)
	canary.Steps = []spillway.StepSpec{{Weight: spillway.Percent(5)}}
	grows := web(spillway.Rolling, 3)
	for _, c := range []struct {
		name     string
		old, new spillway.Service
		first    spillway.Share
		worst    string
	}{
		{"the smallest share of one replica", canary, canary, spillway.Percent(50), "those of 50% of the users fail at first"},
		{"stable is as large as it was", web(spillway.Rolling, 1), grows, spillway.Percent(50), "those of 50% of the users fail at first"},
		{"rolling keeps what is not moved yet", grows, grows, spillway.Percent(25), "those of 25% of the users fail at first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := release(1, nil, c.old), release(2, []string{"www"}, c.new)
			to.Artefacts["www"] = spillway.Artefact{Source: "two"}
			spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: from}}
			p := rollout.Plan(spec, rollout.Status{Stable: 1}, to, "", rollout.Present{ByReplicas: true})
			if p.Steps[0].Served != c.first || !strings.Contains(p.Worst, c.worst) || strings.Contains(p.Steps[0].Text, "certified") {
				t.Errorf("step %+v, worst %q; want %s, %q", p.Steps[0], p.Worst, c.first, c.worst)
			}
			if last := p.Steps[len(p.Steps)-1]; last.Served != 0 {
				t.Errorf("the last step is told as %s", last.Served)
			}
		})
	}
}

// A gateway goes on to ask a candidate until its counters were read, whatever the budget is.
func TestPlan_SaysThatCountersComeLater(t *testing.T) {
	from, to := release(1, nil, web(spillway.Rolling, 1)), release(2, []string{"www"}, web(spillway.Rolling, 1))
	to.Artefacts["www"] = spillway.Artefact{Source: "two"}
	spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: from}}
	for _, c := range []struct {
		counted bool
		from    int
		want    bool
	}{{true, 1, true}, {false, 1, false}, {true, 0, false}} {
		p := rollout.Plan(spec, rollout.Status{Stable: c.from}, to, "", rollout.Present{Counted: c.counted})
		if got := strings.HasSuffix(p.Worst, "then it is rolled back; what it fails until that shows in the gateway's counters comes on top"); got != c.want {
			t.Errorf("counted %v, after release %d: %q", c.counted, c.from, p.Worst)
		}
	}
}

func TestDecide_LeavesTheJudgementToAPersonWhereNobodyCounts(t *testing.T) {
	service := web(spillway.Canary, 1)
	service.Steps = []spillway.StepSpec{{Weight: spillway.Percent(5), Hold: spillway.Duration(3 * time.Second)}, {Weight: spillway.Percent(40)}}
	r2 := release(2, []string{"www"}, service)
	w := newWorld(t, release(1, nil, service), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.obs.Plain = plainly
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	w.plain(spillway.Percent(50), 12)
	o := rollout.Describe(w.spec, w.status, w.obs, w.now)
	if o.Phase != spillway.Paused || o.Rollout.Served != spillway.Percent(50) || !strings.Contains(o.Rollout.Waiting, plainly+"; judge it yourself") {
		w.dump()
		t.Fatalf("phase %s, served %s, waiting %q", o.Phase, o.Rollout.Served, o.Rollout.Waiting)
	}
	if text := strings.Join(o.Problems, "\n"); !strings.Contains(text, "asked 5%, served 50%: "+plainly) {
		t.Errorf("problems %q", text)
	}
	w.ask(spillway.Intent{Verb: spillway.VerbResume}, 1)
	w.plain(spillway.Percent(50), 3)
	if r := w.status.Rollout; r == nil || r.Step != 1 || w.status.Phase != spillway.Paused {
		w.dump()
		t.Fatal("resume does not go on to the next step and rest there")
	}
	w.ask(spillway.Intent{Verb: spillway.VerbPromote}, 1)
	w.plain(spillway.Percent(50), 3)
	if w.status.Phase != spillway.Promoting && w.status.Stable != 2 {
		w.dump()
		t.Fatal("promote does not give it everybody")
	}
}

func TestDecide_RollsByReadinessWhereNobodyCounts(t *testing.T) {
	w := newWorld(t, release(1, nil, web(spillway.Rolling, 3)), release(2, []string{"www"}, web(spillway.Rolling, 3)))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.obs.Plain = plainly
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	w.plain(spillway.Percent(40), 30)
	if w.status.Phase != spillway.Promoting && w.status.Stable != 2 {
		w.dump()
		t.Fatal("it waits")
	}
}

func TestDescribe_TellsWhyWhatWasDecidedIsNotInPlace(t *testing.T) {
	const why = "gateway gw does not take HTTPRoute shop-www"
	w := newWorld(t, release(1, nil, web(spillway.Rolling, 1)), release(2, []string{"www"}, web(spillway.Rolling, 1)))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	d := rollout.Decide(w.spec, w.status, w.obs, w.now)
	w.status, w.obs.Stuck = d.Status, why
	w.obs.Served.Generation = d.Status.Route.Generation - 1
	o := rollout.Describe(w.spec, w.status, w.obs, w.now)
	if !o.Rollout.Unacknowledged || !strings.HasSuffix(o.Rollout.Waiting, ": "+why) || !slices.Contains(o.Problems, "what was decided is not in place: "+why) {
		t.Errorf("waiting %q, problems %q", o.Rollout.Waiting, o.Problems)
	}
	for range 700 { // its deadline passes
		w.now = w.now.Add(time.Second)
		w.status = rollout.Decide(w.spec, w.status, w.obs, w.now).Status
	}
	if last := w.status.Last; last != nil && last.Release == 2 && !strings.HasSuffix(last.Reason, ": "+why) {
		t.Errorf("it ended as %q", last.Reason)
	}
	if r := w.status.Rollout; r != nil && r.Reason != "" && !strings.HasSuffix(r.Reason, ": "+why) {
		t.Errorf("it goes back because of %q", r.Reason)
	}
}

func TestDescribe_LeavesOutWhereToLookWhereAProblemSaysIt(t *testing.T) {
	w := newWorld(t, release(1, nil, web(spillway.Rolling, 1)))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.obs.Groups = []rollout.Group{{Group: spillway.Group{Service: "www", Release: 1}, Running: 1, Problem: "no node takes it: add nodes", Told: true}}
	if o := rollout.Describe(w.spec, w.status, w.obs, w.now); !slices.Contains(o.Problems, "www.1: no node takes it: add nodes") {
		t.Errorf("problems %q", o.Problems)
	}
}
