package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Ask stores an intent after checking that it can be acted on.
func (e *engine) Ask(ctx context.Context, app spillway.Ref, in spillway.Intent) (spillway.Intent, error) {
	saved, err := e.store.Load(ctx, app)
	switch destroys := in.Verb == spillway.VerbDestroy; {
	case err == nil:
		err = e.sensible(ctx, saved, in)
	case destroys && errors.Is(err, spillway.ErrNotFound) && e.wishes != nil:
		return in, e.wishes.Withdraw(ctx, app)
	case destroys && errors.Is(err, spillway.ErrUnavailable): // what cannot be read is not needed for its end
		err = nil
	}
	if err != nil {
		return in, err
	}
	in.At = time.Now().UTC()
	return e.loop.Ask(ctx, app, in)
}

// sensible checks an intent against what there is now, so that the person who asked hears at once what
// cannot be. The engine checks again when it acts.
func (e *engine) sensible(ctx context.Context, saved reconcile.Saved, in spillway.Intent) error {
	if err := checkTrack(saved, in.Track); err != nil {
		return err
	}
	switch in.Verb {
	case spillway.VerbRollback, spillway.VerbDeploy, spillway.VerbPromote:
		if why := saved.Status.Bars(in); why != "" {
			return fmt.Errorf("%s: %w", why, spillway.ErrConflict)
		}
		return e.runnable(ctx, saved, in)
	case spillway.VerbScale, spillway.VerbRestart:
		return countable(saved, in)
	default:
		return nil
	}
}

// runnable checks that the release that an intent makes serve can run.
func (e *engine) runnable(ctx context.Context, saved reconcile.Saved, in spillway.Intent) error {
	target, err := targetOf(saved, in)
	if err == nil && target == 0 && in.Verb == spillway.VerbPromote && saved.Status.Rollout != nil {
		return e.kept(ctx, saved, saved.Status.Rollout.Release)
	}
	if err != nil || target == 0 {
		return err
	}
	release, ok := saved.Spec.Releases[target]
	if !ok {
		return fmt.Errorf("%s has no release %d, or not any more; there are: spillway releases: %w", saved.Spec.App, target, spillway.ErrNotFound)
	}
	if e.images != nil && runs(saved.Status, target) {
		return nil // the way back from a rollout waits for no registry
	}
	if err := e.kept(ctx, saved, target); err != nil {
		return err
	}
	err = e.whole(ctx, release)
	if e.images != nil && (errors.Is(err, spillway.ErrUnavailable) || errors.Is(err, spillway.ErrDenied)) {
		err = nil // a registry that is away must not keep anybody from going back: the nodes may have the image
	}
	if err != nil {
		return fmt.Errorf("release %d cannot run, and nothing was changed: %w", target, err)
	}
	return nil
}

// kept checks that a release that is to serve is still stored: this server may remember one that somebody deleted, and the
// next one would not know what it is. What cannot be looked for now must not keep anybody from going back.
func (e *engine) kept(ctx context.Context, saved reconcile.Saved, n int) error {
	if e.gone == nil {
		return nil
	}
	names, err := e.gone(ctx, saved.Spec.App, rollout.Status{Stable: n})
	if err != nil || len(names) == 0 {
		return nil
	}
	return fmt.Errorf("somebody deleted the resource Release %s, so release %d must not become what serves; choose another: spillway releases: %w", names[0], n, spillway.ErrConflict)
}

// runs reports whether a release has users by its own right, as stable or on a track: its replicas have their images.
func runs(st rollout.Status, n int) bool {
	return n == st.Stable || slices.ContainsFunc(slices.Collect(maps.Values(st.Lanes)), func(l rollout.Lane) bool { return l.Release == n })
}

// targetOf is the release that an intent makes serve, 0 when it only takes something back or lets it go on.
func targetOf(saved reconcile.Saved, in spillway.Intent) (int, error) {
	st := saved.Status
	lane := st.Lanes[in.Track]
	mine := st.Rollout != nil && st.Rollout.Track == in.Track
	switch {
	case in.Verb == spillway.VerbPromote && (in.Track == "" || mine):
		return 0, nil // what is promoted runs
	case in.Verb == spillway.VerbPromote && lane.Release == 0:
		return 0, fmt.Errorf("track %s holds no release; deploy one: spillway deploy --track %s: %w", in.Track, in.Track, spillway.ErrConflict)
	case in.Verb == spillway.VerbPromote:
		return lane.Release, nil
	case in.Verb == spillway.VerbDeploy || in.Release != 0:
		return in.Release, nil
	case in.Track != "" && mine:
		return st.Rollout.From, nil
	case in.Track != "" && len(lane.Good) > 0:
		return lane.Good[0], nil
	case in.Track != "" && (lane.Release != 0 || lane.Queue != nil || len(saved.Spec.Intents) > 0):
		return 0, nil // its users become stable's
	case in.Track != "":
		return 0, fmt.Errorf("track %s holds no release to roll back: %w", in.Track, spillway.ErrConflict)
	case mine && st.Rollout.Stable != 0:
		return st.Rollout.Stable, nil
	case st.Queue != nil || len(saved.Spec.Intents) > 0: // a deploy that has not begun
		return 0, nil
	case len(st.Good) > 0:
		return st.Good[0], nil
	default:
		return 0, fmt.Errorf("%s; what there is: spillway releases: %w", st.NoWayBack(saved.Spec.Releases, ""), spillway.ErrConflict)
	}
}

// countable checks an intent about the replicas of a service.
func countable(saved reconcile.Saved, in spillway.Intent) error {
	release := saved.Spec.Releases[saved.Status.Stable]
	if r := saved.Status.Rollout; r != nil {
		release = saved.Spec.Releases[r.Release]
	}
	if _, ok := release.Config.Service(in.Service); !ok && in.Service != "" {
		return fmt.Errorf("service %s: the app has none of that name; it has: %s: %w", in.Service, serviceNames(release.Config), spillway.ErrNotFound)
	}
	if in.Verb == spillway.VerbScale && !in.Auto && (in.Replicas < 1 || in.Replicas > 1000) {
		return fmt.Errorf("%s=%d: a service has 1 to 1000 replicas: %w", in.Service, in.Replicas, spillway.ErrInvalid)
	}
	return nil
}
