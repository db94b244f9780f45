package rollout_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func plan(from, to spillway.Release, override spillway.Strategy) spillway.Plan {
	spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{from.Number: from}}
	return rollout.Plan(spec, rollout.Status{Stable: from.Number}, to, override, rollout.Present{})
}

func TestPlan_SaysTheWorstCase(t *testing.T) {
	canary := web(spillway.Canary, 4)
	canary.Steps = []spillway.StepSpec{{Weight: spillway.Percent(5)}}
	changed := func(s spillway.Service) (spillway.Release, spillway.Release) {
		to := release(2, []string{"www"}, s)
		to.Artefacts["www"] = spillway.Artefact{Source: "two"}
		return release(1, nil, s), to
	}
	tests := []struct {
		name, want string
		service    spillway.Service
		override   spillway.Strategy
	}{
		{"canary", "if release 2 fails every request, at most 20 requests fail and 5% of the users are given to it, then it is rolled back", canary, ""},
		{"blue-green", "if release 2 fails every request, at most 20 requests fail, then it is rolled back", web(spillway.BlueGreen, 2), ""},
		{"override", "if release 2 fails every request, at most 20 requests fail, then it is rolled back", canary, spillway.BlueGreen},
		{"recreate", "recreate stops the old replicas first: nothing serves until the new ones are ready, and again on the way back", web(spillway.Recreate, 2), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from, to := changed(tt.service)
			if p := plan(from, to, tt.override); p.Worst != tt.want || p.Gap != (tt.name == "recreate") {
				t.Errorf("worst %q, gap %v; want %q", p.Worst, p.Gap, tt.want)
			}
		})
	}
	same := release(2, nil, canary)
	if p := plan(release(1, nil, canary), same, ""); len(p.Changes) != 0 || len(p.Steps) != 0 || p.Worst != "nothing changes" {
		t.Errorf("the same again: %+v", p)
	}
	if p := plan(spillway.Release{}, release(1, nil, canary), ""); !strings.HasPrefix(p.Worst, "first deploy") || len(p.Steps) != 1 {
		t.Errorf("first deploy: %+v", p)
	}
}

func TestPlan_NamesWhatChangesAndNeverAValue(t *testing.T) {
	old := web(spillway.Rolling, 2)
	old.Env = map[string]string{"TOKEN": "hunter2", "GONE": "x", "SAME": "1"}
	next := web(spillway.Rolling, 5)
	next.Env = map[string]string{"TOKEN": "hunter3", "NEW": "sesame", "SAME": "1"}
	from := release(1, nil, old, tier(spillway.Rolling, 1))
	to := release(2, []string{"www"}, next, tier(spillway.Rolling, 1), spillway.Service{Name: "worker", Scale: 1})
	to.Groups["worker"] = 2
	p := plan(from, to, "")
	var got []string
	for _, c := range p.Changes {
		got = append(got, strings.TrimSpace(c.Service+" "+c.What))
	}
	want := "www env GONE, www env NEW, www env TOKEN, www scale 2 -> 5, worker new"
	if strings.Join(got, ", ") != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	if len(p.Unchanged) != 1 || p.Unchanged[0] != "backend" {
		t.Errorf("unchanged %v, want backend", p.Unchanged)
	}
	text, err := json.Marshal(p)
	if err != nil || strings.Contains(string(text), "hunter") || strings.Contains(string(text), "sesame") {
		t.Errorf("a value is in the plan: %s, %v", text, err)
	}
}

