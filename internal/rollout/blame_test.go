package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// tried is a release with the track canary and a watch; each changes www.
func tried(number int) spillway.Release {
	r := laned(number, number, can)
	r.Config.Watch = spillway.Duration(time.Hour)
	return r
}

// trying is an app whose release 1 is stable, with so many releases more.
func trying(t *testing.T, more int) *world {
	w := newWorld(t)
	for n := range more + 1 {
		w.spec.Releases[n+1] = tried(n + 1)
	}
	w.deploy(1, "")
	return w
}

func (w *world) deploy(release int, track string) {
	w.t.Helper()
	w.whole(spillway.Intent{Verb: spillway.VerbDeploy, Release: release, Track: track})
}

// whole does what is asked for and ends its watch.
func (w *world) whole(in spillway.Intent) {
	w.t.Helper()
	w.ask(in, 20)
	if r := w.status.Rollout; r != nil {
		w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: r.Track}, 8)
	}
	if w.status.Rollout != nil {
		w.dump()
		w.t.Fatalf("%s %d has not ended", in.Verb, in.Release)
	}
}

// starved lets the engine go on while no replica of a release of www is ready, for as many minutes.
func (w *world) starved(release, minutes int) {
	w.t.Helper()
	for range minutes {
		for i, g := range w.obs.Groups {
			if g.Group.Release == release {
				w.obs.Groups[i].Ready, w.obs.Groups[i].Problem = 0, "no node has room"
			}
		}
		w.now = w.now.Add(time.Minute)
		w.run(1)
	}
}

// judged lets the judge say something of the rollout that runs.
func (w *world) judged(e spillway.Evidence) {
	w.t.Helper()
	if w.status.Rollout == nil {
		w.dump()
		w.t.Fatal("nothing is judged")
	}
	e.Trial, e.At = w.status.Rollout.ID, w.now
	w.obs.Evidence = &e
	w.run(1)
}

var harmful = spillway.Evidence{Verdict: spillway.Harmful, Requests: 3, Failures: 3, Reason: "3 of 3 requests failed"}

// ended wants the last rollout to have ended so, and its release to be bad or not.
func (w *world) ended(release int, outcome spillway.Outcome, bad bool) {
	w.t.Helper()
	last := w.status.Last
	if last == nil || last.Release != release || last.Outcome != outcome {
		w.dump()
		w.t.Fatalf("the last rollout is %+v, want release %d %s", last, release, outcome)
	}
	w.known(release, bad)
}

// known wants a release to be bad or not.
func (w *world) known(release int, bad bool) {
	w.t.Helper()
	if _, is := w.status.Bad[release]; is != bad {
		w.dump()
		w.t.Errorf("release %d is bad: %v, want %v: %+v", release, is, bad, w.status.Bad)
	}
}

// What has changed since a release served well is not the release.
func TestDecide_TroubleOfThePlatformMakesNoGoodReleaseBad(t *testing.T) {
	for name, tt := range map[string]struct {
		track   string
		rounds  int // of the way back, before the trouble
		outcome spillway.Outcome
	}{
		"before it has users":             {"", 1, spillway.Failed},
		"in its watch":                    {"", 20, spillway.RolledBack},
		"of a track, before it has users": {"canary", 1, spillway.Failed},
		"of a track, when it has users":   {"canary", 20, spillway.RolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			w := trying(t, 2)
			w.deploy(2, tt.track)
			w.deploy(3, tt.track)
			back := spillway.Intent{Verb: spillway.VerbRollback, Release: 2, Track: tt.track}
			w.ask(back, tt.rounds)
			w.starved(2, 90)
			w.ended(2, tt.outcome, false)
			w.whole(back)
			w.ended(2, spillway.Succeeded, false)
		})
	}
}

// A release that never served well is bad when it does not become ready: nobody knows that it can.
func TestDecide_WhatNeverServedIsBadWhenItFails(t *testing.T) {
	w := trying(t, 1)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	w.starved(2, 20)
	w.ended(2, spillway.Failed, true)
}

