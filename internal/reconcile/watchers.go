package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/spillway-dev/spillway"
)

// Watchers are those who watch a platform: a Watch for its interface, and Changed for whatever notices something. The
// zero value has none.
type Watchers struct {
	mu  sync.Mutex // taken after any other
	all map[*watcher]bool
}

// watcher collects the apps that changed until its Watch tells them.
type watcher struct {
	pending map[spillway.Ref]bool // under Watchers.mu
	wake    chan struct{}         // one slot
}

// Changed tells who watches that an observation of the app may differ. It does not block. "" is no app, and nobody is
// told.
func (w *Watchers) Changed(app spillway.Ref) {
	if app == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		one.pending[app] = true
		select {
		case one.wake <- struct{}{}:
		default:
		}
	}
}

// Watch calls changed for each app that Changed is called for while it runs: once for many that come in a burst. It
// blocks until ctx ends, and gives the reason of that.
func (w *Watchers) Watch(ctx context.Context, changed func(app spillway.Ref)) error {
	one := &watcher{pending: map[spillway.Ref]bool{}, wake: make(chan struct{}, 1)}
	w.mu.Lock()
	if w.all == nil {
		w.all = map[*watcher]bool{}
	}
	w.all[one] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.all, one)
		w.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-one.wake:
		}
		w.mu.Lock()
		apps := slices.Sorted(maps.Keys(one.pending))
		clear(one.pending)
		w.mu.Unlock()
		for _, app := range apps {
			changed(app)
		}
	}
}
