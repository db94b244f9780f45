package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The resources of the group, as a role names them.
const (
	apps     = "apps"
	status   = "apps/status"
	releases = "releases"
)

const (
	tries    = 30                    // of a write that somebody else was faster than
	patience = 10 * time.Millisecond // between two of them, times how many there were, times a random part
)

// Recorder takes Events for people who look at the cluster. It must not block. It is the part of client-go's
// events.EventRecorder that is used.
type Recorder interface {
	// Eventf tells one fact about an object.
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// Config is what a Store is made of.
type Config struct {
	// Client writes, and reads apps; those may come from a cache. Its scheme knows package v1alpha1.
	Client client.Client
	// Live reads past every cache; nil = Client has none. Releases are read with it alone, once each: a cache
	// of them would hold them twice.
	Live      client.Reader
	Namespace string   // in which everything is
	Recorder  Recorder // nil = nobody is told
	Log       *slog.Logger
}

// Store is the memory of the apps of one namespace. Its methods may be called by any number of goroutines, and
// several stores may write the same apps.
type Store struct {
	client    client.Client
	live      client.Reader
	namespace string
	recorder  Recorder
	log       *slog.Logger

	mu     sync.Mutex
	listed bool // Apps has been listed past the cache once
	shelf  map[spillway.Ref]*shelf
}

var _ reconcile.Store = (*Store)(nil)

// A shelf is what was seen of one App. What is on it is never changed, only replaced.
type shelf struct {
	uid     types.UID
	version string        // resourceVersion of the newest that was seen
	app     *v1alpha1.App // that, while the cache does not have it
	// releases are those that were read so far, nil before the first; a nil one is listed and not there.
	releases map[int]*spillway.Release
	missed   map[int]bool // it was said of them that they are not there
}

// New makes a store. It reads and writes nothing.
func New(c Config) *Store {
	s := &Store{client: c.Client, live: c.Live, namespace: c.Namespace, recorder: c.Recorder, log: c.Log, shelf: map[spillway.Ref]*shelf{}}
	if s.live == nil {
		s.live = c.Client
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Check says what stands against using the cluster at all: its kinds are unknown, the server may not read them, the
// API server does not answer. nil when nothing does.
func (s *Store) Check(ctx context.Context) error {
	one := []client.ListOption{client.InNamespace(s.namespace), client.Limit(1)}
	if err := s.live.List(ctx, &v1alpha1.AppList{}, one...); err != nil {
		return s.explain(err, "list", apps)
	}
	return s.explain(s.live.List(ctx, &v1alpha1.ReleaseList{}, one...), "list", releases)
}

// Apps lists the apps that have a release or an intent, sorted.
func (s *Store) Apps(ctx context.Context) ([]spillway.Ref, error) {
	var list v1alpha1.AppList
	reader, first := s.lister()
	if err := reader.List(ctx, &list, client.InNamespace(s.namespace)); err != nil {
		return nil, fmt.Errorf("list the apps: %w", s.explain(err, "list", apps))
	}
	newest := map[spillway.Ref]*v1alpha1.App{} // nil = not known
	for i := range list.Items {
		app := &list.Items[i]
		ref := v1alpha1.RefOf(app.Name)
		if first {
			s.remember(app)
		}
		newest[ref] = s.newer(ref, app)
	}
	s.mu.Lock()
	for ref := range s.shelf { // the cache may be late with those that were just made
		if _, there := newest[ref]; !there {
			newest[ref] = nil
		}
	}
	s.listed = true
	s.mu.Unlock()
	var refs []spillway.Ref
	for ref, app := range newest {
		if app == nil {
			var err error
			if app, _, err = s.read(ctx, ref, true); err != nil {
				return nil, err
			}
		}
		if app != nil && exists(app) {
			refs = append(refs, ref)
		}
	}
	slices.Sort(refs)
	return refs, nil
}

// Anew makes the next Apps read past the cache, and so whatever is read after it. Who begins to lead must not decide on what
// its cache has: the one that led before may have written since.
func (s *Store) Anew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = false
}

// lister reads past the cache the first time.
func (s *Store) lister() (reader client.Reader, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.listed {
		return s.live, true
	}
	return s.client, false
}

// exists reports whether an App is an app: a resource that nobody deployed yet is none.
func exists(app *v1alpha1.App) bool {
	return app.Status.NewestRelease > 0 || app.Status.NewestIntent > 0
}

// Load gives status, releases and open intents of an app, all of one moment. ErrNotFound when there is none.
func (s *Store) Load(ctx context.Context, ref spillway.Ref) (reconcile.Saved, error) {
	app, err := s.existing(ctx, ref)
	if err != nil {
		return reconcile.Saved{}, err
	}
	saved, err := s.saved(ctx, app)
	if err != nil {
		return reconcile.Saved{}, fmt.Errorf("load %s: %w", ref, err)
	}
	return saved, nil
}

// existing is the App of an app that was deployed; ErrNotFound otherwise.
func (s *Store) existing(ctx context.Context, ref spillway.Ref) (*v1alpha1.App, error) {
	app, _, err := s.read(ctx, ref, false)
	switch {
	case err != nil:
		return nil, err
	case app == nil:
		return nil, noApp(ref)
	case !exists(app) && app.Status.Message != "":
		return nil, fmt.Errorf("app %s was applied and has no release yet: %s; if it has a mistake, correct it and apply it again: %w", ref, app.Status.Message, spillway.ErrNotFound)
	case !exists(app):
		return nil, fmt.Errorf("app %s was applied and has no release yet: %w", ref, spillway.ErrNotFound)
	}
	return app, nil
}

// saved reads what an App says.
func (s *Store) saved(ctx context.Context, app *v1alpha1.App) (reconcile.Saved, error) {
	saved := reconcile.Saved{Version: app.Status.Version, Spec: rollout.Spec{App: v1alpha1.RefOf(app.Name)}}
	if app.Status.Memory != nil {
		if err := json.Unmarshal(app.Status.Memory.Raw, &saved.Status); err != nil {
			return saved, damaged(app, "status.memory", err)
		}
	}
	for _, text := range app.Status.Intents {
		var intent spillway.Intent
		if err := json.Unmarshal(text.Raw, &intent); err != nil {
			return saved, damaged(app, "status.intents", err)
		}
		if intent.Seq > saved.Status.Intent {
			saved.Spec.Intents = append(saved.Spec.Intents, intent)
		}
	}
	var err error
	if saved.Spec.Releases, err = s.releases(ctx, app); err != nil {
		return saved, err
	}
	for _, n := range serving(saved.Status) {
		if _, there := saved.Spec.Releases[n]; !there && slices.Contains(app.Status.Releases, n) && !ending(saved) {
			s.unlearn(app, n) // so that it is found when it is there again
			return saved, fmt.Errorf("release %d of %s is in use and its resource Release %s-%d is gone; nothing is changed until it is there again, from a backup, or the App is deleted: %w",
				n, app.Name, app.Name, n, spillway.ErrUnavailable)
		}
	}
	return saved, nil
}

// ending reports whether an app is being destroyed, or was asked to be.
func ending(saved reconcile.Saved) bool {
	return saved.Status.Destroy || slices.ContainsFunc(saved.Spec.Intents, func(in spillway.Intent) bool { return in.Verb == spillway.VerbDestroy })
}

// unlearn has a release looked for again that was not there.
func (s *Store) unlearn(app *v1alpha1.App, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.shelf[v1alpha1.RefOf(app.Name)]; h != nil && h.uid == app.UID && h.releases != nil {
		known := maps.Clone(h.releases)
		delete(known, n)
		h.releases = known
	}
}

// serving are the releases that have users, or are to have some: stable, the candidate, those of tracks.
func serving(st rollout.Status) []int {
	list := []int{st.Stable}
	if st.Rollout != nil {
		list = append(list, st.Rollout.Release)
	}
	for _, lane := range st.Lanes {
		list = append(list, lane.Release)
	}
	list = slices.DeleteFunc(list, func(n int) bool { return n == 0 })
	slices.Sort(list)
	return slices.Compact(list)
}

func damaged(app *v1alpha1.App, field string, err error) error {
	return fmt.Errorf("%s of the App %s cannot be read; did somebody edit it? %w", field, app.Name, err)
}

// read gives the newest App that is known of; nil when there is none. The caller must not change it. fresh says
// that it came past every cache, as it does with live.
func (s *Store) read(ctx context.Context, ref spillway.Ref, live bool) (app *v1alpha1.App, fresh bool, err error) {
	s.mu.Lock()
	known := s.shelf[ref]
	s.mu.Unlock()
	if known != nil && !live {
		app, err := s.get(ctx, s.client, ref)
		if err != nil {
			return nil, false, err
		}
		if app = s.newer(ref, app); app != nil {
			return app, false, nil
		}
	}
	app, err = s.get(ctx, s.live, ref)
	if err != nil {
		return nil, false, err
	}
	if app == nil {
		s.forget(ref)
		return nil, true, nil
	}
	s.remember(app)
	return app, true, nil
}

func (s *Store) get(ctx context.Context, reader client.Reader, ref spillway.Ref) (*v1alpha1.App, error) {
	app := &v1alpha1.App{}
	err := reader.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1alpha1.Name(ref)}, app)
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read app %s: %w", ref, s.explain(err, "get", apps))
	}
	return app, nil
}

