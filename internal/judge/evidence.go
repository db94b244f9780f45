package judge

import (
	"fmt"
	"math"
	"time"

	"github.com/spillway-dev/spillway"
)

// Verdict is the verdict of Evidence alone, without its sentences: it does not allocate.
func (s *State) Verdict(t spillway.Trial) spillway.Verdict {
	verdict, _ := s.verdict(t)
	return verdict
}

// verdict also says about how many more good answers a certificate takes, 0 when it has it or unknown.
func (s *State) verdict(t spillway.Trial) (verdict spillway.Verdict, needs int64) {
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
func (s *State) Evidence(t spillway.Trial) spillway.Evidence {
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
		e.Cause, e.Reason = s.Cause.word(), s.accusation(&t)
	case spillway.NoTraffic:
		e.Reason = fmt.Sprintf("release %d has not answered any request yet", t.Release)
	case spillway.Certified:
		e.Reason = fmt.Sprintf("%s: %s more failures than on release %d are ruled out", s.counts(&t), points(t.Margin), t.Stable) + s.untimed(&t)
	default:
		e.Reason = s.counts(&t) + ": " + s.doubt(&t, e.Needs)
	}
	return e
}

// doubt is what can be said of a candidate that is neither harmful nor certified. Failures beyond a budget are harm, also
// where the judge may not hold them against it.
func (s *State) doubt(t *spillway.Trial, needs int64) string {
	more := s.missing(needs) + s.untimed(t)
	switch {
	case t.Budget >= math.MaxInt32 && t.Users <= 0 && s.Candidate.Failures > 0:
		return "a way back is not held to a budget, so whether that is too many is for a person to say"
	case s.Candidate.Failures < budget(t):
		return "no harm shown" + more
	case t.Stable == 0 || s.Baseline.Requests == 0:
		return fmt.Sprintf("its budget is %s, and there is nothing to compare it with", s.allowance(t)) + more
	}
	return fmt.Sprintf("its budget is %s, and it is not shown to be worse than release %d", s.allowance(t), t.Stable) + more
}

// accusation is the sentence of a harmful candidate, with the numbers of the rule that held.
func (s *State) accusation(t *spillway.Trial) string {
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
	case SlowerThanStable:
		return s.slowness(t)
	default:
		return fmt.Sprintf("%d of %d requests failed on release %d: more than half, and its budget is %s",
			s.Candidate.Failures, s.Candidate.Requests, t.Release, s.allowance(t))
	}
}

// slowness is the accusation of a slow candidate: the term with the most evidence speaks for all.
func (s *State) slowness(t *spillway.Trial) string {
	p := s.Latency.slowest(s.Latency.enrol(t))
	if p == nil {
		return fmt.Sprintf("release %d was too slow for a gate that is no longer there", t.Release)
	}
	text := fmt.Sprintf("%d of %d answers of release %d were slower than %v", p.Failures, p.Requests, t.Release, digits(p.threshold(true, &s.Thresholds)))
	quantile := quantiles[p.Threshold]
	switch {
	case !p.relative():
		return text + fmt.Sprintf(": %s chance if no more than %.4g %% were", chance(s.Peak), 100*fraction(p.allowed()))
	case p.Gate.Factor == 100:
		return text + fmt.Sprintf(" (%d of 100 of release %d are faster): %s chance if it were not slower", quantile, t.Stable, chance(s.Peak))
	}
	return text + fmt.Sprintf(" (%d of 100 of release %d are faster than %v): %s chance if it took no more than %.4gx as long",
		quantile, t.Stable, digits(p.threshold(false, &s.Thresholds)), chance(s.Peak), float64(p.Gate.Factor)/100)
}

// digits rounds a time to three digits: 213.7ms becomes 214ms.
func digits(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// allowance is the budget in words: "20", or "0.1% of the users (7 of 7012)".
func (s *State) allowance(t *spillway.Trial) string {
	switch {
	case t.Users <= 0:
		return fmt.Sprint(budget(t))
	case s.Users == 0:
		return fmt.Sprintf("%v of the users (%d)", t.Users, budget(t))
	}
	return fmt.Sprintf("%v of the users (%d of %d)", t.Users, budget(t), s.Users)
}

// untimed says that gates which are relative to stable have nothing to compare with yet.
func (s *State) untimed(t *spillway.Trial) string {
	if t.Stable == 0 || s.Thresholds != [5]time.Duration{} {
		return ""
	}
	for _, g := range t.Latency {
		if g.Factor > 0 {
			return fmt.Sprintf("; its latency is not compared yet: too few answers of release %d", t.Stable)
		}
	}
	return ""
}

// word is the cause as Evidence names it.
func (c Cause) word() string {
	switch c {
	case WorseThanStable:
		return "errors"
	case AboveLimit:
		return "limit"
	case SlowerThanStable:
		return "latency"
	}
	return "budget"
}

// counts is "3 of 3 requests failed on release 7, 0 of 57 on release 6".
func (s *State) counts(t *spillway.Trial) string {
	text := fmt.Sprintf("%d of %d requests failed on release %d", s.Candidate.Failures, s.Candidate.Requests, t.Release)
	if t.Stable == 0 {
		return text
	}
	return text + fmt.Sprintf(", %d of %d on release %d", s.Stable.Failures, s.Stable.Requests, t.Stable)
}

// missing says what a certificate still takes.
func (s *State) missing(needs int64) string {
	switch {
	case s.Sample.Requests == 0:
		return "; its requests were chosen by header or cookie, so it cannot be compared"
	case needs > 0:
		return fmt.Sprintf("; certified after about %d more good requests", needs)
	}
	return ""
}

// fine is what a candidate within its tolerance is.
func fine(t *spillway.Trial) string {
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
