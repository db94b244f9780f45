package rollout_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// recreate, rolling back, status of the version before
func TestDecide_GoesOnWithTheWayBackOfTheVersionBefore(t *testing.T) {
	re := func(n int) spillway.Release {
		r := laned(n, n)
		r.Config.Services[0].Strategy, r.Config.Services[0].Scale = spillway.Recreate, 1
		return r
	}
	w := newWorld(t, re(1), re(2))
	old := `{"phase":"RollingBack","stable":1,"good":null,"intent":3,"rollouts":2,
	 "rollout":{"id":2,"release":2,"stable":1,"strategy":"recreate","steps":[{"weight":"100%","candidate":"100%","stable":"100%"}],"step":0,"routed":false,"acked":false,"exposed":false,"cleared":true,"returned":false,"outcome":"aborted","reason":"aborted by ann","began":"2026-11-21T12:00:00Z"},
	 "route":{"generation":5,"edges":[{"service":"www","hosts":["shop.test"],"backends":[],"closed":"recreate: www is being put back"}],"trial":{"id":2,"release":2,"stable":1,"candidate":[{"service":"www","release":2}],"budget":20,"margin":"1%","tolerance":100,"limit":"0%"}},
	 "wants":[{"group":{"service":"www","release":2},"replicas":1,"release":2}],"now":"2026-11-21T12:00:00Z"}`
	if err := json.Unmarshal([]byte(old), &w.status); err != nil {
		t.Fatal(err)
	}
	for i := range w.status.Rollout.Steps {
		w.status.Rollout.Steps[i] = rollout.Step{Weight: spillway.Whole, Candidate: spillway.Whole, Stable: spillway.Whole}
	}
	w.obs = rollout.Observation{Served: w.status.Route, Groups: []rollout.Group{{Group: spillway.Group{Service: "www", Release: 2}, Running: 1, InFlight: 1}}}
	d := rollout.Decide(w.spec, w.status, w.obs, w.now)
	t.Logf("%+v", d.Desired.Groups)
	if len(d.Desired.Groups) > 1 {
		t.Error("two of a recreated service")
	}
}

// a track's rollback in progress is superseded by a deploy to stable
// release command of a lane killed by a deploy to stable and run again
// harmful and aborted in one round: the track keeps it
func TestDecide_LeavesATrackWhenItsReleaseTripsInAnAbort(t *testing.T) {
	r2 := laned(2, 2, can)
	r2.Config.Services[0].Strategy = spillway.Canary
	w := newWorld(t, laned(1, 1, can), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 10)
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, 5)
	id := w.status.Rollout.ID
	w.obs.Evidence = &spillway.Evidence{Trial: id, Verdict: spillway.Harmful, Tripped: true, Reason: "bad"}
	w.ask(spillway.Intent{Verb: spillway.VerbAbort}, 5)
	w.dump()
	t.Log(w.public())
	if w.status.Lanes["canary"].Release == 2 {
		t.Error("the track keeps what the judge found harmful")
	}
}

// rollback of a track that is empty since its release was promoted
// reason of a deploy that cannot begin
// surge of a promotion
func TestDecide_KeepsTheSurgeWhenATrackIsPromoted(t *testing.T) {
	a := laned(1, 1, can)
	b := laned(2, 2, can)
	for _, r := range []spillway.Release{a, b} {
		r.Config.Services[0].Scale = 8
		r.Config.Services[0].Surge = spillway.Count{N: 2}
		r.Config.Services[0].Tracks = []spillway.Track{{Name: "canary", Replicas: 2, Share: spillway.Percent(10)}}
	}
	w := newWorld(t, a, b)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 10)
	w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: spillway.VerbPromote, Track: "canary", At: w.now}}
	run := map[spillway.Group]int{}
	for _, g := range w.obs.Groups {
		run[g.Group] = g.Running
	}
	for i := range 60 {
		d := rollout.Decide(w.spec, w.status, w.obs, w.now)
		w.status, w.spec.Intents = d.Status, nil
		w.obs = rollout.Observation{Served: d.Desired.Route}
		total := 0
		for _, x := range d.Desired.Groups { // stopping takes ten rounds
			n := x.Replicas
			if n < run[x.Group] && i%10 != 9 {
				n = run[x.Group]
			}
			run[x.Group] = n
			total += n
			w.obs.Groups = append(w.obs.Groups, rollout.Group{Group: x.Group, Running: n, Ready: x.Replicas, Draining: n - x.Replicas})
		}
		t.Log(i, d.Desired.Groups, "running", run, total)
		if total > 12 {
			t.Error("more than 8 + surge 2 + the track's 2")
		}
		w.now = w.now.Add(time.Second)
	}
}

// a track that the new file does not have
// the same without a track, for comparison
// a gate source that is silent holds the watch of a rollback
// one broken answer, and then none for a while, counts as broken all the time
// dry run of p75
// one replica of a lane's candidate before its capacity: Ready of a track counts as the candidate's for stable
func TestDecide_ForceDoesNotOverrideTheTime(t *testing.T) {
	w := newWorld(t, laned(1, 1), laned(2, 2))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, NotBefore: w.now.Add(5 * time.Hour), Force: true}, 2)
	if w.status.Rollout != nil {
		t.Error("begins five hours too early")
	}
}

// a failed deploy, and again at once: the crashes of before
// Describe of a tripped track
func TestDescribe_ATrippedTrackServesNobody(t *testing.T) {
	w := newWorld(t, laned(1, 1, can), laned(2, 2, can))
	r2 := w.spec.Releases[2]
	r2.Config.Watch = spillway.Duration(time.Hour)
	w.spec.Releases[2] = r2
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 6)
	// as the proxy reports a trip: weight 0
	for i, e := range w.obs.Served.Edges {
		for k, b := range e.Backends {
			if b.Group.Release == 2 {
				w.obs.Served.Edges[i].Backends[k].Weight = 0
			}
		}
	}
	w.obs.Evidence = &spillway.Evidence{Trial: w.status.Rollout.ID, Tripped: true, Verdict: spillway.Harmful, Reason: "bad"}
	o := rollout.Describe(w.spec, w.status, w.obs, w.now)
	t.Log("served", o.Rollout.Served, "tracks", o.Tracks)
	if o.Rollout.Served != 0 {
		t.Error("says that the tripped candidate is served")
	}
}

// every state at rest with a deploy that is due has a time to wake
