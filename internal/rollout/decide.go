package rollout

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	maxTick    = time.Minute            // the most time that one decision adds to a step
	heartbeat  = 20 * time.Second       // decide at least this often while time matters; below maxTick
	drainTick  = 500 * time.Millisecond // while something that lost its traffic is waited for
	maxCrash   = 3                      // ends before ready, in a row, that make a candidate a failure
	maxRestart = 5                      // ends after ready that make a candidate harmful when no gate says otherwise
	keepGood   = 10                     // rollback targets remembered
)

// Decide says what the platform should look like next, and what to remember.
//
// It is a pure function: the same arguments give the same Decision; arguments are neither changed nor
// shared with the result. Call it again when the observation changes and at WakeAt. The order inside is
// the order of what matters: first what people asked for, then leaving what is harmful, then going on.
func Decide(spec Spec, status Status, obs Observation, now time.Time) Decision {
	t := &turn{spec: spec, st: status.clone(), obs: obs, now: now}
	t.tick()
	t.follow()
	t.tellRoute()
	t.ageStandby()
	t.takeIntents()
	t.remember()
	t.noteTask()
	t.readGates()
	t.leaveTracks()
	switch {
	case t.st.Destroy:
		t.destroy()
	case t.leave():
	case t.st.Rollout == nil:
		t.rest()
	case t.st.Phase == spillway.RollingBack:
		t.rollBack()
	case t.st.Phase == spillway.Promoting:
		t.watch(t.dt)
	default:
		t.progress()
	}
	desired := t.desired() // it also looks what has to be waited for
	return Decision{Status: t.st, Events: t.events, Desired: desired, WakeAt: t.wakeAt()}
}

// turn is one call of Decide at work.
type turn struct {
	spec   Spec
	st     Status // our own copy
	obs    Observation
	now    time.Time
	dt     spillway.Duration // since the last decision, clamped
	wait   []time.Duration   // when something will be due, from now
	dates  []time.Duration   // when a deploy may begin that waits for a date, from now
	turned bool              // the way back began in this turn
	events []spillway.Event
}

// tick measures the time since the last decision. A clock that went back counts as no time, one that
// leapt ahead (or a server that was away) as at most maxTick.
func (t *turn) tick() {
	if !t.st.Now.IsZero() {
		t.dt = spillway.Duration(min(max(t.now.Sub(t.st.Now), 0), maxTick))
	}
}

// remember keeps the evidence of the running trial, so that it survives the data plane, and for how long there is none.
func (t *turn) remember() {
	r, e := t.st.Rollout, t.obs.Evidence
	if r == nil || e == nil || e.Trial != r.ID {
		return
	}
	switch was := r.Evidence; {
	case e.Verdict != spillway.NoData:
		r.Silent = 0
	case was != nil && was.Verdict == spillway.NoData:
		r.Silent += t.lapse()
	}
	evidence := *e
	r.Evidence, r.Memory = &evidence, bytes.Clone(t.obs.Memory)
}

// acked reports whether the data plane serves the route that was asked for last.
func (t *turn) acked() bool {
	return !t.obs.NoData && t.obs.Served.Generation == t.st.Route.Generation
}

func (t *turn) group(g spillway.Group) Group {
	if i := slices.IndexFunc(t.obs.Groups, func(o Group) bool { return o.Group == g }); i >= 0 {
		return t.obs.Groups[i]
	}
	return Group{Group: g}
}

func (t *turn) stable() spillway.Release { return t.spec.Releases[t.st.Stable] }

// candidate is the release being tried; the zero Release when none is.
func (t *turn) candidate() spillway.Release {
	if t.st.Rollout == nil {
		return spillway.Release{}
	}
	return t.spec.Releases[t.st.Rollout.Release]
}

// tellRoute puts into the history what the data plane gives to whom, whenever that is something else than
// what the history was told last. An old observation is no news.
func (t *turn) tellRoute() {
	told := Told{Generation: t.obs.Served.Generation}
	if e := t.obs.Evidence; e != nil && e.Tripped {
		told.Trial = e.Trial
		t.st.Tripped = max(t.st.Tripped, e.Trial)
	}
	newer := told.Generation > t.st.Told.Generation || told.Generation == t.st.Told.Generation && told.Trial > t.st.Told.Trial
	if t.obs.NoData || told.Generation == 0 || !newer {
		return
	}
	t.st.Told = told
	var edges []spillway.Edge
	for _, e := range cloneRoute(t.obs.Served).Edges {
		if e.From == (spillway.Group{}) {
			edges = append(edges, e)
		}
	}
	t.event(spillway.EventRoute, 0, "route %d is served", told.Generation).Edges = edges
}