// newer is the newer of what the cache has and what was seen; nil when that is not known.
func (s *Store) newer(ref spillway.Ref, cached *v1alpha1.App) *v1alpha1.App {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.shelf[ref]
	if known == nil || cached == nil || cached.UID != known.uid {
		return nil
	}
	order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, known.version)
	if err != nil || order < 0 {
		return known.app
	}
	known.version, known.app = cached.ResourceVersion, nil // the cache has it
	return cached
}

// remember keeps an App that was read past the cache or written.
func (s *Store) remember(app *v1alpha1.App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := v1alpha1.RefOf(app.Name)
	known := s.shelf[ref]
	if known == nil || known.uid != app.UID {
		known = &shelf{uid: app.UID}
		s.shelf[ref] = known
	} else if order, err := resourceversion.CompareResourceVersion(app.ResourceVersion, known.version); err == nil && order < 0 {
		return // another call saw a newer one meanwhile
	}
	known.version, known.app = app.ResourceVersion, app
}

// forget makes the next read of an app go past the cache.
func (s *Store) forget(ref spillway.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shelf, ref)
}

// doubt makes the next read of an App go past the cache. Its releases, which nobody can change, stay known: one of them may
// be gone from the cluster.
func (s *Store) doubt(ref spillway.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.shelf[ref]; h != nil {
		h.version, h.app = "", nil
	}
}

