package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// Prune forgets the releases of an app that drop names, in the transaction in which drop saw the app: what an
// intent stored in between asks for is not lost. It returns those that were forgotten. The newest release
// stays in any case, because its number must never be given again. ErrNotFound when there is no such app.
//
// Artefacts are files, and no part of it: remove them afterwards. After a crash in between they are garbage;
// the other way round a release would be without them.
func (s *Store) Prune(ctx context.Context, app spillway.Ref, drop func(reconcile.Saved) []int) ([]int, error) {
	s.mu.Lock() // over the whole change, so that no reading keeps what is forgotten here
	defer s.mu.Unlock()
	var dropped []int
	err := s.update(ctx, func(tx *sql.Tx) error {
		saved, err := s.load(ctx, tx, app)
		if err != nil {
			return err
		}
		newest := 0
		for number := range saved.Spec.Releases {
			newest = max(newest, number)
		}
		for _, number := range drop(saved) {
			if number == newest {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM releases WHERE ref = ? AND number = ?", app, number); err != nil {
				return err
			}
			dropped = append(dropped, number)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("forget releases of %s: %w", app, err)
	}
	for _, number := range dropped {
		delete(s.releases[app], number)
	}
	return dropped, nil
}
