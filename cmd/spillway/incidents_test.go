package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// A rollback looks whether all that its target needs is there, before anything is touched: also a build that
// somebody removed by hand, and also when the target is not named. (docs/incidents.md)
func TestAsk_ARollbackNeedsItsBuild(t *testing.T) {
	dir := t.TempDir()
	builds, err := pipeline.NewBuilder(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{installation: &installation{builder: builds}}
	saved := reconcile.Saved{
		Status: rollout.Status{Stable: 2, Good: []int{1}},
		Spec: rollout.Spec{App: "castle", Releases: map[int]spillway.Release{
			1: {Number: 1, Artefacts: map[string]spillway.Artefact{"www": built(t, builds, "one")}},
			2: {Number: 2, Artefacts: map[string]spillway.Artefact{"www": built(t, builds, "two")}},
		}},
	}
	asks := []spillway.Intent{{Verb: spillway.VerbRollback}, {Verb: spillway.VerbRollback, Release: 1}, {Verb: spillway.VerbDeploy, Release: 1}}
	for _, in := range asks {
		if err := e.sensible(t.Context(), saved, in); err != nil {
			t.Fatalf("%s %d with its build: %v", in.Verb, in.Release, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "artefacts")); err != nil {
		t.Fatal(err)
	}
	for _, in := range asks {
		err := e.sensible(t.Context(), saved, in)
		if !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "release 1 cannot run, and nothing was changed") {
			t.Errorf("%s %d without its build: %v", in.Verb, in.Release, err)
		}
	}
}