// errSame is what an edit returns when there is nothing to write.
var errSame = errors.New("nothing to write")

// change edits the status of an App, of which it passes a copy that is the caller's own. When somebody else wrote
// in between, or the edit fails on what may be old, it is done again on what is there then. ErrNotFound when there
// is no App.
func (s *Store) change(ctx context.Context, ref spillway.Ref, edit func(*v1alpha1.App) error) (*v1alpha1.App, error) {
	live := false
	for try := range tries {
		old, fresh, err := s.read(ctx, ref, live)
		if err != nil {
			return nil, err
		}
		if old == nil {
			return nil, noApp(ref)
		}
		app := old.DeepCopy()
		if err := edit(app); errors.Is(err, errSame) {
			return old, nil
		} else if err != nil && fresh {
			return nil, err
		} else if err == nil {
			err = s.client.Status().Update(ctx, app, client.FieldOwner(v1alpha1.Manager))
			if err == nil {
				s.remember(app)
				return app, nil
			}
			if !apierrors.IsConflict(err) && !absent(err) {
				s.doubt(ref) // it may have been written all the same
				return nil, s.explain(err, "update", status)
			}
			if err := pause(ctx, try); err != nil {
				return nil, err
			}
		}
		live = true
	}
	return nil, busy(ref)
}

// pause lets others go first.
func pause(ctx context.Context, try int) error {
	wait := time.NewTimer(time.Duration(rand.Int64N(int64(patience) * int64(try+1))))
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
	}
}

// document is the JSON of a value.
func document(v any) (apiextensions.JSON, error) {
	text, err := json.Marshal(v)
	return apiextensions.JSON{Raw: text}, err
}
