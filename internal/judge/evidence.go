package judge

import (
	"fmt"
	"math"

	"github.com/spillway-dev/spillway"
)

// Verdict is the verdict of Evidence alone, without its sentences: it does not allocate.
func (s State) Verdict(t spillway.Trial) spillway.Verdict {
	verdict, _ := s.verdict(t)
	return verdict
}

// verdict also says about how many more good answers a certificate takes, 0 when it has it or unknown.
func (s State) verdict(t spillway.Trial) (verdict spillway.Verdict, needs int64) {
	if s.Cause != "" {
		return spillway.Harmful, 0
	}
	certified, needs := s.certificate(t.Margin)
	switch {
	case s.Candidate.Requests == 0:
		return spillway.NoTraffic, needs
	case certified:
		return spillway.Certified, 0
	}
	return spillway.Undecided, needs
}

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
	e.Verdict, e.Needs = s.verdict(t)
	switch e.Verdict {
	case spillway.Harmful:
		e.Reason = s.accusation(t)
	case spillway.NoTraffic:
		e.Reason = fmt.Sprintf("release %d has not answered any request yet", t.Release)
	case spillway.Certified:
		e.Reason = fmt.Sprintf("%s: %s more failures than on release %d are ruled out", s.counts(t), points(t.Margin), t.Stable)
	default:
		e.Reason = s.counts(t) + ": no harm shown" + s.missing(e.Needs)
	}
	return e
}

// accusation is the sentence of a harmful candidate, with the numbers of the rule that held.
func (s State) accusation(t spillway.Trial) string {
	switch s.Cause {
	case WorseThanStable:
		return fmt.Sprintf("%s: %s chance if it were %s", s.counts(t), chance(s.Peak), fine(t))
	case AboveLimit:
		other := "another release"
		if t.Stable != 0 {
			other = fmt.Sprintf("requests of release %d", t.Stable)
		}
		return fmt.Sprintf("%d of %d requests failed on release %d, without %s to compare: %s chance if no more than %.4g %% failed",
			s.Gate.Failures, s.Gate.Requests, t.Release, other, chance(s.Peak), 100*limit(t))
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
