package counts

import (
	"fmt"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// silence says why no backend of the app has been seen.
func (t *trial) silence(known bool) string {
	var looked []string
	for _, s := range t.services {
		looked = append(looked, s.String())
	}
	what := fmt.Sprintf("the gateway answers, but counts nothing for %s", strings.Join(looked, " and "))
	switch {
	case known:
		return what + ": either nobody has asked for them since it started, or their requests do not come through it"
	case t.flavour == Traefik:
		return what + " and has no " + t.flavour.metric() + ": either nobody has asked it anything, or its metrics are without addServicesLabels"
	}
	return what + " and has no " + t.flavour.metric() + ": either nobody has asked it anything, or it is no " + string(t.flavour)
}

// evidence says what the trial shows now. A verdict of harm stays when the data are lost; any other one is
// NoData then.
func (t *trial) evidence() spillway.Evidence {
	e := t.state.Evidence(t.terms)
	e.At = t.at
	switch {
	case e.Verdict == spillway.Harmful:
		return e
	case t.lost != "":
		e.Verdict, e.Reason = spillway.NoData, t.lost
		return e
	case t.asked.IsZero():
		if e.Reason = "the counters of the gateway have not been read yet"; e.Verdict == spillway.Certified {
			e.Verdict = spillway.Undecided // it was, before this program began
		}
		return e
	case t.awaited:
		e.Reason = fmt.Sprintf("the gateway does not lead anybody to release %d", t.terms.Release)
		return e
	case len(t.pairs) == 0:
		e.Reason = fmt.Sprintf("release %d changes no public HTTP service, so the gateway has nothing to compare", t.terms.Release)
		return e
	case e.Verdict == spillway.NoTraffic && e.Baseline > 0:
		e.Reason += fmt.Sprintf(", release %d %d", t.terms.Stable, e.Baseline)
	}
	e.Reason += t.blunt() + t.some
	return e
}

// blunt says what cannot be judged of latency.
func (t *trial) blunt() string {
	if t.untimed {
		return "; its latency is not judged: this gateway's is not known"
	}
	for _, g := range t.terms.Latency {
		switch n := len(t.bounds); {
		case n == 0:
			return "; its latency is not judged: the gateway shows none"
		case g.Factor <= 0 && time.Duration(g.Limit) > t.bounds[n-1]:
			return fmt.Sprintf("; its latency is not held against %v: the gateway's histogram ends at %v", time.Duration(g.Limit), t.bounds[n-1])
		}
	}
	return ""
}
