package rollout

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// route is the route that should be, without its generation.
func (t *turn) route() spillway.Route {
	if t.st.Destroy {
		return spillway.Route{}
	}
	route := spillway.Route{Rules: t.rules()}
	route.Edges = t.targetEdges(route.Rules, slices.Concat(t.publicEdges(), t.trackEdges()))
	route.Edges = slices.Concat(route.Edges, t.standbyEdges(), t.privateEdges())
	route.Edges = append(route.Edges, t.besideEdges(route.Edges)...)
	t.speakEach(route.Edges)
	route.Edges = append(route.Edges, t.leavingEdges(route.Edges)...)
	slices.SortFunc(route.Edges, compareEdges)
	route.Trial, route.Over = t.trial(), t.st.Tripped
	return route
}

func compareEdges(a, b spillway.Edge) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.From.Service, b.From.Service), cmp.Compare(a.From.Release, b.From.Release),
		slices.Compare(a.Hosts, b.Hosts), slices.Compare(a.Listen, b.Listen), cmp.Compare(a.Target, b.Target))
}

// incoming is the candidate for stable as far as requests may be given to it: none on the way back.
func (t *turn) incoming() spillway.Release {
	if r := t.st.Rollout; r == nil || r.Track != "" || t.st.Phase == spillway.RollingBack {
		return spillway.Release{}
	}
	return t.candidate()
}

// publicEdges are the ways in for users. A host or an address is on one of them only, whichever services have it;
// those of either release are there, so that going back only moves weights.
func (t *turn) publicEdges() []spillway.Edge {
	before, after := publicNames(t.stable()), publicNames(t.incoming())
	names := map[way][]string{}
	add := func(name, old, new string) {
		w := way{old, new, strings.Contains(name, ":")}
		names[w] = append(names[w], name)
	}
	for name, old := range before {
		add(name, old, cmp.Or(after[name], old))
	}
	for name, new := range after {
		if before[name] == "" {
			add(name, new, new)
		}
	}
	var edges []spillway.Edge
	for w, list := range names { // sorted by route
		edges = append(edges, t.publicEdge(w, slices.Sorted(slices.Values(list))))
	}
	return edges
}

func (t *turn) publicEdge(w way, names []string) spillway.Edge {
	edge := t.edge(w.old, true, true)
	edge.Target = w.old
	if w.old != w.new {
		edge = t.moving(w.old, w.new)
	}
	s, ok := t.file().Config.Service(w.old)
	if !ok {
		s, _ = t.file().Config.Service(w.new)
	}
	if w.tcp {
		edge.Listen, edge.Protocol, edge.Target = names, spillway.TCP, ""
		if s.Protocol == spillway.TCP { // else its tracks are made for requests
			t.addTracks(&edge, s)
		}
		return edge
	}
	speak(&edge, s.Name, t.file())
	if edge.Protocol == spillway.TCP { // its hosts are those of a release that spoke HTTP, or will
		edge.Protocol = ""
	}
	edge.Hosts, edge.TLS = names, s.TLS
	t.addTracks(&edge, s)
	return edge
}

// moving is the edge of hosts that the candidate gives to another service, because that has a new name or
// takes over: their users move with the weight as if it were one service.
func (t *turn) moving(from, to string) spillway.Edge {
	old, _ := t.stable().Group(from)
	new, _ := t.incoming().Group(to)
	edge, weight := spillway.Edge{Service: from}, t.weight()
	before := spillway.Backend{Group: old, Release: t.st.Stable, Weight: spillway.Whole - weight}
	after := spillway.Backend{Group: new, Release: t.incoming().Number, Weight: weight}
	switch {
	case t.recreates(from) && t.replacing():
		edge.Closed = "recreate: " + from + " is being replaced"
	case t.recreates(from):
		after.Weight = spillway.Whole
		edge.Backends = []spillway.Backend{after}
	case weight == 0:
		edge.Backends = []spillway.Backend{before}
	default:
		edge.Backends = []spillway.Backend{before, after}
	}
	return edge
}

// replacing reports whether the recreated services of the rollout have no replica of either release that serves.
func (t *turn) replacing() bool { return t.st.Rollout.Step == 0 && !t.st.Rollout.Routed }

