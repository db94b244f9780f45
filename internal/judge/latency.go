package judge

import (
	"encoding/json"
	"time"

	"github.com/spillway-dev/spillway"
)

// quantiles are those of stable's times that the candidate's are compared at, in percent.
var quantiles = [...]int{50, 75, 90, 95, 99}

// limitQuantile is the quantile of an absolute gate that names none.
const limitQuantile = 95

// Pace is the evidence that answers of the candidate are slower than one threshold too often. It is a
// Comparison, with "was slower than the threshold" in the place of "failed".
//
// Against stable the question is "which release did this slow answer hit?", and only answers that were
// dealt at random count. Against an absolute limit it is "was this answer of the candidate slow?", which
// it may be with probability 1 - quantile; that takes the place of the weight, and all its answers count.
// Worked example: p95 < 300ms, r = 40: a slow answer multiplies the evidence by 40 / (1 + 5 % 39) = 13.6
// and a quick one by 1 / 2.95.
type Pace struct {
	Gate       spillway.Slower `json:"gate"`      // whose term it is; zero = unused
	Threshold  int             `json:"threshold"` // which of State.Thresholds; 0 for an absolute gate
	Tally                      // the candidate's answers that counted; Failures are those that were slower
	Comparison Comparison      `json:"comparison"`
}

// Latency are the terms of all gates on latency of a trial, in the order in which they first appeared in
// it. A place belongs to the same term for the whole trial, so that the bits of State.Slow mean the same
// when gates come and go. Three gates that compare all five quantiles fit, or sixteen of one.
type Latency [16]Pace

// MarshalJSON leaves out the unused places.
func (l Latency) MarshalJSON() ([]byte, error) {
	n := 0
	for n < len(l) && l[n].Gate != (spillway.Slower{}) {
		n++
	}
	return json.Marshal(l[:n])
}

// enrol gives each term of the trial a place, and returns the places of the terms that count now as a
// set of bits. Terms beyond the last place, and gates that say nothing, are not judged.
func (l *Latency) enrol(t *spillway.Trial) (places uint64) {
	for _, g := range t.Latency {
		for j, q := range quantiles {
			relative := g.Factor > 0 && (g.Quantile == 0 || g.Quantile == q)
			absolute := g.Factor <= 0 && g.Limit > 0 && j == 0
			if relative || absolute {
				places |= l.place(g, j)
			}
		}
	}
	return places
}

// place is the bit of one term, 0 if there is no place for it.
func (l *Latency) place(g spillway.Slower, threshold int) uint64 {
	for i := range l {
		p := &l[i]
		if p.Gate == (spillway.Slower{}) {
			*p = Pace{Gate: g, Threshold: threshold, Comparison: newComparison()}
		}
		if p.Gate == g && p.Threshold == threshold {
			return 1 << i
		}
	}
	return 0
}

// value is the weighted mean of the terms in places, 0 when there are none. All terms of a gate together
// weigh as much as the one term of another.
func (l *Latency) value(places uint64) float64 {
	sum, weights := 0.0, 0.0
	for i := range l {
		if places>>i&1 == 0 {
			continue
		}
		weight := 1.0
		if l[i].relative() && l[i].Gate.Quantile == 0 {
			weight = 1 / float64(len(quantiles))
		}
		sum += weight * l[i].value()
		weights += weight
	}
	if weights == 0 {
		return 0
	}
	return sum / weights
}

// slowest is the term in places with the most evidence, nil when there are none.
func (l *Latency) slowest(places uint64) (slowest *Pace) {
	for i := range l {
		if places>>i&1 != 0 && (slowest == nil || l[i].value() > slowest.value()) {
			slowest = &l[i]
		}
	}
	return slowest
}

// relative reports whether the term compares with stable and not with a limit of its own.
func (p *Pace) relative() bool { return p.Gate.Factor > 0 }

// value is the evidence of the term; a Comparison has only a part of the joint evidence of errors.
func (p *Pace) value() float64 { return p.Comparison.value(1) / (partFromStart + partLater) }

// threshold is the time that an answer is compared with, 0 = not known yet.
func (p *Pace) threshold(candidate bool, thresholds *[len(quantiles)]time.Duration) time.Duration {
	switch {
	case !p.relative():
		return time.Duration(p.Gate.Limit)
	case candidate:
		return time.Duration(float64(thresholds[p.Threshold]) * float64(p.Gate.Factor) / 100)
	}
	return thresholds[p.Threshold]
}

// allowed is the share of the candidate's answers that may be slower than an absolute limit.
func (p *Pace) allowed() spillway.Share {
	if q := p.Gate.Quantile; q > 0 && q < 100 {
		return spillway.Percent(100 - q)
	}
	return spillway.Percent(100 - limitQuantile)
}

// observe counts one answer, and reports whether it is evidence against the candidate or stable.
func (p *Pace) observe(a *Answer, threshold time.Duration) (changed bool) {
	slow := a.Took > threshold
	if p.relative() && !a.dealt() || !p.relative() && !a.Candidate || threshold <= 0 {
		return false
	}
	if a.Candidate {
		p.Tally = p.Tally.add(slow)
	}
	switch {
	case !p.relative():
		p.Comparison = p.Comparison.observe(slow, p.allowed(), 1)
	case slow:
		p.Comparison = p.Comparison.observe(a.Candidate, a.Weight, 1)
	}
	return slow
}

// Fix returns the state with the times that the candidate's are compared with: stable's p50, p75, p90,
// p95 and p99, from before the trial or from its first answers. It does nothing when they are fixed:
// what is compared must not depend on what was seen since. Any times are fair; good ones make the test
// quick. A time of zero is not compared with.
func (s State) Fix(thresholds [5]time.Duration) State {
	if s.Thresholds == [5]time.Duration{} {
		s.Thresholds = thresholds
	}
	return s
}

// Slow tells which terms of the trial's gates on latency an answer is slower than, as a set of bits that
// mean the same for the whole trial. The caller keeps for each user those of all its answers so far, on
// either side, and gives them as Answer.SlowRepeat with the next one. So one slow account cannot pass for
// many slow answers; the price is that a user is evidence once a term, and a candidate with few users
// says little about latency, however much they ask: one that takes twice as long is caught for sure with
// a hundred users of its own and one time in three with ten (at a weight of 10 %, "latency < 1x stable").
//
// A gate on "1.5 times stable" compares the candidate with 1.5 times the threshold, so that a candidate
// within the gate is no slower than stable in it.
func (s *State) Slow(candidate bool, took time.Duration, t spillway.Trial) (terms uint64) {
	if took <= 0 || len(t.Latency) == 0 {
		return 0
	}
	l := s.Latency // a copy: who asks changes nothing
	places := l.enrol(&t)
	for i := range l {
		if places>>i&1 == 0 || !candidate && !l[i].relative() {
			continue
		}
		if threshold := l[i].threshold(candidate, &s.Thresholds); threshold > 0 && took > threshold {
			terms |= 1 << i
		}
	}
	return terms
}

// observeLatency counts one answer for all gates on latency, and reports whether it was slow for one.
// An answer to a user who had a slow one before is no evidence.
func (s *State) observeLatency(a *Answer, t *spillway.Trial) (changed bool) {
	if a.Took <= 0 || len(t.Latency) == 0 {
		return false
	}
	places := s.Latency.enrol(t) &^ a.SlowRepeat
	for i := range s.Latency {
		if places>>i&1 == 0 {
			continue
		}
		p := &s.Latency[i]
		if p.observe(a, p.threshold(a.Candidate, &s.Thresholds)) {
			changed = true
		}
	}
	return changed
}
