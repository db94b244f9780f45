package sim

import (
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// Tick lets time pass: routes land, replicas start and end, requests come and go.
func (w *World) Tick(d time.Duration) {
	w.tickNo++
	w.Now = w.Now.Add(d)
	w.real += d
	w.down = max(0, w.down-1)
	w.land()
	for _, g := range w.allGroups() {
		w.run(g)
	}
	w.endRequests()
	for i := 0; i < w.traffic; i++ {
		w.request()
	}
	for g, s := range w.groups {
		if weightIn(w.plane.effective(), g) > 0 {
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
	p := &w.plane
	p.pending = slices.DeleteFunc(p.pending, func(r pendingRoute) bool {
		if r.due > w.tickNo {
			return false
		}
		if r.route.Generation < p.served.Generation {
			return true
		}
		if t := r.route.Trial; t != nil && (p.served.Trial == nil || p.served.Trial.ID != t.ID) {
			p.state, p.tripped, p.erred = judge.New(t.ID), false, map[int]bool{}
		}
		p.served = r.route
		return true
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
		if len(e.Backends) < 2 {
			continue
		}
		backends := slices.Clone(e.Backends)
		backends[0].Weight, backends[1].Weight = spillway.Whole, 0
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
		return r.draining && (r.inflight == 0 || w.real-r.since >= drainLimit)
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
				r.ready, s.crashes = true, 0
			}
		}
	}
	want := w.wanted[g].Replicas
	for ; active < want; active++ {
		s.next++
		s.replicas = append(s.replicas, &replica{index: s.next, due: w.tickNo + b.Start})
	}
	for ; active > want; active-- {
		w.drainOne(s)
	}
}

// drainOne takes a replica out of the pool: one that is not ready if there is one.
func (w *World) drainOne(s *group) {
	best := -1
	for i, r := range s.replicas {
		if !r.draining && (best < 0 || !r.ready || s.replicas[best].ready) {
			best = i
		}
	}
	s.replicas[best].draining, s.replicas[best].since = true, w.real
}

func (w *World) endRequests() {
	w.open = slices.DeleteFunc(w.open, func(r request) bool {
		if r.due > w.tickNo {
			return false
		}
		r.replica.inflight--
		return true
	})
}

// request is one user's request to the first public edge, and the call to the tier behind it.
func (w *World) request() {
	route := w.plane.effective()
	i := slices.IndexFunc(route.Edges, func(e spillway.Edge) bool { return len(e.Hosts) > 0 && len(e.Backends) > 0 })
	if i < 0 || w.down > 0 && w.rng.IntN(2) == 0 {
		return
	}
	user, bucket := -1, spillway.Share(w.rng.IntN(int(spillway.Whole)))
	if w.users > 0 {
		user = w.rng.IntN(w.users)
		bucket = spillway.Share(user * 7919 % int(spillway.Whole))
	}
	backend, random := w.choose(route.Edges[i].Backends, bucket, route.Trial)
	if !w.claim(backend.Group) {
		return
	}
	broken := user >= 0 && user%50 == 0 && w.rng.IntN(10) > 0
	failed := broken || w.rng.Float64() < w.outage || w.rng.Float64() < w.behave[backend.Group.Release].Errors
	for _, e := range route.Edges {
		if e.From == backend.Group && len(e.Backends) > 0 {
			peer, _ := w.choose(e.Backends, bucket, nil)
			w.claim(peer.Group)
			failed = failed || w.rng.Float64() < w.behave[peer.Group.Release].Errors
		}
	}
	w.judge(route, backend, random, failed, user)
}

// choose gives the backend of a bucket, and the weight under which it was chosen at random; 0 = it was not.
func (w *World) choose(backends []spillway.Backend, bucket spillway.Share, trial *spillway.Trial) (spillway.Backend, spillway.Share) {
	if len(backends) == 1 {
		return backends[0], 0
	}
	weight := backends[1].Weight
	if bucket >= weight {
		return backends[0], weight
	}
	open := 0
	if s := w.groups[backends[1].Group]; s != nil {
		for _, r := range s.replicas {
			open += r.inflight
		}
	}
	if trial != nil && !w.plane.state.Admit(*trial, open) {
		return backends[0], 0
	}
	return backends[1], weight
}

// claim opens a request on the ready replica with the fewest; false when there is none.
func (w *World) claim(g spillway.Group) bool {
	s := w.groups[g]
	if s == nil {
		return false
	}
	var best *replica
	for _, r := range s.replicas {
		if r.ready && !r.draining && (best == nil || r.inflight < best.inflight) {
			best = r
		}
	}
	if best == nil {
		return false
	}
	ticks := w.rng.IntN(3)
	if w.rng.IntN(200) == 0 {
		ticks = 40
	}
	best.inflight++
	w.open = append(w.open, request{g, best, w.tickNo + ticks})
	return true
}

// judge counts an answer and trips when the candidate is harmful.
func (w *World) judge(route spillway.Route, b spillway.Backend, weight spillway.Share, failed bool, user int) {
	trial, p := route.Trial, &w.plane
	if failed {
		p.failed[b.Release]++
	}
	if trial == nil || p.tripped {
		return
	}
	candidate := b.Release == trial.Release
	p.state = p.state.Observe(judge.Answer{Candidate: candidate, Weight: weight, Failed: failed, Repeat: p.erred[user]}, *trial)
	if failed && user >= 0 {
		p.erred[user] = true
	}
	if failed && candidate {
		p.tripped = p.state.Evidence(*trial).Verdict == spillway.Harmful
	}
}
