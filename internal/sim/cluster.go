package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// cluster is what a World has that is a cluster behind a foreign gateway, and not one machine: every group and every
// edge is an object that is written by itself, each instance of the gateway learns of them in its own time, and a
// server remembers nothing of the one before.
type cluster struct {
	parts    map[string]part // the edges that are written, by key
	versions map[string]int  // of every object, by key; a write is refused that knows an older one
	seen     map[string]int  // those that this server knows
	stale    bool            // and its last look was at an old state
	gateway  []instance
	asked    spillway.Route // by this server
	own      bool           // it asked for one
	known    bool           // the gateway acknowledged one to it
	learned  int            // tick at which the nodes have heard of the last change of a replica
	unseen   map[string]bool
	foreign  map[spillway.Group]bool // somebody else has a Service of the name of the group's
	late     []write                 // of a server that does not lead any more
	faults
}

// faults are armed by actions; 0 = none.
type faults struct {
	refused  int // so many writes from now on, this one is refused
	dies     int // so many writes from now on, the server dies before this one
	fenced   int // so many writes from now on, the rest arrives when another server leads
	observed int // the next observation misses what so many before it did not see
}

// part is an edge as an object.
type part struct {
	edge       spillway.Edge
	generation int64
}

// instance is one of the gateway, with the edges that it has, and those that it will have.
type instance struct {
	has     map[string]part
	pending []arrival
}

// arrival is a change that an instance hears of.
type arrival struct {
	key  string
	part part
	gone bool
	due  int // tick
}

// write is one of an object.
type write struct {
	key     string
	version int // that the writer knows
	public  bool
	astray  bool // it would lead users to a Service that is somebody else's
	removes bool
	do      func()
}

// slowest is by how many ticks an instance of the gateway, or a node, hears late.
const slowest = 4

func newCluster(instances int) *cluster {
	c := &cluster{parts: map[string]part{}, versions: map[string]int{}, seen: map[string]int{}, foreign: map[spillway.Group]bool{}, gateway: make([]instance, max(1, instances))}
	for i := range c.gateway {
		c.gateway[i].has = map[string]part{}
	}
	return c
}

// clusterFault makes the world a cluster with so many instances of its gateway, "cluster 3", or arms a fault of one:
// "write 3 refused", "write 2 dies", "write 1 late", "behind 2", "foreign 2" (a Service of the name of www.2; 0 = none any
// more).
func (w *World) clusterFault(verb string, words []string) error {
	c := w.cluster
	if len(words) == 0 || c == nil && verb != "cluster" {
		return fmt.Errorf("unknown action %s %s, on one machine", verb, strings.Join(words, " "))
	}
	n, err := strconv.Atoi(words[0])
	switch word := strings.Join(words[1:], " "); {
	case err != nil:
		return err
	case verb == "cluster":
		w.cluster = newCluster(n)
	case verb == "behind":
		c.observed = n
	case verb == "foreign" && n == 0:
		clear(c.foreign)
	case verb == "foreign":
		g := spillway.Group{Service: "www", Release: n}
		c.foreign[g] = c.foreign[g] || !slices.Contains(w.allGroups(), g) && w.wanted[g].Replicas == 0 // else it has the name
	case word == "refused":
		c.refused = n
	case word == "dies":
		c.dies = n
	case word == "late":
		c.fenced = n
	default:
		return fmt.Errorf("unknown action %s %s", verb, word)
	}
	return nil
}

// reborn is another server that goes on: it was told nothing by the gateway yet.
func (w *World) reborn() {
	if c := w.cluster; c != nil {
		c.own, c.known, c.stale, c.asked = false, false, false, spillway.Route{}
	}
}

// behind lets an observation miss the newest of what was written and of what happened: the cache is not there yet.
func (w *World) behind(o *rollout.Observation) {
	c := w.cluster
	c.unseen = nil
	if c.observed == 0 {
		return
	}
	old := w.past[max(0, len(w.past)-1-c.observed)]
	c.unseen = map[string]bool{}
	for _, g := range o.Groups {
		if !slices.ContainsFunc(old.Groups, func(x rollout.Group) bool { return x.Group == g.Group }) {
			c.unseen[g.Group.String()] = true
		}
	}
	o.Groups, o.Tasks = old.Groups, old.Tasks
	c.stale = true
	c.observed, w.gap = 0, w.real // as with what is stale in everything
}

