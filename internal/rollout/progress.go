package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// rest is the app between rollouts: start the next one, or say how the stable release is.
func (t *turn) rest() {
	if q := t.st.Queue; q != nil {
		t.st.Queue = nil
		t.begin(*q)
		return
	}
	if phase := t.restPhase(); phase != t.st.Phase {
		t.st.Phase = phase
		text := "the promised capacity is there"
		if phase == spillway.Degraded {
			text = t.missingOf(t.stable(), spillway.Whole)
		}
		t.event(spillway.EventHealth, t.st.Stable, "%s: %s", phase, text)
	}
}

// restPhase is Healthy when all that was promised is ready, and when nothing was ever promised.
func (t *turn) restPhase() spillway.Phase {
	switch {
	case t.st.Stable == 0 && t.st.Last != nil:
		return spillway.Degraded
	case t.missingOf(t.stable(), spillway.Whole) != "":
		return spillway.Degraded
	}
	return spillway.Healthy
}

// begin starts a rollout from stable to the queued release.
func (t *turn) begin(q Queued) {
	to, ok := t.spec.Releases[q.Release]
	t.st.Rollouts++
	r := &Rollout{ID: t.st.Rollouts, Release: q.Release, Stable: t.st.Stable, Back: q.Back, Began: t.now}
	t.st.Rollout = r
	if !ok {
		t.finish(spillway.Failed, "the release does not exist any more")
		return
	}
	if q.Release == t.st.Stable {
		t.finish(spillway.Succeeded, "it served already")
		return
	}
	r.Strategy, r.Steps = Compile(t.stable(), to, q.Strategy, t.st.Sizes)
	reason := ""
	switch {
	case q.Back:
		r.Steps, reason = []Step{whole}, ", in one step because it is a way back"
	case t.st.Stable != 0 && t.broken(t.stable()):
		r.Steps, reason = []Step{whole}, ", in one step because the stable release does not serve"
	}
	for _, g := range t.candidateGroups() {
		if n := t.group(g).Restarts; n > 0 { // it served before, and has not gone yet
			if r.Before == nil {
				r.Before = map[string]int{}
			}
			r.Before[g.String()] = n
		}
	}
	t.st.Phase = spillway.Progressing
	t.after(0)
	t.event(spillway.EventStarted, r.Release, "release %d by %s, %d %s%s", r.Release, r.Strategy, len(r.Steps), plural(len(r.Steps), "step"), reason)
}

// broken reports whether a public service of the release has no ready replica.
func (t *turn) broken(release spillway.Release) bool {
	return slices.ContainsFunc(release.Config.Services, func(s spillway.Service) bool {
		g, _ := release.Group(s.Name)
		return s.Public() && t.group(g).Ready == 0
	})
}

func (t *turn) step() Step { return t.st.Rollout.Steps[t.st.Rollout.Step] }

// weight is the candidate's share of the users in the route that should be.
func (t *turn) weight() spillway.Share {
	r := t.st.Rollout
	switch {
	case r == nil || t.st.Phase == spillway.RollingBack:
		return 0
	case t.st.Phase == spillway.Promoting:
		return spillway.Whole
	case r.Routed:
		return r.Steps[r.Step].Weight
	case r.Step > 0:
		return r.Steps[r.Step-1].Weight
	}
	return 0
}

func (t *turn) deadline() spillway.Duration {
	if d := t.candidate().Config.Deadline; d > 0 {
		return d
	}
	return spillway.DefaultDeadline
}

// progress climbs: capacity first, then the weight, then its acknowledgement, then the hold and the
// certificate; then the next step.
func (t *turn) progress() {
	r, step := t.st.Rollout, t.step()
	if !t.obs.NoData {
		r.Elapsed += t.dt
	}
	if r.Paused {
		return
	}
	if !r.Routed {
		r.Cleared = r.Cleared || t.recreatesAny() && t.recreatedGone(t.stable(), t.candidate())
		if t.missing() == "" {
			r.Routed, r.Exposed = true, r.Exposed || step.Weight > 0
			t.event(spillway.EventStep, r.Release, "release %d at %s (step %d of %d)", r.Release, step.Weight, r.Step+1, len(r.Steps))
		} else {
			t.after(t.deadline() - r.Elapsed)
		}
		return
	}
	if !t.acked() {
		return
	}
	if r.Acked && !t.obs.NoData {
		r.Held += t.dt
	}
	r.Acked = true
	if step.Weight == spillway.Whole {
		t.serving()
		return
	}
	t.holdStep()
}

