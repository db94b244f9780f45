package counts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	awaited  bool      // the candidate has a public service to which the route does not lead yet

	state    judge.State
	seen     map[string]instance        // by name of the instance
	asked    time.Time                  // of the last reading
	verdict  spillway.Verdict           // the last one
	at       time.Time                  // since when
	lost     string                     // why there is no data, in words; "" = there is
	down     time.Time                  // since when the source has not answered; zero = it does
	some     string                     // instances that do not answer while others do, in words
	quiet    bool                       // no backend of the app has ever been seen
	touching bool                       // the last reading brought answers
	missing  map[string]missing         // by instance and rule
	shared   map[string]map[string]bool // rules that stable was seen behind, by service
	first    time.Time                  // when the candidate was first seen to answer
	untimed  bool                       // there are gates on latency that cannot be judged here
	bounds   []time.Duration            // of the gateway's histogram
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
	First    time.Time           `json:"first,omitzero"` // see trial
}

const memoryVersion = 1

// newTrial starts from the memory in terms, if it is of this trial, else from nothing. A memory that cannot be
// read is given back as error together with a usable trial.
func newTrial(flavour Flavour, terms spillway.Trial) (*trial, error) {
	t := &trial{flavour: flavour, terms: terms, state: judge.New(terms.ID), seen: map[string]instance{}, missing: map[string]missing{}, shared: map[string]map[string]bool{}, verdict: spillway.NoTraffic, quiet: true}
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
	t.state, t.services, t.verdict, t.at, t.first = m.State, m.Services, m.Verdict, m.At, m.First
	t.quiet = t.state.Candidate.Requests+t.state.Stable.Requests == 0
	for name, i := range m.Seen {
		t.seen[name] = i
	}
	return t, nil
}

// mostMemory is how large a memory may be. It is in the status of an App, which a cluster keeps small, and what the
// counters of a hundred instances were is larger than all of that may be.
const mostMemory = 128 << 10

