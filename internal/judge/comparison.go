package judge

import "github.com/spillway-dev/spillway"

// ratios are the sizes of harm that the comparison looks for: the candidate's error rate as a multiple
// of stable's.
var ratios = [...]float64{1.5, 2, 3, 5, 8, 15, 40, 150, 1000}

// The parts of the comparison in the joint evidence; the rest, up to 1, is the gate's.
const (
	partFromStart = 0.85 // the candidate has been worse since the trial began
	partLater     = 0.05 // it became worse after one of the errors
)

// ceiling keeps the terms finite and so storable; it is far above every threshold.
const ceiling = 1e100

// Comparison is the evidence that the candidate fails more often than stable, from the question "which
// release did this error hit?".
//
// A request goes to the candidate with a known probability w. If the candidate is no worse, then an
// error falls on it with probability w too, whatever the error rate is at that moment: outages that hit
// both, the time of day and ramping weights cancel out, and nothing has to be known about the past. If
// its error rate is r times stable's, an error falls on it with probability r w / (1 + w (r - 1)). So
// each error multiplies the evidence for r by
//
//	r^x / (1 + w (r - 1))        x = 1: it hit the candidate, x = 0: it hit stable
//
// and good answers change nothing. Worked example: w = 10 %, r = 1000, three errors on the candidate:
// (1000 / 100.9)^3 = 974. With a tolerance q ("less than q times stable") the factor is divided by that
// of q itself, and only r > q are kept.
//
// That product forgets nothing: after hours of errors on both sides a candidate that dies has to make
// up for all of them. So with a small part of the weight the product also begins anew after each error:
// after the k-th with weight 1 / (k (k + 1)), which sums to 1 over all k.
type Comparison struct {
	Errors int64                `json:"errors"` // first errors of users, on either side, while requests were dealt at random
	Terms  [len(ratios)]float64 `json:"terms"`  // evidence for each of ratios, weights included
}

// newComparison has no evidence.
func newComparison() (c Comparison) {
	for i := range c.Terms {
		c.Terms[i] = partFromStart
	}
	return c
}

// observe returns the evidence after one error that hit the candidate or stable at weight w.
func (c Comparison) observe(candidate bool, weight spillway.Share, tolerance float64) Comparison {
	w := fraction(weight)
	c.Errors++
	k := float64(c.Errors)
	for i, r := range ratios {
		factor := (1 + w*(tolerance-1)) / (1 + w*(r-1))
		if candidate {
			factor *= r / tolerance
		}
		c.Terms[i] = min(c.Terms[i]*factor+partLater/(k*(k+1)), ceiling)
	}
	return c
}

// value is the mean over the ratios above the tolerance, and 0 when there is none.
func (c Comparison) value(tolerance float64) float64 {
	sum, n := 0.0, 0.0
	for i, r := range ratios {
		if r > tolerance {
			sum += c.Terms[i]
			n++
		}
	}
	return sum / max(n, 1)
}
