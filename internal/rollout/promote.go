package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// serving: the data plane has acknowledged that the candidate has all traffic. A deploy is done here as
// far as its caller is concerned; the watch goes on behind it.
func (t *turn) serving() {
	r := t.st.Rollout
	if r.Track == "" {
		t.event(spillway.EventServing, r.Release, "release %d has all traffic", r.Release)
	} else {
		t.event(spillway.EventServing, r.Release, "release %d has the traffic of track %s", r.Release, r.Track)
	}
	t.st.Phase = spillway.Promoting
	r.Elapsed, r.Held = 0, 0
	if r.Forced && r.Stable != 0 {
		r.Forced = false // promote skipped the holds on the way here, not the watch
	}
	t.watch(0) // the time until here was not part of it
}

// watch keeps the old release warm for a while after 100 %, and the judge watching. However the watch ends, the
// old release goes only when the judge can be heard and the candidate is seen to serve.
func (t *turn) watch(passed spillway.Duration) {
	r := t.st.Rollout
	if !t.obs.NoData {
		r.Elapsed += passed
	}
	length := t.candidate().Config.Watch
	why, silent := t.gateWaits()
	switch {
	case r.Stable == 0 || len(t.candidateGroups()) == 0:
		t.promote("")
	case t.obs.NoData: // it may have tripped
	case t.silent() != "":
		t.after(length + t.deadline() - r.Elapsed) // see silentAtTheEnd
	case r.Forced:
		t.promote("the watch was ended by hand")
	case t.newer() != nil: // leave() found that it looks fine
		t.promote("the watch was ended by the next deploy")
	case r.Elapsed >= length && why == "":
		t.promote("")
	case r.Elapsed >= length+t.deadline() && silent == 0:
		t.promote("not decided in the watch: " + why)
	case r.Elapsed >= length: // a gate that cannot be read, or that is broken and not yet for long enough
		if left := length + t.deadline() - r.Elapsed; left > 0 {
			t.after(left)
		}
	default:
		t.after(length - r.Elapsed)
	}
}

// silent names a group of the candidate that has no ready replica, in words; "" when there is none.
func (t *turn) silent() string {
	for _, g := range t.candidateGroups() {
		if o := t.group(g); o.Ready == 0 {
			return strings.TrimSuffix(fmt.Sprintf("no replica of %s is ready: %s", g, o.Problem), ": ")
		}
	}
	return ""
}

// promote swaps the roles. Nothing is rebuilt and no replica changes: those that were tried now serve.
func (t *turn) promote(reason string) {
	r := t.st.Rollout
	if r.Track != "" {
		lane := t.st.Lanes[r.Track]
		lane.Release, lane.Good = r.Release, t.remembered(lane.Good, t.wayBack(lane.Release), r.Release)
		if r.Release == t.st.Stable { // its users are stable's, also when stable moves on
			lane.Release = 0
		}
		t.setLane(r.Track, lane)
		t.finish(spillway.Succeeded, reason)
		return
	}
	old := t.stable()
	t.forgive()
	t.st.Good = t.remembered(t.st.Good, t.wayBack(r.Stable), r.Release)
	t.st.Stable = r.Release
	t.keepStandby(old, t.stable())
	t.finish(spillway.Succeeded, reason)
	t.rethinkTracks()
}

// looksFine reports whether a release in its watch fails no more often than stable did, give or take a
// point: not a certificate, but enough to be the release that the next deploy starts from.
func (t *turn) looksFine() bool {
	return t.failsNoMore() && (t.obs.NoData || t.silent() == "")
}

// failsNoMore is looksFine without a look at its replicas. A rollback is not on trial.
func (t *turn) failsNoMore() bool {
	if t.st.Rollout.Back {
		return true
	}
	if why, _ := t.gateWaits(); why != "" {
		return false
	}
	e := t.st.Rollout.Evidence
	if e == nil || e.Requests == 0 {
		return true
	}
	base := 0.0
	if e.Baseline > 0 {
		base = float64(e.BaseFails) / float64(e.Baseline)
	}
	return float64(e.Failures)/float64(e.Requests) <= base+0.01
}

// destroy waits until nothing runs; the loop then forgets the app.
func (t *turn) destroy() {
	t.st.Stable, t.st.Good, t.st.Queue, t.st.Lanes, t.st.Standby, t.st.Phase = 0, nil, nil, nil, nil, spillway.Destroying
	t.after(spillway.Duration(drainTick))
}

// Gone reports whether a destroyed app has nothing left: no replica and no route.
func Gone(st Status, obs Observation) bool {
	running := slices.ContainsFunc(obs.Groups, func(g Group) bool { return g.Running > 0 })
	return st.Destroy && !running && len(obs.Served.Edges) == 0 && !obs.NoData
}
