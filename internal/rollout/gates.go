package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

// judged reports whether a gate is part of the trial, which the data plane judges by count.
func judged(g spillway.Gate) bool {
	switch g.Metric {
	case "errors", "latency", "p50", "p75", "p90", "p95", "p99":
		return true
	}
	return false
}

// counts reports whether a gate counts at the present weight of the candidate.
func (t *turn) counts(g spillway.Gate) bool {
	return t.st.Rollout.Exposed && t.shown() >= g.From
}

// shown is the candidate's share of the users whom the rollout is about.
func (t *turn) shown() spillway.Share {
	if r := t.st.Rollout; r != nil && r.Track != "" {
		if t.laneSwitched() {
			return spillway.Whole
		}
		return 0
	}
	return t.weight()
}

// readGates looks at the gates that are not the judge's and remembers what they say.
func (t *turn) readGates() {
	r := t.st.Rollout
	if r == nil || r.Stable == 0 || r.Back || t.st.Phase == spillway.RollingBack || t.st.Destroy {
		return // the way back is not put on trial
	}
	for _, g := range t.candidate().Config.Gates {
		if g.Metric == "restarts" && !g.DryRun || judged(g) && !g.DryRun || !t.counts(g) {
			continue // restartsTooOften and judgedHarmful look at them
		}
		before := r.Gates[g.Text]
		state := t.readGate(g, before)
		if state.Verdict != before.Verdict && !(before.Verdict == "" && state.Verdict == spillway.Undecided) {
			t.event(spillway.EventGate, r.Release, "gate %s is %s: %s", gateName(g), state.Verdict, state.Reason)
		}
		if r.Gates == nil {
			r.Gates = map[string]GateState{}
		}
		r.Gates[g.Text] = state
	}
}

func gateName(g spillway.Gate) string {
	if g.DryRun {
		return g.Text + " (dry run)"
	}
	return g.Text
}

// readGate is a gate's state after one more look.
func (t *turn) readGate(g spillway.Gate, before GateState) GateState {
	ok, known, text := t.measure(g)
	switch state := (GateState{Reason: text, At: t.readAt(g)}); {
	case known == spillway.NoData:
		state.Verdict, state.Broken, state.Silent = spillway.NoData, before.Broken, before.Silent
		if before.Verdict == spillway.NoData {
			state.Silent += t.lapse()
		}
		return state
	case known == spillway.Undecided:
		state.Verdict = spillway.Undecided
		return state
	case ok:
		state.Verdict = spillway.Certified
		return state
	default:
		state.Broken = 1 // so that the next look knows
		if before.Broken > 0 {
			state.Broken = before.Broken + t.passed(g, before)
		}
		state.Verdict = spillway.Harmful
		if state.Broken < g.For {
			state.Verdict = spillway.Undecided
			state.Reason = fmt.Sprintf("%s, and it may be so for %s", text, g.For)
			t.after(g.For - state.Broken)
		}
		return state
	}
}

// readAt is when an external gate was read last; zero for others.
func (t *turn) readAt(g spillway.Gate) time.Time {
	i := slices.IndexFunc(t.obs.Readings, func(o Reading) bool { return o.Rollout == t.st.Rollout.ID && o.Gate == g.Text })
	if i < 0 {
		return time.Time{}
	}
	return t.obs.Readings[i].At
}

// passed is the time that a broken gate has been broken for since it was looked at last: between two readings of
// one that is asked outside, because one answer says nothing about the time after it.
func (t *turn) passed(g spillway.Gate, before GateState) spillway.Duration {
	if !g.External() {
		return t.dt
	}
	return spillway.Duration(min(max(t.readAt(g).Sub(before.At), 0), maxTick))
}

// stale is the age from which the last answer of an external gate says nothing any more.
const stale = time.Minute

// measure says whether a gate holds, if it is known (known is Certified then), and what was seen.
func (t *turn) measure(g spillway.Gate) (ok bool, known spillway.Verdict, text string) {
	r := t.st.Rollout
	if g.External() {
		i := slices.IndexFunc(t.obs.Readings, func(o Reading) bool { return o.Rollout == r.ID && o.Gate == g.Text })
		if i < 0 {
			return false, spillway.Undecided, "not asked yet"
		}
		o := t.obs.Readings[i]
		if o.NoData {
			return false, spillway.NoData, o.Text
		}
		if t.now.Sub(o.At) > stale {
			return false, spillway.NoData, "not asked since " + o.At.UTC().Format(time.TimeOnly)
		}
		return o.OK, spillway.Certified, o.Text
	}
	if t.obs.NoData && g.Metric == "rps" {
		return false, spillway.NoData, cmp.Or(t.obs.Silence, "the proxy does not answer")
	}
	value, seen := t.metric(g)
	if !seen && g.Metric == "rps" && !slices.ContainsFunc(t.candidateGroups(), t.public) {
		return true, spillway.Certified, "no public service is changed"
	}
	if !seen {
		return false, spillway.Undecided, "nothing measured yet"
	}
	return holds(value, operator(g), limitOf(g)), spillway.Certified, valueText(g.Metric, value)
}

