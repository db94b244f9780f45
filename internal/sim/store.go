package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Store is a reconcile.Store in memory that can lose a save, or lose the saver right after it.
type Store struct {
	mu       sync.Mutex
	saved    map[spillway.Ref]*shelf
	CrashPre bool // the next Save does nothing and fails
	CrashEnd bool // the next Save succeeds and reports a failure
}

type shelf struct {
	version  int64
	status   []byte
	releases map[int]spillway.Release
	intents  []spillway.Intent
	events   []spillway.Event
}

// NewStore makes an empty store.
func NewStore() *Store { return &Store{saved: map[spillway.Ref]*shelf{}} }

var _ reconcile.Store = (*Store)(nil)
var _ reconcile.Platform = (*World)(nil)

// Apps lists what is there.
func (s *Store) Apps(context.Context) ([]spillway.Ref, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.saved)), nil
}

// Load reads the status back from its saved text, so that what does not survive saving is noticed.
func (s *Store) Load(_ context.Context, app spillway.Ref) (reconcile.Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.saved[app]
	if h == nil {
		return reconcile.Saved{}, fmt.Errorf("app %s: %w", app, spillway.ErrNotFound)
	}
	saved := reconcile.Saved{Version: h.version, Spec: rollout.Spec{App: app, Releases: maps.Clone(h.releases)}}
	if h.status != nil {
		if err := json.Unmarshal(h.status, &saved.Status); err != nil {
			return reconcile.Saved{}, err
		}
	}
	for _, in := range h.intents {
		if in.Seq > saved.Status.Intent {
			saved.Spec.Intents = append(saved.Spec.Intents, in)
		}
	}
	return saved, nil
}

// Save replaces the status.
func (s *Store) Save(_ context.Context, app spillway.Ref, version int64, status rollout.Status, events []spillway.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.saved[app]
	if h == nil || h.version != version {
		return spillway.ErrStale
	}
	if s.CrashPre {
		s.CrashPre = false
		return errCrash
	}
	text, err := json.Marshal(status)
	if err != nil {
		return err
	}
	h.status, h.version = text, version+1
	for _, e := range events {
		e.ID = int64(len(h.events) + 1)
		h.events = append(h.events, e)
	}
	if s.CrashEnd {
		s.CrashEnd = false
		return errCrash
	}
	return nil
}

// AddRelease numbers and stores a release and the intent to deploy it.
func (s *Store) AddRelease(_ context.Context, r spillway.Release, in spillway.Intent) (spillway.Release, spillway.Intent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.saved[r.App]
	if h == nil {
		h = &shelf{releases: map[int]spillway.Release{}}
		s.saved[r.App] = h
	}
	r.Number = len(h.releases) + 1
	r.Groups = maps.Clone(r.Groups)
	for name, n := range r.Groups {
		if n == 0 {
			r.Groups[name] = r.Number
		}
	}
	h.releases[r.Number] = r
	in.Release = r.Number
	in.Seq = int64(len(h.intents) + 1)
	h.intents = append(h.intents, in)
	return r, in, nil
}

// AddIntent numbers and stores an intent.
func (s *Store) AddIntent(_ context.Context, app spillway.Ref, in spillway.Intent) (spillway.Intent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.saved[app]
	if h == nil {
		return in, fmt.Errorf("app %s: %w", app, spillway.ErrNotFound)
	}
	in.Seq = int64(len(h.intents) + 1)
	h.intents = append(h.intents, in)
	return in, nil
}

// Remove forgets an app.
func (s *Store) Remove(_ context.Context, app spillway.Ref) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.saved, app)
	return nil
}

// Events are all facts of an app, oldest first.
func (s *Store) Events(app spillway.Ref) []spillway.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.saved[app]; h != nil {
		return h.events
	}
	return nil
}
