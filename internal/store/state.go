package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Apps lists the apps that have a release or an intent, sorted.
func (s *Store) Apps(ctx context.Context) ([]spillway.Ref, error) {
	var refs []spillway.Ref
	err := s.view(ctx, func(tx *sql.Tx) (err error) {
		refs, err = all[spillway.Ref](tx.QueryContext(ctx, "SELECT ref FROM status ORDER BY ref"))
		return err
	})
	return refs, err
}

// Load gives status, releases and open intents of an app, all of one moment. ErrNotFound when there is
// none. The releases are shared between all who load the app and must not be changed.
func (s *Store) Load(ctx context.Context, app spillway.Ref) (reconcile.Saved, error) {
	s.mu.Lock() // over the whole reading, so that it cannot bring back the releases of an app just removed
	defer s.mu.Unlock()
	var saved reconcile.Saved
	err := s.view(ctx, func(tx *sql.Tx) (err error) {
		saved, err = s.load(ctx, tx, app)
		return err
	})
	switch {
	case errors.Is(err, spillway.ErrNotFound): // which says it all
		return reconcile.Saved{}, err
	case err != nil:
		return reconcile.Saved{}, fmt.Errorf("load %s: %w", app, err)
	}
	return saved, nil
}

// load reads everything of an app. The caller holds s.mu.
func (s *Store) load(ctx context.Context, tx *sql.Tx, app spillway.Ref) (reconcile.Saved, error) {
	saved := reconcile.Saved{Spec: rollout.Spec{App: app}}
	var status []byte
	row := tx.QueryRowContext(ctx, "SELECT version, json FROM status WHERE ref = ?", app)
	if err := found(app, row.Scan(&saved.Version, &status)); err != nil {
		return saved, err
	}
	if err := decode(status, &saved.Status); err != nil {
		return saved, fmt.Errorf("status: %w", err)
	}
	var err error
	if saved.Spec.Releases, err = s.cached(ctx, tx, app); err != nil {
		return saved, fmt.Errorf("releases: %w", err)
	}
	saved.Spec.Intents, err = documents[spillway.Intent](tx.QueryContext(ctx,
		"SELECT json FROM intents WHERE ref = ? AND seq > ? ORDER BY seq", app, saved.Status.Intent))
	return saved, err
}

// cached reads the releases that were not read before. The caller holds s.mu.
func (s *Store) cached(ctx context.Context, tx *sql.Tx, app spillway.Ref) (map[int]spillway.Release, error) {
	known := s.releases[app]
	if known == nil {
		known = map[int]spillway.Release{}
		s.releases[app] = known
	}
	newest := 0
	for number := range known {
		newest = max(newest, number)
	}
	fresh, err := documents[spillway.Release](tx.QueryContext(ctx,
		"SELECT json FROM releases WHERE ref = ? AND number > ? ORDER BY number", app, newest))
	if err != nil {
		return nil, err
	}
	for _, release := range fresh {
		known[release.Number] = release
	}
	return maps.Clone(known), nil
}

// Save replaces the status and appends the events in one transaction, if the saved version is still the
// one given, which then rises by one; ErrStale otherwise, ErrNotFound when there is no such app. Intents
// up to status.Intent count as acted on.
func (s *Store) Save(ctx context.Context, app spillway.Ref, version int64, status rollout.Status, events []spillway.Event) error {
	text, err := encode(status)
	if err != nil {
		return fmt.Errorf("save %s: %w", app, err)
	}
	err = s.update(ctx, func(tx *sql.Tx) error {
		var saved int64
		row := tx.QueryRowContext(ctx, "SELECT version FROM status WHERE ref = ?", app)
		if err := found(app, row.Scan(&saved)); err != nil {
			return err
		}
		if saved != version {
			return fmt.Errorf("version %d is saved, not %d: %w", saved, version, spillway.ErrStale)
		}
		if _, err := tx.ExecContext(ctx, "UPDATE status SET version = ?, json = ? WHERE ref = ?", version+1, text, app); err != nil {
			return err
		}
		return appendEvents(ctx, tx, app, events)
	})
	if err != nil {
		return fmt.Errorf("save %s: %w", app, err)
	}
	return nil
}

