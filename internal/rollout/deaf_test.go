package rollout_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// TestDecide_ResumeOfWhatCannotBeJudged has the judge's figures away for as long as the test lasts: resume says what it
// does about that, and promote goes on.
func TestDecide_ResumeOfWhatCannotBeJudged(t *testing.T) {
	r2 := release(2, []string{"www"}, web(spillway.Canary, 2))
	w := newWorld(t, release(1, nil, web(spillway.Canary, 2)), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 3)
	lost := w.now
	deaf := func(seconds int) {
		for range seconds {
			if r := w.status.Rollout; r != nil {
				w.obs.Evidence = &spillway.Evidence{Trial: r.ID, Verdict: spillway.NoData, Reason: "connection refused", At: lost}
			}
			w.run(1)
		}
	}
	says := func(text string) {
		t.Helper()
		if !slices.ContainsFunc(w.said, func(s string) bool { return strings.Contains(s, text) }) {
			w.dump()
			t.Fatalf("nothing says %q", text)
		}
		w.said = nil
	}
	ask := func(verb spillway.Verb) {
		w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: verb, By: "ann", At: w.now}}
		deaf(2)
	}
	deadline := int(time.Duration(spillway.DefaultDeadline).Seconds())

	deaf(60)
	w.said = nil
	ask(spillway.VerbResume)
	says("nothing is paused: release 2 waits by itself, because the judge has no data: connection refused, and goes on when it can be judged; promote goes on without that")
	deaf(deadline)
	says("resume (wait for it again), promote (go on without it) or abort")
	ask(spillway.VerbResume)
	says("stays at 1% for up to 10m more, because the judge has no data: connection refused; promote goes on without being judged")
	deaf(deadline - 10)
	if w.status.Phase != spillway.Progressing {
		t.Fatalf("%s: it does not wait for the judge again", w.status.Phase)
	}
	deaf(20)
	says("resume (wait for it again)")
	ask(spillway.VerbPromote)
	deaf(60)
	if w.status.Phase != spillway.Promoting {
		w.dump()
		t.Errorf("promote does not go on without the judge: %s", w.status.Phase)
	}
}

// TestDecide_WaitsForTheJudgeByTheTimeThatWentBy sets the clock an hour ahead while the judge has no data, and has nobody
// decide for an hour: neither is time in which data could have come.
func TestDecide_WaitsForTheJudgeByTheTimeThatWentBy(t *testing.T) {
	r2 := release(2, []string{"www"}, web(spillway.Canary, 2))
	w := newWorld(t, release(1, nil, web(spillway.Canary, 2)), r2)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 3)
	lost := w.now
	deaf := func(seconds int, away bool) {
		for range seconds {
			w.obs.Evidence = &spillway.Evidence{Trial: w.status.Rollout.ID, Verdict: spillway.NoData, Reason: "connection refused", At: lost}
			w.obs.Away = away
			w.run(1)
		}
	}
	deaf(60, false)
	w.now = w.now.Add(time.Hour)
	deaf(1, false)
	w.now = w.now.Add(time.Hour)
	deaf(1, true)
	deaf(60, false)
	if w.status.Phase != spillway.Progressing {
		w.dump()
		t.Fatalf("%s, want it to wait for the judge", w.status.Phase)
	}
	deaf(int(time.Duration(spillway.DefaultDeadline).Seconds()), false)
	if w.status.Phase != spillway.Paused {
		w.dump()
		t.Errorf("%s, want a pause when the deadline is over", w.status.Phase)
	}
}