// That a release served well once does not make up for harm.
func TestDecide_HarmMakesAGoodReleaseBad(t *testing.T) {
	gate := spillway.Gate{Text: "http: http://x/ok", Metric: "http", Source: "http://x/ok"}
	for name, harm := range map[string]func(w *world){
		"judged": func(w *world) { w.judged(harmful) },
		"judged when it has left already": func(w *world) {
			w.obs.Groups[0].Fatal, w.obs.Groups[0].Ready = true, 0 // of release 1
			w.obs.Served.Generation--                              // the way back takes its time
			w.run(1)
			w.obs.Served.Generation--
			w.judged(harmful)
		},
		"a gate": func(w *world) {
			w.obs.Readings = []rollout.Reading{{Rollout: w.status.Rollout.ID, Gate: gate.Text, Text: "500", At: w.now}}
			w.run(1)
		},
		"restarts": func(w *world) { w.obs.Groups[0].Restarts = 9; w.run(1) },
	} {
		t.Run(name, func(t *testing.T) {
			w := trying(t, 1)
			r := w.spec.Releases[1]
			r.Config.Gates = []spillway.Gate{gate}
			w.spec.Releases[1] = r
			w.deploy(2, "")
			w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 20)
			harm(w)
			w.run(8)
			w.ended(1, spillway.RolledBack, true)
		})
	}
}

// A track that holds a release keeps nobody from blaming it for what it does to everybody.
func TestDecide_BlamesAReleaseOfATrackForHarmToAll(t *testing.T) {
	w := trying(t, 1)
	w.deploy(2, "canary")
	w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, 20)
	for i, g := range w.obs.Groups {
		if g.Group.Release == 2 {
			w.obs.Groups[i].Restarts = 9
		}
	}
	w.run(8)
	w.ended(2, spillway.RolledBack, true)
	if w.status.Lanes["canary"].Release != 2 {
		t.Errorf("the track lost its release: %+v", w.status.Lanes)
	}
}

// What a track has can run: that there was no room for all of it says nothing against it.
func TestDecide_TroubleOfThePlatformMakesNoReleaseOfATrackBad(t *testing.T) {
	w := trying(t, 1)
	w.deploy(2, "canary")
	w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, 1)
	w.starved(2, 90)
	w.ended(2, spillway.Failed, false)
}

// Blame goes on evidence alone: a trial that nobody came to, or whose gate could not be asked, shows nothing.
func TestDecide_BlameGoesOnEvidenceAlone(t *testing.T) {
	gate := spillway.Gate{Text: "http: http://x/ok", Metric: "http", Source: "http://x/ok"}
	reading := func(ok bool) func(w *world) {
		return func(w *world) {
			w.obs.Readings = []rollout.Reading{{Rollout: w.status.Rollout.ID, Gate: gate.Text, OK: ok, At: w.now}}
		}
	}
	served := func(requests int64) func(w *world) {
		return func(w *world) { w.judged(spillway.Evidence{Verdict: spillway.Undecided, Requests: requests}) }
	}
	nothing := func(*world) {}
	for name, tt := range map[string]struct {
		gates     []spillway.Gate
		harm, try func(w *world)
		bad       bool
	}{
		"judged, and no requests":     {nil, func(w *world) { w.judged(harmful) }, nothing, true},
		"judged, and none counted":    {nil, func(w *world) { w.judged(harmful) }, served(0), true},
		"judged, and good answers":    {nil, func(w *world) { w.judged(harmful) }, served(50), false},
		"a gate, and nobody asked":    {[]spillway.Gate{gate}, reading(false), nothing, true},
		"a gate, which holds":         {[]spillway.Gate{gate}, reading(false), reading(true), false},
		"never ready, and ready":      {[]spillway.Gate{gate}, func(w *world) { w.starved(2, 20) }, nothing, false},
		"ends, and does not any more": {nil, func(w *world) { w.obs.Groups[1].Restarts = 9 }, nothing, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := trying(t, 1)
			r := w.spec.Releases[2]
			r.Config.Gates = tt.gates
			w.spec.Releases[2] = r
			deploy, rounds := spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 20
			if name == "never ready, and ready" {
				rounds = 1
			}
			w.ask(deploy, rounds)
			tt.harm(w)
			w.run(8)
			w.known(2, true)
			w.ask(deploy, 20)
			for range 2 { // the steps, and the watch
				if w.status.Rollout != nil {
					tt.try(w)
					w.ask(spillway.Intent{Verb: spillway.VerbPromote}, 8)
				}
			}
			w.ended(2, spillway.Succeeded, tt.bad)
		})
	}
}

