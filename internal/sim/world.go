package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// errFault is what an injected fault returns.
var errFault = errors.New("injected fault")

// errCrash is the fault after which another server goes on.
var errCrash = fmt.Errorf("the server died: %w", errFault)

// app is the name of the one app of a world.
const app spillway.Ref = "shop"

// Behaviour is how the replicas of a release act.
type Behaviour struct {
	Errors float64        // share of requests that fail
	Slow   float64        // times as slow as others; 0 = as they are
	Start  int            // ticks until ready
	Never  bool           // never becomes ready
	Crash  bool           // ends before it is ready, again and again
	Fatal  bool           // cannot start at all
	CPU    float64        // cores that a replica uses
	Memory spillway.Bytes // that a replica uses
	Task   string         // how its release commands go: "" = at once, "slow", "fails", "hangs", "stuck" = never begins
}

// replica is one simulated copy.
type replica struct {
	index    int
	ready    bool
	draining bool
	fell     bool          // it was killed, and has not been ready since
	since    time.Duration // draining: since when
	due      int           // tick at which it becomes ready, or crashes
	inflight int
	restart  int64 // Want.Restart of its start
	known    int   // ready: tick at which the data plane has heard of it
	left     int   // draining: tick at which the data plane has heard of that
}

// group is all replicas of one group, with the counters of rollout.Group.
type group struct {
	replicas          []*replica
	crashes, restarts int
	quietSince        time.Duration // real time since when it has had no weight in the served route
	next              int
	scaler            scaler
	asked             []sample // requests of the last minute
}

// sample is the requests of one tick.
type sample struct {
	at time.Duration // real time
	n  int
}

// request is one open request.
type request struct {
	group   spillway.Group
	replica *replica
	due     int
}

// World is a platform in virtual time. It implements reconcile.Platform; what it is asked through Apply
// it does slowly, tick by tick.
type World struct {
	rng      *rand.Rand
	Now      time.Time     // the wall clock, which can be stepped
	real     time.Duration // time that really passed
	jumped   time.Duration // real time of the last clock step
	gap      time.Duration // real time of the last rollout that stopped something first
	tickNo   int
	releases map[int]spillway.Release
	behave   map[int]Behaviour
	groups   map[spillway.Group]*group
	wanted   map[spillway.Group]rollout.Want
	open     []request
	plane    plane
	cluster  *cluster              // nil = one machine
	returned bool                  // a server has just begun to decide
	heard    spillway.Route        // what the data plane served when it last answered
	past     []rollout.Observation // newest last; stale observations come from here
	outside  outside
	traffic  int            // requests per tick
	demand   map[string]int // replicas that all users of a service need, for its autoscaler
	// onlyFront: what is behind the public service answers well and in time, so that the figures of a release
	// are those that its users see.
	onlyFront bool
	ruled     float64 // share of requests that carry the header of the track canary
	outage    float64 // share of requests that fail whatever release answers: the database is away
	users     int     // sticky users, of which every 50th is broken; 0 = every request is a new user

	failApply, halfApply, twice, stale, down int // faults armed by actions
	blind                                    int // ticks for which what the judge counts by is down
	blinded                                  time.Time
	broken                                   error // the first invariant that broke inside the world
}

// plane is the simulated data plane: it serves one route, judges, and trips by itself.
type plane struct {
	served  spillway.Route
	pending []pendingRoute
	state   judge.State
	tripped bool
	failed  map[int]int     // failed requests by release, before any is repeated
	erred   map[int]bool    // sticky users that had an error in this trial
	slow    map[int]uint64  // terms that earlier answers to sticky users were slower than
	took    []time.Duration // stable's answers in this trial, until there are enough to compare with
}

type pendingRoute struct {
	route spillway.Route
	due   int
}

func newWorld(rng *rand.Rand) *World {
	return &World{
		rng: rng, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), releases: map[int]spillway.Release{}, behave: map[int]Behaviour{},
		groups: map[spillway.Group]*group{}, wanted: map[spillway.Group]rollout.Want{}, plane: plane{failed: map[int]int{}}, outside: newOutside(), demand: map[string]int{},
		gap: -time.Hour,
	}
}

// Observe gives the truth, or with a stale fault something older.
func (w *World) Observe(context.Context, spillway.Ref) (rollout.Observation, error) {
	o := w.observe()
	w.past = append(w.past, o)
	if len(w.past) > 8 {
		w.past = w.past[1:]
	}
	if w.cluster != nil {
		w.behind(&o)
	}
	if w.stale > 0 {
		i := max(0, len(w.past)-1-w.stale)
		w.stale, w.gap = 0, w.real // it may show replicas that were stopped and asked for again since: see nobody
		return w.past[i], nil
	}
	return o, nil
}

