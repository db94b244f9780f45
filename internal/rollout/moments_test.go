package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

var can = spillway.Track{Name: "canary", Replicas: 1, Share: spillway.Percent(10)}

func (w *world) dump() {
	w.t.Helper()
	w.t.Logf("phase %s stable %d good %v lanes %+v queue %+v rollout %+v", w.status.Phase, w.status.Stable, w.status.Good, w.status.Lanes, w.status.Queue, w.status.Rollout)
	for _, s := range w.said {
		w.t.Log("  ", s)
	}
}

func TestDecide_WakesForADeployThatIsDue(t *testing.T) {
	w := newWorld(t, laned(1, 1, can), laned(2, 1, can), laned(3, 3, can))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: spillway.VerbDeploy, Release: 2, At: w.now}, {Seq: w.status.Intent + 2, Verb: spillway.VerbDeploy, Release: 3, Track: "canary", At: w.now}}
	for range 100 { // only when woken: intents, changed observation, or WakeAt
		d := rollout.Decide(w.spec, w.status, w.obs, w.now)
		w.status, w.spec.Intents = d.Status, nil
		for _, e := range d.Events {
			w.said = append(w.said, e.Text)
		}
		changed := w.obs.Served.Generation != d.Desired.Route.Generation
		var groups []rollout.Group
		for _, want := range d.Desired.Groups {
			groups = append(groups, rollout.Group{Group: want.Group, Running: want.Replicas, Ready: want.Replicas})
		}
		changed = changed || len(groups) != len(w.obs.Groups)
		for i := range min(len(groups), len(w.obs.Groups)) {
			changed = changed || groups[i] != w.obs.Groups[i]
		}
		w.obs = rollout.Observation{Served: d.Desired.Route, Groups: groups}
		if !changed && d.WakeAt.IsZero() {
			if w.status.Lanes["canary"].Queue != nil {
				w.dump()
				t.Fatal("asleep for ever with a deploy that is due")
			}
			return
		}
		w.now = w.now.Add(time.Second)
	}
}

func TestDecide_HoldsNoGateAgainstTheWayBack(t *testing.T) {
	r1, r2 := laned(1, 1), laned(2, 2)
	gate := spillway.Gate{Text: "http: http://x/ok", Metric: "http", Source: "http://x/ok"}
	r1.Config.Gates = []spillway.Gate{gate}
	r1.Config.Watch, r2.Config.Watch = spillway.Duration(5*time.Second), 0
	w := newWorld(t, r1, r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 40)
	w.ask(spillway.Intent{Verb: spillway.VerbRollback}, 1)
	for range 10 {
		id := int64(0)
		if w.status.Rollout != nil {
			id = w.status.Rollout.ID
		}
		w.obs.Readings = []rollout.Reading{{Rollout: id, Gate: gate.Text, OK: false, Text: "503", At: w.now}}
		w.run(1)
	}
	w.dump()
	if w.status.Stable != 1 {
		t.Error("rollback bounced")
	}
}

func TestDecide_CountsNoTimeOfAPause(t *testing.T) {
	w := newWorld(t, laned(1, 1), laned(2, 2))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	w.ask(spillway.Intent{Verb: spillway.VerbPause}, 1)
	w.run(700)
	w.ask(spillway.Intent{Verb: spillway.VerbResume}, 30)
	w.dump()
	if w.status.Stable != 2 {
		t.Error("failed on resume")
	}
}

func TestDecide_RemembersACommandThatSucceededInAPause(t *testing.T) {
	r2 := laned(2, 2)
	r2.Config.Services[0].Release = spillway.Command{Shell: "migrate"}
	w := newWorld(t, laned(1, 1), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 2)
	d := rollout.Decide(w.spec, w.status, w.obs, w.now)
	t.Log("tasks wanted", d.Desired.Tasks)
	task := d.Desired.Tasks[0]
	w.ask(spillway.Intent{Verb: spillway.VerbPause}, 1)
	// it succeeds during the pause; then a person aborts, and deploys the same again
	w.obs.Tasks = []rollout.TaskState{{Task: task, Done: true}}
	w.run(1)
	w.obs.Tasks = []rollout.TaskState{{Task: task, Done: true}}
	w.ask(spillway.Intent{Verb: spillway.VerbAbort}, 10)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 2)
	d = rollout.Decide(w.spec, w.status, w.obs, w.now)
	w.dump()
	t.Log("tasks wanted", d.Desired.Tasks)
	if len(d.Desired.Tasks) > 0 {
		t.Error("a release command that has succeeded is run again")
	}
}

func TestDecide_SaysWhyAReleaseCommandDoesNotBegin(t *testing.T) {
	const why = "no node takes it: add nodes"
	r2 := laned(2, 2)
	r2.Config.Services[0].Release = spillway.Command{Shell: "migrate"}
	w := newWorld(t, laned(1, 1), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 2)
	w.obs.Tasks = []rollout.TaskState{{Task: rollout.Decide(w.spec, w.status, w.obs, w.now).Desired.Tasks[0], Problem: why}}
	o := rollout.Describe(w.spec, w.status, w.obs, w.now)
	if want := "the release command of www does not begin: " + why; o.Rollout == nil || o.Rollout.Waiting != want {
		t.Errorf("waits for %+v; want %q", o.Rollout, want)
	}
	waiting := w.obs.Tasks
	for range 700 {
		w.obs.Tasks = waiting
		w.run(1)
	}
	if last := w.status.Last; last == nil || last.Outcome != spillway.Failed || !strings.HasSuffix(last.Reason, "the release command of www does not begin: "+why) {
		t.Errorf("ended as %+v", last)
	}
}

