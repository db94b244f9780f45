package sim

import (
	"math"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// longGap is how long after a recreation something may still be missing.
const longGap = 2 * time.Minute

// enough answers of stable in a trial fix the times that the candidate's are compared with.
const enough = 100

func (w *World) endRequests() {
	w.open = slices.DeleteFunc(w.open, func(r request) bool {
		if r.due > w.tickNo {
			return false
		}
		r.replica.inflight--
		return true
	})
}

// entrance is the edge that a user comes through: mostly that of all users, now and then the own host of a
// track or of the dark colour, or by a rule to a service that has no host.
func (w *World) entrance(route spillway.Route) (spillway.Edge, bool) {
	var own []spillway.Edge
	public := -1
	for i, e := range route.Edges {
		switch {
		case len(e.Hosts) == 0 && e.Target == "" || len(e.Backends) == 0:
		case e.Only != "" || len(e.Hosts) == 0:
			own = append(own, e)
		case public < 0:
			public = i
		}
	}
	if len(own) > 0 && w.rng.IntN(20) == 0 {
		return own[w.rng.IntN(len(own))], true
	}
	if public < 0 {
		return spillway.Edge{}, false
	}
	return route.Edges[public], true
}

// request is one user's request, and the calls to the tiers behind it.
func (w *World) request() {
	route := w.through()
	edge, ok := w.entrance(route)
	if !ok || w.down > 0 && w.rng.IntN(2) == 0 {
		return
	}
	user, bucket := -1, spillway.Share(w.rng.IntN(int(spillway.Whole)))
	if w.users > 0 {
		user = w.rng.IntN(w.users)
		bucket = spillway.Share(user * 7919 % int(spillway.Whole))
	}
	ruled := w.ruled > 0 && w.rng.Float64() < w.ruled
	backend, odds := w.choose(edge, bucket, ruled, route.Trial)
	w.answer(route, edge, backend, odds, bucket, user)
}

// synthetic makes the requests that a trial asks for when few come: half to the candidate, half to stable.
func (w *World) synthetic() {
	route := w.plane.effective()
	if route.Trial == nil || w.plane.tripped {
		return
	}
	for _, e := range route.Edges {
		for range route.Trial.Synthetic[e.Service].Rate {
			to, at := candidateArm(e, route.Trial), home(e, route.Trial)
			if len(e.Hosts) == 0 || e.Only != "" || to < 0 || at < 0 || w.plane.tripped {
				break
			}
			if w.rng.IntN(2) == 0 {
				to = at
			}
			w.answer(route, e, e.Backends[to], spillway.Whole/2, spillway.Share(w.rng.IntN(int(spillway.Whole))), -1)
		}
	}
}

// answer lets a backend answer a request, with what it needs behind it, and judges each answer where it is given.
func (w *World) answer(route spillway.Route, edge spillway.Edge, b spillway.Backend, odds, bucket spillway.Share, user int) {
	if len(b.URLs) > 0 {
		return // not ours, and no evidence: nothing stands in for it either
	}
	if !w.claim(b.Group) {
		at := home(edge, route.Trial)
		if at < 0 || edge.Only != "" || edge.Backends[at].Group == b.Group || !w.claim(edge.Backends[at].Group) {
			w.nobody(edge, b.Group)
			return
		}
		b, odds = edge.Backends[at], 0
	}
	broken := user >= 0 && user%50 == 0 && w.rng.IntN(10) > 0
	failed := broken || w.rng.Float64() < w.outage || w.rng.Float64() < w.behave[b.Group.Release].Errors
	slow := w.slowness(b.Group)
	for _, e := range route.Edges {
		if e.From != b.Group || len(e.Backends) == 0 {
			continue
		}
		peer, peerOdds := w.choose(e, bucket, false, route.Trial)
		if !w.claim(peer.Group) && edge.Only == "" {
			w.nobody(e, peer.Group)
		}
		slow = max(slow, w.slowness(peer.Group))
		judged := route.Trial != nil && candidateArm(e, route.Trial) >= 0 && !slices.Contains(route.Trial.Candidate, e.From)
		if failed && !judged {
			continue
		}
		bad := !w.onlyFront && w.rng.Float64() < w.behave[peer.Group.Release].Errors
		failed = failed || bad
		if judged {
			w.judge(route, peer, peerOdds, bad, w.slowness(peer.Group), user)
		}
	}
	w.judge(route, b, odds, failed, slow, user)
}

// nobody is called for a request that no replica could take. That happens when replicas died, and while what is
// recreated is away, and after an observation so old that it shows replicas of before a stop.
func (w *World) nobody(e spillway.Edge, g spillway.Group) {
	for _, b := range e.Backends {
		if s := w.groups[b.Group]; s != nil && slices.ContainsFunc(s.replicas, func(r *replica) bool { return r.fell }) {
			return
		}
	}
	if e.Only == "" && w.real-w.gap > longGap {
		w.fail("nobody comes for nothing: no replica of %s is ready, nor one that stands in", g)
	}
}

// slowness is how many times slower than others the replicas of a group answer.
func (w *World) slowness(g spillway.Group) float64 { return max(1, w.behave[g.Release].Slow) }

// home is the backend that takes over what a tripped candidate may not have: the first of stable's; -1 = none.
func home(e spillway.Edge, t *spillway.Trial) int {
	return slices.IndexFunc(e.Backends, func(b spillway.Backend) bool {
		return b.Track == "" && len(b.URLs) == 0 && (t == nil || !slices.Contains(t.Candidate, b.Group))
	})
}

// candidateArm is the last backend of an edge that the trial is about; -1 = none.
func candidateArm(e spillway.Edge, t *spillway.Trial) int {
	for i := len(e.Backends) - 1; i >= 0; i-- {
		if slices.Contains(t.Candidate, e.Backends[i].Group) {
			return i
		}
	}
	return -1
}

// choose gives the backend of a request and the odds with which it was given to the candidate and not to
// stable; 0 = it was not dealt at random.
func (w *World) choose(e spillway.Edge, bucket spillway.Share, ruled bool, trial *spillway.Trial) (spillway.Backend, spillway.Share) {
	if ruled {
		for _, rule := range e.Rules {
			if rule.Value != "canary" {
				continue
			}
			if b, odds, ok := inTrack(e, rule.Track, bucket, trial); ok {
				return w.admit(e, b, odds, trial)
			}
		}
	}
	if len(e.Backends) == 1 {
		return e.Backends[0], 0
	}
	chosen, upTo := e.Backends[0], spillway.Share(0)
	for i := len(e.Backends) - 1; i > 0; i-- {
		if upTo += e.Backends[i].Weight; bucket < upTo {
			chosen = e.Backends[i]
			break
		}
	}
	return w.admit(e, chosen, odds(e, trial), trial)
}

// inTrack gives the backend of a request that a rule sends to a track: where there are several, they divide the
// buckets by Within. The odds are those of stable's candidate.
func inTrack(e spillway.Edge, track string, bucket spillway.Share, trial *spillway.Trial) (chosen spillway.Backend, odds spillway.Share, ok bool) {
	upTo, baseline := spillway.Share(0), false
	for i := len(e.Backends) - 1; i >= 0; i-- {
		b := e.Backends[i]
		if b.Track != track || track == "" && len(b.URLs) > 0 {
			continue
		}
		if trial != nil {
			baseline = baseline || isBaseline(b, trial)
			if slices.Contains(trial.Candidate, b.Group) {
				odds += b.Within
			}
		}
		before := upTo
		if upTo += b.Within; !ok || before <= bucket && b.Within > 0 {
			chosen, ok = b, true
		}
	}
	if !baseline {
		odds = 0
	}
	return chosen, odds, ok
}

// admit sends a request for the candidate elsewhere when that is tripped or has too many unanswered ones.
func (w *World) admit(e spillway.Edge, b spillway.Backend, odds spillway.Share, trial *spillway.Trial) (spillway.Backend, spillway.Share) {
	if trial == nil || !slices.Contains(trial.Candidate, b.Group) {
		return b, odds
	}
	open := 0
	if s := w.groups[b.Group]; s != nil {
		for _, r := range s.replicas {
			open += r.inflight
		}
	}
	at := home(e, trial)
	if at >= 0 && (w.plane.tripped || !w.plane.state.Admit(*trial, open)) {
		return e.Backends[at], 0
	}
	return b, odds
}

// odds is how likely a request that was dealt to the candidate or to stable was dealt to the candidate.
func odds(e spillway.Edge, trial *spillway.Trial) spillway.Share {
	if trial == nil {
		return 0
	}
	var candidate, baseline spillway.Share
	for _, b := range e.Backends {
		switch {
		case slices.Contains(trial.Candidate, b.Group):
			candidate += b.Weight
		case isBaseline(b, trial):
			baseline += b.Weight
		}
	}
	if candidate == 0 || baseline == 0 && e.Only != "" {
		return 0
	}
	return (candidate*spillway.Whole + candidate + baseline - 1) / (candidate + baseline)
}

// isBaseline reports whether the answers of a backend are what the candidate's are compared with.
func isBaseline(b spillway.Backend, t *spillway.Trial) bool {
	return b.Track == "" && len(b.URLs) == 0 && b.Release == t.Stable && !slices.Contains(t.Candidate, b.Group)
}

// claim opens a request on the ready replica with the fewest; false when there is none.
func (w *World) claim(g spillway.Group) bool {
	s := w.groups[g]
	if s == nil {
		return false
	}
	var best *replica
	for _, r := range s.replicas {
		if w.led(r) && (best == nil || r.inflight < best.inflight) {
			best = r
		}
	}
	if best == nil {
		return false
	}
	ticks := w.rng.IntN(3)
	if w.rng.IntN(200) == 0 {
		ticks = 40
	}
	best.inflight++
	w.open = append(w.open, request{g, best, w.tickNo + ticks})
	if last := len(s.asked) - 1; last >= 0 && s.asked[last].at == w.real {
		s.asked[last].n++
	} else {
		s.asked = append(s.asked, sample{w.real, 1})
	}
	return true
}

// rate is the requests a second of a group over the last minute.
func (w *World) rate(s *group) float64 {
	s.asked = slices.DeleteFunc(s.asked, func(x sample) bool { return w.real-x.at > time.Minute })
	n := 0
	for _, x := range s.asked {
		n += x.n
	}
	return float64(n) / time.Minute.Seconds()
}

// judge counts an answer and trips when the candidate is harmful.
func (w *World) judge(route spillway.Route, b spillway.Backend, odds spillway.Share, failed bool, slow float64, user int) {
	trial, p := route.Trial, &w.plane
	if failed {
		p.failed[b.Release]++
	}
	if trial == nil || p.tripped || trial.ID != p.state.Trial {
		return
	}
	candidate := slices.Contains(trial.Candidate, b.Group)
	if !candidate && !isBaseline(b, trial) {
		return
	}
	a := judge.Answer{Candidate: candidate, Weight: odds, Failed: failed, Repeat: p.erred[user]}
	if len(trial.Latency) > 0 {
		a.Took = time.Duration(float64(50*time.Millisecond) * slow * math.Exp(0.8*w.rng.NormFloat64()))
		a.SlowRepeat = p.slow[user]
		p.fix(a)
		if user >= 0 {
			p.slow[user] |= p.state.Slow(candidate, a.Took, *trial)
		}
	}
	p.state = p.state.Observe(a, *trial)
	if failed && user >= 0 {
		p.erred[user] = true
	}
	if candidate && (failed || len(trial.Latency) > 0) {
		p.tripped = w.cluster == nil && p.state.Evidence(*trial).Verdict == spillway.Harmful
	}
}

// fix sets the times to compare with when stable has given enough answers in the trial.
func (p *plane) fix(a judge.Answer) {
	if a.Candidate || len(p.took) >= enough {
		return
	}
	p.took = append(p.took, a.Took)
	if len(p.took) < enough {
		return
	}
	slices.Sort(p.took)
	var times [5]time.Duration
	for i, q := range []int{50, 75, 90, 95, 99} {
		times[i] = p.took[len(p.took)*q/100]
	}
	p.state = p.state.Fix(times)
}