// memory is the whole trial, stored. A large one is without what was seen: who goes on from it does not count what is
// answered until it looks itself.
func (t *trial) memory() json.RawMessage {
	m := memory{
		Version: memoryVersion, Trial: t.terms.ID, State: t.state, Services: t.services, Seen: t.seen, Verdict: t.verdict, At: t.at, First: t.first,
	}
	text, err := json.Marshal(m)
	if len(text) > mostMemory {
		m.Seen = nil
		text, err = json.Marshal(m)
	}
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

// follow takes over a newer route. times: the source has a histogram.
func (t *trial) follow(r Route, times bool) (c changes, err error) {
	pairs, err := pairsOf(r)
	if err != nil {
		return c, err
	}
	t.terms = *r.Route.Trial
	t.terms.Memory, t.terms.Users = nil, 0 // who asks is not known, so Budget counts
	if t.untimed = !times && len(t.terms.Latency) > 0; t.untimed {
		t.terms.Latency = nil // so that the judge does not wait for what nobody brings
	}
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
	t.pairs, t.services, t.since, t.awaited = pairs, services, since, len(pairs) == 0 && divides(r.Route)
	return c, nil
}

// names adds what the trial wants to know.
func (t *trial) names(want *wanted) {
	for _, s := range t.services {
		for _, n := range t.flavour.names(s) {
			want.names[n] = true
		}
	}
	want.times = want.times || len(t.terms.Latency) > 0
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
	was, _, _ := strings.Cut(lost, ":")
	is, _, _ := strings.Cut(t.lost, ":")
	return t.touching || t.verdict != before || is != was
}

// errUnheard is that a reading says nothing.
var errUnheard = errors.New("nobody answered")

// hear keeps whether the source answers. What some instances have counted is a fair sample, because requests are dealt to
// instances whatever release they get: so the others are told of and judged without, unless they are the most.
func (t *trial) hear(r reading, patience time.Duration) error {
	t.some = ""
	if n := len(r.failed); n > 0 && len(r.instances) > 0 {
		t.some = fmt.Sprintf("; %d of %d instances of the gateway cannot be read, and their requests are not in this: %s", n, n+len(r.instances), r.failure())
	}
	gone := len(r.instances) == 0 && len(r.failed) == 0 && !t.quiet // a Prometheus that has lost the gateway
	most := len(r.failed) > len(r.instances)
	if !most && !gone {
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
		what, why := "the counters of the gateway", r.failure()
		if gone {
			why = "prometheus has none of it any more"
		}
		if len(r.instances) > 0 {
			what = fmt.Sprintf("the counters of %d of %d instances of the gateway", len(r.failed), len(r.failed)+len(r.instances))
		}
		t.lost = fmt.Sprintf("%s cannot be read since %s: %s", what, t.down.UTC().Format("15:04:05 UTC"), why)
	}
	if len(r.instances) > 0 {
		return nil
	}
	return errUnheard
}

// count makes batches of what the counters have grown by.
func (t *trial) count(r reading) {
	arms := t.arms()
	r.instances = t.about(r, arms)
	batches := make([][kinds]judge.Batch, len(t.pairs))
	var usual judge.Times // of stable until now, also from before the trial
	for name, now := range r.instances {
		t.share(t.rules(now.Counters, arms))
		t.share(t.rules(t.seen[name].Counters, arms)) // the first time it is what was remembered
	}
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
		rules := t.rules(now.Counters, arms)
		for _, u := range rules {
			usual, _ = usual.Plus(now.timesOf(u.baseline))
		}
		if t.seen[name] = now; !known {
			continue
		}
		steady := !t.since.IsZero() && !t.since.After(before.At)
		grown := now.since(before)
		for _, u := range rules {
			candidate, stable := sum(grown, u.candidate), sum(grown, u.baseline)
			if _, ok := now.Counters[u.name]; ok && !t.pairs[u.pair].crowded {
				t.loose(name, u, grown, &candidate, &stable)
			}
			into := &batches[u.pair][t.kind(u, candidate, steady)]
			into.Candidate, into.Stable = into.Candidate.Plus(candidate), into.Stable.Plus(stable)
			if t.warm(r.at, candidate.Requests > 0) {
				into.CandidateTimes, _ = into.CandidateTimes.Plus(now.timesSince(before, u.candidate))
				into.StableTimes, _ = into.StableTimes.Plus(now.timesSince(before, u.baseline))
			}
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
	if len(t.terms.Latency) > 0 {
		t.state, t.bounds = t.state.Fix(usual.Usual()), usual.Bounds // for the batches that come
	}
	maps.DeleteFunc(t.seen, func(_ string, i instance) bool { return !i.At.IsZero() && r.at.Sub(i.At) > forgotten })
	t.asked = r.at
	if t.quiet && len(t.pairs) > 0 {
		t.lost = t.silence(r.known)
	}
}

// about is what the instances of a reading have counted of the Services of the trial, and of all behind their rules.
func (t *trial) about(r reading, arms map[string]arm) map[string]instance {
	clusters := map[string]bool{}
	for name := range arms {
		for _, cluster := range r.index.named[name] {
			clusters[cluster] = true
			for _, form := range t.flavour.forms(cluster) {
				if form.name != name || form.rule == "" {
					continue
				}
				clusters[form.rule] = true
				for _, other := range r.index.behind[form.rule] {
					clusters[other] = true
				}
			}
		}
	}
	all := map[string]instance{}
	for name, i := range r.instances {
		all[name] = i.only(clusters)
	}
	return all
}

// warm reports whether answers say something about latency: the candidate has answered for as long as it may take
// to warm up. answers: it has some just now.
func (t *trial) warm(now time.Time, answers bool) bool {
	if t.first.IsZero() && answers {
		t.first = now
	}
	warmup := time.Duration(t.terms.Warmup)
	return warmup <= 0 || !t.first.IsZero() && !now.Before(t.first.Add(warmup))
}
