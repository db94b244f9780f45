package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// rules are the rules of routes that should be in force: on each host those of one release only, so that what is
// most specific is said by one file. That is stable until the candidate has all of its users, and from then on the
// candidate; a host that only the other one has, and nobody could miss, has the rules of that.
//
// So going back before the switch changes no rule, and after it all of them with the weights, in one route.
func (t *turn) rules() []spillway.HTTPRule {
	first, other := t.stable(), t.incoming()
	if t.file().Number == other.Number {
		first, other = other, first
	}
	rules := slices.Clone(first.Config.Routes)
	known := first.Config.Hosts()
	for _, r := range other.Config.Routes {
		r.Hosts = slices.DeleteFunc(slices.Clone(r.Hosts), func(host string) bool { return slices.Contains(known, host) })
		if len(r.Hosts) > 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

// targets are what rules lead to, and mirror to, by Target.Name.
func targets(rules []spillway.HTTPRule) map[string]spillway.Target {
	named := map[string]spillway.Target{}
	for _, r := range rules {
		for _, to := range r.To {
			named[to.Name()] = to
		}
		for _, m := range r.Mirror {
			named[m.Name()] = m.Target
		}
	}
	return named
}

// targetEdges leave the targets that rules name to the edges which have them, and add an edge for each of those that
// no edge has. Every target has one, also a service that no release has any more.
func (t *turn) targetEdges(rules []spillway.HTTPRule, edges []spillway.Edge) []spillway.Edge {
	named := targets(rules)
	for i, e := range edges {
		if _, ok := named[e.Target]; !ok {
			edges[i].Target = ""
		}
		delete(named, e.Target)
	}
	for name, to := range named { // sorted by route
		edge := t.targetEdge(to)
		edge.Target = name
		edges = append(edges, edge)
	}
	return edges
}

func (t *turn) targetEdge(to spillway.Target) spillway.Edge {
	if len(to.URLs) > 0 {
		return spillway.Edge{Service: serverName(to.URLs[0]), Backends: []spillway.Backend{{Track: external, URLs: slices.Clone(to.URLs), Weight: spillway.Whole}}}
	}
	s, ok := t.file().Config.Service(to.Service)
	for _, release := range []spillway.Release{t.stable(), t.incoming()} {
		if !ok {
			s, ok = release.Config.Service(to.Service)
		}
	}
	edge := t.edge(to.Service, true, true)
	switch to.Track {
	case "":
		t.addTracks(&edge, s)
		edge.TLS = s.TLS
		return edge
	case spillway.StableTrack: // stable and its candidate, whose answers are evidence as on any edge
		edge.TLS = s.TLS
		return edge
	}
	def, ok := s.Track(to.Track)
	if !ok {
		return spillway.Edge{Service: to.Service, Only: to.Track, Closed: fmt.Sprintf("%s has no track %s", to.Service, to.Track)}
	}
	if b, ok := t.trackBackend(s, def); ok {
		b.Weight = spillway.Whole
		edge = spillway.Edge{Service: s.Name, Only: def.Name, Backends: []spillway.Backend{b}}
	}
	edge.TLS = s.TLS
	return edge
}

// besides reports whether an edge leads to stable only, and another one divides all users of the service.
func besides(edges []spillway.Edge, e spillway.Edge) bool {
	stable := func(e spillway.Edge) bool { return strings.HasSuffix(e.Target, "@"+spillway.StableTrack) }
	return stable(e) && slices.ContainsFunc(edges, func(o spillway.Edge) bool {
		return o.Service == e.Service && o.From == (spillway.Group{}) && o.Only == "" && !stable(o)
	})
}

// external is the track that servers by URL in a rule are counted and shown under.
const external = "external"

// serverName is what the edge to servers that Spillway does not run is called: the host of the first.
func serverName(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// ruleChanges says how the rules of two app files differ, each rule by what it fits. What they do is not told: it
// may be the hash of a password.
func ruleChanges(old, new []spillway.HTTPRule) []spillway.Change {
	var changes []spillway.Change
	add := func(format string, rule spillway.HTTPRule) {
		changes = append(changes, spillway.Change{What: fmt.Sprintf(format, rule)})
	}
	left := slices.Clone(old)
	var stay []spillway.HTTPRule // of old, in the order of new
	for _, rule := range new {
		i := slices.IndexFunc(left, func(o spillway.HTTPRule) bool { return o.String() == rule.String() })
		if i < 0 {
			add("route %s is new", rule)
			continue
		}
		if !sameText(left[i], rule) {
			add("route %s does something else", rule)
		}
		stay = append(stay, left[i])
		left = slices.Delete(left, i, i+1)
	}
	for _, rule := range left {
		add("route %s goes", rule)
	}
	before := slices.DeleteFunc(slices.Clone(old), func(o spillway.HTTPRule) bool {
		return slices.ContainsFunc(left, func(l spillway.HTTPRule) bool { return l.String() == o.String() })
	})
	if len(changes) == 0 && !sameRules(before, stay) {
		changes = append(changes, spillway.Change{What: "the order of routes"})
	}
	return changes
}

// Preview is the route of a release that serves alone, before anything of it was started.
func Preview(r spillway.Release) spillway.Route {
	t := &turn{
		spec: Spec{App: r.App, Releases: map[int]spillway.Release{r.Number: r}},
		st:   Status{Stable: r.Number, Phase: spillway.Healthy},
	}
	return t.route()
}
