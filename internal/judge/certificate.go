package judge

import (
	"math"

	"github.com/spillway-dev/spillway"
)

// caution is how many standard errors stable's rate is taken below its estimate when it is the
// yardstick.
const caution = 1.0

// certificate tells whether it is ruled out that the candidate's error rate is stable's plus the margin
// or more, and if not, about how many more good answers of the candidate that takes (0 = unknown).
func (s State) certificate(margin spillway.Share) (certified bool, needs int64) {
	if margin <= 0 {
		return false, 0
	}
	good, bad := s.yardstick(fraction(margin))
	if good >= bad {
		return false, 0
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

// yardstick is the error rate that is expected of a good candidate, and the one that has to be ruled out.
func (s State) yardstick(margin float64) (good, bad float64) {
	n, f := float64(s.Baseline.Requests), float64(s.Baseline.Failures)
	good = (f + 0.5) / (n + 1)
	if n < 20 {
		good = 0.001
	}
	low := max(0, good-caution*math.Sqrt(good*(1-good)/max(n, 1)))
	return good, min(low+margin, 0.99)
}
