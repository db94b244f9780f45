package judge

import (
	"encoding/json"
	"time"

	"github.com/spillway-dev/spillway"
)

// quantiles are those of stable's times that a candidate's answers are compared with, in percent.
var quantiles = [...]int{50, 75, 90, 95, 99}

// limitQuantile is the quantile of an absolute gate that names none.
const limitQuantile = 95

// Pace is the evidence that the candidate's answers are slower than one threshold more often than
// stable's. It is the Comparison of errors with "slower than the threshold" in the place of "failed".
type Pace struct {
	Tally                 // the candidate's answers that were compared; Failures are those that were slower
	Comparison Comparison `json:"comparison"`
}

// Slowness is the evidence that the candidate breaks one gate on latency. A gate that is relative to
// stable has evidence in Paces, an absolute one in Limit.
type Slowness struct {
	Gate  spillway.Slower      `json:"gate"`
	Paces [len(quantiles)]Pace `json:"paces,omitzero"` // by quantile of stable; only those that the gate looks at
	Limit Gate                 `json:"limit,omitzero"` // of answers slower than Gate.Limit
}

// Latency is the evidence of all gates on latency of a trial, in the order in which they appeared in it;
// the rest is zero. A place belongs to the same gate for the whole trial, so that the terms that
// State.Slow speaks of stay the same when gates come and go.
type Latency [8]Slowness

// MarshalJSON leaves out the unused places.
func (l Latency) MarshalJSON() ([]byte, error) {
	n := 0
	for n < len(l) && l[n].Gate != (spillway.Slower{}) {
		n++
	}
	return json.Marshal(l[:n])
}

// enrol gives each gate of the trial a place, and returns a set of bits: the places of the gates that
// count now. Gates beyond the last place, and gates that say nothing, are not judged.
func (l *Latency) enrol(t spillway.Trial) (places uint) {
	for _, g := range t.Latency {
		if g.Factor <= 0 && g.Limit <= 0 {
			continue
		}
		for i := range l {
			if l[i].Gate == (spillway.Slower{}) {
				l[i] = newSlowness(g)
			}
			if l[i].Gate == g {
				places |= 1 << i
				break
			}
		}
	}
	return places
}

// newSlowness has no evidence.
func newSlowness(g spillway.Slower) Slowness {
	l := Slowness{Gate: g}
	if l.absolute() {
		l.Limit = newGate()
		return l
	}
	for j := range l.Paces {
		if l.looksAt(j) {
			l.Paces[j].Comparison = newComparison()
		}
	}
	return l
}

// absolute reports whether the gate compares with its own limit and not with stable.
func (l *Slowness) absolute() bool { return l.Gate.Factor <= 0 }

// looksAt reports whether a relative gate compares at quantile j.
func (l *Slowness) looksAt(j int) bool {
	return l.Gate.Quantile == 0 || l.Gate.Quantile == quantiles[j]
}

// allowed is the share of answers that an absolute gate lets be slower than its limit.
func (l *Slowness) allowed() float64 {
	q := l.Gate.Quantile
	if q <= 0 || q >= 100 {
		q = limitQuantile
	}
	return float64(100-q) / 100
}

// slower tells, one bit for each of quantiles, where an answer is slower than the gate allows. An
// absolute gate has one bit, the first, and only for the candidate.
func (l *Slowness) slower(candidate bool, took time.Duration, thresholds *[len(quantiles)]time.Duration) (terms uint64) {
	if l.absolute() {
		if candidate && took > time.Duration(l.Gate.Limit) {
			return 1
		}
		return 0
	}
	seconds := float64(took)
	if candidate {
		seconds /= float64(l.Gate.Factor) / 100
	}
	for j, threshold := range thresholds {
		if threshold > 0 && l.looksAt(j) && seconds > float64(threshold) {
			terms |= 1 << j
		}
	}
	return terms
}

