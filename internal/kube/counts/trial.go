package counts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

const (
	// settle is how long after the gateway acknowledged a route requests that were dealt before may be answered.
	settle = time.Second
	// forgotten is after what time an instance that does not answer any more is taken for gone.
	forgotten = time.Hour
)

// trial is the evidence about one candidate, and how far the counters have been read. It is pure: readings come
// in the order in which they were made, with their time.
type trial struct {
	flavour  Flavour
	terms    spillway.Trial // without Memory
	pairs    []pair
	since    time.Time // since when the gateway deals requests as pairs says; zero = it is not known to
	services []Service // of pairs, sorted

	state    judge.State
	seen     map[string]instance // by name of the instance
	asked    time.Time           // of the last reading
	verdict  spillway.Verdict    // the last one
	at       time.Time           // since when
	lost     string              // why there is no data, in words; "" = there is
	down     time.Time           // since when the source has not answered; zero = it does
	some     string              // instances that do not answer while others do, in words
	quiet    bool                // no backend of the app has ever been seen
	touching bool                // the last reading brought answers
	missing  map[string]missing  // by instance and rule
}

// pair is the candidate and what it is compared with, of one public service.
type pair struct {
	service   string
	candidate []Service
	baseline  []Service
	weight    spillway.Share // as judge.Batch.Weight
	crowded   bool           // other backends are behind the edge too: those of a track
	dealt     judge.Tally    // Requests of both since trial.since; Failures are the candidate's requests among them
}

// memory is a trial as it is stored.
type memory struct {
	Version  int                 `json:"version"` // 1
	Trial    int64               `json:"trial"`
	State    judge.State         `json:"state"`
	Services []Service           `json:"services"` // for which Seen was read
	Seen     map[string]instance `json:"seen"`
	Verdict  spillway.Verdict    `json:"verdict"`
	At       time.Time           `json:"at,omitzero"`
}

const memoryVersion = 1

// newTrial starts from the memory in terms, if it is of this trial, else from nothing. A memory that cannot be
// read is given back as error together with a usable trial.
func newTrial(flavour Flavour, terms spillway.Trial) (*trial, error) {
	t := &trial{flavour: flavour, terms: terms, state: judge.New(terms.ID), seen: map[string]instance{}, missing: map[string]missing{}, verdict: spillway.NoTraffic, quiet: true}
	t.terms.Memory = nil
	if len(terms.Memory) == 0 {
		return t, nil
	}
	var m memory
	if err := json.Unmarshal(terms.Memory, &m); err != nil {
		return t, fmt.Errorf("memory of trial %d: %w", terms.ID, err)
	}
	if m.Version != memoryVersion {
		return t, fmt.Errorf("memory of trial %d has version %d, this program knows %d: %w", terms.ID, m.Version, memoryVersion, spillway.ErrInvalid)
	}
	if m.Trial != terms.ID || m.State.Trial != terms.ID {
		return t, nil
	}
	t.state, t.services, t.verdict, t.at = m.State, m.Services, m.Verdict, m.At
	t.quiet = t.state.Candidate.Requests+t.state.Stable.Requests == 0
	for name, i := range m.Seen {
		t.seen[name] = i
	}
	return t, nil
}

// memory is the whole trial, stored.
func (t *trial) memory() json.RawMessage {
	text, err := json.Marshal(memory{
		Version: memoryVersion, Trial: t.terms.ID, State: t.state, Services: t.services, Seen: t.seen, Verdict: t.verdict, At: t.at,
	})
	if err != nil {
		panic(err) // numbers and strings always marshal: judge keeps its floats finite
	}
	return text
}

// changes is what a newer route changed for a trial.
type changes struct {
	dealing bool // or since when
	more    bool // there are backends that nobody has looked for
}

// follow takes over a newer route.
func (t *trial) follow(r Route) (c changes, err error) {
	pairs, err := pairsOf(r)
	if err != nil {
		return c, err
	}
	t.terms = *r.Route.Trial
	t.terms.Memory, t.terms.Users = nil, 0 // who asks is not known, so Budget counts
	var services []Service
	for _, p := range pairs {
		services = append(append(services, p.candidate...), p.baseline...)
	}
	slices.SortFunc(services, func(a, b Service) int { return strings.Compare(a.String(), b.String()) })
	since := r.Acknowledged
	if !since.IsZero() {
		since = since.Add(settle)
	}
	same := reflect.DeepEqual(dealing(pairs), dealing(t.pairs))
	if same && !t.since.IsZero() {
		pairs, since = t.pairs, t.since // whatever else changed, requests are dealt as before
	}
	c.dealing = !same || !since.Equal(t.since)
	c.more = slices.ContainsFunc(services, func(s Service) bool { return !slices.Contains(t.services, s) })
	if c.more {
		clear(t.seen) // what the new ones have counted so far is not known
	}
	t.pairs, t.services, t.since = pairs, services, since
	return c, nil
}

