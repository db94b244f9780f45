package rollout

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
)

// leave takes the users off the candidate when there is a reason to. It comes before everything that
// could go on, works from every phase, and waits for nothing: not for stable's capacity, not for an
// acknowledgement. It reports whether it did.
func (t *turn) leave() bool {
	if t.st.Rollout == nil || t.st.Phase == spillway.RollingBack {
		return false
	}
	for _, rule := range reasonsToLeave {
		if outcome, why := rule(t); outcome != "" {
			t.st.Rollout.Harm = slices.ContainsFunc(reasonsOfHarm, func(harm reason) bool { o, _ := harm(t); return o != "" })
			t.turnBack(outcome, why)
			return true
		}
	}
	return false
}

// leaveTracks takes a release that the judge found harmful from the tracks that hold it, in every phase of its
// rollout: what is harmful to some is harmful to others.
func (t *turn) leaveTracks() {
	r := t.st.Rollout
	if r == nil || !r.harmful() {
		return
	}
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		if t.st.Lanes[track].Release == r.Release {
			t.closeTrack(track)
			t.event(spillway.EventProblem, r.Release, "track %s had release %d too: its users are stable's", track, r.Release).Track = track
		}
	}
}

// trippedLate reports whether the data plane found the release harmful that the last rollout promoted, before it
// heard of the promotion. It refuses the route of that promotion.
func (t *turn) trippedLate() bool {
	e, last := t.obs.Evidence, t.st.Last
	return e != nil && e.Tripped && last != nil && e.Trial == last.ID && last.Outcome == spillway.Succeeded && !t.acked() && !t.obs.NoData
}

// takeBack begins the way back from a release that tripped late.
func (t *turn) takeBack() {
	last := t.st.Last
	good := t.st.Good
	if last.Track != "" {
		good = t.st.Lanes[last.Track].Good
	}
	e := t.event(spillway.EventProblem, last.Release, "release %d was found harmful in the moment of its promotion: %s", last.Release, t.obs.Evidence.Reason)
	e.Track = last.Track
	last.Outcome, last.Reason = spillway.RolledBack, t.obs.Evidence.Reason
	t.blame(last.Release, Blame{Outcome: last.Outcome, Reason: last.Reason, Judged: true})
	if t.holds(last.Track) != last.Release {
		return
	}
	switch {
	case len(good) > 0:
		t.begin(Queued{Release: good[0], Track: last.Track, Back: true, Force: true})
	case last.Track != "":
		t.closeTrack(last.Track)
	}
}

// reason is one to leave the candidate: the outcome, "" = it is none, and why in words.
type reason func(*turn) (spillway.Outcome, string)

// reasonsToLeave are asked in this order; the first that gives an outcome wins.
var reasonsToLeave = []reason{
	judgedHarmful,
	taskFailed,
	cannotStart,
	restartsTooOften,
	gateBroken,
	notReadyInTime,
	silentAtTheEnd,
	newerWaits,
}

// reasonsOfHarm are those that speak against the release; the others may be trouble of what it runs on.
var reasonsOfHarm = []reason{judgedHarmful, restartsTooOften, gateBroken}

// judgedHarmful: the judge, here or in the data plane, says that the candidate is worse.
func judgedHarmful(t *turn) (spillway.Outcome, string) {
	r := t.st.Rollout
	if r.Stable == 0 || !r.harmful() {
		return "", ""
	}
	return spillway.RolledBack, r.Evidence.Reason
}

// harmful reports whether the last evidence says that the candidate is worse.
func (r *Rollout) harmful() bool {
	return r.Evidence != nil && (r.Evidence.Verdict == spillway.Harmful || r.Evidence.Tripped)
}

// cannotStart: a candidate that waiting will not help.
func cannotStart(t *turn) (spillway.Outcome, string) {
	for _, g := range t.candidateGroups() {
		switch o := t.group(g); {
		case o.Fatal && o.Running > o.Draining: // else it is one that is on its way out
			return t.failure(), fmt.Sprintf("%s cannot become ready: %s", g, o.Problem)
		case since(t.st.Rollout.Crashed, g, o.Crashes) >= maxCrash:
			return t.failure(), fmt.Sprintf("%s ended %d times before it was ready: %s", g, o.Crashes, o.Problem)
		}
	}
	return "", ""
}

