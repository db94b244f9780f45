package sim

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// waits: a deploy begins when it may and not before, stable's before those of tracks; a way back always may.
func (r round) waits() {
	o := r.started()
	if o != nil && !o.Back && !r.allowed(*o) {
		r.fail("nothing begins before its time or in a freeze: release %d", o.Release)
	}
	if q := r.is.Queue; o != nil && o.Track != "" && q != nil && r.mayBegin(*q) {
		r.fail("stable goes before tracks: release %d waits for release %d of track %s", q.Release, o.Release, o.Track)
	}
	if q := r.is.Queue; r.was.Rollout == nil && r.is.Rollout == nil && q != nil && q.Back && !r.is.Destroy {
		r.fail("a rollback always begins: release %d waits", q.Release)
	}
	if r.was.Rollout == nil && r.was.Queue == nil && len(r.was.Good) > 0 && len(r.spec.Intents) == 1 && !r.was.Destroy {
		in := r.spec.Intents[0]
		if in.Verb == spillway.VerbRollback && in.Release == 0 && in.Track == "" && (o == nil || o.Release != r.was.Good[0]) {
			r.fail("a rollback always begins: to release %d", r.was.Good[0])
		}
	}
}

// spares: a rollback gives nobody a release that was rolled back by itself, for harm or before it had served well, unless
// it is forced, and none promises to.
func (r round) spares() {
	if l := r.was.Last; l != nil {
		held := l.Release == r.was.Stable || l.Release == r.was.Lanes[l.Track].Release
		harm := l.Evidence != nil && (l.Evidence.Verdict == spillway.Harmful || l.Evidence.Tripped)
		served := slices.ContainsFunc(slices.Collect(maps.Values(r.had)), func(had map[int]bool) bool { return had[l.Release] })
		r.bad[l.Release] = l.Outcome == spillway.RolledBack && !held && (harm || !served) || r.bad[l.Release] && l.Outcome != spillway.Succeeded
	}
	forced := slices.ContainsFunc(r.spec.Intents, func(in spillway.Intent) bool { return in.Force })
	if o := r.started(); o != nil && o.Back && r.bad[o.Release] && !forced {
		q := r.was.Queue
		if o.Track != "" {
			q = r.was.Lanes[o.Track].Queue
		}
		if q == nil || !q.Force {
			r.fail("a rollback spares users what was harmful: release %d", o.Release)
		}
	}
	promised := slices.Clone(r.is.Good)
	for _, track := range slices.Sorted(maps.Keys(r.is.Lanes)) {
		promised = append(promised, r.is.Lanes[track].Good...)
	}
	for _, n := range promised {
		if _, bad := r.is.Bad[n]; bad || r.bad[n] {
			r.fail("a rollback spares users what was harmful: release %d is promised", n)
		}
	}
}

// rests: who is woken at once finds something to do; what waits for the world is looked at every now and then.
func (r round) rests() {
	const soon = 100 * time.Millisecond // less than what a drain is looked at after
	at := r.d.WakeAt
	if at.IsZero() || at.Sub(r.world.Now) >= soon {
		return
	}
	next := rollout.Decide(r.spec, r.is, r.obs, at)
	if len(next.Events) == 0 && reconcile.OnlyTime(r.is, next.Status) && reflect.DeepEqual(r.d.Desired, next.Desired) && next.WakeAt.Sub(at) < soon {
		r.fail("nothing is looked at again and again: after %v, and then after %v, in %s", at.Sub(r.world.Now), next.WakeAt.Sub(at), r.is.Phase)
	}
}