func (t *turn) event(kind spillway.EventKind, release int, format string, args ...any) *spillway.Event {
	e := spillway.Event{App: t.spec.App, At: t.now, Kind: kind, Release: release, Text: fmt.Sprintf(format, args...)}
	if r := t.st.Rollout; r != nil {
		e.Rollout = r.ID
		if r.Release == release {
			e.Track = r.Track
		}
	}
	t.events = append(t.events, e)
	return &t.events[len(t.events)-1]
}

// after asks to be woken when the remaining time is over.
func (t *turn) after(left spillway.Duration) {
	t.wait = append(t.wait, max(time.Duration(left), 10*time.Millisecond))
}

// on asks to be woken at a date.
func (t *turn) on(date time.Time) {
	t.dates = append(t.dates, max(date.Sub(t.now), 10*time.Millisecond))
}

// wakeAt is the earliest time at which something is due. Where time is counted, Status.Now is kept, and it is
// counted at least every heartbeat; a date is only looked at again, so that a clock that is set is noticed.
func (t *turn) wakeAt() time.Time {
	if t.st.Rollout == nil && len(t.wait) == 0 {
		t.st.Now = time.Time{}
		if len(t.dates) == 0 {
			return time.Time{}
		}
		return t.now.Add(min(slices.Min(t.dates), maxTick))
	}
	t.st.Now = t.now
	return t.now.Add(slices.Min(slices.Concat(t.wait, t.dates, []time.Duration{heartbeat})))
}

// clone copies a status so that nothing is shared.
func (s Status) clone() Status {
	s.Good, s.Prepared = slices.Clone(s.Good), slices.Clone(s.Prepared)
	s.Sizes, s.Restart, s.Drain = maps.Clone(s.Sizes), maps.Clone(s.Restart), maps.Clone(s.Drain)
	s.Chosen, s.Bad = maps.Clone(s.Chosen), maps.Clone(s.Bad)
	s.Route, s.Wants = cloneRoute(s.Route), slices.Clone(s.Wants)
	if s.Rollout != nil {
		r := *s.Rollout
		r.Steps, r.Memory, r.Before, r.Gates = slices.Clone(r.Steps), bytes.Clone(r.Memory), maps.Clone(r.Before), maps.Clone(r.Gates)
		r.Crashed = maps.Clone(r.Crashed)
		if r.Evidence != nil {
			e := *r.Evidence
			r.Evidence = &e
		}
		s.Rollout = &r
	}
	s.Queue = s.Queue.clone()
	s.Lanes = maps.Clone(s.Lanes)
	for track, lane := range s.Lanes {
		lane.Good, lane.Queue = slices.Clone(lane.Good), lane.Queue.clone()
		s.Lanes[track] = lane
	}
	if s.Standby != nil {
		dark := *s.Standby
		s.Standby = &dark
	}
	if s.Last != nil {
		l := *s.Last
		if l.Evidence != nil {
			e := *l.Evidence
			l.Evidence = &e
		}
		s.Last = &l
	}
	s.Phase = cmp.Or(s.Phase, spillway.Healthy)
	return s
}

func (q *Queued) clone() *Queued {
	if q == nil {
		return nil
	}
	c := *q
	return &c
}

func cloneRoute(r spillway.Route) spillway.Route {
	r.Edges, r.Rules = slices.Clone(r.Edges), slices.Clone(r.Rules)
	for i, e := range r.Edges {
		r.Edges[i].Hosts, r.Edges[i].Rules, r.Edges[i].Backends = slices.Clone(e.Hosts), slices.Clone(e.Rules), slices.Clone(e.Backends)
		r.Edges[i].Listen = slices.Clone(e.Listen)
	}
	if r.Trial != nil {
		trial := *r.Trial
		trial.Candidate, trial.Memory = slices.Clone(trial.Candidate), bytes.Clone(trial.Memory)
		r.Trial = &trial
	}
	return r
}