// holdStep waits at an acknowledged weight until the step may be left.
func (t *turn) holdStep() {
	r, step := t.st.Rollout, t.step()
	switch {
	case r.Forced:
		t.advance()
	case r.Held < step.Hold:
		t.after(step.Hold - r.Held)
	case step.Manual && !r.Passed:
		t.pause("this step waits for a person: resume or abort")
	case !step.Certify || t.certified() || len(t.candidateGroups()) == 0:
		t.advance()
	case r.Held < step.Hold+t.deadline():
		t.after(step.Hold + t.deadline() - r.Held)
	case t.candidate().Config.Thin == spillway.ThinPromote:
		t.event(spillway.EventStep, r.Release, "the evidence is thin (%s); going on because the app says thin: promote", t.evidenceText())
		t.advance()
	default:
		t.pause("the evidence is too thin to go on: " + t.evidenceText() + "; promote or abort")
	}
}

func (t *turn) advance() {
	r := t.st.Rollout
	r.Step++
	r.Routed, r.Acked, r.Passed, r.Elapsed, r.Held = false, false, false, 0, 0
	t.after(0)
}

func (t *turn) pause(why string) {
	r := t.st.Rollout
	r.Paused, r.Reason = true, why
	t.st.Phase = spillway.Paused
	t.event(spillway.EventPaused, r.Release, "release %d rests at %s: %s", r.Release, t.weight(), why)
}

// certified reports whether the judge certified the candidate for the margin of the next step.
func (t *turn) certified() bool {
	e := t.st.Rollout.Evidence
	return e != nil && !t.obs.NoData && e.Verdict == spillway.Certified && e.Margin <= t.margin()
}

// margin is what the certificate that the present step asks for allows.
func (t *turn) margin() spillway.Share {
	r := t.st.Rollout
	if t.st.Phase == spillway.Promoting || r.Step+1 >= len(r.Steps) {
		return marginFor(spillway.Whole)
	}
	return marginFor(r.Steps[r.Step+1].Weight)
}

func (t *turn) evidenceText() string {
	if t.obs.NoData {
		return "no data"
	}
	if e := t.st.Rollout.Evidence; e != nil {
		return e.Reason
	}
	return "no traffic"
}

// missing says which capacity the present step still lacks, in words; "" when it is there.
func (t *turn) missing() string {
	return t.missingOf(t.candidate(), t.step().Candidate)
}

// missingOf says which services of a release have less than a share of their size ready. Groups that a
// candidate shares with stable are not asked about: they are as they were.
func (t *turn) missingOf(release spillway.Release, share spillway.Share) string {
	var lacks []string
	for _, s := range release.Config.Services {
		g, _ := release.Group(s.Name)
		if release.Number != t.st.Stable && !slices.Contains(t.candidateGroups(), g) {
			continue
		}
		want := t.capacity(s, share)
		o := t.group(g)
		if o.Ready >= want {
			continue
		}
		text := fmt.Sprintf("%d of %d %s of %s ready", o.Ready, want, plural(want, "replica"), s.Name)
		if o.Problem != "" {
			text += " (" + o.Problem + ")"
		}
		lacks = append(lacks, text)
	}
	return strings.Join(lacks, ", ")
}

// capacity is how many replicas a share of a service is; a recreated or new service is never partial.
func (t *turn) capacity(s spillway.Service, share spillway.Share) int {
	if _, old := t.stable().Group(s.Name); !old || s.Strategy == spillway.Recreate {
		share = spillway.Whole
	}
	return share.Of(sizeOf(s, t.st.Sizes))
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
