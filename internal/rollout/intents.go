package rollout

import (
	"cmp"
	"slices"

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
	if _, ok := t.spec.Releases[in.Release]; !ok {
		return "there is no such release"
	}
	r := t.st.Rollout
	switch {
	case t.st.Queue == nil && r == nil && t.st.Stable == in.Release:
		return "this release serves already"
	case t.st.Queue == nil && r != nil && r.Release == in.Release && t.st.Phase != spillway.RollingBack:
		return "this release is being rolled out already"
	}
	t.queue(Queued{Release: in.Release, Strategy: in.Strategy, Intent: in.Seq}, in)
	return ""
}

func (t *turn) askRollback(in spillway.Intent) string {
	r := t.st.Rollout
	target := in.Release
	if r != nil && r.Stable != 0 && t.st.Phase != spillway.RollingBack && (target == 0 || target == r.Stable) {
		t.st.Held = true
		t.dropQueue(in, spillway.Cancelled)
		t.asked(in, "roll back to release %d", r.Stable)
		t.turnBack(spillway.Aborted, "rollback asked for by "+cmp.Or(in.By, "a person"))
		return ""
	}
	if target == 0 && t.st.Queue != nil { // the deploy that it is meant for has not begun
		t.st.Held = true
		t.asked(in, "roll back: release %d does not begin", t.st.Queue.Release)
		t.dropQueue(in, spillway.Cancelled)
		return ""
	}
	if target == 0 && len(t.st.Good) > 0 && r == nil {
		target = t.st.Good[0]
	}
	switch _, ok := t.spec.Releases[target]; {
	case target == 0 && r != nil && t.st.Phase == spillway.RollingBack:
		return "it is rolling back already"
	case target == 0:
		return "there is no earlier good release to roll back to"
	case !ok:
		return "there is no such release"
	case r == nil && t.st.Queue == nil && target == t.st.Stable:
		return "this release serves already"
	}
	t.st.Held = true
	in.Release = target
	t.queue(Queued{Release: target, Strategy: in.Strategy, Back: true, Intent: in.Seq}, in)
	return ""
}

// queue makes a release the next to be rolled out; one that waited before it is superseded.
func (t *turn) queue(q Queued, in spillway.Intent) {
	t.dropQueue(in, spillway.Superseded)
	t.st.Queue = &q
	t.asked(in, "%s release %d", in.Verb, q.Release)
}

func (t *turn) dropQueue(in spillway.Intent, outcome spillway.Outcome) bool {
	q := t.st.Queue
	if q == nil {
		return false
	}
	t.st.Queue = nil
	if q.Release != in.Release || outcome == spillway.Cancelled {
		e := t.event(spillway.EventFinished, q.Release, "release %d was waiting and was %s by %s", q.Release, outcome, in.Verb)
		e.Outcome, e.By, e.Rollout = outcome, in.By, 0
	}
	return true
}

func (t *turn) askPromote(in spillway.Intent) string {
	r := t.st.Rollout
	switch {
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

func (t *turn) askPause(in spillway.Intent) string {
	r := t.st.Rollout
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
	r := t.st.Rollout
	if r == nil || !r.Paused {
		if !t.st.Held {
			return "nothing is paused"
		}
		t.st.Held = false
		return t.asked(in, "automatic deploys may go on")
	}
	r.Paused, r.Passed, r.Reason, r.Held = false, true, "", min(r.Held, t.step().Hold)
	t.st.Phase, t.st.Held = spillway.Progressing, false
	t.event(spillway.EventResumed, r.Release, "release %d goes on from %s", r.Release, t.weight()).By = in.By
	return ""
}

func (t *turn) askAbort(in spillway.Intent) string {
	if t.st.Rollout == nil {
		if t.dropQueue(in, spillway.Cancelled) { // asked for so soon that it had not begun
			return ""
		}
		return "no rollout runs"
	}
	if t.st.Phase == spillway.RollingBack {
		return "it is rolling back already"
	}
	t.asked(in, "abort release %d", t.st.Rollout.Release)
	t.turnBack(spillway.Aborted, "aborted by "+cmp.Or(in.By, "a person"))
	return ""
}

func (t *turn) askCancel(in spillway.Intent) string {
	if t.dropQueue(in, spillway.Cancelled) {
		return ""
	}
	if t.st.Rollout == nil {
		return "nothing waits and no rollout runs"
	}
	if t.st.Phase == spillway.RollingBack {
		return "it is rolling back already"
	}
	t.asked(in, "cancel release %d", t.st.Rollout.Release)
	t.turnBack(spillway.Cancelled, "cancelled by "+cmp.Or(in.By, "a person"))
	return ""
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
	t.st.Sizes[in.Service] = in.Replicas
	t.event(spillway.EventScaled, t.st.Stable, "%s has %d replicas", in.Service, in.Replicas).By = in.By
	return ""
}

func (t *turn) askRestart(in spillway.Intent) string {
	if in.Service != "" && !t.knows(in.Service) {
		return "there is no service " + in.Service
	}
	if t.st.Restart == nil {
		t.st.Restart = map[string]int64{}
	}
	for _, release := range []spillway.Release{t.stable(), t.candidate()} {
		for _, s := range release.Config.Services {
			if in.Service == "" || in.Service == s.Name {
				t.st.Restart[s.Name] = in.Seq
			}
		}
	}
	return t.asked(in, "restart %s", cmp.Or(in.Service, "all services"))
}

func (t *turn) askDestroy(in spillway.Intent) string {
	t.dropQueue(in, spillway.Cancelled)
	t.asked(in, "destroy the app")
	if t.st.Rollout != nil {
		t.finish(spillway.Aborted, "the app is destroyed")
	}
	t.st.Destroy = true
	return ""
}

// knows reports whether a release in use has the service.
func (t *turn) knows(service string) bool {
	return slices.ContainsFunc([]spillway.Release{t.stable(), t.candidate()}, func(r spillway.Release) bool {
		_, ok := r.Config.Service(service)
		return ok
	})
}
