// Package storetest holds every implementation of reconcile.Store to the promises of that interface. It knows no
// implementation.
package storetest

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Run holds an implementation of reconcile.Store to its promises. open gives an empty store.
func Run(t *testing.T, open func(*testing.T) reconcile.Store) {
	for name, promise := range map[string]func(*testing.T, reconcile.Store){
		"an unknown app is ErrNotFound":                         storeUnknown,
		"releases and intents are numbered from 1":              storeNumbers,
		"a changed service gets the number of its release":      storeGroups,
		"a save needs the version that it was based on":         storeVersions,
		"what is saved is loaded, and acted-on intents are not": storeRoundTrip,
		"what is loaded is not shared":                          storeNotShared,
		"a removed app is unknown and can come back":            storeRemove,
	} {
		t.Run(name, func(t *testing.T) { promise(t, open(t)) })
	}
}

func addRelease(t *testing.T, s reconcile.Store, app spillway.Ref) (spillway.Release, spillway.Intent) {
	t.Helper()
	r := spillway.Release{App: app, Config: spillway.App{Name: string(app)}, Groups: map[string]int{"www": 0}, Created: time.Unix(7, 0).UTC()}
	r, in, err := s.AddRelease(context.Background(), r, spillway.Intent{Verb: spillway.VerbDeploy, At: time.Unix(8, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	return r, in
}

func load(t *testing.T, s reconcile.Store, app spillway.Ref) reconcile.Saved {
	t.Helper()
	saved, err := s.Load(context.Background(), app)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

func storeUnknown(t *testing.T, s reconcile.Store) {
	if _, err := s.Load(context.Background(), "nope"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("Load: %v, want ErrNotFound", err)
	}
	if _, err := s.AddIntent(context.Background(), "nope", spillway.Intent{Verb: spillway.VerbAbort}); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("AddIntent: %v, want ErrNotFound", err)
	}
	if apps, err := s.Apps(context.Background()); err != nil || len(apps) != 0 {
		t.Errorf("Apps: %v, %v; want none", apps, err)
	}
}

func storeNumbers(t *testing.T, s reconcile.Store) {
	for n := 1; n <= 3; n++ {
		r, in := addRelease(t, s, "a")
		if r.Number != n || in.Seq != int64(2*n-1) || in.Release != n {
			t.Errorf("release %d with intent %d of release %d; want %d, %d, %d", r.Number, in.Seq, in.Release, n, 2*n-1, n)
		}
		in, err := s.AddIntent(context.Background(), "a", spillway.Intent{Verb: spillway.VerbPause})
		if err != nil || in.Seq != int64(2*n) {
			t.Errorf("intent %d, %v; want %d", in.Seq, err, 2*n)
		}
	}
	if r, in := addRelease(t, s, "b"); r.Number != 1 || in.Seq != 1 {
		t.Errorf("another app begins with release %d and intent %d, want 1 and 1", r.Number, in.Seq)
	}
	if apps, err := s.Apps(context.Background()); err != nil || !reflect.DeepEqual(apps, []spillway.Ref{"a", "b"}) {
		t.Errorf("Apps: %v, %v", apps, err)
	}
}

func storeGroups(t *testing.T, s reconcile.Store) {
	addRelease(t, s, "a")
	r := spillway.Release{App: "a", Groups: map[string]int{"www": 0, "backend": 1}}
	r, _, err := s.AddRelease(context.Background(), r, spillway.Intent{Verb: spillway.VerbDeploy})
	if want := map[string]int{"www": 2, "backend": 1}; err != nil || !reflect.DeepEqual(r.Groups, want) {
		t.Errorf("groups %v, %v; want %v", r.Groups, err, want)
	}
	if got := load(t, s, "a").Spec.Releases[2]; !reflect.DeepEqual(got.Groups, r.Groups) {
		t.Errorf("loaded groups %v, want %v", got.Groups, r.Groups)
	}
}

func storeVersions(t *testing.T, s reconcile.Store) {
	addRelease(t, s, "a")
	for version := int64(0); version < 3; version++ {
		if got := load(t, s, "a").Version; got != version {
			t.Fatalf("version %d, want %d", got, version)
		}
		if err := s.Save(context.Background(), "a", version+1, rollout.Status{}, nil); !errors.Is(err, spillway.ErrStale) {
			t.Errorf("save on a version that is not there: %v, want ErrStale", err)
		}
		if err := s.Save(context.Background(), "a", version, rollout.Status{Stable: int(version)}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(context.Background(), "a", version, rollout.Status{Stable: 99}, nil); !errors.Is(err, spillway.ErrStale) {
			t.Errorf("second save on version %d: %v, want ErrStale", version, err)
		}
	}
	if got := load(t, s, "a").Status.Stable; got != 2 {
		t.Errorf("stable %d, want 2: a refused save changed something", got)
	}
}

func storeRoundTrip(t *testing.T, s reconcile.Store) {
	_, first := addRelease(t, s, "a")
	second, err := s.AddIntent(context.Background(), "a", spillway.Intent{Verb: spillway.VerbScale, Service: "www", Replicas: 3, By: "ann", At: time.Unix(9, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	status := rollout.Status{
		Phase: spillway.Progressing, Stable: 1, Good: []int{2, 3}, Intent: first.Seq, Rollouts: 4,
		Sizes: map[string]int{"www": 3}, Drain: map[string]spillway.Duration{"www.1": 1500}, Now: time.Unix(5, 123456789).UTC(),
		Rollout: &rollout.Rollout{ID: 4, Release: 1, Steps: []rollout.Step{{Weight: 500, Certify: true}}, Memory: []byte{0, 1, 255}, Began: time.Unix(1, 0).UTC()},
		Route:   spillway.Route{Generation: 9, Edges: []spillway.Edge{{Service: "www", Hosts: []string{"a.test"}, Backends: []spillway.Backend{{Group: spillway.Group{Service: "www", Release: 1}, Release: 1, Weight: spillway.Whole}}}}},
		Wants:   []rollout.Want{{Group: spillway.Group{Service: "www", Release: 1}, Replicas: 2, Release: 1, Restart: 5}},
	}
	if err := s.Save(context.Background(), "a", 0, status, []spillway.Event{{Kind: spillway.EventStarted, Text: "x"}}); err != nil {
		t.Fatal(err)
	}
	saved := load(t, s, "a")
	if !reflect.DeepEqual(saved.Status, status) {
		t.Errorf("loaded\n%+v\nwant\n%+v", saved.Status, status)
	}
	if !reflect.DeepEqual(saved.Spec.Intents, []spillway.Intent{second}) {
		t.Errorf("open intents %+v, want only %+v", saved.Spec.Intents, second)
	}
}

func storeNotShared(t *testing.T, s reconcile.Store) {
	addRelease(t, s, "a")
	status := rollout.Status{Sizes: map[string]int{"www": 3}}
	if err := s.Save(context.Background(), "a", 0, status, nil); err != nil {
		t.Fatal(err)
	}
	status.Sizes["www"] = 4
	loaded := load(t, s, "a")
	loaded.Status.Sizes["www"] = 5
	delete(loaded.Spec.Releases, 1)
	again := load(t, s, "a")
	if again.Status.Sizes["www"] != 3 || len(again.Spec.Releases) != 1 {
		t.Errorf("a caller's change reached the store: %v, %d releases", again.Status.Sizes, len(again.Spec.Releases))
	}
}

func storeRemove(t *testing.T, s reconcile.Store) {
	addRelease(t, s, "a")
	if err := s.Remove(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(context.Background(), "a"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("Load after Remove: %v, want ErrNotFound", err)
	}
	if r, in := addRelease(t, s, "a"); r.Number != 1 || in.Seq != 1 || load(t, s, "a").Version != 0 {
		t.Errorf("it came back with release %d and intent %d", r.Number, in.Seq)
	}
}