// restartsTooOften: a candidate whose replicas keep dying after they were ready.
func restartsTooOften(t *turn) (spillway.Outcome, string) {
	limit, given := maxRestart-1, false
	for _, gate := range t.candidate().Config.Gates {
		if gate.Metric == "restarts" && !gate.DryRun && gate.From <= t.shown() && (!given || gate.Max < limit) {
			limit, given = gate.Max, true
		}
	}
	for _, g := range t.candidateGroups() {
		o := t.group(g)
		n := since(t.st.Rollout.Before, g, o.Restarts)
		if n > limit {
			return t.failure(), fmt.Sprintf("%s ended %d times after it was ready (%d allowed): %s", g, n, limit, o.Problem)
		}
	}
	return "", ""
}

// notReadyInTime: the step's capacity or the data plane's acknowledgement did not come.
func notReadyInTime(t *turn) (spillway.Outcome, string) {
	r := t.st.Rollout
	if t.st.Phase != spillway.Progressing || r.Acked || t.obs.NoData || r.Elapsed+t.lapse() < t.patience() {
		return "", ""
	}
	missing := t.missing()
	switch tasks := t.wantedTasks(); {
	case len(tasks) > 0:
		missing = t.commandText(tasks[0], " has not ended")
	case missing == "":
		missing = "the route is not acknowledged as served"
	}
	return t.failure(), fmt.Sprintf("not ready within %s: %s%s", t.patience(), missing, t.stuck())
}

// silentAtTheEnd: the watch is over, and for a whole deadline nothing of the candidate has come back.
func silentAtTheEnd(t *turn) (spillway.Outcome, string) {
	r := t.st.Rollout
	over := t.candidate().Config.Watch + t.deadline()
	if t.st.Phase != spillway.Promoting || r.Stable == 0 || t.obs.NoData || r.Elapsed+t.dt < over || t.silent() == "" {
		return "", ""
	}
	return t.failure(), t.silent()
}

// failure is the outcome of a candidate that failed by itself: users who saw it are rolled back.
func (t *turn) failure() spillway.Outcome {
	if t.st.Rollout.Exposed {
		return spillway.RolledBack
	}
	return spillway.Failed
}

// turnBack begins the way back.
func (t *turn) turnBack(outcome spillway.Outcome, reason string) {
	r := t.st.Rollout
	r.Outcome, r.Reason, r.Paused, r.Forced, r.Elapsed = outcome, reason, false, false, 0
	t.st.Phase, t.turned = spillway.RollingBack, true
	t.event(spillway.EventAborting, r.Release, "release %d to 0%%%s: %s", r.Release, ofTrack(r.Track), reason)
}

// rollBack goes on until the data plane has acknowledged that the candidate has no traffic; what is left
// of it is then stopped like everything that has lost its traffic. It does not wait for stable to be ready.
func (t *turn) rollBack() {
	r := t.st.Rollout
	r.Elapsed += t.dt
	if t.turned || !t.acked() { // what is acknowledged may still be the route before the turn
		return
	}
	if r.Cleared { // recreate: the old replicas have to be started again, after the new ones are gone
		if !r.Returned {
			r.Returned = t.recreatedGone(t.candidate(), t.stable())
			return
		}
		if missing := t.missingOf(t.stable(), spillway.Whole); missing != "" && r.Elapsed < t.deadline() {
			return
		}
	}
	t.finish(r.Outcome, r.Reason)
}

// finish ends the rollout. Only Succeeded changes which release is stable.
func (t *turn) finish(outcome spillway.Outcome, reason string) {
	r := t.st.Rollout
	t.event(spillway.EventFinished, r.Release, "%s", ended(r.Release, r.Track, outcome, reason)).Outcome = outcome
	t.st.Last = &Result{ID: r.ID, Release: r.Release, Outcome: outcome, Reason: reason, At: t.now, Evidence: r.Evidence, Track: r.Track}
	t.conclude(r, outcome, reason)
	t.st.Rollout = nil
	t.again(r, outcome)
	if len(t.waitingDeploys()) > 0 {
		t.after(0)
	}
	t.st.Phase = t.restPhase()
}

// ended says in words how the rollout of a release ended: "release 7 failed: www.7 cannot become ready".
func ended(release int, track string, outcome spillway.Outcome, reason string) string {
	words := map[spillway.Outcome]string{
		spillway.Succeeded: "is stable", spillway.RolledBack: "was rolled back", spillway.Failed: "failed",
		spillway.Aborted: "was taken back", spillway.Superseded: "gave way", spillway.Cancelled: "was dropped",
	}[outcome]
	if track != "" && outcome == spillway.Succeeded {
		words = "is what track " + track + " has"
	}
	if reason != "" {
		reason = ": " + reason
	}
	return fmt.Sprintf("release %d %s%s", release, words, reason)
}