// dealing is how requests are dealt, without what was counted.
func dealing(pairs []pair) []pair {
	plain := slices.Clone(pairs)
	for i := range plain {
		plain[i].dealt = judge.Tally{}
	}
	return plain
}

// pairsOf finds what is compared at the public edges of a route, by the rule of Spillway's own proxy: the
// groups of the candidate with those of the stable release, weights of others left out. Hosts that always lead to
// one track deal nothing at random; what they count is counted.
func pairsOf(r Route) ([]pair, error) {
	trial := r.Route.Trial
	byService := map[string]*pair{}
	for _, e := range r.Route.Edges {
		if e.From != (spillway.Group{}) || e.Protocol == spillway.TCP {
			continue
		}
		p := byService[e.Service]
		if p == nil {
			p = &pair{service: e.Service}
			byService[e.Service] = p
		}
		var candidate, baseline spillway.Share
		for _, b := range e.Backends {
			tried := slices.Contains(trial.Candidate, b.Group)
			compared := !tried && len(b.URLs) == 0 && b.Track == "" && b.Release == trial.Stable
			if !tried && !compared {
				p.crowded = true
				continue
			}
			name := b.Name(e.Service)
			s, ok := r.Services[name]
			switch {
			case !ok:
				return nil, fmt.Errorf("no Service is known for %s: %w", name, spillway.ErrInvalid)
			case tried:
				candidate += b.Weight
				p.candidate = include(p.candidate, s)
			default:
				baseline += b.Weight
				p.baseline = include(p.baseline, s)
			}
		}
		if e.Only == "" && candidate > 0 {
			p.weight = (candidate*spillway.Whole + candidate + baseline - 1) / (candidate + baseline)
		}
	}
	var pairs []pair
	for _, service := range slices.Sorted(maps.Keys(byService)) {
		if p := byService[service]; len(p.candidate) > 0 {
			pairs = append(pairs, *p)
		}
	}
	return pairs, nil
}

