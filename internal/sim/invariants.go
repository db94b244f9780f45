package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// deadline and holdTime are those of every simulated app.
const (
	deadline = 2 * time.Minute
	holdTime = 20 * time.Second
)

// checks remembers what is needed to judge a decision, and the first that was wrong.
type checks struct {
	broken error
	last   map[string]spillway.Intent // the last deploy asked for, by track
	had    map[string]map[int]bool    // releases that each track has ever had
	bad    map[int]bool               // releases whose last rollout that began was rolled back by itself
	dark   dark
}

// dark is the standby that was promised last.
type dark struct {
	release int
	since   time.Duration // real time
	keep    time.Duration
}

func newChecks() checks {
	return checks{last: map[string]spillway.Intent{}, had: map[string]map[int]bool{}, bad: map[int]bool{}}
}

func (c *checks) fail(format string, args ...any) {
	if c.broken == nil {
		c.broken = fmt.Errorf(format, args...)
	}
}

func (c *checks) asked(in spillway.Intent) {
	if in.Verb == spillway.VerbDeploy {
		c.last[in.Track] = in
	}
}

// round is one decision with what it was made from.
type round struct {
	*checks
	world *World
	spec  rollout.Spec
	was   rollout.Status
	obs   rollout.Observation
	d     rollout.Decision
	is    rollout.Status // d.Status
}

// decision holds one decision against the invariants of the design.
func (c *checks) decision(w *World, saved reconcile.Saved, obs rollout.Observation, d rollout.Decision) {
	r := round{c, w, saved.Spec, saved.Status, obs, d, d.Status}
	recreates := r.is.Rollout != nil && (r.is.Rollout.Strategy == spillway.Recreate || slices.ContainsFunc(r.release(r.is.Rollout.Release).Config.Services, recreated))
	if recreates || r.is.Phase == spillway.Degraded && w.real-w.gap <= longGap { // what comes back may be slow
		w.gap = w.real
	}
	for _, check := range []func(round){
		round.weights, round.capacity, round.climbs, round.target, round.promotes, round.tiers, round.events, round.sizesSurvive,
		round.judged, round.history, round.tracks, round.trackRuns, round.trackReady, round.gates, round.standby, round.wayBack, round.colours,
		round.waits, round.spares, round.needs, round.toldRoutes, round.autoscaled, round.rests,
	} {
		check(r)
	}
	if d.Status.Route.Generation < saved.Status.Route.Generation {
		c.fail("the generation never falls: %d after %d", d.Status.Route.Generation, saved.Status.Route.Generation)
	}
}

func (r round) release(n int) spillway.Release { return r.spec.Releases[n] }

// want is how many replicas of a group are wanted now.
func (r round) want(g spillway.Group) int { return wantIn(r.d.Desired.Groups, g) }

func wantIn(wants []rollout.Want, g spillway.Group) int {
	for _, w := range wants {
		if w.Group == g {
			return w.Replicas
		}
	}
	return 0
}

// seen is what was observed of a group.
func (r round) seen(g spillway.Group) rollout.Group {
	i := slices.IndexFunc(r.obs.Groups, func(o rollout.Group) bool { return o.Group == g })
	if i < 0 {
		return rollout.Group{Group: g}
	}
	return r.obs.Groups[i]
}

// size is how many replicas of a service are promised.
func (r round) size(s spillway.Service) int {
	if s.Autoscaled() {
		return r.observedSize(s, r.asked(s))
	}
	return r.asked(s)
}

// asked is how many replicas of a service people want at least: what scale chose, within the bounds of the file.
func (r round) asked(s spillway.Service) int {
	n, chosen := r.is.Sizes[s.Name]
	switch {
	case !chosen:
		return s.Scale
	case s.Max > 0:
		return min(max(n, s.Scale), s.Max)
	}
	return n
}

// harmful reports whether the observation condemns the candidate of the running rollout.
func (r round) harmful() bool {
	o, e := r.was.Rollout, r.obs.Evidence
	return o != nil && o.Stable != 0 && e != nil && e.Trial == o.ID && (e.Verdict == spillway.Harmful || e.Tripped)
}

// candidate is the public group that only the candidate of the running rollout has; the zero group when there
// is none.
func (r round) candidate() spillway.Group {
	o := r.was.Rollout
	if o == nil {
		return spillway.Group{}
	}
	g := front(r.release(o.Release))
	if g == front(r.release(r.was.Stable)) || o.Track != "" && g == front(r.release(o.From)) {
		return spillway.Group{}
	}
	return g
}

func recreated(s spillway.Service) bool { return s.Strategy == spillway.Recreate }

// front is the group of the public service of a release.
func front(r spillway.Release) spillway.Group {
	i := slices.IndexFunc(r.Config.Services, spillway.Service.Public)
	if i < 0 {
		return spillway.Group{}
	}
	g, _ := r.Group(r.Config.Services[i].Name)
	return g
}

