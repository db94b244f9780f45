package proxy

import (
	"net"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// routing is what all tables together mean. It never changes; a push makes a new one.
type routing struct {
	hosts   map[string]*edge // by normalHost
	private map[string]*edge // by address of the private listener
	// changed is closed when a newer routing is there.
	changed chan struct{}
}

// edge is one way into a service.
type edge struct {
	app    *app
	spec   spillway.Edge // as the table has it
	cohort spillway.Cohort
	sticky bool   // users without a key get a cookie, because something in the app is divided
	arms   []arm  // in the order of spec.Backends
	trial  *trial // nil when no candidate of a running trial is behind the edge
	// judged: the answers are evidence. Those to a candidate's own calls are not, because the user's
	// request behind them is judged already.
	judged bool
	stable bool // an arm is no candidate, so the candidate can be done without
}

// arm is one backend of an edge with its endpoints.
type arm struct {
	spillway.Backend
	candidate bool
	endpoints []*endpoint // that may get requests, as of this routing
	tally     *tally
}

func (e *edge) private() bool { return e.spec.From != (spillway.Group{}) }

// newEdge puts an edge of a table together. ready holds the open endpoints by group.
func newEdge(a *app, spec spillway.Edge, ready map[spillway.Group][]*endpoint) *edge {
	trial := a.table.Route.Trial
	e := &edge{app: a, spec: spec, cohort: a.table.Cohort}
	e.sticky = slices.ContainsFunc(a.table.Route.Edges, func(o spillway.Edge) bool { return len(o.Backends) > 1 })
	for _, b := range spec.Backends {
		candidate := trial != nil && slices.Contains(trial.Candidate, b.Group)
		e.arms = append(e.arms, arm{Backend: b, candidate: candidate, endpoints: ready[b.Group], tally: a.tally(b.Group)})
		if candidate {
			e.trial = a.trial
		} else {
			e.stable = true
		}
	}
	e.judged = e.trial != nil && !(e.private() && slices.Contains(trial.Candidate, spec.From))
	return e
}

// tripped reports whether the candidate of this edge has been taken out of the route.
func (e *edge) tripped() bool { return e.trial != nil && e.stable && e.trial.harmful.Load() }

// weight is the weight of an arm as it is served: that of a tripped candidate is 0, and the first
// stable arm has it instead.
func (e *edge) weight(i int) spillway.Share {
	a := e.arms[i]
	switch {
	case !e.tripped():
		return a.Weight
	case a.candidate:
		return 0
	}
	w := a.Weight
	if i == slices.IndexFunc(e.arms, func(b arm) bool { return !b.candidate }) {
		for _, b := range e.arms {
			if b.candidate {
				w += b.Weight
			}
		}
	}
	return w
}

// served is the edge as it is served.
func (e *edge) served() spillway.Edge {
	s := e.spec
	s.Hosts, s.Backends = slices.Clone(s.Hosts), slices.Clone(s.Backends)
	for i := range s.Backends {
		s.Backends[i].Weight = e.weight(i)
	}
	return s
}

// candidateWeight is the weight of all candidates together.
func (e *edge) candidateWeight() (w spillway.Share) {
	for i := range e.arms {
		if e.arms[i].candidate {
			w += e.weight(i)
		}
	}
	return w
}

// arm gives the arm that a bucket belongs to. The last arm has the lowest buckets: with stable first,
// a candidate of weight w has the buckets [0, w), so raising w moves nobody back.
func (e *edge) arm(bucket spillway.Share) int {
	upTo := spillway.Share(0)
	for i := len(e.arms) - 1; i > 0; i-- {
		if upTo += e.weight(i); bucket < upTo {
			return i
		}
	}
	return 0
}

// able reports whether the arm has an endpoint left for a request that those in failed have failed.
func (a *arm) able(failed []*endpoint) bool {
	return slices.ContainsFunc(a.endpoints, func(e *endpoint) bool { return !e.closed.Load() && !slices.Contains(failed, e) })
}

// instead is the arm that stands in for the arm i, which has no endpoint: the first other one that has.
// An arm of weight 0 stands in only when it is stable. -1 when there is none.
func (e *edge) instead(i int, failed []*endpoint) int {
	for j := range e.arms {
		open := e.weight(j) > 0 || (j == 0 && !e.arms[j].candidate)
		if j != i && open && e.arms[j].able(failed) {
			return j
		}
	}
	return -1
}

// stableArm is the first arm that is no candidate; -1 when there is none.
func (e *edge) stableArm() int {
	return slices.IndexFunc(e.arms, func(a arm) bool { return !a.candidate })
}

// normalHost is the name in a Host header, as hosts are looked up: lower case, without port and
// trailing dot. "" for what is no host.
func normalHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