// edge divides the requests to a service whose callers belong to stable, to the candidate, or to both
// (users, and replicas that the release did not change).
func (t *turn) edge(service string, fromStable, fromCandidate bool) spillway.Edge {
	old, inOld := t.stable().Group(service)
	new, inNew := t.incoming().Group(service)
	later := t.st.Rollout != nil && t.st.Rollout.Track == "" && !t.prepared() && t.recreatesLater(service)
	if !t.recreates(service) && !later { // of a recreated service there is only one at a time, for all callers
		inOld, inNew = inOld && fromStable, inNew && fromCandidate
	}
	edge, weight := spillway.Edge{Service: service}, t.weight()
	s, _ := t.file().Config.Service(service)
	backend := func(g spillway.Group, release int, weight spillway.Share) spillway.Backend {
		return spillway.Backend{Group: g, Release: release, Weight: weight, Color: t.color(s, g)}
	}
	all := func(g spillway.Group, release int) spillway.Edge {
		edge.Backends = []spillway.Backend{backend(g, release, spillway.Whole)}
		return edge
	}
	switch {
	case inOld && inNew && old == new && weight == spillway.Whole:
		return all(new, t.incoming().Number)
	case inOld && (!inNew || old == new):
		if closed := t.returning(service); closed != "" {
			edge.Closed = closed
			return edge
		}
		return all(old, t.st.Stable)
	case !inOld && inNew && (!fromStable || weight > 0):
		return all(new, t.incoming().Number)
	case !inNew:
		edge.Closed = service + " is in no release that serves"
		return edge
	case !inOld:
		edge.Closed = service + " is new and has no traffic yet"
		return edge
	case t.recreates(service):
		if t.replacing() {
			edge.Closed = "recreate: " + service + " is being replaced"
			return edge
		}
		return all(new, t.incoming().Number)
	}
	edge.Backends = []spillway.Backend{backend(old, t.st.Stable, spillway.Whole-weight)}
	if weight > 0 {
		edge.Backends = append(edge.Backends, backend(new, t.incoming().Number, weight))
	}
	return edge
}

// returning says that a recreated service waits for its new replicas to be gone, on the way back.
func (t *turn) returning(service string) string {
	r := t.st.Rollout
	if r != nil && t.st.Phase == spillway.RollingBack && r.Cleared && !r.Returned && t.recreates(service) {
		return "recreate: " + service + " is being put back"
	}
	return ""
}

// recreates reports whether the rollout replaces the service by stopping it first.
func (t *turn) recreates(service string) bool {
	r := t.st.Rollout
	if r == nil {
		return false
	}
	return r.Track == "" && t.prepared() && t.recreatesLater(service)
}

// recreatesLater is recreates also before the release commands have succeeded.
func (t *turn) recreatesLater(service string) bool {
	r := t.st.Rollout
	s, ok := t.candidate().Config.Service(service)
	old, inOld := t.stable().Group(service)
	new, _ := t.candidate().Group(service)
	return ok && inOld && old != new && (s.Strategy == spillway.Recreate || r.Strategy == spillway.Recreate)
}

// privateEdges: every group reaches each service that it needs through an edge of its own, which leads
// to that service in the same release. That is how the tiers move together.
func (t *turn) privateEdges() []spillway.Edge {
	stable, incoming := t.stable(), t.incoming()
	var edges []spillway.Edge
	add := func(release, other spillway.Release) {
		for _, s := range release.Config.Services {
			from, _ := release.Group(s.Name)
			shared := other.Groups != nil && other.Groups[s.Name] == from.Release && from.Release != 0
			if shared && release.Number == incoming.Number {
				continue // told with stable
			}
			for _, need := range s.Needs {
				edge := t.edge(need, shared || release.Number == stable.Number, shared || release.Number == incoming.Number)
				edge.From = from
				if release.Number == incoming.Number && t.replacing() && t.besidePeer(from, need) {
					edge = t.besideEdge(release, from, need)
				}
				speak(&edge, need, release)
				edges = append(edges, edge)
			}
		}
	}
	add(stable, incoming)
	if incoming.Number != 0 {
		add(incoming, stable)
	}
	return edges
}

// leavingEdges are the edges of groups that are in no release any more and still run: their last
// requests need their peers, so the edges stay as they were until the group is gone.
func (t *turn) leavingEdges(have []spillway.Edge) []spillway.Edge {
	var edges []spillway.Edge
	for _, e := range t.st.Route.Edges {
		known := slices.ContainsFunc(have, func(h spillway.Edge) bool { return h.Service == e.Service && h.From == e.From })
		if !known && e.From != (spillway.Group{}) && t.group(e.From).Running > 0 {
			edges = append(edges, e)
		}
	}
	return edges
}

