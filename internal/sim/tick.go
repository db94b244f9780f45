package sim

import (
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Tick lets time pass: routes land, replicas start and end, requests come and go.
func (w *World) Tick(d time.Duration) {
	w.tickNo++
	w.Now = w.Now.Add(d)
	w.real += d
	w.down, w.blind = max(0, w.down-1), max(0, w.blind-1)
	w.land()
	w.arrive()
	for _, g := range w.allGroups() {
		w.scale(g)
		w.run(g)
	}
	w.outside.tick(w)
	w.endRequests()
	for i := 0; i < w.traffic; i++ {
		w.request()
	}
	w.synthetic()
	for g, s := range w.groups {
		if w.weight(g) > 0 {
			s.quietSince = w.real
		}
	}
}

// allGroups are the groups that run or should.
func (w *World) allGroups() []spillway.Group {
	groups := w.sortedGroups()
	for g := range w.wanted {
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b spillway.Group) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
	return groups
}

// land makes due routes the served one. A route that is older than the served one is refused.
func (w *World) land() {
	if w.cluster != nil {
		w.acknowledge()
		return
	}
	p := &w.plane
	p.pending = slices.DeleteFunc(p.pending, func(r pendingRoute) bool {
		if r.due > w.tickNo {
			return false
		}
		if r.route.Generation < p.served.Generation || p.outrun(r.route) {
			return true
		}
		if t := r.route.Trial; t != nil && (p.served.Trial == nil || p.served.Trial.ID != t.ID) {
			p.state, p.tripped, p.erred, p.slow, p.took = judge.New(t.ID), false, map[int]bool{}, map[int]uint64{}, nil
		}
		p.served = r.route
		return true
	})
}

// outrun reports whether a route would end the trial of a candidate that was found harmful since the route was
// decided, and leave it users: it is refused, and the trip is observed.
func (p *plane) outrun(route spillway.Route) bool {
	t := p.served.Trial
	if t == nil || !p.tripped || route.Over >= t.ID || route.Trial != nil && route.Trial.ID == t.ID {
		return false
	}
	return slices.ContainsFunc(route.Edges, func(e spillway.Edge) bool {
		return e.Only == "" && !slices.Contains(t.Candidate, e.From) && slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool {
			ruled := slices.ContainsFunc(e.Rules, func(r spillway.Rule) bool { return r.Track == b.Track && (b.Track != "" || b.Within > 0) })
			return slices.Contains(t.Candidate, b.Group) && (b.Weight > 0 || ruled)
		})
	})
}

// effective is the served route with a tripped candidate at weight 0.
func (p *plane) effective() spillway.Route {
	if !p.tripped || p.served.Trial == nil {
		return p.served
	}
	route := p.served
	route.Edges = slices.Clone(route.Edges)
	for i, e := range route.Edges {
		at := home(e, route.Trial)
		if at < 0 {
			continue
		}
		backends := slices.Clone(e.Backends)
		for k, b := range backends {
			if slices.Contains(route.Trial.Candidate, b.Group) {
				backends[at].Weight += b.Weight
				backends[at].Within += b.Within
				backends[k].Weight, backends[k].Within = 0, 0
			}
		}
		route.Edges[i].Backends = backends
	}
	return route
}

// run moves a group towards what is wanted of it, one tick.
func (w *World) run(g spillway.Group) {
	s := w.groups[g]
	if s == nil {
		s = &group{quietSince: w.real}
		w.groups[g] = s
	}
	b := w.behave[g.Release]
	s.replicas = slices.DeleteFunc(s.replicas, func(r *replica) bool {
		return r.draining && w.tickNo >= r.left && (r.inflight == 0 || w.real-r.since >= drainLimit)
	})
	active := 0
	for _, r := range s.replicas {
		if r.draining {
			continue
		}
		active++
		if !r.ready && w.tickNo >= r.due {
			switch {
			case b.Crash || b.Fatal:
				s.crashes++
				r.due = w.tickNo + 1 + s.crashes
			case !b.Never:
				r.ready, s.crashes, r.known = true, 0, w.learned()
			}
		}
		if r.ready && w.tickNo >= r.known {
			r.fell = false
		}
	}
	want := w.wanted[g]
	want.Replicas = w.size(g)
	if s.renews(want) {
		want.Replicas++
	}
	for ; active < want.Replicas; active++ {
		s.next++
		w.starts(g)
		s.replicas = append(s.replicas, &replica{index: s.next, due: w.tickNo + b.Start, restart: want.Restart})
	}
	for ; active > want.Replicas; active-- {
		w.drainOne(s)
	}
}

// renews reports whether a restart is under way that a new replica has to begin or to go on with: one more than is
// wanted runs from the start of a new one until it is ready; then an old one goes.
func (s *group) renews(want rollout.Want) bool {
	live, old, settled := 0, 0, true
	for _, r := range s.replicas {
		switch {
		case r.draining:
			continue
		case r.restart < want.Restart:
			old++
		default:
			settled = settled && r.ready
		}
		live++
	}
	return old > 0 && want.Replicas > 0 && (live <= want.Replicas || !settled)
}

// drainOne takes a replica out of the pool: one that is not ready if there is one, else one of before a restart.
func (w *World) drainOne(s *group) {
	worth := func(r *replica) int64 { // less than every number of a restart when it is not ready
		if !r.ready {
			return -1
		}
		return r.restart
	}
	best := -1
	for i, r := range s.replicas {
		if !r.draining && (best < 0 || worth(r) <= worth(s.replicas[best])) {
			best = i
		}
	}
	s.replicas[best].draining, s.replicas[best].since, s.replicas[best].left = true, w.real, w.learned()
}
