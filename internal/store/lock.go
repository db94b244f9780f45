package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// lockPatience is how long the lock of another process is waited for. A process that is killed while
	// it starts a child leaves its open files, and the lock with them, to that child until the child has
	// become another program: that takes milliseconds.
	lockPatience = 2 * time.Second
	lockRetry    = 10 * time.Millisecond
)

// lockDir takes the state directory for this process. The kernel gives it back when the process ends,
// however it ends; the file holds the pid for people and for the message of the process that comes second.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	err = takeLock(ctx, f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(path) // an unreadable pid only makes the message shorter
		return nil, errors.Join(fmt.Errorf("state directory %s is in use by the Spillway server with pid %s; stop it or use another --dir: %w",
			dir, strings.TrimSpace(string(holder)), spillway.ErrConflict), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// takeLock is EWOULDBLOCK when another process kept the lock all the time.
func takeLock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}

func writePID(f *os.File) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}