// A try that came to nothing leaves a release blamed for the harm that it did, and what takes that away.
func TestDecide_TroubleDoesNotReplaceHarm(t *testing.T) {
	w := bad(t, 0)
	was := w.status.Bad[2]
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	w.starved(2, 20)
	w.ended(2, spillway.Failed, true)
	if is := w.status.Bad[2]; is != was {
		t.Errorf("it is blamed for %+v, want %+v", is, was)
	}
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 20)
	w.obs.Groups[1].Restarts = 9 // harm of another kind
	w.run(8)
	w.ended(2, spillway.RolledBack, true)
	w.deploy(2, "")
	w.known(2, true)
}

// bad is an app whose release 1 is stable and whose release 2 was found harmful, with so many releases beside them.
func bad(t *testing.T, more int) *world {
	w := trying(t, more+1)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 20)
	w.judged(harmful)
	w.run(8)
	w.ended(2, spillway.RolledBack, true)
	return w
}

// What served everybody until the next deploy is what a rollback of that goes to, whatever was known against it before.
func TestDecide_ForgivesWhatServesByForceUntilTheNextDeploy(t *testing.T) {
	w := bad(t, 1)
	w.whole(spillway.Intent{Verb: spillway.VerbRollback, Release: 2, Force: true})
	w.known(2, true)
	w.deploy(3, "")
	w.known(2, false)
	w.whole(spillway.Intent{Verb: spillway.VerbRollback})
	if w.status.Stable != 2 {
		t.Errorf("stable is %d, want what served before: %q", w.status.Stable, w.said)
	}
}

// One that was left by a rollback is not forgiven, nor one that got there by a trial that nobody came to.
func TestDecide_ForgivesNothingElse(t *testing.T) {
	back, force := spillway.Intent{Verb: spillway.VerbRollback, Release: 1}, spillway.Intent{Verb: spillway.VerbRollback, Release: 2, Force: true}
	for name, do := range map[string]func(w *world){
		"left by a rollback":           func(w *world) { w.whole(force); w.whole(back); w.deploy(3, "") },
		"a trial without requests":     func(w *world) { w.deploy(2, ""); w.deploy(3, "") },
		"and that after it was forced": func(w *world) { w.whole(force); w.whole(back); w.deploy(2, ""); w.deploy(3, "") },
	} {
		t.Run(name, func(t *testing.T) {
			w := bad(t, 1)
			do(w)
			w.known(2, true)
			if w.status.Stable != 3 || len(w.status.Good) != 1 || w.status.Good[0] != 1 {
				t.Errorf("stable is %d and the ways back %v, want 3 and only release 1", w.status.Stable, w.status.Good)
			}
		})
	}
}

// What tripped in the moment of its promotion, and stayed because its way back failed, was not chosen by anybody.
func TestDecide_ForgivesNoLateTrip(t *testing.T) {
	w := trying(t, 2)
	w.deploy(2, "")
	w.obs.Evidence = &spillway.Evidence{Trial: w.status.Last.ID, Verdict: spillway.Harmful, Tripped: true, Reason: "bad"}
	w.obs.Served.Generation--
	w.run(1)
	w.starved(1, 20)
	w.ended(1, spillway.Failed, false)
	w.known(2, true)
	w.deploy(3, "")
	w.known(2, true)
}