// observe counts one answer, and reports whether it changed the evidence.
func (l *Slowness) observe(a Answer, thresholds *[len(quantiles)]time.Duration, repeat uint64) (changed bool) {
	slow := l.slower(a.Candidate, a.Took, thresholds)
	if l.absolute() {
		if !a.Candidate || repeat&1 != 0 {
			return false
		}
		l.Limit = l.Limit.observe(slow != 0, l.allowed())
		return slow != 0
	}
	if !a.dealt() {
		return false
	}
	for j := range l.Paces {
		if !l.looksAt(j) || thresholds[j] <= 0 || repeat>>j&1 != 0 {
			continue
		}
		p, hit := &l.Paces[j], slow>>j&1 != 0
		if a.Candidate {
			p.Tally = p.Tally.add(hit)
		}
		if hit {
			p.Comparison = p.Comparison.observe(a.Candidate, a.Weight, 1)
			changed = true
		}
	}
	return changed
}

// value is the evidence of one gate: of a relative one the mean over the quantiles that it looks at.
func (l *Slowness) value() float64 {
	if l.absolute() {
		return l.Limit.value() / (gateFromStart + gateLater)
	}
	sum, n := 0.0, 0.0
	for j := range l.Paces {
		if l.looksAt(j) {
			sum += l.Paces[j].value()
			n++
		}
	}
	return sum / max(n, 1)
}

// value is the evidence at one threshold.
func (p *Pace) value() float64 { return p.Comparison.value(1) / (partFromStart + partLater) }

// Fix returns the state with the times that the candidate's are compared with: stable's p50, p75, p90,
// p95 and p99, from before the trial or from its first answers. It does nothing when they are fixed:
// what is compared must not depend on what was seen. Any times are fair, good ones make the test quick.
func (s State) Fix(thresholds [5]time.Duration) State {
	if s.Thresholds == [5]time.Duration{} {
		s.Thresholds = thresholds
	}
	return s
}

// Slow tells which terms of the trial's latency gates an answer is slower than: a set of bits, at most
// 40, that mean the same for the whole trial. The caller keeps for each user the bits of all its answers
// so far, on either side, and gives them as Answer.SlowRepeat with the next one.
//
// A gate on "1.5 times stable" compares the candidate's time divided by 1.5, so that a candidate within
// the gate is no slower than stable in it.
func (s State) Slow(candidate bool, took time.Duration, t spillway.Trial) (terms uint64) {
	if took <= 0 || len(t.Latency) == 0 {
		return 0
	}
	places := s.Latency.enrol(t)
	for i := range s.Latency {
		if places>>i&1 != 0 {
			terms |= s.Latency[i].slower(candidate, took, &s.Thresholds) << (i * len(quantiles))
		}
	}
	return terms
}

// observeLatency counts one answer for all gates on latency, and reports whether it changed the evidence.
func (s *State) observeLatency(a Answer, t spillway.Trial) (changed bool) {
	if a.Took <= 0 || len(t.Latency) == 0 {
		return false
	}
	places := s.Latency.enrol(t)
	for i := range s.Latency {
		if places>>i&1 != 0 && s.Latency[i].observe(a, &s.Thresholds, a.SlowRepeat>>(i*len(quantiles))) {
			changed = true
		}
	}
	return changed
}

// slowest is the term with the most evidence among those that count now, as place * 5 + quantile, and how
// many of the candidate's answers were slower than it. Without any term it is -1.
func (s *State) slowest(t spillway.Trial) (term int, slow int64) {
	term, most := -1, -1.0
	places := s.Latency.enrol(t)
	for i := range s.Latency {
		l := &s.Latency[i]
		if places>>i&1 == 0 {
			continue
		}
		if v := l.value(); l.absolute() && v > most {
			term, slow, most = i*len(quantiles), l.Limit.Failures, v
		}
		for j := range l.Paces {
			if v := l.Paces[j].value(); v > most && !l.absolute() {
				term, slow, most = i*len(quantiles)+j, l.Paces[j].Failures, v
			}
		}
	}
	return term, slow
}