// include adds a Service that is not in the list.
func include(list []Service, s Service) []Service {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// names adds the names by which the gateway may know the Services of the trial.
func (t *trial) names(want wanted) {
	for _, s := range t.services {
		for _, n := range t.flavour.names(s) {
			want[n] = true
		}
	}
}

// arm is one side of a pair.
type arm struct {
	pair      int
	candidate bool
}

// arms finds the side that a name of a Service belongs to.
func (t *trial) arms() map[string]arm {
	arms := map[string]arm{}
	for i, p := range t.pairs {
		for _, s := range p.candidate {
			for _, n := range t.flavour.names(s) {
				arms[n] = arm{i, true}
			}
		}
		for _, s := range p.baseline {
			for _, n := range t.flavour.names(s) {
				arms[n] = arm{i, false}
			}
		}
	}
	return arms
}

// take weighs what a reading brings, and reports whether somebody wants to know.
func (t *trial) take(r reading, patience time.Duration) (news bool) {
	before, lost := t.verdict, t.lost
	t.touching = false
	if err := t.hear(r, patience); err == nil {
		t.count(r)
	}
	e := t.evidence()
	if e.Verdict != t.verdict || t.at.IsZero() {
		t.verdict, t.at = e.Verdict, r.at
	}
	return t.touching || t.verdict != before || (t.lost == "") != (lost == "")
}

// errUnheard is that a reading says nothing.
var errUnheard = errors.New("nobody answered")

// hear keeps whether the source answers.
func (t *trial) hear(r reading, patience time.Duration) error {
	t.some = ""
	if len(r.failed) > 0 && len(r.instances) > 0 {
		t.some = fmt.Sprintf("; %d of %d instances of the gateway cannot be read", len(r.failed), len(r.failed)+len(r.instances))
	}
	gone := len(r.instances) == 0 && len(r.failed) == 0 && !t.quiet // a Prometheus that has lost the gateway
	if len(r.instances) > 0 || len(r.failed) == 0 && !gone {
		t.down, t.lost = time.Time{}, ""
		return nil
	}
	if t.down.IsZero() {
		t.down = r.at
		if !t.asked.IsZero() {
			t.down = t.asked
		}
	}
	if t.lost != "" || t.asked.IsZero() || r.at.Sub(t.down) >= patience {
		why := "prometheus has none of it any more"
		if !gone {
			first := slices.Min(slices.Collect(maps.Keys(r.failed)))
			why = first + ": " + r.failed[first]
		}
		t.lost = fmt.Sprintf("the counters of the gateway cannot be read since %s: %s", t.down.UTC().Format("15:04:05 UTC"), why)
	}
	return errUnheard
}

// count makes batches of what the counters have grown by.
func (t *trial) count(r reading) {
	arms := t.arms()
	batches := make([][kinds]judge.Batch, len(t.pairs))
	for _, name := range slices.Sorted(maps.Keys(r.instances)) {
		now := r.instances[name]
		t.quiet = t.quiet && len(now.Counters) == 0
		before, known := t.seen[name]
		if r.lagging {
			now.At = t.asked // it was read after that, if it is not what was read before
			if known && maps.Equal(now.Counters, before.Counters) {
				now.At = before.At
			}
		}
		if t.seen[name] = now; !known {
			continue
		}
		steady := !t.since.IsZero() && !t.since.After(before.At)
		grown := now.since(before)
		for _, u := range t.rules(now.Counters, arms) {
			candidate, stable := sum(grown, u.candidate), sum(grown, u.baseline)
			if _, ok := now.Counters[u.name]; ok && !t.pairs[u.pair].crowded {
				t.loose(name, u, grown, &candidate, &stable)
			}
			into := &batches[u.pair][t.kind(u, candidate, steady)]
			into.Candidate, into.Stable = into.Candidate.Plus(candidate), into.Stable.Plus(stable)
		}
	}
	for i := range t.pairs {
		batches[i][dealt].Weight = t.pairs[i].odds(batches[i][dealt])
		batches[i][moved].Weight = spillway.Whole
		for _, b := range batches[i] {
			if b.Candidate.Requests+b.Stable.Requests > 0 {
				t.state, t.touching = t.state.ObserveBatch(b, t.terms), true
			}
		}
	}
	maps.DeleteFunc(t.seen, func(_ string, i instance) bool { return !i.At.IsZero() && r.at.Sub(i.At) > forgotten })
	t.asked = r.at
	if t.quiet {
		t.lost = t.silence(r.known)
	}
}

// The kinds of batches.
const (
	dealt  = iota // by the weight of the pair
	moved         // by a weight, which was another for a part of the batch, or there is nothing to compare with
	chosen        // by a header: the rule leads to one side only
	kinds
)

// kind is that of a batch of a rule. steady: the weight was the same all the time.
func (t *trial) kind(u *rule, candidate judge.Tally, steady bool) int {
	both := len(u.baseline) > 0 && (len(u.candidate) > 0 || candidate.Requests > 0)
	switch {
	case t.pairs[u.pair].weight == spillway.Whole || both && !steady:
		return moved
	case both && t.pairs[u.pair].weight > 0:
		return dealt
	}
	return chosen
}

// rule is one rule of the gateway with the clusters of a pair behind it that have been seen. A rule that has
// both sides deals requests to them; behind one that has the candidate alone, it was chosen.
type rule struct {
	name                string
	pair                int
	candidate, baseline []string
	all                 []string // those that are no side of a pair too
}

// rules finds the rules behind which the clusters are, each with its pair.
func (t *trial) rules(counters map[string]judge.Tally, arms map[string]arm) map[string]*rule {
	found := map[string]*rule{}
	for cluster := range counters {
		for _, form := range t.flavour.forms(cluster) {
			a, ok := arms[form.name]
			if !ok {
				continue
			}
			key := fmt.Sprint(form.rule, " ", a.pair)
			if found[key] == nil {
				found[key] = &rule{name: form.rule, pair: a.pair}
			}
			if a.candidate {
				found[key].candidate = append(found[key].candidate, cluster)
			} else {
				found[key].baseline = append(found[key].baseline, cluster)
			}
			break
		}
	}
	for cluster := range counters {
		for _, u := range found {
			if slices.ContainsFunc(t.flavour.forms(cluster), func(f form) bool { return f.rule == u.name && f.name != cluster }) {
				u.all = append(u.all, cluster)
			}
		}
	}
	return found
}

// sum adds the tallies of clusters.
func sum(tallies map[string]judge.Tally, clusters []string) (s judge.Tally) {
	for _, c := range clusters {
		s = s.Plus(tallies[c])
	}
	return s
}

// missing are the failures of a rule that no backend of it has.
type missing struct {
	sum, last int64 // now, and at the reading before
	told      int64 // of these, given to a side or to nobody
}

// loose gives the failures of a rule that no backend got to the side that stands still while the other answers:
// it has no endpoints. If both answer they are nobody's, and if both stand still they wait. A rule and its backends
// are not counted in the same moment, so only those count that were missing at the reading before as well. When
// they are more than the candidate's share, it is not the candidate that is missing.
func (t *trial) loose(instance string, u *rule, grown map[string]judge.Tally, candidate, stable *judge.Tally) {
	key := instance + " " + u.name
	m := t.missing[key]
	m.sum += grown[u.name].Failures - sum(grown, u.all).Failures
	n := min(m.sum, m.last) - m.told
	m.last = m.sum
	lost, weight := judge.Tally{Requests: n, Failures: n}, t.pairs[u.pair].weight
	chosen := len(u.baseline) == 0 && weight < spillway.Whole // a rule that leads to the candidate alone
	if n > 0 && (chosen || candidate.Requests+stable.Requests > 0 || weight == spillway.Whole) {
		m.told += n
		switch {
		case candidate.Requests > 0 && stable.Requests == 0 && len(u.baseline) > 0:
			*stable = stable.Plus(lost)
		case candidate.Requests > 0:
		case len(u.baseline) == 0 || !excessive(n, n+stable.Requests, weight):
			*candidate = candidate.Plus(lost)
		}
	}
	t.missing[key] = m
}

// excessive reports whether so many of all requests are more than chance gives the candidate at a weight.
func excessive(got, all int64, weight spillway.Share) bool {
	n, w := float64(all), float64(weight)/float64(spillway.Whole)
	return float64(got) > n*w+4*math.Sqrt(n*w*(1-w))+3
}

// odds is the weight with which a batch is compared: the one that was asked for, unless the candidate gets
// more than chance makes of it. Then others reach it too, by a header or at a part of the gateway that still
// serves an older route, and the share that it has is what an error hits it with if it is no worse.
func (p *pair) odds(b judge.Batch) spillway.Share {
	p.dealt.Requests += b.Candidate.Requests + b.Stable.Requests
	p.dealt.Failures += b.Candidate.Requests
	if p.weight == 0 || p.weight >= spillway.Whole || p.dealt.Requests == 0 {
		return p.weight
	}
	if !excessive(p.dealt.Failures, p.dealt.Requests, p.weight) {
		return p.weight
	}
	share := math.Ceil(float64(p.dealt.Failures) / float64(p.dealt.Requests) * float64(spillway.Whole))
	return min(max(p.weight, spillway.Share(share)), spillway.Whole-1)
}

// silence says why no backend of the app has been seen.
func (t *trial) silence(known bool) string {
	var looked []string
	for _, s := range t.services {
		looked = append(looked, s.String())
	}
	what := fmt.Sprintf("the gateway answers, but counts nothing for %s", strings.Join(looked, " and "))
	switch {
	case known:
		return what + ": either nobody has asked for them since it started, or their requests do not come through it"
	case t.flavour == Traefik:
		return what + " and has no " + t.flavour.metric() + ": either nobody has asked it anything, or its metrics are without addServicesLabels"
	}
	return what + " and has no " + t.flavour.metric() + ": either nobody has asked it anything, or it is no " + string(t.flavour)
}

// evidence says what the trial shows now. A verdict of harm stays when the data are lost; any other one is
// NoData then.
func (t *trial) evidence() spillway.Evidence {
	terms := t.terms
	terms.Latency = nil // so that the judge does not promise what nobody will bring
	e := t.state.Evidence(terms)
	e.At = t.at
	switch {
	case e.Verdict == spillway.Harmful:
		return e
	case t.lost != "":
		e.Verdict, e.Reason = spillway.NoData, t.lost
		return e
	case t.asked.IsZero():
		if e.Reason = "the counters of the gateway have not been read yet"; e.Verdict == spillway.Certified {
			e.Verdict = spillway.Undecided // it was, before this program began
		}
		return e
	case e.Verdict == spillway.NoTraffic && e.Baseline > 0:
		e.Reason += fmt.Sprintf(", release %d %d", t.terms.Stable, e.Baseline)
	}
	if len(t.terms.Latency) > 0 {
		e.Reason += "; its latency is not judged: only counters of the gateway are known"
	}
	e.Reason += t.some
	return e
}
