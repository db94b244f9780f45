package sim

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Settle turns the faults off and lets the world come to rest, then checks that it is where it should be.
// A rollout that waits for a person is promoted.
func (r *Run) Settle() error {
	w := r.World
	w.failApply, w.halfApply, w.twice, w.stale, w.down, w.blind = 0, 0, 0, 0, 0, 0
	w.outside.says, w.outside.dead = "", false
	if c := w.cluster; c != nil {
		c.faults, c.late = faults{}, nil
		clear(c.foreign)
	}
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
			return r.atRest()
		}
		if status.Rollout == nil && waits(status) {
			w.Tick(time.Minute) // for the time of a deploy, or the end of a freeze
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

// waits reports whether a deploy waits for its time.
func waits(st rollout.Status) bool {
	for _, lane := range st.Lanes {
		if lane.Queue != nil {
			return true
		}
	}
	return st.Queue != nil
}

// resting reports whether nothing is under way any more. What a standby or a track keeps running is at rest.
func (r *Run) resting() (rollout.Status, bool) {
	saved, err := r.Store.Load(context.Background(), app)
	if err != nil {
		return saved.Status, true
	}
	st, obs := saved.Status, r.World.observe()
	moving := st.Rollout != nil || waits(st) || len(st.Drain) > 0 || len(saved.Spec.Intents) > 0 || obs.Served.Generation != st.Route.Generation
	stays := []int{st.Stable}
	for _, lane := range st.Lanes {
		stays = append(stays, lane.Release)
	}
	if st.Standby != nil {
		stays = append(stays, st.Standby.Release)
	}
	for _, g := range obs.Groups {
		known := slices.ContainsFunc(stays, func(n int) bool { return saved.Spec.Releases[n].Groups[g.Group.Service] == g.Group.Release })
		if !known || g.Draining > 0 {
			moving = true
		}
	}
	ready := st.Stable == 0 || st.Phase == spillway.Healthy || r.weak(saved.Spec.Releases[st.Stable])
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

// atRest: the route served is the route of the stable release and of the tracks' releases, the last deploys were
// tried, and a release that cannot become ready is not the stable one.
func (r *Run) atRest() error {
	saved, err := r.Store.Load(context.Background(), app)
	if err != nil {
		return nil // never deployed
	}
	st := saved.Status
	if st.Stable != 0 {
		stable := saved.Spec.Releases[st.Stable]
		if err := r.served(stable); err != nil {
			return err
		}
		if r.weak(stable) {
			return fmt.Errorf("a release that is never ready is never promoted: release %d", st.Stable)
		}
	}
	for track := range r.checks.last {
		if err := r.tried(saved, track); err != nil {
			return err
		}
	}
	return r.told(st)
}

// served: on a public edge everybody is either on the stable release or on a track that has one.
func (r *Run) served(stable spillway.Release) error {
	for _, e := range r.World.plane.effective().Edges {
		for _, b := range e.Backends {
			if g, _ := stable.Group(e.Service); e.Only == "" && e.From.Release == 0 && b.Track == "" && b.Group != g {
				return fmt.Errorf("healthy means everything on the promoted release: %s has %s beside %s", b.Group, b.Weight, g)
			}
		}
	}
	if g := front(stable); weightIn(r.World.plane.effective(), g) == 0 && given(r.World.plane.effective(), g, "canary") == 0 {
		return fmt.Errorf("healthy means that the promoted release serves: %s has nothing", g)
	}
	return nil
}

// tried: the last deploy to a track that was asked for has begun, or was told why not.
func (r *Run) tried(saved reconcile.Saved, track string) error {
	last := r.checks.last[track].Release
	if _, ok := saved.Spec.Releases[last]; !ok {
		return nil
	}
	if track == "" && saved.Status.Stable == last || track != "" && saved.Status.Lanes[track].Release == last {
		return nil
	}
	for _, e := range r.Store.Events(app) {
		if e.Release == last && (e.Kind == spillway.EventStarted || e.Kind == spillway.EventFinished || e.Kind == spillway.EventIgnored) {
			return nil
		}
	}
	return fmt.Errorf("a newer target is eventually tried: release %d for track %q was not", last, track)
}

// told: the last route in the history is the one served.
func (r *Run) told(st rollout.Status) error {
	served := r.World.plane.effective()
	if st.Told.Generation != served.Generation {
		return fmt.Errorf("a route that lasts is told: %d was, %d is served", st.Told.Generation, served.Generation)
	}
	return nil
}

// drifts: at rest nothing changes any more but what time changes.
func (r *Run) drifts() error {
	before, _ := r.Store.Load(context.Background(), app)
	for range 20 {
		r.World.Tick(3 * time.Second)
		if err := r.once(); err != nil {
			return err
		}
	}
	after, _ := r.Store.Load(context.Background(), app)
	was, is := before.Status, after.Status
	if was.Standby != nil { // its time goes by, and then it goes
		return nil
	}
	if !reflect.DeepEqual(was.Wants, is.Wants) || !reflect.DeepEqual(was.Route, is.Route) || was.Phase != is.Phase || was.Stable != is.Stable {
		return fmt.Errorf("at rest nothing drifts: %s %v %d, was %s %v %d", is.Phase, is.Wants, is.Route.Generation, was.Phase, was.Wants, was.Route.Generation)
	}
	return nil
}
