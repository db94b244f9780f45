package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/spillway-dev/spillway"
	_ "modernc.org/sqlite" // the database driver "sqlite", in pure Go
)

// FileName is the name of the database inside the state directory.
const FileName = "spillway.db"

// readers is how many queries may read at the same time; they never wait for the writer.
const readers = 4

// Store is the open database of one state directory. Its methods may be called by any number of
// goroutines; it must not be used after Close.
type Store struct {
	write *sql.DB // one connection: the only writer
	read  *sql.DB
	lock  *os.File // held while the store is open, so that a second server is refused

	mu sync.Mutex
	// releases holds what was read of each app so far. Releases never change, so it is never out of
	// date, only short of the newest; an app that is removed leaves it.
	releases map[spillway.Ref]map[int]spillway.Release
}

// Open opens the database of a state directory, and creates both when they are not there. It refuses
// with ErrConflict when another process uses the directory or when a newer Spillway wrote it. A damaged
// file is an error, and is left as it is.
func Open(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w", err)
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

func open(ctx context.Context, dir string) (*Store, error) {
	path := filepath.Join(dir, FileName)
	if err := inspect(ctx, dir, path); err != nil {
		return nil, err
	}
	if err := create(path); err != nil {
		return nil, err
	}
	write, err := connect(path, "&_txlock=immediate", 1)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s: %w", path, explain(err)), write.Close())
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read, err := connect(path, "&_pragma=query_only(1)", readers)
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	return &Store{write: write, read: read, releases: map[spillway.Ref]map[int]spillway.Release{}}, nil
}

// Close ends the use of the state directory. Calls still under way fail.
func (s *Store) Close() error {
	return errors.Join(s.read.Close(), s.write.Close(), s.lock.Close())
}

// create makes an empty file that only its owner reads (there are settings in it), if there is no file.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return f.Close()
}

// connect opens a pool whose every connection is durable and checks foreign keys.
func connect(path, options string, connections int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", address(path)+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"+
		"&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"+options)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// syncDir makes the names of new files in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the state directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// update runs a change in the one writing transaction.
func (s *Store) update(ctx context.Context, change func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	if err := change(tx); err != nil {
		_ = tx.Rollback() // fails only when the database or the context did it before, as on a full disk
		return explain(err)
	}
	return explain(tx.Commit())
}

// view runs queries that see one and the same moment.
func (s *Store) view(ctx context.Context, queries func(*sql.Tx) error) error {
	tx, err := s.read.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	err = queries(tx)
	_ = tx.Rollback() // there is nothing to lose
	return explain(err)
}