// onlyReached keeps the promise of a platform that ready is what the data plane reaches: of a public group one replica
// has to be, of what others call each, because nobody asks for them.
func (w *World) onlyReached(g *rollout.Group) {
	if w.cluster == nil || g.Ready == 0 {
		return
	}
	reached := 0
	for _, r := range w.groups[g.Group].replicas {
		if !r.draining && w.led(r) {
			reached++
		}
	}
	if w.cluster.foreign[g.Group] {
		reached = 0
	}
	if reached == 0 || !w.public(g.Group) {
		g.Ready = reached
	}
}

// public reports whether users come to a group by the gateway, or may come.
func (w *World) public(g spillway.Group) bool {
	s, _ := w.releases[g.Release].Config.Service(g.Service)
	return s.Public() || slices.ContainsFunc(w.cluster.asked.Edges, func(e spillway.Edge) bool {
		return e.From.Release == 0 && slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return b.Group == g })
	})
}

// led reports whether the data plane leads requests to a replica. One that drains gets them until that is known
// everywhere.
func (w *World) led(r *replica) bool {
	if w.cluster == nil {
		return r.ready && !r.draining
	}
	return r.ready && w.tickNo >= r.known && (!r.draining || w.tickNo < r.left)
}

// learned is the tick at which the data plane has heard of a replica that changes now. It hears in order.
func (w *World) learned() int {
	c := w.cluster
	if c == nil {
		return 0
	}
	c.learned = max(c.learned, w.tickNo+w.rng.IntN(slowest))
	return c.learned
}

// through is the route that a request is given by, at the instance that it comes to.
func (w *World) through() spillway.Route {
	if w.cluster == nil {
		return w.plane.effective()
	}
	return w.routeOf(w.cluster.gateway[w.rng.IntN(len(w.cluster.gateway))])
}

func (w *World) routeOf(i instance) spillway.Route {
	route := spillway.Route{Trial: w.plane.served.Trial}
	for _, key := range slices.Sorted(maps.Keys(i.has)) {
		route.Edges = append(route.Edges, i.has[key].edge)
	}
	return route
}

// weight is the greatest that a group has anywhere in the data plane.
func (w *World) weight(g spillway.Group) spillway.Share {
	if w.cluster == nil {
		return weightIn(w.plane.effective(), g)
	}
	weight := spillway.Share(0)
	for _, i := range w.cluster.gateway {
		weight = max(weight, weightIn(w.routeOf(i), g))
	}
	return weight
}

// acknowledge lets the instances of the gateway hear of what was written. A route is served when the last of them has
// all of it and nothing else.
func (w *World) acknowledge() {
	c := w.cluster
	all := c.own
	wanted := keyed(c.asked)
	for i := range c.gateway {
		one := &c.gateway[i]
		one.pending = slices.DeleteFunc(one.pending, func(a arrival) bool {
			if a.due > w.tickNo {
				return false
			}
			if one.has[a.key] = a.part; a.gone {
				delete(one.has, a.key)
			}
			return true
		})
		all = all && len(one.has) == len(wanted)
		for key := range wanted {
			all = all && one.has[key].generation == c.asked.Generation
		}
	}
	if !all || w.down > 0 {
		return
	}
	w.plane.served, c.known = c.asked, true
}

// keyed are the edges of a route by the names of their objects.
func keyed(route spillway.Route) map[string]spillway.Edge {
	all := map[string]spillway.Edge{}
	for _, e := range route.Edges {
		key := fmt.Sprintf("route %s of %s only %s", e.Service, e.From, e.Only)
		for n := 2; all[key].Service != ""; n++ {
			key = fmt.Sprintf("route %s of %s only %s, the %d.", e.Service, e.From, e.Only, n)
		}
		all[key] = e
	}
	return all
}

// write is Apply on a cluster: one object after the other, and what is refused holds up no other. Nothing is deleted as
// long as a public edge is refused.
func (w *World) write(d rollout.Desired) error {
	if err := w.push(d.Route); err != nil {
		return err
	}
	c := w.cluster
	c.late = nil // a request is given up before another server may lead
	if !c.stale {
		c.seen = maps.Clone(c.versions)
	}
	c.stale = false
	if t := d.Route.Trial; t != nil && t.ID > w.plane.state.Trial {
		p := &w.plane
		p.state, p.erred, p.slow, p.took = judge.New(t.ID), map[int]bool{}, map[int]uint64{}, nil
	}
	c.asked, c.own = d.Route, true
	if w.plane.served.Generation == d.Route.Generation {
		w.plane.served = d.Route
	}
	failed, held := c.clash(d), w.halfApply > 0
	for _, x := range w.writes(d) {
		c.refused, c.dies, c.fenced = c.refused-1, c.dies-1, c.fenced-1
		switch {
		case c.dies == 0:
			c.faults = faults{}
			return errCrash
		case c.fenced == 0 || c.fenced < 0 && len(c.late) > 0 && errors.Is(failed, errCrash):
			c.late, failed = append(c.late, x), errCrash
		case c.refused == 0:
			failed, held = errFault, held || x.public
		case x.astray:
			failed, held = errFault, true
		case x.removes && held:
		case !c.may(x):
			failed = errFault
		default:
			x.do()
		}
	}
	if w.halfApply > 0 || w.twice > 0 {
		failed = errors.Join(failed, errFault)
	}
	w.halfApply, w.twice = 0, 0
	c.faults = faults{observed: c.observed}
	return failed
}

