package state

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// Events gives those with an ID above q.Since, oldest first, at most q.Limit; with q.Tail only the newest of them.
// The newest KeptEvents are kept, fewer when they are large. ErrNotFound when there is no such app.
func (s *Store) Events(ctx context.Context, ref spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error) {
	app, err := s.existing(ctx, ref)
	if err != nil {
		return nil, err
	}
	all, err := eventsOf(app)
	if err != nil {
		return nil, fmt.Errorf("read the events of %s: %w", ref, err)
	}
	all = slices.DeleteFunc(all, func(e spillway.Event) bool { return e.ID <= q.Since })
	if q.Tail > 0 {
		return all[max(0, len(all)-q.Tail):], nil
	}
	if q.Limit > 0 {
		all = all[:min(len(all), q.Limit)]
	}
	return all, nil
}

func eventsOf(app *v1alpha1.App) ([]spillway.Event, error) {
	events := make([]spillway.Event, len(app.Status.Events))
	for i, text := range app.Status.Events {
		if err := json.Unmarshal(text.Raw, &events[i]); err != nil {
			return nil, damaged(app, "status.events", err)
		}
	}
	return events, nil
}

// AppendEvents stores facts that no decision made, such as the crash of a replica. It fills in their ID and App.
// ErrNotFound when there is no such app.
func (s *Store) AppendEvents(ctx context.Context, ref spillway.Ref, events []spillway.Event) error {
	app, err := s.change(ctx, ref, func(app *v1alpha1.App) error {
		switch {
		case !exists(app):
			return noApp(ref)
		case len(events) == 0:
			return errSame
		}
		return appendEvents(app, events)
	})
	if err != nil {
		return fmt.Errorf("append events of %s: %w", ref, err)
	}
	s.tell(app, events)
	return nil
}

// LastEvent gives the ID of the newest event of an app, 0 when there is no such app or event. Events stored later have
// a higher ID, also when the app is removed and deployed again in between.
func (s *Store) LastEvent(ctx context.Context, ref spillway.Ref) (int64, error) {
	app, _, err := s.read(ctx, ref, false)
	if err != nil || app == nil {
		return 0, err
	}
	return app.Status.NewestEvent, nil
}

// Newest gives the newest event of a kind at or before a time; false when none is kept. ErrNotFound when there is
// no such app.
func (s *Store) Newest(ctx context.Context, ref spillway.Ref, kind spillway.EventKind, at time.Time) (event spillway.Event, ok bool, err error) {
	app, err := s.existing(ctx, ref)
	if err != nil {
		return spillway.Event{}, false, err
	}
	all, err := eventsOf(app)
	if err != nil {
		return spillway.Event{}, false, fmt.Errorf("read the events of %s: %w", ref, err)
	}
	for _, e := range slices.Backward(all) {
		if e.Kind == kind && !e.At.After(at) {
			return e, true, nil
		}
	}
	return spillway.Event{}, false, nil
}

// Releases gives every release of an app, newest first. ErrNotFound when there is no such app.
func (s *Store) Releases(ctx context.Context, ref spillway.Ref) ([]spillway.Release, error) {
	app, err := s.existing(ctx, ref)
	if err != nil {
		return nil, err
	}
	all, err := s.releases(ctx, app)
	if err != nil {
		return nil, err
	}
	var list []spillway.Release
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(all))) {
		list = append(list, all[n])
	}
	return list, nil
}

// Release gives one release of an app by its number. ErrNotFound when there is none.
func (s *Store) Release(ctx context.Context, ref spillway.Ref, number int) (spillway.Release, error) {
	app, err := s.existing(ctx, ref)
	if err != nil {
		return spillway.Release{}, err
	}
	all, err := s.releases(ctx, app)
	if err != nil {
		return spillway.Release{}, err
	}
	release, ok := all[number]
	if !ok {
		return spillway.Release{}, fmt.Errorf("%s has no release %d, or not any more: %w", ref, number, spillway.ErrNotFound)
	}
	return release, nil
}