// What is forgotten is what was blamed first, not the oldest release; and never what is blamed now, if the clock has gone back.
func TestDecide_ForgetsWhatWasBlamedFirst(t *testing.T) {
	for name, since := range map[string]time.Duration{"the clock goes on": time.Hour, "the clock goes back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := trying(t, 21)
			w.status.Bad = map[int]rollout.Blame{}
			for n := 3; n <= 22; n++ { // the newest release first
				w.status.Bad[n] = rollout.Blame{Outcome: spillway.Failed, At: w.now.Add(time.Duration(22-n) * time.Second)}
			}
			w.now = w.now.Add(since)
			w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 20)
			w.judged(harmful)
			w.run(8)
			w.ended(2, spillway.RolledBack, true)
			w.known(22, false)
			if len(w.status.Bad) != 20 {
				t.Errorf("%d releases are known to be bad, want 20", len(w.status.Bad))
			}
		})
	}
}

// A track that held a bad release when it became stable by force does not have it for a way back.
func TestDecide_ATrackRemembersNothingBad(t *testing.T) {
	w := trying(t, 3)
	w.deploy(2, "canary")
	w.status.Bad = map[int]rollout.Blame{2: {Outcome: spillway.RolledBack, Reason: "bad", Judged: true}} // a gate broke when it was promoted
	w.whole(spillway.Intent{Verb: spillway.VerbRollback, Release: 2, Force: true})
	if lane := w.status.Lanes["canary"]; w.status.Stable != 2 || len(lane.Good) != 0 {
		t.Errorf("stable is %d, and the track has the ways back %v: %q", w.status.Stable, lane.Good, w.said)
	}
}

// The way back that is found for a rollback without a number is asked about like one that was named.
func TestDecide_ARollbackWithoutANumberGoesToNothingBad(t *testing.T) {
	w := bad(t, 1)
	w.deploy(3, "")
	w.status.Good = []int{2, 1} // as one remembers it who did not know better
	w.said = nil
	w.whole(spillway.Intent{Verb: spillway.VerbRollback})
	if w.status.Stable != 3 || len(w.said) == 0 || !strings.Contains(w.said[0], "release 2 was rolled back") {
		t.Errorf("stable is %d: %q", w.status.Stable, w.said)
	}
}

// A rollback of a track that made way for a deploy to stable was not forced, and is not when it begins again; one that was
// forced still is.
func TestDecide_ARollbackThatMadeWayIsNoMoreThanWasAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		force bool
		harm  bool // done by release 2 when it goes to stable, while the rollback to it waits
		holds int  // the track, in the end
	}{
		"not forced, and found harmful": {false, true, 3},
		"not forced":                    {false, false, 2},
		"forced":                        {true, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := trying(t, 3)
			w.deploy(2, "canary")
			w.deploy(3, "canary")
			if tt.force {
				w.status.Bad = map[int]rollout.Blame{2: {Outcome: spillway.RolledBack, Reason: "bad", Judged: true}}
			}
			w.ask(spillway.Intent{Verb: spillway.VerbRollback, Release: 2, Track: "canary", Force: tt.force}, 1)
			if tt.harm {
				w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 12)
				w.judged(harmful)
			} else {
				w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 4}, 12)
			}
			for range 2 { // the watch of stable's, if it gets there, and that of the track's
				w.run(12)
				if r := w.status.Rollout; r != nil {
					w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: r.Track}, 1)
				}
			}
			if n := w.status.Lanes["canary"].Release; n != tt.holds || w.status.Rollout != nil {
				w.dump()
				t.Errorf("the track has release %d, want %d", n, tt.holds)
			}
		})
	}
}

func TestDecide_ARollbackToNowhereNamesTheForcedWay(t *testing.T) {
	w := bad(t, 0)
	w.said = nil
	w.ask(spillway.Intent{Verb: spillway.VerbRollback}, 1)
	if text := strings.Join(w.said, "\n"); !strings.Contains(text, "no earlier good release to roll back to: release 2 was rolled back on ") || !strings.Contains(text, "spillway rollback 2 --force") {
		t.Errorf("said %q", w.said)
	}
}
