package store

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spillway-dev/spillway"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// explain turns the errors of the database into words and sentinels; every other error stays as it is.
func explain(err error) error {
	var failure *sqlite.Error
	if !errors.As(err, &failure) {
		return err
	}
	switch failure.Code() & 0xff { // the low byte is the kind, the rest the detail
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("disk full: %w; free some space, nothing was changed: %w", err, spillway.ErrUnavailable)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("the database is busy, is another program reading it? %w: %w", err, spillway.ErrUnavailable)
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("the disk does not read or write: %w: %w", err, spillway.ErrUnavailable)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return damaged(err.Error())
	}
	return err
}

// damaged says what to do with a file that is not whole.
func damaged(what string) error {
	return fmt.Errorf("the database is damaged (%s); restore it from a copy, or move it away to start with nothing",
		strings.Join(strings.Fields(what), " "))
}
