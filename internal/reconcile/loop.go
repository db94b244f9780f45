package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Loop runs Once for every app: one goroutine per app, so that the decisions of an app come one after
// the other and apps do not wait for each other. Make one with NewLoop.
type Loop struct {
	store    Store
	platform Platform
	divides  Division      // what the platform's data plane can divide
	slots    chan struct{} // one for each round that runs; nil = as many as there are apps
	log      *slog.Logger

	hosts sync.Mutex // held while a host is looked for and taken

	signal chan struct{} // buffered by one: something is pending
	mu     sync.Mutex
	woken  map[spillway.Ref]bool
}

const (
	settle   = 20 * time.Millisecond // between two rounds of an app, so that a burst of changes is one round
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
	patience = time.Second // a round waits no longer for those of others
	again    = time.Minute // until the same failure is told again
)

// NewLoop makes a loop that does nothing before Run.
func NewLoop(store Store, platform Platform, log *slog.Logger) *Loop {
	return &Loop{store: store, platform: platform, log: log, signal: make(chan struct{}, 1), woken: map[spillway.Ref]bool{}}
}

// Dividing says where the platform's data plane can divide requests, if that is not every edge; before Run.
func (l *Loop) Dividing(at Division) *Loop {
	l.divides = at
	return l
}

// AtOnce has rounds wait for each other as soon as so many run, for a moment at most; before Run. Where each takes some
// calls to a server that all share, a few that are soon done decide on what they just saw; hundreds at once would all
// be slow. One that hangs holds up nobody.
func (l *Loop) AtOnce(rounds int) *Loop {
	l.slots = make(chan struct{}, rounds)
	return l
}

// enter waits for the round's turn, and gives what ends it.
func (l *Loop) enter(ctx context.Context) (leave func()) {
	if l.slots == nil {
		return func() {}
	}
	waited := time.NewTimer(patience)
	defer waited.Stop()
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots }
	case <-waited.C:
	case <-ctx.Done():
	}
	return func() {}
}

// Divides is where the platform's data plane can divide requests.
func (l *Loop) Divides() Division { return l.divides }

// Wake makes the app's next round happen soon. It never blocks, and may be called at any time.
func (l *Loop) Wake(app spillway.Ref) {
	l.mu.Lock()
	l.woken[app] = true
	l.mu.Unlock()
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

// Run keeps all apps of the store going until ctx ends, and waits for the rounds under way. The error is
// that of the store's first answer or of the platform's Watch; nil when ctx ended.
func (l *Loop) Run(ctx context.Context) error {
	apps, err := l.store.Apps(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		l.Wake(app)
	}
	watching, ended := make(chan error, 1), make(chan spillway.Ref)
	// Owned by Run; ends with ctx or with the platform's failure; waited for below.
	go func() { watching <- l.platform.Watch(ctx, l.Wake) }()
	keepers := map[spillway.Ref]chan struct{}{}
	for {
		select {
		case <-l.signal:
			for app := range l.take() {
				if keepers[app] == nil {
					keepers[app] = make(chan struct{}, 1)
					// Owned by Run; ends with ctx or with the app; tells ended, which is waited for.
					go func(wake chan struct{}) {
						l.keep(ctx, app, wake)
						ended <- app
					}(keepers[app])
				}
				nudge(keepers[app])
			}
		case app := <-ended:
			if len(keepers[app]) > 0 { // woken after its last look
				l.Wake(app)
			}
			delete(keepers, app)
		case err = <-watching:
			if ctx.Err() != nil {
				err = nil
			}
			for range keepers {
				<-ended
			}
			return err
		}
	}
}

// take gives the apps that were woken, and forgets them.
func (l *Loop) take() map[spillway.Ref]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	woken := l.woken
	l.woken = map[spillway.Ref]bool{}
	return woken
}

func nudge(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// keep runs one app's rounds until ctx ends or the app is gone: when woken, when time is due, and again
// after an error.
func (l *Loop) keep(ctx context.Context, app spillway.Ref, wake chan struct{}) {
	due, retry, away := time.NewTimer(0), retryMin, true
	var failed repeated
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-due.C:
		}
		asked := time.Now()
		leave := l.enter(ctx)
		began := time.Now()
		platform := l.platform
		if away {
			platform = returning{platform}
		}
		result, err := Once(ctx, l.store, platform, app, began)
		leave()
		away = away && !result.Saved // what is refused is tried again, and its time counts
		l.log.Debug("round", "app", app, "waited", began.Sub(asked), "took", time.Since(began))
		for _, e := range result.Events { // reasons are events; the engine itself never logs
			l.log.Info("event", "app", app, "kind", e.Kind, "release", e.Release, "text", e.Text)
		}
		due.Stop()
		switch {
		case ctx.Err() != nil, result.Gone, !result.Saved && errors.Is(err, spillway.ErrNotFound):
			return
		case err != nil:
			// That somebody else was faster is no news: to save, or, unless it goes on, to write what is to be.
			if !errors.Is(err, spillway.ErrStale) || result.Saved && retry > 2*retryMin {
				l.log.Log(ctx, failed.level(err, began), "round failed, trying again", "app", app, "error", err, "in", retry)
			}
			due.Reset(retry)
			retry = min(2*retry, retryMax)
		default:
			retry, failed = retryMin, repeated{}
			if !result.WakeAt.IsZero() {
				due.Reset(max(time.Until(result.WakeAt), settle))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
	}
}

// repeated is what failed in an app's rounds, and when that was last told.
type repeated struct {
	text string
	told time.Time
}

// level is that at which a failure is told: what is tried again every few seconds is no news for a while.
func (r *repeated) level(err error, now time.Time) slog.Level {
	if err.Error() == r.text && now.Sub(r.told) < again {
		return slog.LevelDebug
	}
	*r = repeated{err.Error(), now}
	return slog.LevelWarn
}

// returning is a platform as a server sees it that has just begun to decide.
type returning struct{ Platform }

// Observe says that nobody decided before.
func (r returning) Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error) {
	o, err := r.Platform.Observe(ctx, app)
	o.Away = true
	return o, err
}
