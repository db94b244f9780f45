package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

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

// begin starts the rollout of a deploy that waited, and takes its first step as far as it can be taken now.
func (t *turn) begin(q Queued) {
	to, ok := t.spec.Releases[q.Release]
	t.st.Rollouts++
	r := &Rollout{
		ID: t.st.Rollouts, Release: q.Release, Stable: t.st.Stable, Back: q.Back, Began: t.now,
		Track: q.Track, From: t.st.Lanes[q.Track].Release,
	}
	t.st.Rollout, t.dt = r, 0
	t.follow() // for what is autoscaled from now on
	switch {
	case !ok:
		t.finish(spillway.Failed, "the release does not exist any more")
		return
	case q.Release == t.holds(q.Track):
		t.finish(spillway.Succeeded, "it served already")
		return
	case q.Back && t.st.Bars(spillway.Intent{Verb: spillway.VerbRollback, Release: q.Release, Track: q.Track, Force: q.Force}) != "":
		t.finish(spillway.Cancelled, "it was found bad while it waited: "+t.st.Bad[q.Release].Reason)
		return
	case q.Track != "" && !slices.Contains(t.stable().Config.Lanes(), q.Track):
		t.finish(spillway.Failed, fmt.Sprintf("the stable release has no track %s; deploy the file that names it to stable first", q.Track))
		return
	}
	reason := t.plan(r, to, q)
	if q.Track == "" && t.st.Standby != nil && t.st.Standby.Release != q.Release {
		t.st.Standby = nil // its place is the candidate's now
	}
	for _, g := range t.candidateGroups() { // it may have run before, and not have gone yet
		if n := t.group(g).Restarts; n > 0 {
			r.Before = noted(r.Before, g, n)
		}
		if n := t.group(g).Crashes; n > 0 {
			r.Crashed = noted(r.Crashed, g, n)
		}
	}
	t.st.Phase = spillway.Progressing
	t.after(0)
	t.event(spillway.EventStarted, r.Release, "release %d%s by %s, %d %s%s", r.Release, toTrack(r.Track), r.Strategy, len(r.Steps), plural(len(r.Steps), "step"), reason)
	for _, task := range t.tasks() {
		t.event(spillway.EventTask, r.Release, "the release command of %s is run before its replicas start", task.Service).Service = task.Service
	}
	t.progress()
}

func noted(counts map[string]int, g spillway.Group, n int) map[string]int {
	if counts == nil {
		counts = map[string]int{}
	}
	counts[g.String()] = n
	return counts
}

// since is a count of a group since the rollout began: all of it when the group began anew.
func since(before map[string]int, g spillway.Group, n int) int {
	if was := before[g.String()]; n >= was {
		return n - was
	}
	return n
}

// plan makes the steps of a rollout, and says in words why there is only one.
func (t *turn) plan(r *Rollout, to spillway.Release, q Queued) (reason string) {
	if q.Track != "" {
		r.Strategy, r.Steps = spillway.Canary, []Step{whole}
		return ", in one step because its users are few already"
	}
	r.Strategy, r.Steps = Compile(t.stable(), to, q.Strategy, t.sizes(to))
	switch {
	case q.Back:
		r.Steps = []Step{whole}
		return ", in one step because it is a way back"
	case t.st.Stable != 0 && t.broken(t.stable()):
		r.Steps = []Step{whole}
		return ", in one step because the stable release does not serve"
	}
	return ""
}

// toTrack is " to track canary", and "" for stable.
func toTrack(track string) string {
	if track == "" {
		return ""
	}
	return " to track " + track
}

// broken reports whether a public service of the release has no ready replica.
func (t *turn) broken(release spillway.Release) bool {
	return slices.ContainsFunc(release.Config.Services, func(s spillway.Service) bool {
		g, _ := release.Group(s.Name)
		return s.Public() && t.group(g).Ready == 0
	})
}

func (t *turn) step() Step { return t.st.Rollout.Steps[t.st.Rollout.Step] }

