package sim

import (
	"fmt"
	"slices"
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
	last   spillway.Intent // the last deploy or rollback asked for
}

func (c *checks) fail(format string, args ...any) {
	if c.broken == nil {
		c.broken = fmt.Errorf(format, args...)
	}
}

func (c *checks) asked(in spillway.Intent) {
	if in.Verb == spillway.VerbDeploy {
		c.last = in
	}
}

// decision holds one decision against the invariants of the design.
func (c *checks) decision(saved reconcile.Saved, obs rollout.Observation, d rollout.Decision) {
	c.weights(d)
	c.capacity(saved, obs, d)
	c.target(saved, d)
	c.promotes(saved, obs, d)
	c.tiers(saved, d)
	c.events(saved, d)
	c.sizesSurvive(saved, d)
	if d.Status.Route.Generation < saved.Status.Route.Generation {
		c.fail("the generation never falls: %d after %d", d.Status.Route.Generation, saved.Status.Route.Generation)
	}
	if r := d.Status.Rollout; r != nil && r.Stable != 0 && weightIn(d.Desired.Route, candidateOf(saved)) > 0 && (d.Desired.Route.Trial == nil || d.Desired.Route.Trial.ID != r.ID) {
		c.fail("a candidate with traffic is judged: rollout %d", r.ID)
	}
	if harmful(saved.Status, obs) && d.Status.Rollout == nil && d.Status.Stable != saved.Status.Stable && !d.Status.Destroy {
		c.fail("a release that fails its gates is never promoted: %s", obs.Evidence.Reason)
	}
	if harmful(saved.Status, obs) && weightIn(d.Desired.Route, candidateOf(saved)) > 0 {
		c.fail("abort is first: the candidate is harmful and keeps weight")
	}
}

// harmful reports whether the observation condemns the candidate of the running rollout.
func harmful(st rollout.Status, obs rollout.Observation) bool {
	return st.Rollout != nil && st.Rollout.Stable != 0 && obs.Evidence != nil && obs.Evidence.Trial == st.Rollout.ID &&
		(obs.Evidence.Verdict == spillway.Harmful || obs.Evidence.Tripped)
}

// candidateOf is a public group that only the candidate has; the zero group when there is none.
func candidateOf(saved reconcile.Saved) spillway.Group {
	if saved.Status.Rollout == nil {
		return spillway.Group{}
	}
	g := front(saved.Spec.Releases[saved.Status.Rollout.Release])
	if g == front(saved.Spec.Releases[saved.Status.Stable]) {
		return spillway.Group{}
	}
	return g
}

// front is the group of the public service of a release.
func front(r spillway.Release) spillway.Group {
	i := slices.IndexFunc(r.Config.Services, spillway.Service.Public)
	if i < 0 {
		return spillway.Group{}
	}
	g, _ := r.Group(r.Config.Services[i].Name)
	return g
}

// weights: those of an edge sum to the whole, or the edge says why it is closed; users of a blue-green
// rollout see one colour.
func (c *checks) weights(d rollout.Decision) {
	for _, e := range d.Desired.Route.Edges {
		sum := spillway.Share(0)
		for _, b := range e.Backends {
			sum += b.Weight
			if r := d.Status.Rollout; r != nil && r.Strategy == spillway.BlueGreen && b.Weight != 0 && b.Weight != spillway.Whole {
				c.fail("one live colour: %s has weight %s", b.Group, b.Weight)
			}
		}
		if sum != spillway.Whole && (len(e.Backends) > 0 || e.Closed == "") {
			c.fail("weights sum to 100: edge to %s has %s", e.Service, sum)
		}
	}
}

// capacity: a group that a route gives weight w, in the route asked for or in the one still served, has at
// least w of its service's size wanted, less what the file allows to be missing.
func (c *checks) capacity(saved reconcile.Saved, obs rollout.Observation, d rollout.Decision) {
	wants := map[spillway.Group]int{}
	for _, w := range d.Desired.Groups {
		wants[w.Group] = w.Replicas
	}
	for _, route := range []spillway.Route{d.Desired.Route, obs.Served} {
		if d.Status.Destroy || route.Generation < saved.Status.Route.Generation {
			continue // what was served before is older than what we know of
		}
		for _, e := range route.Edges {
			for _, b := range e.Backends {
				c.capacityOf(saved, obs, d, e, b, wants[b.Group])
			}
		}
	}
	c.climbs(saved, obs, d)
}