// given is the greatest weight that a group has for the users of a track; "" = those of stable.
func given(route spillway.Route, g spillway.Group, track string) spillway.Share {
	weight := spillway.Share(0)
	for _, e := range route.Edges {
		for _, b := range e.Backends {
			switch {
			case b.Group != g || len(b.URLs) > 0 || e.Only != "" && e.Only != track || ofTrack(e):
			case e.From.Release == 0 && b.Track == track:
				weight = max(weight, b.Weight, b.Within)
				if track != "" {
					weight = max(weight, 1)
				}
			case e.From.Release != 0 && given(route, e.From, track) > 0:
				weight = max(weight, b.Weight*given(route, e.From, track)/spillway.Whole)
			}
		}
	}
	return weight
}

// ofTrack reports whether an edge is that of a track's own host, also when the track is empty.
func ofTrack(e spillway.Edge) bool {
	return len(e.Hosts) > 0 && !slices.ContainsFunc(e.Hosts, func(h string) bool { return !strings.HasSuffix(h, ownHosts) })
}

// judged: a candidate with traffic is judged, and one that is condemned has none and is never promoted.
func (r round) judged() {
	o, g := r.is.Rollout, r.candidate()
	if o != nil && o.Stable != 0 && r.was.Rollout != nil && g.Release != 0 && given(r.d.Desired.Route, g, r.was.Rollout.Track) > 0 && (r.d.Desired.Route.Trial == nil || r.d.Desired.Route.Trial.ID != o.ID) {
		r.fail("a candidate with traffic is judged: rollout %d", o.ID)
	}
	if !r.harmful() {
		return
	}
	for _, e := range r.d.Events {
		if e.Kind == spillway.EventFinished && e.Rollout == r.was.Rollout.ID && e.Outcome == spillway.Succeeded {
			r.fail("a release that fails its gates is never promoted: %s", r.obs.Evidence.Reason)
		}
	}
	if g.Release != 0 && given(r.d.Desired.Route, g, r.was.Rollout.Track) > 0 {
		r.fail("abort is first: the candidate is harmful and keeps weight")
	}
}

// weights: those of an edge sum to the whole, or the edge says why it is closed; users of a blue-green
// rollout see one colour.
func (r round) weights() {
	for _, e := range r.d.Desired.Route.Edges {
		sum, within, colours := spillway.Share(0), spillway.Share(0), 0
		for _, b := range e.Backends {
			sum += b.Weight
			within += b.Within
			if b.Weight < 0 {
				r.fail("no weight is below 0: %s has %s", b.Group, b.Weight)
			}
			if b.Track == "" && b.Weight > 0 {
				colours++
			}
		}
		if o := r.is.Rollout; o != nil && o.Track == "" && o.Strategy == spillway.BlueGreen && colours > 1 {
			r.fail("one live colour: the edge to %s has %d", e.Service, colours)
		}
		if within != 0 && within != spillway.Whole {
			r.fail("weights sum to 100: the parts of stable's edge to %s to %s", e.Service, within)
		}
		if sum != spillway.Whole && (len(e.Backends) > 0 || e.Closed == "") {
			r.fail("weights sum to 100: edge to %s has %s", e.Service, sum)
		}
	}
}

// capacity: a group that a route gives weight w of stable's users, in the route asked for or in the one still
// served, has at least w of its service's size wanted, less what the file allows to be missing.
func (r round) capacity() {
	for _, route := range []spillway.Route{r.d.Desired.Route, r.obs.Served} {
		if r.is.Destroy || route.Generation < r.was.Route.Generation {
			continue // what was served before is older than what we know of
		}
		for _, e := range route.Edges {
			for _, b := range e.Backends {
				if b.Track == "" && e.Only == "" && !ofTrack(e) {
					r.capacityOf(e, b)
				}
			}
		}
	}
}

func (r round) capacityOf(e spillway.Edge, b spillway.Backend) {
	asked := r.d.Desired.Route
	if given(asked, b.Group, "") == 0 || e.From.Release != 0 && given(asked, e.From, "") == 0 {
		return // nobody comes this way
	}
	s, ok := r.release(b.Release).Config.Service(b.Group.Service)
	if !ok {
		return
	}
	size := r.size(s)
	if old, ok := r.release(r.is.Stable).Config.Service(s.Name); ok && r.is.Rollout != nil {
		size = min(size, r.size(old))
	}
	if o := r.is.Rollout; !r.stays(e.From) || !slices.Contains(r.numbers(), b.Release) || o != nil && (s.Strategy == spillway.Recreate || o.Strategy == spillway.Recreate) {
		size = 1 // on its way out: what is there stays, and does not follow a new size
	}
	if e.From.Release != 0 {
		b.Weight = b.Weight * given(asked, e.From, "") / spillway.Whole
	}
	if promised := (b.Weight - 1).Of(size) - s.Unavailable.Of(size); b.Weight > 0 && r.want(b.Group) < max(1, promised) { // a bucket may be lost in rounding
		r.fail("capacity is never less than promised: %s has weight %s of %d and %d wanted", b.Group, b.Weight, size, r.want(b.Group))
	}
}

// stays reports whether a caller belongs to a release that serves or is tried.
func (r round) stays(from spillway.Group) bool {
	if from.Release == 0 || r.release(r.is.Stable).Groups[from.Service] == from.Release {
		return true
	}
	o := r.is.Rollout
	return o != nil && r.is.Phase != spillway.RollingBack && r.release(o.Release).Groups[from.Service] == from.Release
}

