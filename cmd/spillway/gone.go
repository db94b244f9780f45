package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// goneProblems names the resources of releases in use that somebody deleted and that are not to be put back. While the
// cluster does not answer there are none: that is told elsewhere.
func (e *engine) goneProblems(ctx context.Context, app spillway.Ref, st rollout.Status) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // all else comes from caches
	defer cancel()
	gone, err := e.gone(ctx, app, st)
	if err != nil {
		e.log.Debug("it is not known whether the releases in use are there", "app", app, "error", err)
	}
	if len(gone) > 0 && e.leads.Load() {
		_ = e.restore(ctx, app, st)    // what is still gone is told
		gone, _ = e.gone(ctx, app, st) // as above
	}
	var problems []string
	for _, name := range gone {
		problems = append(problems, fmt.Sprintf("the resource Release %s is in use and gone: this server goes on from its memory, and the next one changes nothing of %s; put it back from a backup, or let a new release take its place: spillway deploy", name, app))
	}
	return problems
}

// restore puts the resources of releases in use back that somebody deleted, as far as this server remembers them: the next
// server would not know what serves. It says so in the history.
func (in *installation) restore(ctx context.Context, app spillway.Ref, st rollout.Status) error {
	names, err := in.putBack(ctx, app, st)
	if err != nil {
		in.log.Warn("a release in use is gone and cannot be put back", "app", app, "error", err)
	}
	for _, name := range names {
		in.fact(spillway.Event{At: time.Now().UTC(), App: app, Kind: spillway.EventProblem, Text: fmt.Sprintf("somebody deleted the resource Release %s, which is in use: it was put back", name)})
	}
	return err
}

// lostAgain is after what time it is tried again to put a Release back.
const lostAgain = 5 * time.Second

// lostRelease is one that was deleted.
type lostRelease struct {
	app    spillway.Ref
	number int
}

// followLost does that when one is deleted, and again until it could be done, until ctx ends.
func (in *installation) followLost(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var crew sync.WaitGroup
	defer crew.Wait()
	defer cancel()
	lost := make(chan lostRelease, 1000)
	// Owned by followLost; ends with ctx; waited for above.
	crew.Go(func() { in.putBackLost(ctx, lost) })
	return in.lost(ctx, func(app spillway.Ref, release int) {
		select {
		case lost <- lostRelease{app, release}:
		case <-ctx.Done():
		}
	})
}

func (in *installation) putBackLost(ctx context.Context, lost <-chan lostRelease) {
	again := time.NewTicker(lostAgain)
	defer again.Stop()
	open := map[lostRelease]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-lost:
			open[l] = true
		case <-again.C:
		}
		for l := range open {
			saved, err := in.store.Load(ctx, l.app)
			if err == nil && inUse(saved)[l.number] { // and not one that is pruned, or goes with its app
				err = in.restore(ctx, l.app, saved.Status)
			}
			if err == nil || errors.Is(err, spillway.ErrNotFound) {
				delete(open, l)
			}
		}
	}
}

// restoreAll does that for all apps, whoever looks at them.
func (in *installation) restoreAll(ctx context.Context) {
	refs, err := in.store.Apps(ctx)
	if err != nil {
		return // who prunes after this says so
	}
	for _, app := range refs {
		if saved, err := in.store.Load(ctx, app); err == nil {
			_ = in.restore(ctx, app, saved.Status) // it says so, and is tried again
		}
	}
}