func (c *checks) capacityOf(saved reconcile.Saved, obs rollout.Observation, d rollout.Decision, e spillway.Edge, b spillway.Backend, have int) {
	if weightIn(d.Desired.Route, b.Group) == 0 || e.From.Release != 0 && weightIn(d.Desired.Route, e.From) == 0 {
		return // nobody comes this way
	}
	s, ok := saved.Spec.Releases[b.Release].Config.Service(b.Group.Service)
	if !ok {
		return
	}
	size := s.Scale
	if n, ok := d.Status.Sizes[s.Name]; ok {
		size = n
	}
	if old, ok := saved.Spec.Releases[d.Status.Stable].Config.Service(s.Name); ok && d.Status.Rollout != nil {
		if _, chosen := d.Status.Sizes[s.Name]; !chosen {
			size = min(size, old.Scale)
		}
	}
	if r := d.Status.Rollout; !stays(saved, d, e.From) || r != nil && (s.Strategy == spillway.Recreate || r.Strategy == spillway.Recreate) {
		size = 1 // on its way out: what is there stays, and does not follow a new size
	}
	if e.From.Release != 0 {
		b.Weight = b.Weight * weightIn(d.Desired.Route, e.From) / spillway.Whole
	}
	if promised := (b.Weight - 1).Of(size) - s.Unavailable.Of(size); b.Weight > 0 && have < max(1, promised) { // a bucket may be lost in rounding
		c.fail("capacity is never less than promised: %s has weight %s of %d and %d wanted", b.Group, b.Weight, size, have)
	}
}

// stays reports whether a caller belongs to a release that serves or is tried.
func stays(saved reconcile.Saved, d rollout.Decision, from spillway.Group) bool {
	if from.Release == 0 || saved.Spec.Releases[d.Status.Stable].Groups[from.Service] == from.Release {
		return true
	}
	r := d.Status.Rollout
	return r != nil && d.Status.Phase != spillway.RollingBack && saved.Spec.Releases[r.Release].Groups[from.Service] == from.Release
}

// climbs: the candidate's weight rises only over capacity that was seen to be ready.
func (c *checks) climbs(saved reconcile.Saved, obs rollout.Observation, d rollout.Decision) {
	before, r := saved.Status.Rollout, d.Status.Rollout
	if r == nil || before == nil || before.Routed || !r.Routed || before.ID != r.ID {
		return
	}
	release := saved.Spec.Releases[r.Release]
	for _, s := range rollout.Changed(saved.Spec.Releases[saved.Status.Stable], release) {
		g, _ := release.Group(s.Name)
		size := s.Scale
		if n, ok := d.Status.Sizes[s.Name]; ok {
			size = n
		}
		i := slices.IndexFunc(obs.Groups, func(o rollout.Group) bool { return o.Group == g })
		if i < 0 || obs.Groups[i].Ready < r.Steps[r.Step].Weight.Of(size) {
			c.fail("weight rises only over ready capacity: %s at %s", g, r.Steps[r.Step].Weight)
		}
	}
}

// target: while a rollout runs, the release that it would return to runs too.
func (c *checks) target(saved reconcile.Saved, d rollout.Decision) {
	r := d.Status.Rollout
	if r == nil || d.Status.Stable == 0 || d.Status.Destroy {
		return
	}
	for _, s := range saved.Spec.Releases[d.Status.Stable].Config.Services {
		g, _ := saved.Spec.Releases[d.Status.Stable].Group(s.Name)
		next, _ := saved.Spec.Releases[r.Release].Config.Service(s.Name)
		if next.Strategy == spillway.Recreate || r.Strategy == spillway.Recreate {
			continue
		}
		if !slices.ContainsFunc(d.Desired.Groups, func(w rollout.Want) bool { return w.Group == g && w.Replicas > 0 }) {
			c.fail("the roll-back target runs: %s has no replicas in %s", g, d.Status.Phase)
		}
	}
}

