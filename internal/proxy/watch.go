package proxy

import (
	"sync"

	"github.com/spillway-dev/spillway"
)

// watchers are those who want to know which apps changed. The zero value has none.
type watchers struct {
	mu  sync.Mutex
	all map[*watcher]bool
}

// watcher collects the apps that changed until they are taken.
type watcher struct {
	wake chan struct{} // has room for one

	mu      sync.Mutex
	changed map[spillway.Ref]bool
}

func (ws *watchers) join() *watcher {
	w := &watcher{wake: make(chan struct{}, 1), changed: map[spillway.Ref]bool{}}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all == nil {
		ws.all = map[*watcher]bool{}
	}
	ws.all[w] = true
	return w
}

func (ws *watchers) quit(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.all, w)
}

// tell never waits for a watcher.
func (ws *watchers) tell(app spillway.Ref) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		w.add(app)
	}
}

func (w *watcher) add(app spillway.Ref) {
	w.mu.Lock()
	w.changed[app] = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is awake
	}
}

// take gives the apps that changed since the last take.
func (w *watcher) take() []spillway.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	var apps []spillway.Ref
	for app := range w.changed {
		apps = append(apps, app)
	}
	clear(w.changed)
	return apps
}