// weight is the candidate's share of stable's users in the route that should be. A candidate for a track has none.
func (t *turn) weight() spillway.Share {
	r := t.st.Rollout
	switch {
	case r == nil || r.Track != "" || t.st.Phase == spillway.RollingBack:
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

// lapse is the time since the last decision as it counts against the deadline of a step: time in which it could go on.
func (t *turn) lapse() spillway.Duration {
	if t.obs.NoData || t.obs.Away {
		return 0
	}
	return t.dt
}

// progress climbs: capacity first, then the weight, then its acknowledgement, then the hold and the
// certificate; then the next step.
func (t *turn) progress() {
	r, step := t.st.Rollout, t.step()
	if r.Paused {
		return
	}
	r.Elapsed += t.lapse()
	if !t.prepare() {
		t.after(t.patience() - r.Elapsed)
		return
	}
	if !r.Routed {
		r.Cleared = r.Cleared || t.recreatesAny() && t.recreatedGone(t.stable(), t.candidate())
		if t.missing() == "" && (r.Cleared || !t.recreatesAny()) { // replicas of an earlier try may still be there
			r.Routed, r.Exposed = true, r.Exposed || step.Weight > 0
			t.event(spillway.EventStep, r.Release, "release %d at %s%s%s (step %d of %d)", r.Release, step.Weight, ofTrack(r.Track), t.plainShare(), r.Step+1, len(r.Steps))
		} else {
			t.after(t.patience() - r.Elapsed)
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

// ofTrack is " of track canary", and "" for stable.
func ofTrack(track string) string {
	if track == "" {
		return ""
	}
	return " of track " + track
}

// holdStep waits at an acknowledged weight until the step may be left.
func (t *turn) holdStep() {
	r, step := t.st.Rollout, t.step()
	why, silent := t.gateWaits()
	switch {
	case r.Forced:
		t.advance()
	case r.Held < step.Hold:
		t.after(step.Hold - r.Held)
	case step.Manual && !r.Passed:
		t.pause("this step waits for a person: resume or abort")
	case silent > 0 && silent < t.deadline(): // nobody can say: neither on nor back
		r.Held = min(r.Held, step.Hold)
		t.after(t.deadline() - silent)
	case silent > 0:
		t.pause(why + "; resume (wait for it again), promote (go on without it) or abort")
	case why == "" && t.unjudged() && !r.Passed:
		t.pause(t.obs.Plain + "; judge it yourself, then resume (the next step), promote (everybody) or abort")
	case why == "" && (!step.Certify || t.unjudged() || t.certified() || len(t.candidateGroups()) == 0):
		t.advance()
	case r.Held < step.Hold+t.deadline():
		t.after(step.Hold + t.deadline() - r.Held)
	case why != "":
		t.pause(why + "; promote or abort")
	case t.candidate().Config.Thin == spillway.ThinPromote && r.Evidence != nil && r.Evidence.Requests > 0:
		t.event(spillway.EventStep, r.Release, "the evidence is thin (%s); going on because the app says thin: promote", t.evidenceText())
		t.advance()
	default:
		t.pause("the evidence is too thin to go on: " + t.evidenceText() + "; promote or abort")
	}
}

// unjudged reports whether the present step asks for a certificate that nobody can give here: a person decides.
func (t *turn) unjudged() bool {
	return t.step().Certify && t.obs.Plain != "" && len(t.candidateGroups()) > 0
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
	t.event(spillway.EventPaused, r.Release, "release %d rests at %s%s: %s", r.Release, t.shown(), ofTrack(r.Track), why)
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
	if t.st.Rollout.Track != "" {
		return t.laneMissing()
	}
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
		want := t.capacity(s, share) + t.lanePart(g)
		if t.st.Rollout == nil && s.Autoscaled() { // what the autoscaler adds is allowed its time
			want = min(want, sizeOf(s, t.st.Sizes))
		}
		lacks = append(lacks, t.lack(s, g, want))
	}
	return joined(lacks)
}

// lack says that a group has less than want replicas ready; "" when it has them.
func (t *turn) lack(s spillway.Service, g spillway.Group, want int) string {
	o, ready := t.group(g), t.ready(g)
	if ready >= want {
		return ""
	}
	text := fmt.Sprintf("%d of %d %s of %s ready", ready, want, plural(want, "replica"), s.Name)
	if o.Problem != "" {
		text += " (" + o.Problem + ")"
	}
	return text
}

// ready is how many replicas of a group are ready and stay: what is seen beyond what was wanted last is on its way out,
// also when the observation is from before that was asked for.
func (t *turn) ready(g spillway.Group) int {
	i := slices.IndexFunc(t.st.Wants, func(w Want) bool { return w.Group == g })
	if i < 0 {
		return 0
	}
	return min(t.group(g).Ready, t.st.Wants[i].Replicas)
}

func joined(texts []string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), ", ")
}

// capacity is how many replicas a share of a service is; a recreated or new service is never partial.
func (t *turn) capacity(s spillway.Service, share spillway.Share) int {
	if _, old := t.stable().Group(s.Name); !old || s.Strategy == spillway.Recreate {
		share = spillway.Whole
	}
	return share.Of(t.size(s))
}

// patience is how long a step may take until its capacity is there: the deadline, and where old replicas have to
// make room first (recreate, and the steps of rolling after the first) the time that they may drain.
func (t *turn) patience() spillway.Duration {
	most := spillway.Duration(0)
	if r := t.st.Rollout; r.Track == "" && (r.Strategy == spillway.Rolling && r.Step > 0 || t.recreatesAny()) {
		for _, g := range t.candidateGroups() {
			if old, ok := t.stable().Group(g.Service); ok {
				most = max(most, t.drainLimit(old))
			}
		}
	}
	return t.deadline() + most
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