// metric is what the candidate's groups show of a metric: the worst of them. False when none shows anything.
func (t *turn) metric(g spillway.Gate) (worst float64, seen bool) {
	for _, group := range t.candidateGroups() {
		o := t.group(group)
		s, _ := t.candidate().Config.Service(group.Service)
		value, ok := 0.0, o.Ready > 0
		switch g.Metric {
		case "rps":
			value, ok = o.Traffic.Rate, s.Public() && o.Traffic.Requests > 0
		case "cpu":
			value = o.CPU
			if s.Limits.CPU > 0 {
				value /= float64(s.Limits.CPU) / 1000
			}
		case "memory":
			value = float64(o.Memory)
		case "restarts":
			value = float64(since(t.st.Rollout.Before, group, o.Restarts))
		default: // dry-run gates of the judge's metrics: the present figures, without its proof
			value, ok = t.figure(g, o.Traffic, group.Service)
		}
		if ok && (!seen || worse(value, worst, g.Op)) {
			worst, seen = value, true
		}
	}
	return worst, seen
}

// public reports whether a group of the candidate has a public name.
func (t *turn) public(g spillway.Group) bool {
	s, ok := t.candidate().Config.Service(g.Service)
	return ok && s.Public()
}

// figure is what a metric that the judge would judge shows as plain figures: the failures since each group began,
// the latency of the last minute. Relative ones are a multiple of stable's, in hundredths. False when unknown.
func (t *turn) figure(g spillway.Gate, traffic spillway.Traffic, service string) (float64, bool) {
	if g.Metric == "p75" || g.Metric == "p90" { // nobody counts these; latency is told by p95
		return 0, false
	}
	of := func(x spillway.Traffic) float64 {
		switch g.Metric {
		case "errors":
			return float64(x.Failures) / max(1, float64(x.Requests))
		case "p50":
			return float64(x.P50) / 1e6
		case "p99":
			return float64(x.P99) / 1e6
		}
		return float64(x.P95) / 1e6
	}
	if g.Factor == 0 {
		return of(traffic), traffic.Requests > 0
	}
	old, _ := t.stable().Group(service)
	base := of(t.group(old).Traffic)
	return of(traffic) / base * 100, traffic.Requests > 0 && base > 0
}

// limitOf is the number that a dry-run gate's figure is held against.
func limitOf(g spillway.Gate) float64 {
	switch {
	case g.Factor > 0:
		return float64(g.Factor)
	case g.Metric == "errors":
		return float64(g.Limit) / float64(spillway.Whole)
	case g.Metric == "restarts":
		return float64(g.Max) + 0.5 // at most, whichever way it was written
	}
	return g.Value
}

// operator is the gate's, for those that were written without one too.
func operator(g spillway.Gate) string {
	if g.Metric == "restarts" {
		return "<"
	}
	return cmp.Or(g.Op, "<")
}

func holds(value float64, op string, limit float64) bool {
	switch op {
	case "<":
		return value < limit
	case "<=":
		return value <= limit
	case ">":
		return value > limit
	case ">=":
		return value >= limit
	}
	return value == limit
}

// worse reports whether a is further than b on the side that a gate with op forbids.
func worse(a, b float64, op string) bool {
	if op == ">" || op == ">=" {
		return a < b
	}
	return a > b
}

func valueText(metric string, v float64) string {
	switch metric {
	case "cpu":
		return fmt.Sprintf("%.0f%%", 100*v)
	case "memory":
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case "rps":
		return fmt.Sprintf("%.1f requests/s", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// gateBroken: a gate of the app does not hold, for as long as the file allows.
func gateBroken(t *turn) (spillway.Outcome, string) {
	r := t.st.Rollout
	for _, g := range t.candidate().Config.Gates {
		if state := r.Gates[g.Text]; state.Verdict == spillway.Harmful && !g.DryRun && t.counts(g) {
			return t.failure(), fmt.Sprintf("gate %s does not hold: %s", g.Text, state.Reason)
		}
	}
	return "", ""
}

// gateWaits names a gate that does not let the step go on, or the judge when it cannot count, in words, and how long
// that has been without data; "" when all that count hold.
func (t *turn) gateWaits() (why string, silent spillway.Duration) {
	r := t.st.Rollout
	if r.Back {
		return "", 0
	}
	if e := r.Evidence; e != nil && r.Exposed && e.Verdict == spillway.NoData {
		return "the judge has no data: " + e.Reason, max(r.Silent, 1)
	}
	for _, g := range t.candidate().Config.Gates {
		if judged(g) || g.Metric == "restarts" || g.DryRun || !t.counts(g) {
			continue
		}
		switch state := t.st.Rollout.Gates[g.Text]; state.Verdict {
		case spillway.Certified:
		case spillway.NoData:
			return fmt.Sprintf("gate %s has no data: %s", g.Text, state.Reason), max(state.Silent, 1)
		default:
			return fmt.Sprintf("gate %s: %s", g.Text, state.Reason), 0
		}
	}
	return "", 0
}

// watches are the external gates to be asked while the candidate has users.
func (t *turn) watches() []Watch {
	r := t.st.Rollout
	if r == nil || r.Stable == 0 || r.Back || t.st.Destroy || t.st.Phase == spillway.RollingBack {
		return nil
	}
	var list []Watch
	for _, g := range t.candidate().Config.Gates {
		if g.External() && t.counts(g) {
			list = append(list, Watch{
				Rollout: r.ID, Release: r.Release, Stable: r.Stable, Track: r.Track, Gate: g, Store: t.candidate().Config.Prometheus,
			})
		}
	}
	return list
}
