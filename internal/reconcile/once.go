package reconcile

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Result is what one round did.
type Result struct {
	WakeAt time.Time        // look again then; zero: only when something changes
	Events []spillway.Event // saved in this round
	Saved  bool             // what was decided is remembered: an error is the platform's
	Gone   bool             // the app was destroyed and is forgotten
}

// Once makes one decision for one app and carries it out: load, observe, decide, save, apply.
//
// What is decided is saved before it is applied, and what is applied is complete, so a crash between any
// two of the five leaves a state from which the next Once goes on. An error means that the round has to
// be repeated; ErrStale, that somebody else saved in between.
func Once(ctx context.Context, store Store, platform Platform, app spillway.Ref, now time.Time) (Result, error) {
	saved, err := store.Load(ctx, app)
	if err != nil {
		return Result{}, fmt.Errorf("load %s: %w", app, err)
	}
	observed, err := platform.Observe(ctx, app)
	if err != nil {
		return Result{}, fmt.Errorf("observe %s: %w", app, err)
	}
	d := rollout.Decide(saved.Spec, saved.Status, observed, now)
	// Where there are no data, or nobody decided, time does not count, so it is saved that it did not.
	moment := !observed.NoData && !observed.Away && OnlyTime(saved.Status, d.Status)
	if len(d.Events) > 0 || !reflect.DeepEqual(saved.Status, d.Status) && !moment {
		if err := store.Save(ctx, app, saved.Version, d.Status, d.Events); err != nil {
			return Result{}, fmt.Errorf("save %s: %w", app, err)
		}
	}
	if err := platform.Apply(ctx, app, saved.Spec.Releases, d.Desired); err != nil {
		return Result{WakeAt: d.WakeAt, Events: d.Events, Saved: true}, fmt.Errorf("apply %s: %w", app, err)
	}
	if rollout.Gone(d.Status, observed) {
		if err := platform.Forget(ctx, app); err != nil {
			return Result{Saved: true}, fmt.Errorf("forget %s: %w", app, err)
		}
		if err := store.Remove(ctx, app); err != nil {
			return Result{Saved: true}, fmt.Errorf("forget %s: %w", app, err)
		}
		return Result{Events: d.Events, Saved: true, Gone: true}, nil
	}
	return Result{WakeAt: d.WakeAt, Events: d.Events, Saved: true}, nil
}
