package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	keepBad   = 20  // releases that no rollback goes to, remembered: those blamed last
	longBlame = 300 // bytes of a reason that are kept: it may end with lines of a program
)

// Blame is why no rollback goes to a release.
type Blame struct {
	Outcome spillway.Outcome `json:"outcome"` // RolledBack or Failed
	Reason  string           `json:"reason"`
	At      time.Time        `json:"at"`
	Judged  bool             `json:"judged,omitempty"` // the judge found it harmful, by what users were answered
	Forced  bool             `json:"forced,omitempty"` // a rollback gave it to everybody all the same, and it became stable
}

// conclude takes from the end of a rollout whether its release is one to go back to. A bad one is bad until it is tried
// again and that refutes it. Trouble is not held against a release that has served well: what has changed since is not
// the release. Harm is, and trouble of the next try does not make up for it.
func (t *turn) conclude(r *Rollout, outcome spillway.Outcome, reason string) {
	held := r.Release == t.st.Stable || r.Release == t.holds(r.Track)
	harm := r.Harm || r.harmful()
	b, bad := t.st.Bad[r.Release]
	switch {
	case len(r.Steps) == 0: // it had not begun
	case outcome == spillway.Succeeded && bad && t.refutes(r, b):
		delete(t.st.Bad, r.Release)
	case outcome == spillway.Succeeded && bad && r.Track == "":
		b.Forced = r.Back
		t.st.Bad[r.Release] = b
	case (outcome == spillway.RolledBack || outcome == spillway.Failed) && !held && (harm || !t.proven(r) && b.Outcome != spillway.RolledBack):
		t.blame(r.Release, Blame{Outcome: outcome, Reason: reason, Judged: b.Judged || r.harmful()})
	}
}

// refutes reports whether the success of a rollout shows that its release is not bad any more: it has shown the opposite
// of what it is blamed for, and not only been let through.
func (t *turn) refutes(r *Rollout, b Blame) bool {
	switch why, _ := t.gateWaits(); {
	case r.Back: // by force, and not on trial
		return false
	case b.Judged:
		return r.Evidence != nil && r.Evidence.Requests > 0
	case b.Outcome == spillway.Failed, r.Stable == 0: // it is ready now; without stable no gate is asked
		return true
	default:
		return why == ""
	}
}

// forgive takes the blame from a stable release that was forced, when an ordinary deploy replaces it: everybody had it, and
// nobody went back from it.
func (t *turn) forgive() {
	if r := t.st.Rollout; t.st.Bad[r.Stable].Forced && !r.Back {
		delete(t.st.Bad, r.Stable)
	}
}

// proven reports whether the release of a rollout serves a track, or served the one of the rollout or everybody before.
func (t *turn) proven(r *Rollout) bool {
	holds := func(l Lane) bool { return l.Release == r.Release }
	return slices.Contains(t.st.Good, r.Release) || slices.Contains(t.st.Lanes[r.Track].Good, r.Release) ||
		slices.ContainsFunc(slices.Collect(maps.Values(t.st.Lanes)), holds)
}

// blame keeps rollbacks from a release.
func (t *turn) blame(release int, b Blame) {
	without := func(good []int) []int {
		return slices.DeleteFunc(good, func(n int) bool { return n == release })
	}
	t.st.Good = without(t.st.Good)
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		lane := t.st.Lanes[track]
		lane.Good = without(lane.Good)
		t.setLane(track, lane)
	}
	maps.DeleteFunc(t.st.Bad, func(n int, _ Blame) bool { _, ok := t.spec.Releases[n]; return !ok || n == release })
	oldest := slices.SortedFunc(maps.Keys(t.st.Bad), func(x, y int) int {
		return cmp.Or(t.st.Bad[x].At.Compare(t.st.Bad[y].At), cmp.Compare(x, y))
	})
	for _, n := range oldest[:max(0, len(oldest)+1-keepBad)] {
		delete(t.st.Bad, n)
	}
	if t.st.Bad == nil {
		t.st.Bad = map[int]Blame{}
	}
	b.Reason, b.At = shortened(b.Reason), t.now
	t.st.Bad[release] = b // kept whatever the clock says
}

// wayBack is a release that leaves a track, if one may go back to it; else 0. What one went back from is no way back,
// unless that was to a bad release, by force.
func (t *turn) wayBack(was int) int {
	if _, worse := t.st.Bad[t.st.Rollout.Release]; t.st.Rollout.Back && !worse {
		return 0
	}
	return was
}

func shortened(reason string) string {
	if len(reason) <= longBlame {
		return reason
	}
	return strings.ToValidUTF8(reason[:longBlame], "") + " …"
}

// Bars says why a rollback does not go to the release that it names, and what to do instead; "" = nothing is known
// against it, or it is forced. What serves is never barred, so the way out of a rollout is always free.
func (s Status) Bars(in spillway.Intent) string {
	b, bad := s.Bad[in.Release]
	holds := s.Stable
	if in.Track != "" {
		holds = s.Lanes[in.Track].Release
	}
	if !bad || in.Verb != spillway.VerbRollback || in.Force || in.Release == holds {
		return ""
	}
	good, track := "what there is: spillway releases", trackFlag(in.Track)
	switch n := s.lastGood(in.Track); {
	case n == 0 && holds != 0:
		good = fmt.Sprintf("release %d serves, and no earlier one is known to be good", holds)
	case n != 0:
		good = fmt.Sprintf("the last good one is release %d: spillway rollback%s", n, track)
	}
	return fmt.Sprintf("%s; %s; to try release %d again and have it judged: spillway deploy %d%s; %s",
		b.of(in.Release), good, in.Release, in.Release, track, byForce(in.Release, in.Track))
}

// of says what a release is blamed for: "release 2 failed on 2026-11-28 at 12:00 UTC: www.2 cannot become ready".
func (b Blame) of(release int) string {
	what := "was rolled back"
	if b.Outcome == spillway.Failed {
		what = "failed"
	}
	return fmt.Sprintf("release %d %s on %s: %s", release, what, b.At.UTC().Format("2006-01-02 at 15:04 MST"), strings.TrimRight(b.Reason, ". \n"))
}

func byForce(release int, track string) string {
	return fmt.Sprintf("to give it everybody all the same: spillway rollback %d%s --force", release, trackFlag(track))
}

func trackFlag(track string) string {
	if track == "" {
		return ""
	}
	return " --track " + track
}

// NoWayBack says that a rollback of a track without a number goes nowhere, and where bad releases are what is left, how to go
// to the newest of them. releases are those that exist.
func (s Status) NoWayBack(releases map[int]spillway.Release, track string) string {
	text := "there is no earlier good release to roll back to"
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(s.Bad))) {
		if _, ok := releases[n]; ok && n != s.Stable {
			return fmt.Sprintf("%s: %s; %s", text, s.Bad[n].of(n), byForce(n, track))
		}
	}
	return text
}

// lastGood is where a rollback without a number goes; 0 = nowhere, or it only takes something back.
func (s Status) lastGood(track string) int {
	good := s.Good
	switch r := s.Rollout; {
	case track != "" && r != nil && r.Track == track:
		return r.From
	case track != "":
		good = slices.DeleteFunc(slices.Clone(s.Lanes[track].Good), func(n int) bool { return n == s.Stable })
	case r != nil && r.Track == "":
		return r.Stable
	}
	if len(good) == 0 {
		return 0
	}
	return good[0]
}
