package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Settle turns the faults off and lets the world come to rest, then checks that it is where it should be.
// A rollout that waits for a person is promoted.
func (r *Run) Settle() error {
	w := r.World
	w.failApply, w.halfApply, w.twice, w.stale, w.down = 0, 0, 0, 0, 0
	r.Store.CrashPre, r.Store.CrashEnd = false, false
	r.Actions = append(r.Actions, "settle")
	for i := 0; i < 600; i++ {
		w.Tick(3 * time.Second)
		if err := r.once(); err != nil {
			return err
		}
		if w.broken != nil {
			return w.broken
		}
		status, done := r.resting()
		if done {
			return r.atRest(status)
		}
		if status.Phase == spillway.Paused && i%20 == 19 {
			if err := r.ask(spillway.Intent{Verb: spillway.VerbPromote}); err != nil {
				return err
			}
		}
	}
	status, _ := r.resting()
	return fmt.Errorf("with the faults off it comes to rest: still %s, rollout %+v, groups %+v", status.Phase, status.Rollout, w.observe().Groups)
}

// resting reports whether nothing is under way any more.
func (r *Run) resting() (rollout.Status, bool) {
	saved, err := r.Store.Load(context.Background(), app)
	if err != nil {
		return saved.Status, true
	}
	st, obs := saved.Status, r.World.observe()
	moving := st.Rollout != nil || st.Queue != nil || len(st.Drain) > 0 || len(saved.Spec.Intents) > 0 || obs.Served.Generation != st.Route.Generation
	stable := saved.Spec.Releases[st.Stable]
	for _, g := range obs.Groups {
		if stable.Groups[g.Group.Service] != g.Group.Release || g.Draining > 0 {
			moving = true
		}
	}
	ready := st.Stable == 0 || st.Phase == spillway.Healthy || r.weak(stable)
	return st, !moving && ready
}

// weak reports whether a release has a service that never becomes ready.
func (r *Run) weak(release spillway.Release) bool {
	for _, n := range release.Groups {
		if b := r.World.behave[n]; b.Never || b.Crash || b.Fatal {
			return true
		}
	}
	return false
}

// atRest: the route served is the route of the stable release, the last deploy was tried, and a release
// that cannot become ready is not the stable one.
func (r *Run) atRest(st rollout.Status) error {
	saved, err := r.Store.Load(context.Background(), app)
	if err != nil {
		return nil // never deployed
	}
	served := r.World.plane.effective()
	if st.Stable != 0 {
		g := front(saved.Spec.Releases[st.Stable])
		if weightIn(served, g) != spillway.Whole {
			return fmt.Errorf("healthy means 100 %% on the promoted release: %s has %s", g, weightIn(served, g))
		}
		if r.weak(saved.Spec.Releases[st.Stable]) {
			return fmt.Errorf("a release that is never ready is never promoted: release %d", st.Stable)
		}
	}
	tried := r.checks.last.Release
	if _, ok := saved.Spec.Releases[tried]; !ok {
		return nil
	}
	for _, e := range r.Store.Events(app) {
		if e.Release == tried && (e.Kind == spillway.EventStarted || e.Kind == spillway.EventFinished || e.Kind == spillway.EventIgnored) || e.Release == tried && st.Stable == tried {
			return nil
		}
	}
	return fmt.Errorf("a newer target is eventually tried: release %d was not", tried)
}
