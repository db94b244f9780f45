package judge

import (
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

// Times are answers by how long they took, as a histogram tells it. The zero value is none.
type Times struct {
	Bounds []time.Duration // rising, above 0
	Counts []int64         // one more than Bounds: up to the first bound, up to the second, …, longer than the last
}

// Plus returns the times with the answers of another. Histograms with different bounds cannot be added: then
// it is the times as they were, and ok is false.
func (t Times) Plus(more Times) (sum Times, ok bool) {
	switch {
	case len(more.Counts) == 0:
		return t, true
	case len(t.Counts) == 0:
		return Times{Bounds: slices.Clone(more.Bounds), Counts: slices.Clone(more.Counts)}, true
	case !slices.Equal(t.Bounds, more.Bounds):
		return t, false
	}
	sum = Times{Bounds: t.Bounds, Counts: slices.Clone(t.Counts)}
	for i, n := range more.Counts {
		sum.Counts[i] += n
	}
	return sum, true
}

// Usual are times for Fix: for each quantile that is compared the least bound that so many answers are within, 0
// where they took longer than the last bound. Fewer answers than 100 have none. It is fair as long as the answers
// were given before those that are compared.
func (t Times) Usual() (usual [5]time.Duration) {
	all, within := t.all(), int64(0)
	if all < 100 {
		return usual
	}
	for i, bound := range t.Bounds {
		within += t.Counts[i]
		for j, q := range quantiles {
			if usual[j] == 0 && within*100 >= all*int64(q) {
				usual[j] = bound
			}
		}
	}
	return usual
}

// all is the number of answers.
func (t Times) all() (n int64) {
	for _, c := range t.Counts {
		n += c
	}
	return n
}

// bound is the least that is not below a time, 0 = there is none: it cannot be told which answers took longer.
func (t Times) bound(limit time.Duration) time.Duration {
	if i, _ := slices.BinarySearch(t.Bounds, limit); limit > 0 && i < len(t.Bounds) {
		return t.Bounds[i]
	}
	return 0
}

// slower is the number of answers that took longer than one of the bounds.
func (t Times) slower(bound time.Duration) (n int64) {
	for i, b := range t.Bounds {
		if b > bound {
			n += t.Counts[i]
		}
	}
	if len(t.Counts) > 0 {
		n += t.Counts[len(t.Counts)-1]
	}
	return n
}

// observeTimes weighs the times of a batch for all gates on latency, and reports whether some were slow for one.
//
// A histogram knows its bounds only. So a threshold is taken to be the next bound, and the candidate's the next
// one that is the gate's factor further on: rounded up, so in favour of the candidate. With bounds far apart that
// makes a gate blunt: with one at 100 ms and the next at 300 ms, 1.5 times 100 ms is 3 times.
func (s *State) observeTimes(b *Batch, t *spillway.Trial) (slow bool) {
	if len(t.Latency) == 0 || len(b.CandidateTimes.Counts)+len(b.StableTimes.Counts) == 0 {
		return false
	}
	places := s.Latency.enrol(t)
	for i := range s.Latency {
		if places>>i&1 != 0 && s.Latency[i].observeTimes(b, &s.Thresholds) {
			slow = true
		}
	}
	return slow
}

func (p *Pace) observeTimes(b *Batch, thresholds *[len(quantiles)]time.Duration) (slow bool) {
	candidate, stable := b.CandidateTimes, b.StableTimes
	if !p.relative() {
		limit := candidate.bound(time.Duration(p.Gate.Limit))
		if limit == 0 {
			return false
		}
		n, all := candidate.slower(limit), candidate.all()
		p.Tally = p.Plus(Tally{Requests: all, Failures: n})
		p.Comparison = p.Comparison.observeBatch(n, all-n, p.allowed(), 1)
		return n > 0
	}
	bounds := stable
	if len(bounds.Counts) == 0 {
		bounds = candidate
	}
	usual := bounds.bound(p.threshold(false, thresholds))
	limit := bounds.bound(time.Duration(float64(usual) * float64(p.Gate.Factor) / 100))
	same := len(candidate.Counts) == 0 || len(stable.Counts) == 0 || slices.Equal(candidate.Bounds, stable.Bounds)
	if usual == 0 || limit == 0 || !same || b.Weight <= 0 || b.Weight >= spillway.Whole {
		return false
	}
	n, other := candidate.slower(limit), stable.slower(usual)
	p.Tally = p.Plus(Tally{Requests: candidate.all(), Failures: n})
	p.Comparison = p.Comparison.observeBatch(n, other, b.Weight, 1)
	return n+other > 0
}