// trial tells the data plane whom to judge, and on what terms; nil when there is nothing to compare.
func (t *turn) trial() *spillway.Trial {
	r, groups := t.st.Rollout, t.candidateGroups()
	if r == nil || r.Stable == 0 || len(groups) == 0 {
		return nil
	}
	config := t.candidate().Config
	trial := spillway.Trial{
		ID: r.ID, Release: r.Release, Stable: r.Stable, Candidate: groups, Track: r.Track,
		Budget: cmp.Or(config.Budget, spillway.DefaultBudget), Users: config.BudgetUsers, Margin: t.margin(),
		Warmup: config.Warmup, Synthetic: t.synthetic(),
	}
	tolerance := 0
	for _, gate := range config.Gates {
		slower, slow := slowerOf(gate)
		switch {
		case gate.DryRun || t.shown() < gate.From:
		case slow:
			trial.Latency = append(trial.Latency, slower)
		case gate.Metric == "errors" && gate.Factor > 0 && (tolerance == 0 || gate.Factor < tolerance):
			tolerance = gate.Factor // the strictest of those that count
		case gate.Metric == "errors" && gate.Limit > 0 && (trial.Limit == 0 || gate.Limit < trial.Limit):
			trial.Limit = gate.Limit
		}
	}
	trial.Tolerance = cmp.Or(tolerance, 100)
	if r.Back { // it was good before: only the comparison with what it replaces counts, not an outage that hits both
		trial.Budget, trial.Users, trial.Limit, trial.Latency = math.MaxInt32, 0, spillway.Whole, nil
	}
	return &trial
}

// slowerOf is a gate on latency as the data plane judges it; false for other gates.
func slowerOf(g spillway.Gate) (spillway.Slower, bool) {
	quantiles := map[string]int{"latency": 0, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99}
	quantile, ok := quantiles[g.Metric]
	slower := spillway.Slower{Quantile: quantile, Factor: g.Factor}
	if g.Factor == 0 {
		slower.Limit = spillway.Duration(math.Round(g.Value * 1e9))
	}
	return slower, ok
}

// synthetic are the requests that the candidate's file wants made to its public services while it is judged.
func (t *turn) synthetic() map[string]spillway.Synthetic {
	var all map[string]spillway.Synthetic
	for _, g := range t.candidateGroups() {
		s, _ := t.candidate().Config.Service(g.Service)
		if s.Synthetic == nil || !s.Public() {
			continue
		}
		if all == nil {
			all = map[string]spillway.Synthetic{}
		}
		all[s.Name] = *s.Synthetic
	}
	return all
}

// candidateGroups are the groups that only the candidate has, sorted.
func (t *turn) candidateGroups() []spillway.Group {
	var groups []spillway.Group
	lane := t.st.Rollout != nil && t.st.Rollout.Track != ""
	for _, s := range Changed(t.stable(), t.candidate()) {
		g, _ := t.candidate().Group(s.Name)
		if lane && (t.shared(s.Name, g) || t.spec.Releases[t.st.Rollout.From].Groups[s.Name] == g.Release) {
			continue
		}
		groups = append(groups, g)
	}
	slices.SortFunc(groups, compareGroups)
	return groups
}

func compareGroups(a, b spillway.Group) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Release, b.Release))
}

// sameRoute compares what routes ask for; generation and the judge's memory are not part of it.
func sameRoute(a, b spillway.Route) bool {
	if a.Over != b.Over || !slices.EqualFunc(a.Edges, b.Edges, sameEdge) || !sameRules(a.Rules, b.Rules) || (a.Trial == nil) != (b.Trial == nil) {
		return false
	}
	if a.Trial == nil {
		return true
	}
	x, y := *a.Trial, *b.Trial
	x.Memory, y.Memory = nil, nil
	return sameText(x, y)
}

func sameRules(a, b []spillway.HTTPRule) bool {
	return len(a) == len(b) && (len(a) == 0 || sameText(a, b))
}

func sameEdge(x, y spillway.Edge) bool {
	sameBackend := func(a, b spillway.Backend) bool {
		return a.Group == b.Group && a.Release == b.Release && a.Weight == b.Weight && a.Within == b.Within && a.Track == b.Track && a.Color == b.Color && a.Protocol == b.Protocol && a.Announce == b.Announce && slices.Equal(a.URLs, b.URLs)
	}
	sameTLS := x.TLS == y.TLS || x.TLS != nil && y.TLS != nil && *x.TLS == *y.TLS
	return x.Service == y.Service && x.From == y.From && x.Closed == y.Closed && x.Only == y.Only && x.Target == y.Target && sameTLS &&
		x.Protocol == y.Protocol && slices.Equal(x.Listen, y.Listen) && slices.Equal(x.Hosts, y.Hosts) && slices.Equal(x.Rules, y.Rules) && slices.EqualFunc(x.Backends, y.Backends, sameBackend)
}
