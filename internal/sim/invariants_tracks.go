package sim

import (
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// tracks: a track's users are on its own release or on stable's, and nobody else is on a track's.
func (r round) tracks() {
	may := map[string][]int{"": {r.is.Stable}, "standby": {r.is.Stable}}
	for track, lane := range r.is.Lanes {
		may[track] = []int{lane.Release}
	}
	if o := r.is.Rollout; o != nil {
		may[o.Track] = append(may[o.Track], o.Release)
		may["standby"] = append(may["standby"], o.Release)
	}
	if s := r.is.Standby; s != nil {
		may["standby"] = append(may["standby"], s.Release)
	}
	for _, e := range r.d.Desired.Route.Edges {
		for _, b := range e.Backends {
			track := b.Track
			if e.Only == "standby" {
				track = e.Only
			}
			if e.From.Release == 0 && len(b.URLs) == 0 && !slices.Contains(may[track], b.Release) {
				r.fail("a track's users are on its release or on stable's: release %d for those of %q", b.Release, track)
			}
		}
	}
}

// tiers: a group reaches only groups that are with it in some release that serves or is tried. A service of
// which there is only one at a time is everybody's.
func (r round) tiers() {
	var releases []spillway.Release
	for _, n := range r.numbers() {
		releases = append(releases, r.release(n))
	}
	for _, e := range r.d.Desired.Route.Edges {
		if e.From.Release == 0 || r.exclusive(e.Service) || r.exclusive(e.From.Service) {
			continue
		}
		with := slices.DeleteFunc(slices.Clone(releases), func(x spillway.Release) bool { return x.Groups[e.From.Service] != e.From.Release })
		for _, b := range e.Backends {
			near := slices.ContainsFunc(with, func(x spillway.Release) bool { return x.Groups[b.Group.Service] == b.Group.Release })
			if len(with) > 0 && !near && b.Weight > 0 {
				r.fail("the tiers move together: %s reaches %s", e.From, b.Group)
			}
		}
	}
}

// numbers are the releases that serve or are tried.
func (r round) numbers() []int {
	list := []int{r.is.Stable}
	if r.is.Rollout != nil && r.is.Phase != spillway.RollingBack {
		list = append(list, r.is.Rollout.Release)
	}
	for _, lane := range r.is.Lanes {
		list = append(list, lane.Release)
	}
	if r.is.Standby != nil {
		list = append(list, r.is.Standby.Release)
	}
	return list
}

// exclusive reports whether there is only one of a service at a time.
func (r round) exclusive(service string) bool {
	o := r.is.Rollout
	if o != nil && o.Strategy == spillway.Recreate {
		return true
	}
	numbers := r.numbers()
	if o != nil {
		numbers = append(numbers, o.Release)
	}
	return slices.ContainsFunc(numbers, func(n int) bool {
		s, _ := r.release(n).Config.Service(service)
		return s.Strategy == spillway.Recreate
	})
}

// trackRuns: a track's release keeps running while it has users, at the size that a file in use gives it.
func (r round) trackRuns() {
	for _, route := range []spillway.Route{r.d.Desired.Route, r.obs.Served} {
		if r.is.Destroy || route.Generation < r.was.Route.Generation {
			continue
		}
		for _, e := range route.Edges {
			for _, b := range e.Backends {
				if b.Track == "" || len(b.URLs) > 0 {
					continue
				}
				least := 1
				if route.Generation == r.is.Route.Generation && r.is.Rollout == nil && r.release(r.is.Stable).Groups[b.Group.Service] != b.Group.Release {
					s, _ := r.release(r.is.Stable).Config.Service(e.Service)
					t, _ := s.Track(b.Track)
					least = max(1, t.Replicas)
				}
				if r.want(b.Group) < least {
					r.fail("a track's release runs while it has users: %s of track %s has %d wanted, not %d", b.Group, b.Track, r.want(b.Group), least)
				}
			}
		}
	}
}

// trackReady: a track's release gets users when it has been seen ready, not before. One that had them until its edge
// was closed, because a recreated service was between two releases, gets them back as stable does.
func (r round) trackReady() {
	for _, e := range r.d.Desired.Route.Edges {
		closed := slices.ContainsFunc(r.was.Route.Edges, func(o spillway.Edge) bool { return o.Service == e.Service && o.From == e.From && o.Closed != "" })
		for _, b := range e.Backends {
			if closed && r.was.Lanes[b.Track].Release == b.Release {
				continue
			}
			if b.Track != "" && len(b.URLs) == 0 && weightIn(r.was.Route, b.Group) == 0 && r.seen(b.Group).Ready == 0 {
				r.fail("weight rises only over ready capacity: %s of track %s", b.Group, b.Track)
			}
		}
	}
}

// colours: the colour of a group stays while it is in the route, and the dark one is not the live one.
func (r round) colours() {
	colours := map[spillway.Group]string{}
	note := func(route spillway.Route) {
		for _, e := range route.Edges {
			for _, b := range e.Backends {
				if b.Color == "" || b.Track != "" {
					continue
				}
				if was := colours[b.Group]; was != "" && was != b.Color {
					r.fail("a group keeps its colour: %s was %s and is %s", b.Group, was, b.Color)
				}
				colours[b.Group] = b.Color
			}
		}
	}
	note(r.was.Route)
	note(r.d.Desired.Route)
	for _, e := range r.d.Desired.Route.Edges {
		live := front(r.release(r.is.Stable))
		for _, b := range e.Backends {
			if e.Only == "standby" && b.Group.Service == live.Service && b.Group != live && b.Color != "" && b.Color == colourIn(r.d.Desired.Route, live) {
				r.fail("one live colour: %s and %s are both %s", b.Group, live, b.Color)
			}
		}
	}
}

func colourIn(route spillway.Route, g spillway.Group) string {
	for _, e := range route.Edges {
		for _, b := range e.Backends {
			if b.Group == g && b.Color != "" {
				return b.Color
			}
		}
	}
	return ""
}

// history: what a rollback promises exists, has had users, and is not what serves.
func (r round) history() {
	note := func(track string, release int, good []int) {
		if r.had[track] == nil {
			r.had[track] = map[int]bool{}
		}
		r.had[track][release] = true
		for i, n := range good {
			if _, ok := r.spec.Releases[n]; !ok || !r.had[track][n] || slices.Contains(good[:i], n) || n == release {
				r.fail("what a rollback promises exists: release %d of %v beside %d in track %q", n, good, release, track)
			}
		}
	}
	note("", r.is.Stable, r.is.Good)
	for track, lane := range r.is.Lanes {
		note(track, lane.Release, lane.Good)
	}
}

// standby: the dark colour is whole as long as it is promised, and as long as that is.
func (r round) standby() {
	now := r.is.Standby
	if now != nil && now.Release != r.dark.release {
		r.dark.release, r.dark.since, r.dark.keep = now.Release, r.world.real, 0
		for _, s := range r.release(r.is.Stable).Config.Services {
			if s.Standby != nil {
				r.dark.keep = max(r.dark.keep, time.Duration(s.Standby.Keep))
			}
		}
	}
	if now == nil {
		moved := r.is.Stable != r.was.Stable || r.is.Destroy || r.is.Rollouts != r.was.Rollouts
		if r.was.Standby != nil && !moved && r.world.jumped < r.dark.since && r.world.real-r.dark.since < r.dark.keep {
			r.fail("the dark colour stays warm for %s: release %d had %s", r.dark.keep, r.dark.release, r.world.real-r.dark.since)
		}
		r.dark.release = 0
		return
	}
	stable := r.release(r.is.Stable)
	for _, s := range r.release(now.Release).Config.Services {
		g, _ := r.release(now.Release).Group(s.Name)
		live, ok := stable.Config.Service(s.Name)
		one := ok && (live.Strategy == spillway.Recreate || stable.Groups[s.Name] == g.Release)
		if !one && r.want(g) < r.size(s) && !r.is.Destroy {
			r.fail("the dark colour could take all users: %s has %d of %d wanted", g, r.want(g), r.size(s))
		}
	}
}

// needs: a replica of a candidate starts only when what it needs of the same candidate is ready, unless users that it
// has already need it.
func (r round) needs() {
	o := r.is.Rollout
	if o == nil || r.is.Phase == spillway.RollingBack {
		return
	}
	release, stable := r.release(o.Release), r.release(r.is.Stable)
	changed := rollout.Changed(stable, release)
	for _, s := range changed {
		g, _ := release.Group(s.Name)
		given := spillway.Share(0)
		switch {
		case o.Track == "" && (o.Routed || r.is.Phase == spillway.Promoting):
			given = o.Steps[o.Step].Weight
		case o.Track == "" && o.Step > 0:
			given = o.Steps[o.Step-1].Weight
		}
		if r.elsewhere(g) || r.want(g) <= max(r.seen(g).Running, wantIn(r.was.Wants, g), given.Of(r.size(s))) {
			continue
		}
		for _, need := range s.Needs {
			n, _ := release.Group(need)
			own := slices.ContainsFunc(changed, func(c spillway.Service) bool { return c.Name == need })
			if own && !r.elsewhere(n) && !r.exclusive(need) && r.seen(n).Ready == 0 {
				r.fail("what is needed starts first: %s before %s", g, n)
			}
		}
	}
}

// elsewhere reports whether a group belongs to a release beside the candidate too.
func (r round) elsewhere(g spillway.Group) bool {
	for _, lane := range r.is.Lanes {
		if r.release(lane.Release).Groups[g.Service] == g.Release {
			return true
		}
	}
	return r.is.Standby != nil && r.release(r.is.Standby.Release).Groups[g.Service] == g.Release
}

// toldRoutes: the history knows every route that was seen to be served.
func (r round) toldRoutes() {
	served := r.obs.Served
	if r.obs.NoData || served.Generation == 0 {
		return
	}
	told := r.is.Told
	if told.Generation < served.Generation {
		r.fail("every route that is served is told: %d was, %d is", told.Generation, served.Generation)
	}
	if e := r.obs.Evidence; e != nil && e.Tripped && told.Generation == served.Generation && told.Trial < e.Trial {
		r.fail("every route that is served is told: without the candidate of trial %d", e.Trial)
	}
	if told == r.was.Told {
		return
	}
	public := slices.DeleteFunc(slices.Clone(served.Edges), func(e spillway.Edge) bool { return e.From.Release != 0 })
	i := slices.IndexFunc(r.d.Events, func(e spillway.Event) bool { return e.Kind == spillway.EventRoute })
	if i < 0 || describeRoute(spillway.Route{Edges: r.d.Events[i].Edges}) != describeRoute(spillway.Route{Edges: public}) {
		r.fail("every route that is served is told as it is: generation %d", served.Generation)
	}
}

// started is the rollout that this decision began; nil when none.
func (r round) started() *rollout.Rollout {
	o := r.is.Rollout
	if o == nil || r.was.Rollout != nil && r.was.Rollout.ID == o.ID {
		return nil
	}
	return o
}
