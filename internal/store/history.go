package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-dev/spillway"
)

// KeptEvents is how many events of an app are kept; older ones make room for new ones.
const KeptEvents = 10_000

// defaultLimit is how many events a query without a limit answers.
const defaultLimit = 1000

// Events gives those with an ID above q.Since, oldest first, at most q.Limit; with q.Tail only the
// newest of them. ErrNotFound when there is no such app.
func (s *Store) Events(ctx context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	query := "SELECT json FROM events WHERE ref = ? AND id > ? ORDER BY id LIMIT ?"
	if q.Tail > 0 {
		query = "SELECT json FROM (SELECT id, json FROM events WHERE ref = ? AND id > ? ORDER BY id DESC LIMIT ?) ORDER BY id"
		limit = min(limit, q.Tail)
	}
	var events []spillway.Event
	err := s.view(ctx, func(tx *sql.Tx) (err error) {
		if err := exists(ctx, tx, app); err != nil {
			return err
		}
		events, err = documents[spillway.Event](tx.QueryContext(ctx, query, app, q.Since, limit))
		return err
	})
	switch {
	case errors.Is(err, spillway.ErrNotFound): // which says it all
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("read the events of %s: %w", app, err)
	}
	return events, nil
}

// AppendEvents stores facts that no decision made, such as the crash of a replica. It fills in their ID
// and App. ErrNotFound when there is no such app.
func (s *Store) AppendEvents(ctx context.Context, app spillway.Ref, events []spillway.Event) error {
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := exists(ctx, tx, app); err != nil {
			return err
		}
		return appendEvents(ctx, tx, app, events)
	})
	if err != nil {
		return fmt.Errorf("append events of %s: %w", app, err)
	}
	return nil
}

// LastEvent gives the ID of the newest event of an app, 0 when there never was one. Events stored later
// have a higher ID, also when the app is removed and deployed again in between.
func (s *Store) LastEvent(ctx context.Context, app spillway.Ref) (int64, error) {
	var last int64
	err := s.view(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, "SELECT coalesce(max(event), 0) FROM apps WHERE ref = ?", app)
		return row.Scan(&last)
	})
	if err != nil {
		return 0, fmt.Errorf("read the last event of %s: %w", app, err)
	}
	return last, nil
}

// Newest gives the newest event of a kind at or before a time; false when none is kept. ErrNotFound when
// there is no such app.
func (s *Store) Newest(ctx context.Context, app spillway.Ref, kind spillway.EventKind, at time.Time) (event spillway.Event, ok bool, err error) {
	var found []spillway.Event
	err = s.view(ctx, func(tx *sql.Tx) (err error) {
		if err := exists(ctx, tx, app); err != nil {
			return err
		}
		found, err = documents[spillway.Event](tx.QueryContext(ctx,
			"SELECT json FROM events WHERE ref = ? AND kind = ? AND at <= ? ORDER BY id DESC LIMIT 1", app, kind, at.UnixMicro()))
		return err
	})
	if err != nil {
		return spillway.Event{}, false, fmt.Errorf("read the events of %s: %w", app, err)
	}
	if len(found) == 0 {
		return spillway.Event{}, false, nil
	}
	return found[0], true, nil
}

// appendEvents gives IDs without a gap, so that what is too old is known without counting.
func appendEvents(ctx context.Context, tx *sql.Tx, app spillway.Ref, events []spillway.Event) error {
	if len(events) == 0 {
		return nil
	}
	var last int64
	if err := tx.QueryRowContext(ctx, "SELECT event FROM apps WHERE ref = ?", app).Scan(&last); err != nil {
		return err
	}
	for _, event := range events {
		last++
		event.ID, event.App = last, app
		text, err := encode(event)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO events (ref, id, at, kind, json) VALUES (?, ?, ?, ?, ?)",
			app, event.ID, event.At.UnixMicro(), event.Kind, text); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "UPDATE apps SET event = ? WHERE ref = ?", last, app); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM events WHERE ref = ? AND id <= ?", app, last-KeptEvents)
	return err
}

// Releases gives every release of an app, newest first. ErrNotFound when there is no such app.
func (s *Store) Releases(ctx context.Context, app spillway.Ref) ([]spillway.Release, error) {
	var releases []spillway.Release
	err := s.view(ctx, func(tx *sql.Tx) (err error) {
		if err := exists(ctx, tx, app); err != nil {
			return err
		}
		releases, err = documents[spillway.Release](tx.QueryContext(ctx,
			"SELECT json FROM releases WHERE ref = ? ORDER BY number DESC", app))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the releases of %s: %w", app, err)
	}
	return releases, nil
}

// Release gives one release of an app by its number. ErrNotFound when there is none.
func (s *Store) Release(ctx context.Context, app spillway.Ref, number int) (spillway.Release, error) {
	var release spillway.Release
	err := s.view(ctx, func(tx *sql.Tx) error {
		var text []byte
		row := tx.QueryRowContext(ctx, "SELECT json FROM releases WHERE ref = ? AND number = ?", app, number)
		if err := row.Scan(&text); err != nil {
			return err
		}
		return decode(text, &release)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return spillway.Release{}, fmt.Errorf("%s has no release %d, or not any more: %w", app, number, spillway.ErrNotFound)
	case err != nil:
		return spillway.Release{}, fmt.Errorf("read release %d of %s: %w", number, app, err)
	}
	return release, nil
}