// promotes: the old release goes only when the new one is seen to serve, and the judge could be heard.
func (c *checks) promotes(saved reconcile.Saved, obs rollout.Observation, d rollout.Decision) {
	old, ok := saved.Spec.Releases[saved.Status.Stable]
	if !ok || d.Status.Stable == old.Number || d.Status.Destroy {
		return
	}
	release := saved.Spec.Releases[d.Status.Stable]
	for _, s := range rollout.Changed(old, release) {
		g, _ := release.Group(s.Name)
		i := slices.IndexFunc(obs.Groups, func(o rollout.Group) bool { return o.Group == g })
		switch {
		case obs.NoData:
			c.fail("nothing is promoted while the judge cannot be heard: release %d", release.Number)
		case i < 0 || obs.Groups[i].Ready == 0:
			c.fail("nothing is promoted that does not serve: %s has no ready replica", g)
		}
	}
}

// tiers: a group that only one of two releases has reaches only that release's peers.
func (c *checks) tiers(saved reconcile.Saved, d rollout.Decision) {
	if d.Status.Rollout == nil {
		return
	}
	stable, candidate := saved.Spec.Releases[d.Status.Stable], saved.Spec.Releases[d.Status.Rollout.Release]
	for _, e := range d.Desired.Route.Edges {
		for _, b := range e.Backends {
			onlyNew := candidate.Groups[b.Group.Service] == b.Group.Release && stable.Groups[b.Group.Service] != b.Group.Release
			onlyOld := stable.Groups[b.Group.Service] == b.Group.Release && candidate.Groups[b.Group.Service] != b.Group.Release
			fromNew := candidate.Groups[e.From.Service] == e.From.Release && stable.Groups[e.From.Service] != e.From.Release
			fromOld := stable.Groups[e.From.Service] == e.From.Release && candidate.Groups[e.From.Service] != e.From.Release
			s, _ := candidate.Config.Service(b.Group.Service)
			exclusive := s.Strategy == spillway.Recreate || d.Status.Rollout.Strategy == spillway.Recreate
			if e.From.Release != 0 && !exclusive && b.Weight > 0 && (fromOld && onlyNew || fromNew && onlyOld) {
				c.fail("the tiers move together: %s reaches %s", e.From, b.Group)
			}
		}
	}
}

// events: a rollout that ends says how, and users that are taken off a candidate are told why.
func (c *checks) events(saved reconcile.Saved, d rollout.Decision) {
	has := func(kind spillway.EventKind, rollout int64) bool {
		return slices.ContainsFunc(d.Events, func(e spillway.Event) bool { return e.Kind == kind && e.Rollout == rollout && e.Text != "" })
	}
	before, after := saved.Status.Rollout, d.Status.Rollout
	if before != nil && (after == nil || after.ID != before.ID) && !has(spillway.EventFinished, before.ID) {
		c.fail("every end emits an event: rollout %d", before.ID)
	}
	if before != nil && after != nil && saved.Status.Phase != spillway.RollingBack && d.Status.Phase == spillway.RollingBack && !has(spillway.EventAborting, before.ID) {
		c.fail("every failure emits an event: rollout %d", before.ID)
	}
}

// sizesSurvive: only scale changes a chosen size.
func (c *checks) sizesSurvive(saved reconcile.Saved, d rollout.Decision) {
	allowed := func(name string, n int) bool { // 0 = not chosen
		return saved.Status.Sizes[name] == n || slices.ContainsFunc(saved.Spec.Intents, func(in spillway.Intent) bool {
			return in.Verb == spillway.VerbScale && in.Service == name && (in.Auto && n == 0 || in.Replicas == n)
		})
	}
	for _, name := range []string{"www", "web", "backend", "cache"} {
		if !allowed(name, d.Status.Sizes[name]) {
			c.fail("the chosen size survives: %s has %d, was %d", name, d.Status.Sizes[name], saved.Status.Sizes[name])
		}
	}
}