// AddRelease numbers and stores a release together with the intent to deploy it, in one transaction. It
// fills in and returns release.Number, intent.Seq and intent.Release, and replaces each 0 in
// release.Groups (a changed service) by the new number. An app that was not there is there from then on.
func (s *Store) AddRelease(ctx context.Context, release spillway.Release, intent spillway.Intent) (spillway.Release, spillway.Intent, error) {
	app := release.App
	if app == "" {
		return spillway.Release{}, spillway.Intent{}, fmt.Errorf("add a release: it names no app: %w", spillway.ErrInvalid)
	}
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := addApp(ctx, tx, app); err != nil {
			return err
		}
		row := tx.QueryRowContext(ctx, "SELECT coalesce(max(number), 0) + 1 FROM releases WHERE ref = ?", app)
		if err := row.Scan(&release.Number); err != nil {
			return err
		}
		intent.Release = release.Number
		release.Groups = maps.Clone(release.Groups) // the caller's own stays as it is
		for service, number := range release.Groups {
			if number == 0 {
				release.Groups[service] = release.Number
			}
		}
		text, err := encode(release)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO releases (ref, number, json) VALUES (?, ?, ?)", app, release.Number, text); err != nil {
			return err
		}
		return addIntent(ctx, tx, app, &intent)
	})
	if err != nil {
		return spillway.Release{}, spillway.Intent{}, fmt.Errorf("add a release of %s: %w", app, err)
	}
	return release, intent, nil
}

func addApp(ctx context.Context, tx *sql.Tx, app spillway.Ref) error {
	status, err := encode(rollout.Status{})
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO apps (ref, event) VALUES (?, 0) ON CONFLICT DO NOTHING", app); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO status (ref, version, json) VALUES (?, 0, ?) ON CONFLICT DO NOTHING", app, status)
	return err
}

// AddIntent numbers and stores an intent. ErrNotFound when there is no such app.
func (s *Store) AddIntent(ctx context.Context, app spillway.Ref, intent spillway.Intent) (spillway.Intent, error) {
	err := s.update(ctx, func(tx *sql.Tx) error {
		if err := exists(ctx, tx, app); err != nil {
			return err
		}
		return addIntent(ctx, tx, app, &intent)
	})
	if err != nil {
		return spillway.Intent{}, fmt.Errorf("add an intent to %s: %w", app, err)
	}
	return intent, nil
}

func addIntent(ctx context.Context, tx *sql.Tx, app spillway.Ref, intent *spillway.Intent) error {
	row := tx.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) + 1 FROM intents WHERE ref = ?", app)
	if err := row.Scan(&intent.Seq); err != nil {
		return err
	}
	text, err := encode(intent)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO intents (ref, seq, json) VALUES (?, ?, ?)", app, intent.Seq, text)
	return err
}

// Remove forgets an app that is gone, with its releases, intents and events. Forgetting one that is not
// there is fine. Its release numbers begin at 1 again; the IDs of its events do not.
func (s *Store) Remove(ctx context.Context, app spillway.Ref) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM status WHERE ref = ?", app) // the rest follows by foreign key
		return err
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", app, err)
	}
	delete(s.releases, app)
	return nil
}

// exists is ErrNotFound when there is no such app.
func exists(ctx context.Context, tx *sql.Tx, app spillway.Ref) error {
	var one int
	return found(app, tx.QueryRowContext(ctx, "SELECT 1 FROM status WHERE ref = ?", app).Scan(&one))
}

// found says which app is missing when a query found no row.
func found(app spillway.Ref, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("there is no app %s: %w", app, spillway.ErrNotFound)
	}
	return err
}

// encode gives the JSON of a value with nothing escaped for web pages: it must come back as it went in.
func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

func decode(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return damaged(err.Error())
	}
	return nil
}

// all reads one column of every row.
func all[T any](rows *sql.Rows, err error) (list []T, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close() // Err below tells what matters of it
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// documents reads one column of JSON from every row.
func documents[T any](rows *sql.Rows, err error) ([]T, error) {
	texts, err := all[[]byte](rows, err)
	if err != nil {
		return nil, err
	}
	list := make([]T, len(texts))
	for i, text := range texts {
		if err := decode(text, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}
