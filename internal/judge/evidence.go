package judge

import (
	"fmt"
	"math"

	"github.com/spillway-dev/spillway"
)

// Evidence says what the state means under the trial's terms. Harmful wins over everything. At and
// Tripped are left zero: this package knows neither the time nor what was done about the verdict.
func (s State) Evidence(t spillway.Trial) spillway.Evidence {
	e := spillway.Evidence{
		Trial:     s.Trial,
		Margin:    t.Margin,
		Requests:  s.Candidate.Requests,
		Failures:  s.Candidate.Failures,
		Baseline:  s.Stable.Requests,
		BaseFails: s.Stable.Failures,
		Chance:    chance(s.Peak),
	}
	certified, needs := s.certificate(t.Margin)
	switch {
	case s.Cause != "":
		e.Verdict, e.Reason = spillway.Harmful, s.accusation(t)
	case s.Candidate.Requests == 0:
		e.Verdict, e.Needs = spillway.NoTraffic, needs
		e.Reason = fmt.Sprintf("release %d has not answered any request yet", t.Release)
	case certified:
		e.Verdict = spillway.Certified
		e.Reason = fmt.Sprintf("%s: %s more failures than on release %d are ruled out", s.counts(t), points(t.Margin), t.Stable)
	default:
		e.Verdict, e.Needs = spillway.Undecided, needs
		e.Reason = s.counts(t) + ": no harm shown" + s.missing(needs)
	}
	return e
}

// accusation is the sentence of a harmful candidate, with the numbers of the rule that held.
func (s State) accusation(t spillway.Trial) string {
	switch s.Cause {
	case WorseThanStable:
		return fmt.Sprintf("%s: %s chance if it were %s", s.counts(t), chance(s.Peak), fine(t))
	case AboveLimit:
		return fmt.Sprintf("%d of %d requests failed on release %d, without requests of release %d to compare: %s chance if no more than %.4g %% failed",
			s.Gate.Failures, s.Gate.Requests, t.Release, t.Stable, chance(s.Peak), 100*limit(t))
	default:
		return fmt.Sprintf("%d of %d requests failed on release %d: more than half, and its budget is %d",
			s.Candidate.Failures, s.Candidate.Requests, t.Release, budget(t))
	}
}

// counts is "3 of 3 requests failed on release 7, 0 of 57 on release 6".
func (s State) counts(t spillway.Trial) string {
	text := fmt.Sprintf("%d of %d requests failed on release %d", s.Candidate.Failures, s.Candidate.Requests, t.Release)
	if t.Stable == 0 {
		return text
	}
	return text + fmt.Sprintf(", %d of %d on release %d", s.Stable.Failures, s.Stable.Requests, t.Stable)
}

// missing says what a certificate still takes.
func (s State) missing(needs int64) string {
	switch {
	case s.Sample.Requests == 0:
		return "; its requests were chosen by header or cookie, so it cannot be compared"
	case needs > 0:
		return fmt.Sprintf("; certified after about %d more good requests", needs)
	}
	return ""
}

// fine is what a candidate within its tolerance is.
func fine(t spillway.Trial) string {
	if q := tolerance(t); q > 1 {
		return fmt.Sprintf("less than %.4gx as bad", q)
	}
	return "no worse"
}

// points is a margin in words: "1 point", "20 points".
func points(margin spillway.Share) string {
	if margin == spillway.Percent(1) {
		return "1 point"
	}
	return fmt.Sprintf("%.4g points", 100*fraction(margin))
}

// chance renders evidence of 114.7 as "1 in 114", and evidence that says nothing as "".
func chance(e float64) string {
	switch {
	case e < 2:
		return ""
	case e >= 1e6:
		return "less than 1 in 1000000"
	}
	return fmt.Sprintf("1 in %d", int64(math.Floor(e)))
}
