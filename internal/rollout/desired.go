package rollout

import (
	"cmp"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
)

// desired makes the route and the groups out of the status. The route's generation rises when what it
// asks for differs from what was asked for last.
func (t *turn) desired() Desired {
	route := t.route()
	route.Generation = t.st.Route.Generation
	if !sameRoute(route, t.st.Route) {
		route.Generation++
	}
	r, served := t.st.Rollout, !t.obs.NoData && t.obs.Served.Generation == route.Generation
	if waits := t.turned || r != nil && t.st.Phase == spillway.Progressing && r.Routed && !r.Acked; waits && served {
		t.after(0) // a step, or a way back, that changed no route is served already, and nobody will say so
	}
	t.st.Route = cloneRoute(route)
	if lost := t.obs.Evidence == nil || t.st.Rollout != nil && t.obs.Evidence.Trial != t.st.Rollout.ID; route.Trial != nil && lost {
		route.Trial.Memory = slices.Clone(t.st.Rollout.Memory)
	}
	wants := t.wants()
	t.keepWhatServes(wants)
	var groups []Want
	for _, g := range slices.SortedFunc(maps.Keys(wants), compareGroups) {
		if wants[g].Replicas > 0 {
			groups = append(groups, wants[g])
		}
	}
	t.st.Wants = slices.Clone(groups)
	return Desired{Groups: groups, Route: route, Tasks: t.wantedTasks(), Watch: t.watches()}
}

// wants is how many replicas each group of the stable and the candidate release should have.
func (t *turn) wants() map[spillway.Group]Want {
	wants := map[spillway.Group]Want{}
	if t.st.Destroy {
		return wants
	}
	add := func(release spillway.Release, service string, n int, scaling Scaling) {
		g, _ := release.Group(service)
		n, scaling = max(n, wants[g].Replicas), cmp.Or(wants[g].Scaling, scaling)
		wants[g] = Want{Group: g, Replicas: n, Release: release.Number, Restart: t.st.Restart[service], Scaling: scaling}
	}
	for _, s := range t.stable().Config.Services {
		add(t.stable(), s.Name, t.stableSize(s), t.stableScaling(s))
	}
	for _, s := range t.incoming().Config.Services {
		add(t.incoming(), s.Name, t.candidateSize(s), t.candidateScaling(s))
	}
	t.laneWants(wants)
	t.standbyWants(wants)
	return wants
}

// stableSize is how many replicas the stable release keeps of a service.
func (t *turn) stableSize(s spillway.Service) int {
	r, size := t.st.Rollout, t.size(s)
	old, _ := t.stable().Group(s.Name)
	new, inNew := t.candidate().Group(s.Name)
	switch {
	case r == nil || r.Track != "" || !t.prepared() || !inNew || old == new:
		return size
	case t.recreates(s.Name) && t.st.Phase == spillway.RollingBack:
		if r.Cleared && !r.Returned {
			return 0
		}
		return size
	case t.recreates(s.Name):
		return 0
	case t.st.Phase == spillway.RollingBack:
		return size
	}
	return max(1, t.step().Stable.Of(size))
}

// candidateSize is how many replicas the candidate has of a service at the present step. A rolling
// rollout waits for replicas of stable to be gone before it goes beyond the surge.
func (t *turn) candidateSize(s spillway.Service) int {
	r := t.st.Rollout
	old, inOld := t.stable().Group(s.Name)
	new, _ := t.incoming().Group(s.Name)
	n := t.capacity(s, t.step().Candidate)
	switch {
	case inOld && old == new:
		return t.size(s)
	case !t.mayStart(s):
		return 0
	case !t.needsReady(s): // what its users need does not wait
		return min(n, max(t.runs(new), t.weight().Of(t.size(s))))
	case !inOld:
		return t.size(s)
	case t.recreates(s.Name):
		if !r.Cleared {
			return 0
		}
		return n
	case r.Strategy != spillway.Rolling:
		return n
	}
	size := t.size(s)
	was, _ := t.stable().Config.Service(s.Name) // it may have been larger
	most := max(size+max(1, s.Surge.Of(size)), n+t.stableSize(was))
	have := t.runs(new)
	given := t.weight().Of(size) // the surge never holds back what the candidate's users need
	return min(n, max(have, given, most-t.group(old).Running))
}

