package judge

import "math"

// odds are the sizes of harm that the gate looks for: the odds of a failure as a multiple of the odds
// at the limit. At a limit of one half they stand for error rates of 67 %, 89 % and 98.5 %.
var odds = [...]float64{2, 8, 64}

// The parts of the gate in the joint evidence.
const (
	gateFromStart = 0.08 // the candidate has been broken since the trial began
	gateLater     = 0.02 // it broke after one of its failures
)

// Gate is the evidence that the candidate fails more often than an absolute limit, from its answers
// that cannot be compared: all requests go to it, or they were chosen by header or cookie.
//
// It is the likelihood ratio of an error rate p above the limit L against L itself: a failure
// multiplies it by p / L and a good answer by (1 - p) / (1 - L). Worked example: L = 50 %, p = 98.5 %:
// each failure multiplies it by 1.97, each good answer by 1/32. So a release that had a hundred good
// answers would never be caught when it dies; therefore the product also begins anew after each
// failure, as in Comparison.
type Gate struct {
	Tally                    // answers that could not be compared, without those of users who had had an error
	Good  int64              `json:"good"`  // good answers since the last failure; not yet in Terms
	Terms [len(odds)]float64 `json:"terms"` // evidence for each of odds, weights included, as of the last failure
}

// newGate has no evidence.
func newGate() (g Gate) {
	for i := range g.Terms {
		g.Terms[i] = gateFromStart
	}
	return g
}

// observe returns the evidence after one answer. Good answers lower it and so cannot trip anything;
// they are put off until the next failure.
func (g Gate) observe(failed bool, limit float64) Gate {
	g.Tally = g.Tally.add(failed)
	if !failed {
		g.Good++
		return g
	}
	if limit >= 1 {
		return g // nothing is above it
	}
	k := float64(g.Failures)
	for i, o := range odds {
		p := o * limit / (1 - limit + o*limit)
		factor := p / limit * math.Pow((1-p)/(1-limit), float64(g.Good))
		g.Terms[i] = min(g.Terms[i]*factor+gateLater/(k*(k+1)), ceiling)
	}
	g.Good = 0
	return g
}

// value is the mean of the terms.
func (g Gate) value() float64 {
	sum := 0.0
	for _, v := range g.Terms {
		sum += v
	}
	return sum / float64(len(g.Terms))
}
