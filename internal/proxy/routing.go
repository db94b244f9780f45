package proxy

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// routing is what all tables together mean. It never changes; a push makes a new one.
type routing struct {
	ways    *ways            // of public requests
	private map[string]*way  // by address of the private listener
	streams map[string]*edge // of TCP, by the name of the socket: "tcp :6379", or a private address
	// certificates of hosts that are served over HTTPS, by normalHost.
	certificates map[string]secureHost
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
	home   int    // the arm that takes over what the candidate may not have: the first that is stable; -1 = none
	trial  *trial // nil when no candidate of a running trial is behind the edge
	// judged: the answers are evidence. Those to a candidate's own calls are not, because the user's
	// request behind them is judged already.
	judged bool
	series *series // counts of requests that came to no arm
}

// arm is one backend of an edge with its endpoints.
type arm struct {
	spillway.Backend
	name      string      // Backend.Name
	title     string      // what the X-Spillway-Release header says
	candidate bool        // of the trial, be it for stable or for another track
	baseline  bool        // what the candidate is compared with
	endpoints []*endpoint // that may get requests, as of this routing
	tally     *tally
	series    *series
}

// external reports whether the arm is servers by URL.
func (a *arm) external() bool { return len(a.URLs) > 0 }

// stable reports whether the arm is of the stable track, and not tried for it.
func (a *arm) stable() bool { return a.Track == "" && !a.external() && !a.candidate }

// titleOf is what the X-Spillway-Release header says: the number of a release, or the track of servers by URL.
func titleOf(b spillway.Backend) string {
	if len(b.URLs) > 0 {
		return b.Track
	}
	return strconv.Itoa(b.Release)
}

func (e *edge) private() bool { return e.spec.From != (spillway.Group{}) }

// sticky reports whether users without a key get a cookie, because something is divided. plane.mu is held.
func (a *app) sticky() bool {
	return slices.ContainsFunc(a.table.Route.Edges, divides) || slices.ContainsFunc(a.table.Route.Rules, dividesUsers)
}

// newEdge puts an edge of a table together. ready holds the open replicas by Backend.Name. plane.mu is held.
func newEdge(a *app, spec spillway.Edge, ready map[string][]*endpoint) *edge {
	trial := a.table.Route.Trial
	e := &edge{app: a, spec: spec, cohort: a.table.Cohort, home: -1, series: a.series(spec, nil)}
	for i, b := range spec.Backends {
		name := b.Name(spec.Service)
		next := arm{Backend: b, name: name, title: titleOf(b), endpoints: ready[name], tally: a.tally(name), series: a.series(spec, &b)}
		for _, server := range b.URLs {
			next.endpoints = append(next.endpoints, a.plane.endpoints[endpointKey{a.ref, name, server}])
		}
		if trial != nil {
			next.candidate = slices.Contains(trial.Candidate, b.Group)
			next.baseline = next.stable() && b.Release == trial.Stable
		}
		if next.candidate {
			e.trial = a.trial
		}
		if e.home < 0 && next.stable() {
			e.home = i
		}
		e.arms = append(e.arms, next)
	}
	e.judged = e.trial != nil && !(e.private() && slices.Contains(trial.Candidate, spec.From))
	return e
}

// divides reports whether the users of an edge, or those whom a rule sends to one track, go to several backends.
func divides(e spillway.Edge) bool {
	all, within := 0, 0
	for _, b := range e.Backends {
		if b.Weight > 0 {
			all++
		}
		if b.Within > 0 {
			within++
		}
	}
	return all > 1 || (within > 1 && len(e.Rules) > 0)
}

// tripped reports whether the candidate of this edge has been taken out of the route.
func (e *edge) tripped() bool { return e.trial != nil && e.home >= 0 && e.trial.harmful.Load() }

// tripped reports whether the candidate of the app has been taken out of the route, at some edge. plane.mu is held.
func (a *app) tripped() bool {
	return slices.ContainsFunc(a.table.Route.Edges, func(spec spillway.Edge) bool { return newEdge(a, spec, nil).tripped() })
}

// outrun reports whether a table would undo a trip: it ends the trial whose candidate was taken out of
// the route, and gives that candidate users all the same. Whoever made it did not know of the trip yet,
// and may have meant to promote. What the candidate's own groups call, and hosts that lead to one track
// or to the standby only, do not matter: a way back may leave them. plane.mu is held.
func (a *app) outrun(t spillway.Table) bool {
	trial := a.table.Route.Trial
	if trial == nil || t.Route.Over >= trial.ID || (t.Route.Trial != nil && t.Route.Trial.ID == trial.ID) || !a.tripped() {
		return false
	}
	return slices.ContainsFunc(t.Route.Edges, func(e spillway.Edge) bool {
		if e.Only != "" || slices.Contains(trial.Candidate, e.From) {
			return false
		}
		return slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool {
			ruled := slices.ContainsFunc(e.Rules, func(r spillway.Rule) bool { return r.Track == b.Track && (b.Track != "" || b.Within > 0) })
			return slices.Contains(trial.Candidate, b.Group) && (b.Weight > 0 || ruled)
		})
	})
}