// runs is how many replicas of a candidate's group there are for stable's users.
func (t *turn) runs(g spillway.Group) int {
	o := t.group(g)
	return max(0, o.Running-o.Draining-t.lanePart(g))
}

// keepWhatServes raises wants for groups that are wanted no more, as long as a request could reach one of
// their replicas or is open there: the route asked for is not acknowledged, or it or the route served
// still gives them weight, or requests are in flight and the drain limit has not passed. What was wanted
// last counts, not what was seen: an old observation may not know the group yet.
func (t *turn) keepWhatServes(wants map[spillway.Group]Want) {
	last, scaling := map[spillway.Group]int{}, map[spillway.Group]Scaling{}
	for _, o := range t.obs.Groups {
		last[o.Group] = o.Running - o.Draining
	}
	for _, w := range t.st.Wants {
		last[w.Group], scaling[w.Group] = w.Replicas, w.Scaling
	}
	drain := map[string]spillway.Duration{}
	for _, g := range slices.SortedFunc(maps.Keys(last), compareGroups) {
		o := t.group(g)
		if wants[g].Replicas > 0 || last[g] == 0 && o.Running == 0 {
			continue
		}
		quiet := t.acked() && t.weightOf(t.st.Route, g, wants) == 0 && t.weightOf(t.obs.Served, g, wants) == 0
		waited, began := t.st.Drain[g.String()]
		if began && !t.obs.NoData {
			waited += t.dt // the time before the first look does not count
		}
		if quiet {
			drain[g.String()] = waited
		}
		t.after(spillway.Duration(drainTick))
		if quiet && (o.InFlight == 0 || waited >= t.drainLimit(g)) {
			continue
		}
		kept := scaling[g] // its number is still not ours to write
		kept.Frozen = kept.Max > 0
		wants[g] = Want{Group: g, Replicas: last[g], Release: g.Release, Restart: t.st.Restart[g.Service], Scaling: kept}
	}
	t.st.Drain = nil
	if len(drain) > 0 {
		t.st.Drain = drain
	}
}

// weightOf is the greatest weight that a route gives to a group, on edges whose callers there are.
func (t *turn) weightOf(route spillway.Route, g spillway.Group, wants map[spillway.Group]Want) spillway.Share {
	weight := spillway.Share(0)
	for _, e := range route.Edges {
		if e.From.Release != 0 && t.group(e.From).Running == 0 && wants[e.From].Replicas == 0 {
			continue
		}
		for _, b := range e.Backends {
			switch {
			case b.Group != g || len(b.URLs) > 0:
			case b.Track != "": // a rule may lead there whatever its weight
				weight = max(weight, b.Weight, 1)
			default:
				weight = max(weight, b.Weight)
			}
		}
	}
	return weight
}

// drainLimit is the longest wait for the open requests of a group.
func (t *turn) drainLimit(g spillway.Group) spillway.Duration {
	if s, ok := t.spec.Releases[g.Release].Config.Service(g.Service); ok && s.Stop != (spillway.Stop{}) { // 0s is not to wait
		return s.Stop.Drain
	}
	return spillway.DefaultStop().Drain
}

// recreatedGone reports whether the replicas that a release has of the recreated services have ended,
// seen under the route that took their traffic away.
func (t *turn) recreatedGone(leaving, coming spillway.Release) bool {
	if !t.acked() {
		return false
	}
	beside := map[spillway.Group]Want{} // what goes on running for a track does not have to end
	t.laneWants(beside)
	t.standbyWants(beside)
	for _, s := range coming.Config.Services {
		g, ok := leaving.Group(s.Name)
		if ok && t.recreates(s.Name) && beside[g].Replicas == 0 && t.group(g).Running > 0 {
			return false
		}
	}
	return true
}

func (t *turn) recreatesAny() bool {
	return slices.ContainsFunc(t.candidate().Config.Services, func(s spillway.Service) bool { return t.recreates(s.Name) })
}
