package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
)

// queueOf is the deploy that waits for a track; nil when none does.
func (t *turn) queueOf(track string) *Queued {
	if track == "" {
		return t.st.Queue
	}
	return t.st.Lanes[track].Queue
}

func (t *turn) setQueue(track string, q *Queued) {
	if track == "" {
		t.st.Queue = q
		return
	}
	lane := t.st.Lanes[track]
	lane.Queue = q
	t.setLane(track, lane)
}

// holds is the release that a track has.
func (t *turn) holds(track string) int {
	if track == "" {
		return t.st.Stable
	}
	return t.st.Lanes[track].Release
}

// waitingDeploys are the deploys that wait, in the order in which they will begin: that for stable, then those for
// tracks as they were asked for.
func (t *turn) waitingDeploys() []Queued {
	var list []Queued
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		if q := t.st.Lanes[track].Queue; q != nil {
			list = append(list, *q)
		}
	}
	slices.SortStableFunc(list, func(a, b Queued) int { return cmp.Compare(a.Intent, b.Intent) })
	if q := t.st.Queue; q != nil {
		list = append([]Queued{*q}, list...)
	}
	return list
}

// due reports whether a deploy may begin as far as the clock is concerned, or why not, in words. One that may
// not is looked at again when it may.
func (t *turn) due(q *Queued) (why string, ok bool) {
	if q == nil {
		return "", false
	}
	if q.At.After(t.now) {
		t.on(q.At)
		return "its time: " + q.At.UTC().Format("2006-01-02 15:04:05 MST"), false
	}
	if q.Back || q.Force {
		return "", true
	}
	for _, release := range []spillway.Release{t.stable(), t.spec.Releases[q.Release]} {
		for _, w := range release.Config.Freeze {
			if end, in := w.Until(t.now); in {
				t.on(end)
				return fmt.Sprintf("the end of the freeze window %s", w.Text), false
			}
		}
	}
	return "", true
}

// isDue is due without its words.
func (t *turn) isDue(q *Queued) bool {
	_, ok := t.due(q)
	return ok
}

// settled reports whether the data plane has taken over the route of the last promotion. Until then it may turn out
// that it has tripped the release at the last moment (trippedLate), and nothing may begin from that.
func (t *turn) settled() bool {
	return t.st.Last == nil || t.st.Last.Outcome != spillway.Succeeded || t.acked()
}

// rest is the app between rollouts: start the next one, or say how the stable release is.
func (t *turn) rest() {
	if t.trippedLate() {
		t.takeBack()
		return
	}
	var next *Queued
	for _, q := range t.waitingDeploys() {
		if t.isDue(&q) && next == nil && (q.Back || t.settled()) {
			next = &q
		}
	}
	if next != nil {
		t.setQueue(next.Track, nil)
		t.begin(*next)
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

// newerWaits: a newer deploy waits, so users go back to the last good release before it starts. During
// the watch a release that looks no worse than the one before is good enough to be that release. A deploy
// to stable does not wait for one to a track either: that one begins again behind it.
func newerWaits(t *turn) (spillway.Outcome, string) {
	r := t.st.Rollout
	q := t.newer()
	if q == nil || (t.st.Phase == spillway.Promoting && t.looksFine()) {
		return "", ""
	}
	if q.Track != r.Track {
		return spillway.Superseded, fmt.Sprintf("release %d goes to stable first", q.Release)
	}
	return spillway.Superseded, fmt.Sprintf("release %d is next", q.Release)
}

// newer is the deploy that the running rollout has to make way for; nil when there is none.
func (t *turn) newer() *Queued {
	r := t.st.Rollout
	if r.Back && r.Routed && t.st.Phase == spillway.Progressing || r.Begun {
		return nil // its users are on their way to what is good; a migration is not stopped half way
	}
	if q := t.queueOf(r.Track); t.isDue(q) {
		return q
	}
	if r.Track != "" && t.isDue(t.st.Queue) {
		return t.st.Queue
	}
	return nil
}

// again puts the deploy to a track that made way for one to stable back to where it waits. It had begun, so neither a
// freeze nor a delay holds it; but a rollback goes to a bad release only if it was forced, and then it was bad already.
func (t *turn) again(r *Rollout, outcome spillway.Outcome) {
	if r.Track == "" || outcome != spillway.Superseded || t.queueOf(r.Track) != nil {
		return
	}
	_, bad := t.st.Bad[r.Release]
	t.setQueue(r.Track, &Queued{Release: r.Release, Track: r.Track, Back: r.Back, Force: !r.Back || bad, Intent: t.st.Intent})
}
