package sim

import (
	"slices"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// scaler is the autoscaler of a group: the number of replicas is its own.
type scaler struct {
	on    bool
	count int
}

// takeSizes gives the groups the numbers of replicas that are wanted, but for those that have an autoscaler: a new
// one begins with what is wanted, and what an old one chose is never written over.
func (w *World) takeSizes(d rollout.Desired) {
	for _, want := range d.Groups {
		s := w.groups[want.Group]
		if s == nil {
			s = &group{quietSince: w.real}
			w.groups[want.Group] = s
		}
		switch {
		case want.Scaling.Max == 0:
			s.scaler = scaler{}
		case !s.scaler.on:
			s.scaler = scaler{on: true, count: want.Replicas}
		}
	}
}

// scale has the autoscaler of a group look at its load once: what a service is asked for, by the share of it that
// the group serves.
func (w *World) scale(g spillway.Group) {
	s, want := w.groups[g], w.wanted[g]
	if s == nil || !s.scaler.on {
		return
	}
	aim := weightIn(w.plane.effective(), g).Of(w.demand[g.Service])
	if want.Scaling.Frozen {
		aim = max(aim, s.scaler.count)
	}
	s.scaler.count = min(max(aim, want.Scaling.Min), want.Scaling.Max)
}

// size is how many replicas a group should have now.
func (w *World) size(g spillway.Group) int {
	if s := w.groups[g]; s != nil && s.scaler.on && w.wanted[g].Replicas > 0 {
		return s.scaler.count
	}
	return w.wanted[g].Replicas
}

// observedSize is how many replicas a service is promised: what the autoscaler of stable's group was seen to have
// chosen, or is remembered to have when it has none for now; else what scale chose. Within the bounds of the file.
func (r round) observedSize(s spillway.Service, asked int) int {
	g, _ := r.release(r.is.Stable).Group(s.Name)
	if n := r.seen(g).Chosen; n > 0 {
		return max(asked, min(n, s.Max))
	}
	return max(asked, min(r.is.Chosen[s.Name], s.Max))
}

// autoscaled: the autoscaler's count survives. Stable's group has its autoscaler, with the bounds of the file at
// rest; while a rollout runs it takes nothing away. It is gone only while replicas give way to the candidate's, and
// a candidate has none before it has all users.
func (r round) autoscaled() {
	if r.is.Destroy {
		return
	}
	o := r.is.Rollout
	for name, n := range r.was.Chosen {
		if s, ok := r.release(r.is.Stable).Config.Service(name); ok && s.Autoscaled() && r.was.Rollout != nil && o != nil && o.ID == r.was.Rollout.ID && r.is.Chosen[name] < n {
			r.fail("the autoscaler's count survives: %s had %d and is remembered with %d", name, n, r.is.Chosen[name])
		}
	}
	for _, s := range r.release(r.is.Stable).Config.Services {
		g, _ := r.release(r.is.Stable).Group(s.Name)
		if !s.Autoscaled() {
			continue
		}
		switch scaling := r.scaling(g); {
		case scaling.Max == 0 && (o == nil || !r.gives(s)):
			r.fail("the autoscaler's count survives: %s has no autoscaler in %s", g, r.is.Phase)
		case scaling.Max == 0:
		case scaling.Frozen != (o != nil):
			r.fail("nothing scales down in a rollout: %s is frozen: %v, in %s", g, scaling.Frozen, r.is.Phase)
		case scaling.Min < s.Scale || scaling.Min > scaling.Max || scaling.Targets == spillway.Targets{}:
			r.fail("an autoscaler has the bounds of the file: %s has %+v", g, scaling)
		case o == nil && scaling.Min != r.asked(s):
			r.fail("an autoscaler has the bounds of the file: %s has %+v", g, scaling)
		}
	}
	if o == nil || r.is.Phase == spillway.Promoting && o.Track == "" {
		return
	}
	for _, s := range rollout.Changed(r.release(r.is.Stable), r.release(o.Release)) {
		g, _ := r.release(o.Release).Group(s.Name)
		leaves := r.is.Phase == spillway.RollingBack // it keeps what it had
		if r.scaling(g).Max > 0 && !leaves {
			r.fail("a candidate has no autoscaler before it has all users: %s in %s", g, r.is.Phase)
		}
	}
}

// gives reports whether replicas of stable's group of a service may have to give way to those of the candidate.
func (r round) gives(s spillway.Service) bool {
	o := r.is.Rollout
	next, _ := r.release(o.Release).Config.Service(s.Name)
	recreates := o.Strategy == spillway.Recreate || next.Strategy == spillway.Recreate
	return o.Track == "" && (recreates || r.is.Phase != spillway.RollingBack && o.Steps[o.Step].Stable < spillway.Whole)
}

func (r round) scaling(g spillway.Group) rollout.Scaling {
	i := slices.IndexFunc(r.d.Desired.Groups, func(w rollout.Want) bool { return w.Group == g })
	if i < 0 {
		return rollout.Scaling{}
	}
	return r.d.Desired.Groups[i].Scaling
}
