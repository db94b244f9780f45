package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spillway-dev/spillway"
)

// migrations lead from each format to the next; the format of a file is the number that were applied
// to it, kept in its user_version. Only ever append: files of every older format are out there.
var migrations = [...]string{`
-- One row for each app that ever was. event is the last ID given, so that IDs still rise for those who
-- follow when an app is removed and deployed again.
CREATE TABLE apps (
	ref   TEXT PRIMARY KEY,
	event INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each app that is there. version 0 = never saved.
CREATE TABLE status (
	ref     TEXT PRIMARY KEY REFERENCES apps,
	version INTEGER NOT NULL,
	json    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE releases (
	ref    TEXT NOT NULL REFERENCES status ON DELETE CASCADE,
	number INTEGER NOT NULL,
	json   TEXT NOT NULL,
	PRIMARY KEY (ref, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
	ref  TEXT NOT NULL REFERENCES status ON DELETE CASCADE,
	seq  INTEGER NOT NULL,
	json TEXT NOT NULL,
	PRIMARY KEY (ref, seq)
) STRICT, WITHOUT ROWID;

-- at (microseconds since 1970) and kind repeat what is in json, for queries by hand.
CREATE TABLE events (
	ref  TEXT NOT NULL REFERENCES status ON DELETE CASCADE,
	id   INTEGER NOT NULL,
	at   INTEGER NOT NULL,
	kind TEXT NOT NULL,
	json TEXT NOT NULL,
	PRIMARY KEY (ref, id)
) STRICT, WITHOUT ROWID;
`}

// inspect looks at the file before anything is set or written: whether it is whole, ours, and of a
// format that this program reads. No file is fine.
func inspect(ctx context.Context, dir, path string) (err error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	db, err := sql.Open("sqlite", address(path)+"?mode=rw&_pragma=busy_timeout(10000)")
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	format, tables, health := 0, 0, ""
	look := func(query string, into any) error {
		if err := db.QueryRowContext(ctx, query).Scan(into); err != nil {
			return fmt.Errorf("open %s: %w", path, explain(err))
		}
		return nil
	}
	if err := look("PRAGMA user_version", &format); err != nil {
		return err
	}
	if format > len(migrations) { // and who knows how to read the rest of it
		return fmt.Errorf("state directory %s was written by a newer Spillway (format %d, this one reads up to %d); use that version or another --dir: %w",
			dir, format, len(migrations), spillway.ErrConflict)
	}
	if err := look("SELECT count(*) FROM sqlite_master", &tables); err != nil {
		return err
	}
	if format == 0 && tables > 0 {
		return fmt.Errorf("%s is the database of another program; use another --dir: %w", path, spillway.ErrConflict)
	}
	if err := look("PRAGMA quick_check(1)", &health); err != nil {
		return err
	}
	if health != "ok" {
		return fmt.Errorf("open %s: %w", path, damaged(health))
	}
	return nil
}

// migrate brings the file to the newest format, in one transaction.
func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	format := 0
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&format); err != nil {
		return err
	}
	for ; format < len(migrations); format++ {
		statements := fmt.Sprintf("%s; PRAGMA user_version = %d", migrations[format], format+1)
		if _, err := tx.ExecContext(ctx, statements); err != nil {
			return fmt.Errorf("to format %d: %w", format+1, err)
		}
	}
	return tx.Commit()
}

// address is the name of a file for the driver, with every character that means something there escaped.
func address(path string) string {
	return (&url.URL{Scheme: "file", Path: path}).String()
}