// clash is the refusal of the Services whose names somebody else has. It holds up nothing that is not led there.
func (c *cluster) clash(d rollout.Desired) error {
	if slices.ContainsFunc(d.Groups, func(want rollout.Want) bool { return want.Replicas > 0 && c.foreign[want.Group] }) {
		return errFault
	}
	return nil
}

// astray reports whether an edge leads users to a Service that is somebody else's.
func (c *cluster) astray(e spillway.Edge) bool {
	return slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return b.Weight > 0 && c.foreign[b.Group] })
}

// may reports whether the cluster takes a write: the writer knew the object as it is. It is another one then.
func (c *cluster) may(x write) bool {
	if c.versions[x.key] != x.version {
		return false
	}
	c.versions[x.key]++
	c.seen[x.key] = c.versions[x.key]
	return true
}

// arrive lets the writes arrive that were under way when their server stopped to lead.
func (w *World) arrive() {
	c := w.cluster
	if c == nil || len(c.late) == 0 || w.rng.IntN(2) == 0 {
		return
	}
	x := c.late[0]
	if c.late = c.late[1:]; c.may(x) {
		x.do()
	}
}

// writes are the objects that have to be written, in the order of the platform: what is pointed to comes before what
// points, and what goes comes last, what points first.
func (w *World) writes(d rollout.Desired) []write {
	c := w.cluster
	var private, groups, public, gone, last []write
	wanted := keyed(d.Route)
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		e := wanted[key]
		if now, there := c.parts[key]; there && now.generation == d.Route.Generation {
			continue
		}
		x := write{key: key, version: c.seen[key], public: e.From.Release == 0, astray: e.From.Release == 0 && c.astray(e), do: func() { w.place(key, part{e, d.Route.Generation}) }}
		if x.public {
			public = append(public, x)
		} else {
			private = append(private, x)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.parts)) {
		x := write{key: key, version: c.seen[key], removes: true, do: func() { w.unplace(key) }}
		if _, ok := wanted[key]; ok {
			continue
		} else if c.parts[key].edge.From.Release == 0 {
			gone = append(gone, x)
		} else {
			last = append(last, x)
		}
	}
	for _, want := range d.Groups {
		if w.wanted[want.Group] != want {
			key := "group " + want.Group.String()
			groups = append(groups, write{key: key, version: c.seen[key], do: func() { w.takeGroup(want) }})
		}
	}
	if w.outside.watch = slices.Clone(d.Watch); w.outside.others(d.Tasks) {
		groups = append(groups, write{key: "tasks", version: c.seen["tasks"], do: func() { w.take(d) }})
	}
	for _, g := range w.allGroups() {
		if wantIn(d.Groups, g) == 0 && !c.unseen[g.String()] {
			key := "group " + g.String()
			gone = append(gone, write{key: key, version: c.seen[key], removes: true, do: func() {
				delete(w.wanted, g)
				w.stop(g)
			}})
		}
	}
	return slices.Concat(private, groups, public, gone, last)
}

// takeGroup takes over what is wanted of one group.
func (w *World) takeGroup(want rollout.Want) {
	w.takeSizes(rollout.Desired{Groups: []rollout.Want{want}})
	w.wanted[want.Group] = want
}

// place writes an edge, and every instance of the gateway hears of it.
func (w *World) place(key string, p part) {
	w.cluster.parts[key] = p
	w.announce(arrival{key: key, part: p})
}

func (w *World) unplace(key string) {
	delete(w.cluster.parts, key)
	w.announce(arrival{key: key, gone: true})
}

// announce tells each instance in its own time, and in order.
func (w *World) announce(a arrival) {
	for i := range w.cluster.gateway {
		one := &w.cluster.gateway[i]
		a.due = w.tickNo + w.rng.IntN(slowest)
		if n := len(one.pending); n > 0 {
			a.due = max(a.due, one.pending[n-1].due)
		}
		one.pending = append(one.pending, a)
	}
}