// climbs: the candidate's weight rises only over capacity that was seen to be ready.
func (r round) climbs() {
	before, o := r.was.Rollout, r.is.Rollout
	if o == nil || before == nil || before.Routed || !o.Routed || before.ID != o.ID {
		return
	}
	release, stable := r.release(o.Release), r.release(r.was.Stable)
	for _, s := range rollout.Changed(stable, release) {
		g, _ := release.Group(s.Name)
		least := o.Steps[o.Step].Weight.Of(r.size(s))
		if o.Track != "" {
			least = 1
			if old, ok := stable.Config.Service(s.Name); ok && old.Strategy == spillway.Recreate {
				least = 0 // one for all tracks
			}
		}
		if r.seen(g).Ready < least {
			r.fail("weight rises only over ready capacity: %s at %s", g, o.Steps[o.Step].Weight)
		}
	}
}

// target: while a rollout runs, the release that it would return to runs too.
func (r round) target() {
	o := r.is.Rollout
	if o == nil || r.is.Stable == 0 || r.is.Destroy {
		return
	}
	for _, s := range r.release(r.is.Stable).Config.Services {
		g, _ := r.release(r.is.Stable).Group(s.Name)
		next, _ := r.release(o.Release).Config.Service(s.Name)
		if o.Track == "" && (next.Strategy == spillway.Recreate || o.Strategy == spillway.Recreate) {
			continue
		}
		if r.want(g) == 0 {
			r.fail("the roll-back target runs: %s has no replicas in %s", g, r.is.Phase)
		}
	}
}

// promotes: the old release goes only when the new one is seen to serve, and the judge could be heard.
func (r round) promotes() {
	stable := r.release(r.was.Stable)
	if stable.Number == 0 || r.is.Destroy {
		return
	}
	var fresh []spillway.Group
	if r.is.Stable != stable.Number {
		release := r.release(r.is.Stable)
		for _, s := range rollout.Changed(stable, release) {
			g, _ := release.Group(s.Name)
			fresh = append(fresh, g)
		}
	}
	if o := r.was.Rollout; o != nil && o.Track != "" && r.is.Lanes[o.Track].Release != r.was.Lanes[o.Track].Release && r.is.Lanes[o.Track].Release == o.Release {
		live, _ := stable.Config.Service(r.candidate().Service) // one for all tracks, if it is recreated
		if g := r.candidate(); g.Release != 0 && live.Strategy != spillway.Recreate {
			fresh = append(fresh, g)
		}
	}
	for _, g := range fresh {
		switch {
		case r.obs.NoData, r.blind():
			r.fail("nothing is promoted while the judge cannot be heard: %s", g)
		case r.seen(g).Ready == 0:
			r.fail("nothing is promoted that does not serve: %s has no ready replica", g)
		}
	}
}

// blind reports whether the judge of a rollout has no data that nobody told to go on without.
func (r round) blind() bool {
	o := r.was.Rollout
	forced := o == nil || o.Back || o.Forced || slices.ContainsFunc(r.spec.Intents, func(in spillway.Intent) bool { return in.Verb == spillway.VerbPromote })
	return !forced && r.obs.Evidence != nil && r.obs.Evidence.Trial == o.ID && r.obs.Evidence.Verdict == spillway.NoData && weightIn(r.obs.Served, r.candidate()) > 0
}

// events: a rollout that ends says how, so that there is one at a time, and users that are taken off a candidate
// are told why.
func (r round) events() {
	has := func(kind spillway.EventKind, rollout int64) bool {
		return slices.ContainsFunc(r.d.Events, func(e spillway.Event) bool { return e.Kind == kind && e.Rollout == rollout && e.Text != "" })
	}
	before, after := r.was.Rollout, r.is.Rollout
	if before != nil && (after == nil || after.ID != before.ID) && !has(spillway.EventFinished, before.ID) {
		r.fail("every end emits an event: rollout %d", before.ID)
	}
	if before != nil && after != nil && r.was.Phase != spillway.RollingBack && r.is.Phase == spillway.RollingBack && !has(spillway.EventAborting, before.ID) {
		r.fail("every failure emits an event: rollout %d", before.ID)
	}
}

// sizesSurvive: only scale changes a chosen size.
func (r round) sizesSurvive() {
	stable := r.release(r.was.Stable)
	for _, name := range []string{"www", "web", "backend", "cache"} {
		n, before := r.is.Sizes[name], r.was.Sizes[name] // 0 = not chosen
		s, _ := stable.Config.Service(name)
		allowed := n == before || slices.ContainsFunc(r.spec.Intents, func(in spillway.Intent) bool {
			within := in.Replicas
			if s.Max > 0 {
				within = min(max(within, s.Scale), s.Max)
			}
			return in.Verb == spillway.VerbScale && in.Service == name && (in.Auto && n == 0 || within == n)
		})
		if !allowed {
			r.fail("the chosen size survives: %s has %d, was %d", name, n, before)
		}
	}
}
