package judge

import (
	"math"

	"github.com/spillway-dev/spillway"
)

// Batch is all answers of a short time whose order is not known: what counters of a gateway have grown by.
type Batch struct {
	Candidate Tally
	Stable    Tally
	// Weight is the candidate's weight with which every request of the batch was dealt, as Answer.Weight. A
	// batch in which the weight changed has Whole: its requests came by weight, and compare nothing. A weight that
	// is too high is fair to the candidate, and costs time; one that is too low is not.
	Weight spillway.Share
	// CandidateTimes and StableTimes are those of the answers that say something about latency, on the same bounds.
	CandidateTimes, StableTimes Times
}

// ObserveBatch returns the state after all answers of a batch. It takes as long for a million answers as
// for one. A batch of one answer is the same as Observe with that answer.
//
// The part of the evidence that has run since before the batch is a product over its answers, so it is what
// Observe makes of them in any order. Only where the product begins anew does the order matter: Observe
// begins after each error, and here that would be somewhere inside the batch, at a place that would have to
// be invented. So all that would have begun inside begins at its end, with the same weights. A product that
// begins at the end of a batch is as fair as one that begins after an error, because the answers that follow
// do not know either; the weights still sum to 1; and rules are looked at at the end of a batch only, where
// the evidence is what was really seen. So Ville's inequality holds with batches in the place of answers, and
// batches and single answers can be mixed. It costs a candidate that was well for long and then dies one batch.
//
// There are no users in a batch: who gives it says that requests were dealt, one by one. With users that
// always reach the same release, a few with many errors would pass for evidence.
func (s State) ObserveBatch(b Batch, t spillway.Trial) State {
	s.Candidate, s.Stable = s.Candidate.Plus(b.Candidate), s.Stable.Plus(b.Stable)
	if b.Weight > 0 {
		s.Sample, s.Baseline = s.Sample.Plus(b.Candidate), s.Baseline.Plus(b.Stable)
	}
	if b.Weight > 0 && b.Weight < spillway.Whole {
		s.Comparison = s.Comparison.observeBatch(b.Candidate.Failures, b.Stable.Failures, b.Weight, tolerance(&t))
	} else {
		s.Gate = s.Gate.observeBatch(b.Candidate, limit(&t))
	}
	if slow := s.observeTimes(&b, &t); slow || b.Candidate.Failures+b.Stable.Failures > 0 {
		s.trip(&t)
	}
	return s
}

// Plus returns the tally with the answers of another.
func (c Tally) Plus(more Tally) Tally {
	return Tally{Requests: c.Requests + more.Requests, Failures: c.Failures + more.Failures}
}

// observeBatch returns the evidence after errors that hit the candidate and stable at weight w. The sum of
// the weights 1 / (k (k + 1)) of the errors after the k-th, n of them, is n / ((k + 1) (k + n + 1)).
func (c Comparison) observeBatch(candidate, stable int64, weight spillway.Share, tolerance float64) Comparison {
	if candidate+stable == 0 {
		return c
	}
	w, k, x, n := fraction(weight), float64(c.Errors), float64(candidate), float64(candidate+stable)
	for i, r := range ratios {
		grows := x*math.Log(r/tolerance) + n*math.Log((1+w*(tolerance-1))/(1+w*(r-1)))
		c.Terms[i] = min(c.Terms[i]*math.Exp(grows)+partLater*n/((k+1)*(k+n+1)), ceiling)
	}
	c.Errors += candidate + stable
	return c
}

// observeBatch returns the evidence after answers of the candidate.
func (g Gate) observeBatch(more Tally, limit float64) Gate {
	k, n := float64(g.Failures), float64(more.Failures)
	g.Tally = g.Plus(more)
	g.Good += more.Requests - more.Failures
	if more.Failures == 0 || limit >= 1 {
		return g
	}
	for i, o := range odds {
		p := o * limit / (1 - limit + o*limit)
		grows := n*math.Log(p/limit) + float64(g.Good)*math.Log((1-p)/(1-limit))
		g.Terms[i] = min(g.Terms[i]*math.Exp(grows)+gateLater*n/((k+1)*(k+n+1)), ceiling)
	}
	g.Good = 0
	return g
}