// allowed reports whether something that was asked for allows the rollout to begin now.
func (r round) allowed(o rollout.Rollout) bool {
	var waiting []rollout.Queued
	if q := r.was.Queue; o.Track == "" && q != nil {
		waiting = append(waiting, *q)
	}
	if q := r.was.Lanes[o.Track].Queue; o.Track != "" && q != nil {
		waiting = append(waiting, *q)
	}
	for _, in := range r.spec.Intents {
		release := in.Release
		track := in.Track
		switch in.Verb {
		case spillway.VerbPromote:
			release, track = r.was.Lanes[in.Track].Release, ""
		case spillway.VerbDeploy:
		default:
			continue
		}
		q := rollout.Queued{Release: release, Track: track, At: in.NotBefore, Force: in.Force}
		if delay := time.Duration(r.release(release).Config.Delay); delay > 0 && !in.Force && in.Verb == spillway.VerbDeploy && in.At.Add(delay).After(q.At) {
			q.At = in.At.Add(delay)
		}
		waiting = append(waiting, q)
	}
	return slices.ContainsFunc(waiting, func(q rollout.Queued) bool {
		return q.Release == o.Release && q.Track == o.Track && r.mayBegin(q)
	})
}

// mayBegin reports whether a deploy that waits may begin as far as the clock is concerned.
func (r round) mayBegin(q rollout.Queued) bool {
	now := r.world.Now
	switch {
	case q.Force || q.Back:
		return q.Force || !q.At.After(now)
	case q.At.After(now):
		return false
	}
	return !frozen(r.release(r.was.Stable), now) && !frozen(r.release(q.Release), now)
}

func frozen(release spillway.Release, now time.Time) bool {
	return slices.ContainsFunc(release.Config.Freeze, func(w spillway.Window) bool { return !now.Before(w.Begin) && now.Before(w.End) })
}

// wayBack: a roll-back to what is warm moves the route in the round that reads the wish.
func (r round) wayBack() {
	s := r.was.Standby
	if s == nil || r.is.Standby == nil && r.is.Rollout == nil || r.was.Rollout != nil || r.was.Queue != nil || len(r.spec.Intents) != 1 || r.is.Destroy {
		return
	}
	in := r.spec.Intents[0]
	if in.Verb != spillway.VerbRollback || in.Track != "" || in.Release != s.Release && (in.Release != 0 || len(r.was.Good) == 0 || r.was.Good[0] != s.Release) {
		return
	}
	release := r.release(s.Release)
	for _, c := range rollout.Changed(r.release(r.was.Stable), release) {
		g, _ := release.Group(c.Name)
		if live, ok := r.release(r.was.Stable).Config.Service(c.Name); r.seen(g).Ready < r.size(c) || ok && (c.Strategy == spillway.Recreate || live.Strategy == spillway.Recreate) {
			return // it is not warm
		}
	}
	if g := front(release); g != front(r.release(r.was.Stable)) && given(r.d.Desired.Route, front(r.release(r.was.Stable)), "") > 0 {
		r.fail("a roll-back to what is warm moves the route at once: %s has no weight", g)
	}
}

// gates: what a gate outside says decides. One that does not hold never promotes, and one without data
// neither promotes nor rolls back.
func (r round) gates() {
	o := r.was.Rollout
	if o == nil || o.Stable == 0 {
		return
	}
	promoted := slices.ContainsFunc(r.d.Events, func(e spillway.Event) bool {
		return e.Kind == spillway.EventFinished && e.Rollout == o.ID && e.Outcome == spillway.Succeeded
	})
	back := r.is.Rollout != nil && r.is.Rollout.ID == o.ID && r.was.Phase != spillway.RollingBack && r.is.Phase == spillway.RollingBack
	for _, g := range r.release(o.Release).Config.Gates {
		i := slices.IndexFunc(r.obs.Readings, func(x rollout.Reading) bool { return x.Rollout == o.ID && x.Gate == g.Text })
		if !g.External() || g.DryRun || i < 0 {
			continue
		}
		x := r.obs.Readings[i]
		silent := x.NoData || r.world.Now.Sub(x.At) > time.Minute
		if blamed := back && strings.HasPrefix(r.is.Rollout.Reason, "gate "+g.Text+" "); blamed && (silent || x.OK) {
			r.fail("a gate without data rolls nothing back: %s", r.is.Rollout.Reason)
		}
		forced := o.Forced || slices.ContainsFunc(r.spec.Intents, func(in spillway.Intent) bool { return in.Verb == spillway.VerbPromote })
		if promoted && !forced && (silent || !x.OK) && weightIn(r.obs.Served, r.candidate()) > 0 {
			r.fail("a gate that does not hold or has no data never promotes: %s said %s", g.Text, x.Text)
		}
	}
}