func (w *World) observe() rollout.Observation {
	var o rollout.Observation
	for _, g := range w.sortedGroups() {
		s := w.groups[g]
		b := w.behave[g.Release]
		r := rollout.Group{
			Group: g, Running: len(s.replicas), Crashes: s.crashes, Restarts: s.restarts, Fatal: b.Fatal,
			CPU: b.CPU, Memory: b.Memory, Traffic: spillway.Traffic{Rate: w.rate(s)},
		}
		for _, x := range s.replicas {
			r.InFlight += x.inflight
			if x.draining {
				r.Draining++
			} else if x.ready {
				r.Ready++
			}
		}
		w.onlyReached(&r)
		if r.Fatal || s.crashes > 0 {
			r.Problem = "exited with code 1"
		} else if b.Never {
			r.Problem = "its health check is answered with 503"
		}
		if s.scaler.on {
			r.Chosen = s.scaler.count
		}
		o.Groups = append(o.Groups, r)
	}
	o.Away = w.returned
	w.outside.observe(&o)
	if w.cluster != nil && !w.cluster.known { // by this server, that is
		o.NoData = !w.cluster.own && len(w.cluster.parts) > 0
		return o
	}
	if w.down > 0 { // nobody can say what it serves and judges now
		o.Served, o.NoData = w.heard, true
		return o
	}
	o.Served = w.plane.effective()
	w.heard = o.Served
	if t := o.Served.Trial; t != nil {
		e := w.plane.state.Evidence(*t)
		e.Tripped = w.plane.tripped
		if w.blind > 0 && e.Verdict != spillway.Harmful { // as behind a gateway whose metrics are down
			e.Verdict, e.Reason, e.At = spillway.NoData, "the metrics cannot be had", w.blinded
		}
		o.Evidence = &e
		o.Memory = []byte(fmt.Sprint("memory of ", t.ID))
	}
	return o
}

func (w *World) sortedGroups() []spillway.Group {
	var groups []spillway.Group
	for g, s := range w.groups {
		if len(s.replicas) > 0 {
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

// Apply takes over what is wanted; a fault makes it fail before, half way or after.
func (w *World) Apply(_ context.Context, _ spillway.Ref, _ map[int]spillway.Release, d rollout.Desired) error {
	if w.failApply > 0 {
		w.failApply = 0
		return errFault
	}
	if w.cluster != nil {
		return w.write(d)
	}
	if err := w.push(d.Route); err != nil {
		return err
	}
	if w.halfApply > 0 {
		w.halfApply = 0
		return errFault
	}
	w.wanted = map[spillway.Group]rollout.Want{}
	for _, want := range d.Groups {
		w.wanted[want.Group] = want
	}
	w.takeSizes(d)
	w.stopUnwanted()
	w.take(d)
	if w.twice > 0 {
		w.twice = 0
		return errors.Join(w.push(d.Route), errFault)
	}
	return nil
}

// Forget begins a new life: an app of the same name has other releases, with the same numbers. It refuses as
// long as something runs.
func (w *World) Forget(context.Context, spillway.Ref) error {
	if len(w.sortedGroups()) > 0 {
		return errFault
	}
	w.releases, w.behave, w.groups = map[int]spillway.Release{}, map[int]Behaviour{}, map[spillway.Group]*group{}
	if c := w.cluster; c != nil {
		if len(c.parts) > 0 {
			return errFault
		}
		w.cluster = newCluster(len(c.gateway))
	}
	w.plane, w.heard, w.past, w.outside = plane{failed: map[int]int{}}, spillway.Route{}, nil, newOutside()
	return nil
}

// Watch is never called: a run decides when to look.
func (w *World) Watch(ctx context.Context, _ func(spillway.Ref)) error {
	<-ctx.Done()
	return ctx.Err()
}

// push sends a route to the data plane, which takes it over some ticks later.
func (w *World) push(route spillway.Route) error {
	if w.down > 0 {
		return errFault
	}
	var hosts []string
	for _, e := range route.Edges {
		hosts = append(hosts, e.Hosts...)
	}
	if slices.Sort(hosts); len(slices.Compact(slices.Clone(hosts))) < len(hosts) {
		w.fail("a host is on one edge: %q", hosts)
	}
	if w.cluster != nil {
		return nil
	}
	w.plane.pending = append(w.plane.pending, pendingRoute{route, w.tickNo + w.rng.IntN(3)})
	return nil
}

// stopUnwanted stops the groups that are not wanted at all, at once and without looking: that nothing is
// lost by it is the engine's promise, and is checked here.
func (w *World) stopUnwanted() {
	for _, g := range w.sortedGroups() {
		if w.wanted[g].Replicas == 0 {
			w.stop(g)
		}
	}
}

func (w *World) stop(g spillway.Group) {
	if w.groups[g] == nil {
		return
	}
	for _, r := range w.groups[g].replicas {
		switch quiet := w.real - w.groups[g].quietSince; {
		case w.weight(g) > 0 && !r.draining:
			w.fail("nothing that gets traffic is stopped: %s has weight %s", g, w.weight(g))
		case r.inflight > 0 && quiet < drainLimit && w.real-w.jumped > 2*drainLimit && !r.draining:
			w.fail("nothing that holds a request is stopped: %s holds %d, without traffic for %s", g, r.inflight, quiet)
		}
	}
	w.groups[g] = &group{quietSince: w.groups[g].quietSince}
}

func (w *World) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

// drainLimit is the drain limit of every simulated service.
const drainLimit = 30 * time.Second

// weightIn is the greatest weight that a route gives a group on an edge that can be used: a public one,
// or one from a group that has weight itself. Rules count: a track can be
// reached by one, so its least weight is 1.
func weightIn(route spillway.Route, g spillway.Group) spillway.Share {
	weight := spillway.Share(0)
	for _, e := range route.Edges {
		for _, b := range e.Backends {
			if b.Group != g || len(b.URLs) > 0 || e.From.Release != 0 && weightIn(route, e.From) == 0 {
				continue
			}
			weight = max(weight, b.Weight, b.Within)
			if b.Track != "" {
				weight = max(weight, 1)
			}
		}
	}
	return weight
}