func TestDecide_PromotesATrackOnce(t *testing.T) {
	r2 := laned(2, 2, can)
	r2.Config.Services[0].Strategy = spillway.Canary
	w := newWorld(t, laned(1, 1, can), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 10)
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, 5)
	w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, 5)
	w.dump()
	if w.status.Rollouts != 3 {
		t.Error("started again")
	}
}

func TestDecide_RollsBackPastAScheduledDeploy(t *testing.T) {
	w := newWorld(t, laned(1, 1), laned(2, 2), laned(3, 3))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 40)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3, NotBefore: w.now.Add(24 * time.Hour)}, 2)
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbRollback}, 20)
	w.dump()
	if w.status.Stable != 1 {
		t.Error("rollback did not roll back")
	}
}

func TestDecide_AbortsATrackThatGivesWay(t *testing.T) {
	r2 := laned(2, 2, can)
	r2.Config.Watch = spillway.Duration(time.Hour)
	w := newWorld(t, laned(1, 1, can), r2, laned(3, 3, can))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 1)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 1)
	w.said = nil
	for _, v := range []spillway.Verb{spillway.VerbAbort, spillway.VerbCancel, spillway.VerbRollback} {
		s, o := w.status, w.obs
		w.ask(spillway.Intent{Verb: v, Track: "canary"}, 60)
		if w.status.Lanes["canary"].Release == 2 || w.status.Rollout != nil && w.status.Rollout.Track == "canary" {
			t.Error("the track's deploy begins again after", v)
		}
		w.dump()
		w.status, w.obs, w.said = s, o, nil
	}
}

func TestDecide_TakesALateTripBackBeforeTheNextDeploy(t *testing.T) {
	w := newWorld(t, laned(1, 1), laned(2, 2), laned(3, 3))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.spec.Releases[2].Config.Services[0].Strategy = spillway.BlueGreen
	r2 := w.spec.Releases[2]
	r2.Config.Watch = spillway.Duration(time.Hour)
	w.spec.Releases[2] = r2
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 10)
	served := w.obs.Served
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 1) // ends the watch: promoted
	w.obs.Served = served                                            // the proxy tripped and refuses the promotion
	w.obs.Evidence = &spillway.Evidence{Trial: served.Trial.ID, Tripped: true, Verdict: spillway.Harmful, Reason: "bad"}
	for range 30 {
		w.run(1)
		t.Log(w.status.Phase, w.status.Stable, w.status.Route.Generation, w.public())
	}
	w.dump()
}

func TestDecide_BeginsNothingFromAnUnsettledPromotion(t *testing.T) {
	w := newWorld(t, laned(1, 1), laned(2, 2), laned(3, 3))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.spec.Releases[2].Config.Services[0].Strategy = spillway.BlueGreen
	r2 := w.spec.Releases[2]
	r2.Config.Watch = spillway.Duration(time.Hour)
	w.spec.Releases[2] = r2
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 10)
	served := w.obs.Served
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 1) // ends the watch: promoted
	w.obs.Served = served                                            // an observation from before
	w.run(1)                                                         // 3 begins
	w.obs.Served = served
	w.obs.Evidence = &spillway.Evidence{Trial: served.Trial.ID, Tripped: true, Verdict: spillway.Harmful, Reason: "bad"}
	w.run(1)
	w.ask(spillway.Intent{Verb: spillway.VerbAbort}, 20)
	w.dump()
	t.Log(w.public())
	if w.status.Stable == 2 {
		t.Error("harmful release stays stable, nobody goes back")
	}
}

func TestDecide_GivesATracksUsersBackAtOnce(t *testing.T) {
	r4 := laned(4, 4, can)
	r4.Config.Services[0].Strategy = spillway.Canary
	w := newWorld(t, laned(1, 1, can), laned(2, 2, can), laned(3, 3, can), r4)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 10)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3, Track: "canary"}, 10)
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 4}, 5)
	w.ask(spillway.Intent{Verb: spillway.VerbRollback, Track: "canary"}, 3000)
	w.dump()
	t.Log(w.public())
	if w.status.Lanes["canary"].Release == 3 {
		t.Error("50 minutes later the track's users are still on 3")
	}
}

func TestDecide_NeverPromotesWhatNobodyAsked(t *testing.T) {
	r2 := laned(2, 2)
	r2.Config.Services[0].Strategy, r2.Config.Thin = spillway.Canary, spillway.ThinPromote
	w := newWorld(t, laned(1, 1), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	for range 4000 {
		if r := w.status.Rollout; r != nil {
			w.obs.Evidence = &spillway.Evidence{Trial: r.ID, Verdict: spillway.NoTraffic, Reason: "no traffic"}
		}
		w.run(1)
	}
	w.dump()
	if w.status.Stable == 2 {
		t.Error("promoted although nobody asked it anything")
	}
}

func TestDecide_APauseOfAPersonIsNotThatOfTheStep(t *testing.T) {
	r2 := laned(2, 2)
	s := &r2.Config.Services[0]
	s.Strategy, s.Steps = spillway.Canary, []spillway.StepSpec{{Weight: spillway.Percent(5), Hold: spillway.Duration(2 * time.Minute)}, {Pause: true}, {Weight: spillway.Percent(50)}}
	w := newWorld(t, laned(1, 1), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.said = nil
	step := func(n int) {
		for range n {
			if r := w.status.Rollout; r != nil {
				w.obs.Evidence = &spillway.Evidence{Trial: r.ID, Verdict: spillway.Certified, Margin: 0, Requests: 1000}
			}
			w.run(1)
		}
	}
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	step(10)
	w.ask(spillway.Intent{Verb: spillway.VerbPause}, 1)
	step(3)
	w.ask(spillway.Intent{Verb: spillway.VerbResume}, 1)
	step(300)
	w.dump()
	if w.status.Phase != spillway.Paused {
		t.Error("the pause step did not wait for a person")
	}
}
