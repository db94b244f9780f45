package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

// takeIntents acts on what people asked for, in the order in which they asked. An intent is acted on
// once: its number is saved together with its effect.
func (t *turn) takeIntents() {
	for _, in := range t.spec.Intents {
		if in.Seq <= t.st.Intent {
			continue
		}
		t.st.Intent = in.Seq
		if t.st.Destroy {
			t.ignore(in, "the app is being destroyed")
			continue
		}
		verbs := map[spillway.Verb]func(spillway.Intent) string{
			spillway.VerbDeploy: t.askDeploy, spillway.VerbRollback: t.askRollback,
			spillway.VerbPromote: t.askPromote, spillway.VerbPause: t.askPause, spillway.VerbResume: t.askResume,
			spillway.VerbAbort: t.askAbort, spillway.VerbCancel: t.askCancel,
			spillway.VerbScale: t.askScale, spillway.VerbRestart: t.askRestart, spillway.VerbDestroy: t.askDestroy,
		}
		ask, ok := verbs[in.Verb]
		if !ok {
			t.ignore(in, "unknown verb "+string(in.Verb))
			continue
		}
		if why := ask(in); why != "" {
			t.ignore(in, why)
		}
	}
}

// ignore says why an intent had nothing to do.
func (t *turn) ignore(in spillway.Intent, why string) {
	t.event(spillway.EventIgnored, in.Release, "%s: %s", in.Verb, why).By = in.By
}

func (t *turn) asked(in spillway.Intent, format string, args ...any) string {
	t.event(spillway.EventAsked, cmp.Or(in.Release, t.st.Stable), format, args...).By = in.By
	return ""
}

// Each ask… gives "" or why there was nothing to do.

