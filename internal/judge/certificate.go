package judge

import (
	"math"

	"github.com/spillway-dev/spillway"
)

const (
	// leastBaseline is how many answers of stable make a rate; with fewer it is taken to be faultless.
	leastBaseline = 20
	// faultless is the error rate expected of a good candidate when stable shows less than that.
	faultless = 0.001
)

// certificate tells whether it is ruled out that the candidate's error rate is stable's plus the margin
// or more, and if not, about how many more good answers of the candidate that takes (0 = unknown).
//
// It is the likelihood ratio, over the requests that came to the candidate by weight, of the rate that
// is to be ruled out (bad) against the rate that is expected (good): a good answer multiplies it by
// (1 - good) / (1 - bad), a failure by good / bad, and 1/beta = 20 is enough. Worked example: stable had
// no failure in 6,000, the margin is 1 point: bad = 1 %, good = 0.1 %, and 332 good answers in a row
// give (0.999 / 0.99)^332 = 20.2.
//
// Unlike the evidence of harm it counts every answer, those of users who had an error before too: the
// claim is about the share of requests. And it is not latched: it is what the counts say now.
func (s *State) certificate(margin spillway.Share) (certified bool, needs int64) {
	good, bad := s.yardstick(fraction(margin))
	if good >= bad {
		return false, 0 // no margin, or stable's rate is not known well enough for it
	}
	perGood := math.Log((1 - good) / (1 - bad))
	perFailure := math.Log(good / bad)
	c := s.Sample
	missing := math.Log(1/beta) - float64(c.Failures)*perFailure - float64(c.Requests-c.Failures)*perGood
	if missing <= 0 {
		return true, 0
	}
	return false, int64(math.Ceil(missing / perGood))
}

// Needs is about how many answers of a candidate that is as good as stable a certificate for the margin
// takes, 0 = unknown or never: ln 20 divided by what one answer is expected to add, at stable's error
// rate as its answers show it. Worked examples with a margin of 1 point: without a failure of stable in
// 6,000 answers 332, with 6 failures 408, with 60 failures 1,187.
func Needs(margin spillway.Share, stable Tally) int64 {
	s := State{Baseline: stable}
	good, bad := s.yardstick(fraction(margin))
	if good >= bad {
		return 0
	}
	rate := 0.0
	if stable.Requests >= leastBaseline {
		rate = float64(stable.Failures) / float64(stable.Requests)
	}
	gain := rate*math.Log(good/bad) + (1-rate)*math.Log((1-good)/(1-bad))
	return int64(math.Ceil(math.Log(1/beta) / gain))
}

// yardstick is the error rate that is expected of a good candidate, and the one that has to be ruled
// out: the lower end of the Wilson interval of stable's rate (Wilson 1927) plus the margin. Both are
// below 1 and, with a margin, above 0.
//
// It is the lower end because the rate is an estimate: with the estimate itself up to 9 % of the
// candidates that are worse by the margin are certified, with one standard error less at most 5 % up
// to a weight of 50 %, and 7 % at 75 %, where stable has fewer answers than the candidate and its
// error is the larger one; so from there on the distance grows with the ratio of the two. At a weight
// of 10 % it costs a good candidate 2 to 24 % more requests, most when the margin is half of stable's
// rate. All of this is measured, by the tests with the tag sim.
func (s *State) yardstick(margin float64) (good, bad float64) {
	n, p, low := float64(s.Baseline.Requests), 0.0, 0.0
	if n >= leastBaseline {
		p = float64(s.Baseline.Failures) / n
		zz := max(1, float64(s.Sample.Requests)/n) // standard errors, squared
		low = (p + zz/(2*n) - math.Sqrt(zz*(p*(1-p)/n+zz/(4*n*n)))) / (1 + zz/n)
	}
	return max(p, min(faultless, margin/10)), min(low+margin, 0.99)
}