func TestPlan_TellsImagesAndPorts(t *testing.T) {
	db := spillway.Service{Name: "db", Image: "postgres:16", Port: 5432, Scale: 1}
	next := db
	next.Image, next.Port = "postgres:17", 5433
	for _, tt := range []struct {
		name       string
		service    spillway.Service
		image, was string
		want       string
	}{
		{"another", next, "postgres@sha256:b", "postgres@sha256:a", "image, port"},
		{"a tag that moved", db, "postgres@sha256:b", "postgres@sha256:a", "what its image is"},
		{"not known yet", db, "", "postgres@sha256:a", ""},
		{"the same", db, "postgres@sha256:a", "postgres@sha256:a", ""},
	} {
		from, to := release(1, nil, db), release(2, []string{"db"}, tt.service)
		from.Artefacts["db"], to.Artefacts["db"] = spillway.Artefact{Image: tt.was}, spillway.Artefact{Image: tt.image}
		var got []string
		for _, c := range plan(from, to, "").Changes {
			got = append(got, c.What)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: changes %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A plan starts from what the deploy would: the watch of a release that looks fine ends with the next deploy, and
// whatever else is on the way makes way.
func TestPlan_StartsFromWhatTheDeployStartsFrom(t *testing.T) {
	good, bad := &spillway.Evidence{Requests: 100}, &spillway.Evidence{Requests: 100, Failures: 10, Baseline: 100}
	next := func(n int, track string) spillway.Release {
		r := release(n, []string{"www"}, web(spillway.Canary, 2))
		r.Artefacts["www"], r.Track = spillway.Artefact{Source: fmt.Sprint(n)}, track
		return r
	}
	spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: next(1, ""), 2: next(2, ""), 3: next(3, "")}}
	for name, c := range map[string]struct {
		phase   spillway.Phase
		rollout rollout.Rollout
		track   string
		want    int
	}{
		"on the way":            {spillway.Progressing, rollout.Rollout{Release: 2, Stable: 1, Evidence: good, Routed: true}, "", 1},
		"on the way back":       {spillway.RollingBack, rollout.Rollout{Release: 2, Stable: 1, Evidence: good}, "", 1},
		"watched":               {spillway.Promoting, rollout.Rollout{Release: 2, Stable: 1, Evidence: good}, "", 2},
		"watched and worse":     {spillway.Promoting, rollout.Rollout{Release: 2, Stable: 1, Evidence: bad}, "", 1},
		"a rollback, watched":   {spillway.Promoting, rollout.Rollout{Release: 2, Stable: 1, Back: true, Evidence: bad}, "", 2},
		"a rollback, routed":    {spillway.Progressing, rollout.Rollout{Release: 2, Stable: 1, Back: true, Routed: true}, "", 2},
		"a rollback, begun":     {spillway.Progressing, rollout.Rollout{Release: 2, Stable: 1, Back: true}, "", 1},
		"a track, watched":      {spillway.Promoting, rollout.Rollout{Release: 2, Stable: 1, From: 3, Track: "canary", Evidence: good}, "canary", 2},
		"stable beside a track": {spillway.Promoting, rollout.Rollout{Release: 2, Stable: 1, From: 3, Track: "canary", Evidence: good}, "", 1},
		"a track not watched":   {spillway.Progressing, rollout.Rollout{Release: 2, Stable: 1, From: 3, Track: "canary", Routed: true}, "canary", 3},
	} {
		c.rollout.ID, c.rollout.Steps = 7, []rollout.Step{{Weight: spillway.Whole}}
		status := rollout.Status{Phase: c.phase, Stable: 1, Rollout: &c.rollout, Lanes: map[string]rollout.Lane{"canary": {Release: 3}}}
		if p := rollout.Plan(spec, status, next(4, c.track), "", rollout.Present{}); p.From != c.want {
			t.Errorf("%s: release 4 after release %d, want %d", name, p.From, c.want)
		}
		if status.Stable != 1 || status.Lanes["canary"].Release != 3 {
			t.Errorf("%s: the status was changed", name)
		}
	}
}

// A service that gets its first autoscaler begins with the size that it has, in the plan as in the deploy.
func TestPlan_MeasuresAFirstAutoscalerByTheSizeThatThereIs(t *testing.T) {
	fixed, auto := web(spillway.Canary, 6), web(spillway.Canary, 2)
	auto.Max, auto.Targets = 12, spillway.Targets{CPU: spillway.Percent(60)}
	to := release(2, []string{"www"}, auto)
	to.Artefacts["www"] = spillway.Artefact{Source: "two"}
	p := plan(release(1, nil, fixed), to, "")
	if text := p.Steps[0].Text; !strings.Contains(text, " of 6 replicas") {
		t.Errorf("the first step is %q, want a part of 6 replicas", text)
	}
	w := newWorld(t, release(1, nil, fixed), to)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	if after := rollout.Plan(w.spec, w.status, to, "", rollout.Present{}); after.Steps[0].Text != p.Steps[0].Text {
		t.Errorf("the first step is %q where the deploy was done, and %q", after.Steps[0].Text, p.Steps[0].Text)
	}
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	if w.status.Chosen["www"] != 6 {
		t.Errorf("the deploy begins with %v", w.status.Chosen)
	}
}