// weight is the weight of an arm as it is served: that of a tripped candidate is 0, and home has it instead.
func (e *edge) weight(i int) spillway.Share {
	a := &e.arms[i]
	switch {
	case !e.tripped():
		return a.Weight
	case a.candidate:
		return 0
	}
	w := a.Weight
	if i == e.home {
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
		if within := s.Backends[i].Within; e.arms[i].candidate && e.tripped() {
			s.Backends[i].Within = 0
			s.Backends[e.home].Within += within
		}
	}
	return s
}

// odds is the weight with which an answer is judged: how likely it was that a user who was dealt to the
// candidate or to the baseline was dealt to the candidate. Other arms are no evidence, so their weight
// counts for nothing: beside a track with 20 %, a candidate with 5 % and a baseline with 75 % have odds
// of 5 to 80, 625 buckets. 0 = nothing was dealt at random: there is no candidate, or the user chose the
// candidate by its host.
//
// It is rounded up. The judge takes an error on the candidate for less surprising the larger the weight
// was, so a weight that is a little too large can only hide harm, never invent it: with 2/3 taken for
// 6,667 buckets the evidence stays below what Ville's inequality speaks of. It reaches Whole only when
// there is no baseline, because weights are whole buckets.
func (e *edge) odds() spillway.Share {
	var candidate, baseline spillway.Share
	for i, a := range e.arms {
		switch {
		case a.candidate:
			candidate += e.weight(i)
		case a.baseline:
			baseline += e.weight(i)
		}
	}
	if candidate == 0 || (baseline == 0 && e.spec.Only != "") {
		return 0
	}
	return (candidate*spillway.Whole + candidate + baseline - 1) / (candidate + baseline)
}

// arm gives the arm that a bucket belongs to. The last arm has the lowest buckets, the first the highest:
// a candidate of weight w, which comes last, has the buckets [0, w), so raising w moves nobody back, and
// nobody of a track, which comes first, at all.
func (e *edge) arm(bucket spillway.Share) int {
	upTo := spillway.Share(0)
	for i := len(e.arms) - 1; i > 0; i-- {
		if upTo += e.weight(i); bucket < upTo {
			return i
		}
	}
	return 0
}

// track gives the arm of a track ("" = stable and its candidate) to which a rule sends a user of the bucket, and
// with which weight the answer is judged: 0 unless the track has the candidate and the baseline, which then
// divide its users at random. -1 when the track has no arm here. A tripped candidate's place is taken by home.
func (e *edge) track(name string, bucket spillway.Share) (i int, weight spillway.Share) {
	i = -1
	upTo, candidate, baseline := spillway.Share(0), spillway.Share(0), false
	for j := len(e.arms) - 1; j >= 0; j-- { // as in arm: the last has the lowest buckets
		a := &e.arms[j]
		if a.Track != name || a.external() && name == "" {
			continue
		}
		if a.candidate {
			candidate += a.Within
		}
		baseline = baseline || a.baseline
		before := upTo
		if upTo += a.Within; i < 0 || before <= bucket && a.Within > 0 {
			i = j
		}
	}
	if i >= 0 && e.arms[i].candidate && e.tripped() {
		i = e.home
	}
	if !baseline || e.tripped() {
		candidate = 0
	}
	return i, candidate
}

// chosen gives the arm that a rule of the edge sends the request to, and the weight of its answer as evidence: see
// track. The first rule that fits counts, among those whose track has an arm here; -1 when none does.
func (e *edge) chosen(c *call, bucket spillway.Share) (i int, weight spillway.Share) {
	for _, rule := range e.spec.Rules {
		if fits(rule.Match, c) {
			if i, weight := e.track(rule.Track, bucket); i >= 0 {
				return i, weight
			}
		}
	}
	return -1, 0
}

// fits reports whether a request carries the header or cookie with the value of the match.
func fits(m spillway.Match, c *call) bool {
	values := c.header.All
	if m.Kind == "cookie" {
		values = c.header.Cookies
	}
	for v := range values(m.Name) {
		if m.Value == "*" || m.Value == v {
			return true
		}
	}
	return false
}

// stands reports whether the arm i of another track has no endpoint left, and one of stable can stand in.
func (e *edge) stands(i int, failed []*endpoint) bool {
	return !e.arms[i].stable() && !e.arms[i].able(failed) && e.instead(i, failed) >= 0
}

// able reports whether the arm has an endpoint left for a request that those in failed have failed.
func (a *arm) able(failed []*endpoint) bool {
	return slices.ContainsFunc(a.endpoints, func(e *endpoint) bool { return !e.closed.Load() && !slices.Contains(failed, e) })
}

// instead is the arm that stands in for the arm i, which has no endpoint: the first other one of the
// stable track that has one. Of those with weight 0 only home does. Nothing stands in for servers by URL,
// whose users may know nothing of ours, nor on an edge of one track, whose users asked for it. -1 when
// there is none.
func (e *edge) instead(i int, failed []*endpoint) int {
	if e.arms[i].external() || e.spec.Only != "" {
		return -1
	}
	for j := range e.arms {
		a := &e.arms[j]
		if j != i && a.stable() && (j == e.home || a.Weight > 0) && a.able(failed) {
			return j
		}
	}
	return -1
}

// normalHost is the name in a Host header, as hosts are looked up: lower case, without port and
// trailing dot. "" for what is no host.
func normalHost(host string) string {
	if strings.ContainsAny(host, ":[]") { // most have none, and an error about that has its price
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		} else {
			host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
