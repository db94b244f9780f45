package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// What was rolled back as harmful is given to nobody unasked.
func TestAsk_ARollbackToWhatWasHarmfulIsRefused(t *testing.T) {
	saved := reconcile.Saved{
		Status: rollout.Status{Stable: 4, Good: []int{3}, Bad: map[int]rollout.Blame{
			2: {Outcome: spillway.RolledBack, Reason: "3 of 3 requests failed on release 2", At: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)},
		}},
		Spec: rollout.Spec{App: "castle", Releases: map[int]spillway.Release{2: {Number: 2}, 3: {Number: 3}, 4: {Number: 4}}},
	}
	e := &engine{installation: &installation{}}
	err := e.sensible(t.Context(), saved, spillway.Intent{Verb: spillway.VerbRollback, Release: 2})
	want := "release 2 was rolled back on 2027-03-01 at 12:00 UTC: 3 of 3 requests failed on release 2; the last good one is release 3: spillway rollback; " +
		"to try release 2 again and have it judged: spillway deploy 2; to give it everybody all the same: spillway rollback 2 --force: " + spillway.ErrConflict.Error()
	if !errors.Is(err, spillway.ErrConflict) || err.Error() != want {
		t.Errorf("got  %v\nwant %v", err, want)
	}
	for _, in := range []spillway.Intent{
		{Verb: spillway.VerbRollback, Release: 2, Force: true}, {Verb: spillway.VerbRollback, Release: 3}, {Verb: spillway.VerbRollback}, {Verb: spillway.VerbDeploy, Release: 2},
	} {
		if err := e.sensible(t.Context(), saved, in); err != nil {
			t.Errorf("%+v: %v", in, err)
		}
	}
}

// A rollback that has nowhere to go says which bad release is there, and how to go to it all the same.
func TestAsk_ARollbackToNowhereNamesTheForcedWay(t *testing.T) {
	bad := func(releases ...int) map[int]rollout.Blame {
		all := map[int]rollout.Blame{}
		for _, n := range releases {
			all[n] = rollout.Blame{Outcome: spillway.Failed, Reason: "www.2 cannot become ready", At: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}
		}
		return all
	}
	const force = "there is no earlier good release to roll back to: release 2 failed on 2027-03-01 at 12:00 UTC: www.2 cannot become ready; " +
		"to give it everybody all the same: spillway rollback 2 --force; what there is: spillway releases: "
	const nowhere = "there is no earlier good release to roll back to; what there is: spillway releases: "
	for name, tt := range map[string]struct {
		bad  map[int]rollout.Blame
		want string
	}{
		"nothing is bad":            {nil, nowhere},
		"the newest that there is":  {bad(1, 2), force},
		"not what serves, by force": {bad(2, 4), force},
		"not one that is pruned":    {bad(3), nowhere},
	} {
		t.Run(name, func(t *testing.T) {
			saved := reconcile.Saved{
				Status: rollout.Status{Stable: 4, Bad: tt.bad},
				Spec:   rollout.Spec{App: "castle", Releases: map[int]spillway.Release{1: {Number: 1}, 2: {Number: 2}, 4: {Number: 4}}},
			}
			e := &engine{installation: &installation{}}
			err := e.sensible(t.Context(), saved, spillway.Intent{Verb: spillway.VerbRollback})
			if !errors.Is(err, spillway.ErrConflict) || err.Error() != tt.want+spillway.ErrConflict.Error() {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

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
