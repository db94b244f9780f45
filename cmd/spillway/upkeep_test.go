package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/store"
)

func TestPrune_RemovesTheBuildsOfDestroyedAppsOnly(t *testing.T) {
	releases, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { releases.Close() })
	dir := t.TempDir()
	builds, err := pipeline.NewBuilder(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	live, destroyed := built(t, builds, "live"), built(t, builds, "destroyed")
	for app, a := range map[spillway.Ref]spillway.Artefact{"live": live, "destroyed": destroyed} {
		a.Dir = "/where/the/state/was/before" // a state directory may be moved
		release := spillway.Release{App: app, Artefacts: map[string]spillway.Artefact{"www": a}, Groups: map[string]int{"www": 0}}
		if _, _, err := releases.AddRelease(t.Context(), release, spillway.Intent{Verb: spillway.VerbDeploy}); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-24 * time.Hour) // what is fresh is kept in any case
	markers, err := filepath.Glob(filepath.Join(dir, "artefacts", "*", "*.json"))
	if err != nil || len(markers) != 2 {
		t.Fatalf("%d artefacts, %v; want 2", len(markers), err)
	}
	for _, marker := range markers {
		if err := os.Chtimes(marker, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(t.Context(), releases, builds); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(builds.Exists(live), builds.Exists(destroyed)); err != nil {
		t.Errorf("something that a release needs is gone: %v", err)
	}
	if err := releases.Remove(t.Context(), "destroyed"); err != nil {
		t.Fatal(err)
	}
	if err := prune(t.Context(), releases, builds); err != nil {
		t.Fatal(err)
	}
	if err := builds.Exists(live); err != nil {
		t.Errorf("the build of the live app: %v", err)
	}
	if err := builds.Exists(destroyed); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("the build of the destroyed app: %v, want ErrNotFound", err)
	}
}

func TestOutlived_KeepsWhatIsNeeded(t *testing.T) {
	saved := reconcile.Saved{Spec: rollout.Spec{Releases: map[int]spillway.Release{}}}
	for n := 1; n <= 30; n++ {
		saved.Spec.Releases[n] = spillway.Release{Number: n, Config: spillway.App{Keep: 2}, Groups: map[string]int{"www": n, "backend": max(1, n-1)}}
	}
	delete(saved.Spec.Releases, 29) // forgotten before: a gap does not count
	saved.Status = rollout.Status{
		Stable: 20, Good: []int{18}, Rollout: &rollout.Rollout{Release: 24, Stable: 20, From: 22}, Queue: &rollout.Queued{Release: 26},
		Lanes:   map[string]rollout.Lane{"canary": {Release: 10, Good: []int{8}, Queue: &rollout.Queued{Release: 12}}},
		Standby: &rollout.Standby{Release: 16}, Wants: []rollout.Want{{Group: spillway.Group{Service: "www", Release: 4}, Release: 6}},
		Route: spillway.Route{Edges: []spillway.Edge{{Backends: []spillway.Backend{{Group: spillway.Group{Service: "www", Release: 2}, Release: 2}}}}},
	}
	saved.Spec.Intents = []spillway.Intent{{Verb: spillway.VerbDeploy, Release: 14}}
	// Even numbers from 2 on are needed for themselves, each odd one below them for its backend.
	if got := outlived(saved); len(got) != 0 {
		t.Errorf("%v would be forgotten, although everything is needed", got)
	}
	saved.Status.Lanes, saved.Spec.Intents = nil, nil
	if got, want := outlived(saved), []int{7, 8, 9, 10, 11, 12, 13, 14}; !slices.Equal(got, want) {
		t.Errorf("%v would be forgotten, want %v", got, want)
	}
	saved = reconcile.Saved{Status: rollout.Status{Stable: 60}, Spec: rollout.Spec{Releases: map[int]spillway.Release{}}}
	for n := 1; n <= 60; n++ {
		saved.Spec.Releases[n] = spillway.Release{Number: n, Groups: map[string]int{"www": n, "backend": 3}}
	}
	if got := outlived(saved); len(got) != 9 || slices.Contains(got, 3) {
		t.Errorf("%v would be forgotten; want 9 of the oldest 10, all but 3 whose backend runs", got)
	}
}

// built makes the artefact of a directory with one file.
func built(t *testing.T, builds *pipeline.Builder, text string) spillway.Artefact {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := pipeline.Pack(&packed, dir); err != nil {
		t.Fatal(err)
	}
	tree, err := builds.Unpack(t.Context(), &packed)
	if err != nil {
		t.Fatal(err)
	}
	a, err := builds.Build(t.Context(), tree, spillway.Service{Name: "www"}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
