package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/sim"
)

// illegible is a store that cannot read what it holds of one app.
type illegible struct {
	*sim.Store
	app spillway.Ref
}

func (s illegible) Load(ctx context.Context, app spillway.Ref) (reconcile.Saved, error) {
	if app == s.app {
		return reconcile.Saved{}, errors.New("somebody edited it")
	}
	return s.Store.Load(ctx, app)
}

func TestDeploy_AnAppThatCannotBeReadHoldsUpNobodyWhoTakesNoHost(t *testing.T) {
	store := sim.NewStore()
	l := reconcile.NewLoop(illegible{store, "b"}, &platform{}, slog.New(slog.DiscardHandler))
	release := func(app spillway.Ref, host string, scale int) spillway.Release {
		config := spillway.App{Name: string(app), Services: []spillway.Service{{Name: "www", Host: []string{host}, Scale: scale}}}
		return spillway.Release{App: app, Config: config, Groups: map[string]int{"www": 0}}
	}
	for app, host := range map[spillway.Ref]string{"a": "a.test", "b": "b.test"} {
		if _, _, err := store.AddRelease(t.Context(), release(app, host, 1), spillway.Intent{Verb: spillway.VerbDeploy}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := l.Deploy(t.Context(), release("a", "a.test", 2), spillway.Intent{Verb: spillway.VerbDeploy}); err != nil {
		t.Errorf("a deploy with its own host: %v", err)
	}
	if _, err := l.Ask(t.Context(), "a", spillway.Intent{Verb: spillway.VerbRollback, Release: 1}); err != nil {
		t.Errorf("a rollback with its own host: %v", err)
	}
	_, _, _, err := l.Deploy(t.Context(), release("a", "c.test", 2), spillway.Intent{Verb: spillway.VerbDeploy})
	if want := "whether app b has one of the hosts or addresses of this release cannot be known: somebody edited it"; err == nil || err.Error() != want {
		t.Errorf("another host was taken, and nobody knows whose it is: %v; want %q", err, want)
	}
}

func TestDeploy_HostsOfAnAppThatIsDestroyedAreFree(t *testing.T) {
	l, store, _ := newLoop(t)
	deploy(t, store, "a")
	saved, err := store.Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	saved.Status.Destroy = true
	if err := store.Save(t.Context(), "a", saved.Version, saved.Status, nil); err != nil {
		t.Fatal(err)
	}
	deploy(t, store, "b") // it may: a's are given up
	if err := l.HostsFree(t.Context(), saved.Spec.Releases[1]); !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("%v, want ErrConflict: they are b's", err)
	}
}