func (t *turn) askDeploy(in spillway.Intent) string {
	release, ok := t.spec.Releases[in.Release]
	if !ok {
		return "there is no such release"
	}
	r, waits := t.st.Rollout, t.queueOf(in.Track)
	switch {
	case in.Track != "" && t.st.Stable == 0:
		return "nothing serves yet that track " + in.Track + " could be compared with: deploy without a track first"
	case waits == nil && (r == nil || r.Track != in.Track) && t.holds(in.Track) == in.Release:
		return "this release serves already"
	case waits == nil && r != nil && r.Track == in.Track && r.Release == in.Release && t.st.Phase != spillway.RollingBack:
		return "this release is being rolled out already"
	}
	q := Queued{Release: in.Release, Strategy: in.Strategy, Intent: in.Seq, Track: in.Track, Force: in.Force, By: in.By, At: in.NotBefore}
	if delay := release.Config.Delay; delay > 0 && !in.Force {
		q.At = latest(q.At, in.At.Add(time.Duration(delay)))
	}
	t.queue(q, in)
	return ""
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (t *turn) askRollback(in spillway.Intent) string {
	r := t.st.Rollout
	target, from := in.Release, 0 // from is where the running rollout of the track returns to
	if r != nil && r.Track == in.Track {
		from = r.Stable
		if r.Track != "" {
			from = r.From
		}
	}
	lane := r != nil && r.Track == in.Track && in.Track != ""
	if (from != 0 || lane) && t.st.Phase != spillway.RollingBack && (target == 0 || target == from) {
		t.st.Held = true
		t.dropQueue(in, in.Track, spillway.Cancelled)
		t.asked(in, "roll back%s to release %d", ofTrack(in.Track), cmp.Or(from, r.Stable))
		t.turnBack(spillway.Aborted, "rollback asked for by "+cmp.Or(in.By, "a person"))
		return ""
	}
	if waits := t.queueOf(in.Track); target == 0 && waits != nil {
		t.st.Held = true
		t.asked(in, "roll back: release %d does not begin", waits.Release)
		meant := t.justAsked(waits)
		t.dropQueue(in, in.Track, spillway.Cancelled)
		if meant || in.Track != "" && t.holds(in.Track) == 0 { // there is nothing else to take back
			return ""
		}
	}
	mine := r != nil && r.Track == in.Track
	good := t.st.Good
	if in.Track != "" {
		good = slices.DeleteFunc(slices.Clone(t.st.Lanes[in.Track].Good), func(n int) bool { return n == t.st.Stable })
	}
	if target == 0 && len(good) > 0 && !mine {
		target = good[0]
	}
	in.Release = target
	switch _, ok := t.spec.Releases[target]; {
	case target == 0 && mine && t.st.Phase == spillway.RollingBack:
		return t.forGood(in, spillway.Aborted)
	case target == 0 && in.Track != "" && t.holds(in.Track) != 0:
		t.st.Held = true
		t.asked(in, "roll back: the users of track %s are stable's", in.Track)
		t.closeTrack(in.Track)
		return ""
	case target == 0:
		return t.st.NoWayBack(t.spec.Releases, in.Track)
	case !ok:
		return "there is no such release"
	case !mine && t.queueOf(in.Track) == nil && target == t.holds(in.Track):
		return "this release serves already"
	case t.st.Bars(in) != "":
		return t.st.Bars(in)
	}
	t.st.Held = true
	if r != nil && !mine && in.Track != "" { // its users do not wait for somebody else's rollout
		t.closeTrack(in.Track)
	}
	t.queue(Queued{Release: target, Strategy: in.Strategy, Back: true, Force: in.Force, Intent: in.Seq, Track: in.Track, By: in.By}, in)
	return ""
}

// justAsked reports whether a deploy waits only because it was asked for a moment ago, or for the delay of its app:
// then a rollback means that deploy, and not what has served since long.
func (t *turn) justAsked(q *Queued) bool {
	delay := t.spec.Releases[q.Release].Config.Delay
	return t.isDue(q) || q.At.After(t.now) && q.At.Sub(t.now) <= time.Duration(delay)
}

// queue makes a release the next to be rolled out to its track; one that waited before it is superseded.
func (t *turn) queue(q Queued, in spillway.Intent) {
	t.dropQueue(in, q.Track, spillway.Superseded)
	t.setQueue(q.Track, &q)
	t.asked(in, "%s release %d%s", in.Verb, q.Release, toTrack(q.Track))
}

// dropQueue takes the deploy that waits for a track away. It reports whether there was one.
func (t *turn) dropQueue(in spillway.Intent, track string, outcome spillway.Outcome) bool {
	q := t.queueOf(track)
	if q == nil {
		return false
	}
	t.setQueue(track, nil)
	if q.Release != in.Release || outcome == spillway.Cancelled {
		e := t.event(spillway.EventFinished, q.Release, "release %d was waiting and was %s by %s", q.Release, outcome, in.Verb)
		e.Outcome, e.By, e.Track, e.Rollout = outcome, in.By, track, 0
	}
	return true
}

// dropWaiting takes away the deploy that a verb without a rollout is about: that of its track, or the next one.
func (t *turn) dropWaiting(in spillway.Intent) bool {
	for _, q := range t.waitingDeploys() {
		if in.Track == "" || in.Track == q.Track {
			return t.dropQueue(in, q.Track, spillway.Cancelled)
		}
	}
	return false
}

// concerns is the rollout that a verb is about: whichever runs, or only one of the track that it names.
func (t *turn) concerns(in spillway.Intent) *Rollout {
	if r := t.st.Rollout; r != nil && (in.Track == "" || in.Track == r.Track) {
		return r
	}
	return nil
}

func (t *turn) askPromote(in spillway.Intent) string {
	r := t.concerns(in)
	switch {
	case r == nil && in.Track != "":
		return t.promoteTrack(in)
	case r == nil:
		return "no rollout runs"
	case t.st.Phase == spillway.RollingBack:
		return "it is rolling back"
	case t.st.Phase == spillway.Promoting:
		t.asked(in, "end the watch of release %d", r.Release)
		r.Forced = true
		return ""
	}
	r.Forced, r.Paused, r.Reason = true, false, ""
	t.st.Phase = spillway.Progressing
	return t.asked(in, "promote release %d without further holds", r.Release)
}

// promoteTrack makes the release that a track holds the next one for stable. Its replicas are those that were
// tried: nothing is built.
func (t *turn) promoteTrack(in spillway.Intent) string {
	r, waits, release := t.st.Rollout, t.st.Queue, t.holds(in.Track)
	switch {
	case release == 0:
		return "track " + in.Track + " holds no release"
	case release == t.st.Stable:
		return fmt.Sprintf("release %d is stable already", release)
	case r != nil && r.Track == "" && r.Release == release && t.st.Phase != spillway.RollingBack && waits == nil:
		in.Track = ""
		return t.askPromote(in)
	case waits != nil && waits.Release == release:
		return fmt.Sprintf("release %d waits already", release)
	default:
		in.Release = release
		t.queue(Queued{Release: release, Strategy: in.Strategy, Intent: in.Seq, Force: in.Force, By: in.By}, in)
		return ""
	}
}

func (t *turn) askPause(in spillway.Intent) string {
	r := t.concerns(in)
	switch {
	case r == nil:
		return "no rollout runs"
	case t.st.Phase == spillway.Paused:
		return "it is paused already"
	case t.st.Phase != spillway.Progressing:
		return "nothing to pause while it is " + string(t.st.Phase)
	case t.recreatesAny() && t.replacing():
		return "nothing serves while replicas are recreated: wait until the new ones are ready, or abort"
	}
	t.asked(in, "pause release %d", r.Release)
	t.pause("paused by " + cmp.Or(in.By, "a person"))
	return ""
}

func (t *turn) askResume(in spillway.Intent) string {
	r := t.concerns(in)
	if r == nil || !r.Paused {
		switch why := t.deaf(r); {
		case t.st.Held:
			t.st.Held = false
			return t.asked(in, "automatic deploys may go on")
		case why != "":
			return fmt.Sprintf("nothing is paused: release %d waits by itself, because %s, and goes on when it can be judged; promote goes on without that, abort goes back", r.Release, why)
		}
		return "nothing is paused"
	}
	r.Passed = r.Passed || (t.step().Manual || t.unjudged()) && r.Held >= t.step().Hold // it was for this step that it rested
	r.Paused, r.Reason, r.Held = false, "", min(r.Held, t.step().Hold)
	r.Silent = 0 // the judge and the gates get another deadline to be heard
	for text, gate := range r.Gates {
		gate.Silent = 0
		r.Gates[text] = gate
	}
	t.st.Phase, t.st.Held = spillway.Progressing, false
	text := fmt.Sprintf("release %d goes on from %s", r.Release, t.shown())
	if why := t.deaf(r); why != "" {
		text = fmt.Sprintf("release %d stays at %s for up to %s more, because %s; promote goes on without being judged", r.Release, t.shown(), t.deadline(), why)
	}
	t.event(spillway.EventResumed, r.Release, "%s", text).By = in.By
	return ""
}

// deaf says why a rollout that has not turned back waits for what cannot be known now: the judge or a gate has no data.
// "" = it does not.
func (t *turn) deaf(r *Rollout) string {
	if r == nil || r.Forced || t.st.Phase == spillway.RollingBack {
		return ""
	}
	if why, silent := t.gateWaits(); silent > 0 {
		return why
	}
	return ""
}

func (t *turn) askAbort(in spillway.Intent) string {
	r := t.concerns(in)
	if r == nil {
		if t.dropWaiting(in) { // asked for so soon that it had not begun
			return ""
		}
		return "no rollout runs"
	}
	if t.st.Phase == spillway.RollingBack {
		return t.forGood(in, spillway.Aborted)
	}
	t.asked(in, "abort release %d", r.Release)
	t.turnBack(spillway.Aborted, "aborted by "+cmp.Or(in.By, "a person"))
	return ""
}

func (t *turn) askCancel(in spillway.Intent) string {
	if t.dropWaiting(in) {
		return ""
	}
	r := t.concerns(in)
	if r == nil {
		return "nothing waits and no rollout runs"
	}
	if t.st.Phase == spillway.RollingBack {
		return t.forGood(in, spillway.Cancelled)
	}
	t.asked(in, "cancel release %d", r.Release)
	t.turnBack(spillway.Cancelled, "cancelled by "+cmp.Or(in.By, "a person"))
	return ""
}

// forGood makes the way back of a track's rollout that only gives way to stable one from which it does not begin again.
func (t *turn) forGood(in spillway.Intent, outcome spillway.Outcome) string {
	r := t.st.Rollout
	if r.Track == "" || r.Outcome != spillway.Superseded {
		return "it is rolling back already"
	}
	r.Outcome, r.Reason = outcome, fmt.Sprintf("%s by %s", outcome, cmp.Or(in.By, "a person"))
	return t.asked(in, "%s release %d", in.Verb, r.Release)
}

func (t *turn) askScale(in spillway.Intent) string {
	if !t.knows(in.Service) {
		return "there is no service " + in.Service
	}
	if in.Auto {
		delete(t.st.Sizes, in.Service)
		t.event(spillway.EventScaled, t.st.Stable, "%s has the size that its release says", in.Service).By = in.By
		return ""
	}
	if in.Replicas < 1 {
		return "a service has at least 1 replica"
	}
	if t.st.Sizes == nil {
		t.st.Sizes = map[string]int{}
	}
	n, why := in.Replicas, ""
	s, _ := t.stable().Config.Service(in.Service)
	if s.Max > 0 && (n > s.Max || n < s.Scale) {
		n = min(max(n, s.Scale), s.Max)
		why = fmt.Sprintf(": %d were asked for, and its file says %d to %d", in.Replicas, s.Scale, s.Max)
	}
	t.st.Sizes[in.Service] = n
	has := "has"
	if s.Autoscaled() { // its autoscaler starts no fewer
		has = "has at least"
	}
	t.event(spillway.EventScaled, t.st.Stable, "%s %s %d replicas%s", in.Service, has, n, why).By = in.By
	return ""
}

func (t *turn) askRestart(in spillway.Intent) string {
	if in.Service != "" && !t.knows(in.Service) {
		return "there is no service " + in.Service
	}
	if t.st.Restart == nil {
		t.st.Restart = map[string]int64{}
	}
	for _, release := range t.inUse() {
		for _, s := range release.Config.Services {
			if in.Service == "" || in.Service == s.Name {
				t.st.Restart[s.Name] = in.Seq
			}
		}
	}
	return t.asked(in, "restart %s", cmp.Or(in.Service, "all services"))
}

func (t *turn) askDestroy(in spillway.Intent) string {
	for t.dropWaiting(spillway.Intent{Verb: in.Verb, By: in.By}) {
	}
	t.asked(in, "destroy the app")
	if t.st.Rollout != nil {
		t.finish(spillway.Aborted, "the app is destroyed")
	}
	t.st.Destroy = true
	return ""
}

// knows reports whether a release in use has the service.
func (t *turn) knows(service string) bool {
	return slices.ContainsFunc(t.inUse(), func(r spillway.Release) bool {
		_, ok := r.Config.Service(service)
		return ok
	})
}

// inUse are the releases that have replicas or are to have some: stable, the candidate, those of tracks.
func (t *turn) inUse() []spillway.Release {
	list := []spillway.Release{t.stable(), t.candidate()}
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		list = append(list, t.spec.Releases[t.st.Lanes[track].Release])
	}
	return list
}
