package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// A server remembers a release whose resource somebody deleted. Nobody is led to it: the next server would not know it.
func TestSensible_NothingThatIsGoneIsToServe(t *testing.T) {
	gone := func(_ context.Context, _ spillway.Ref, st rollout.Status) ([]string, error) {
		if st.Stable == 1 {
			return []string{"castle-1"}, nil
		}
		return nil, errors.New("the API server does not answer")
	}
	e := &engine{installation: &installation{gone: gone}}
	saved := reconcile.Saved{Spec: rollout.Spec{App: "castle", Releases: map[int]spillway.Release{}}}
	for n := 1; n <= 3; n++ {
		saved.Spec.Releases[n] = spillway.Release{App: "castle", Number: n}
	}
	saved.Status = rollout.Status{Stable: 2, Good: []int{1}, Phase: spillway.Healthy}
	rollback := spillway.Intent{Verb: spillway.VerbRollback, Release: 1}
	if err := e.sensible(t.Context(), saved, rollback); !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), "Release castle-1") {
		t.Errorf("rollback to a release that is gone: %v", err)
	}
	for candidate, refused := range map[int]bool{1: true, 3: false} {
		saved.Status.Rollout = &rollout.Rollout{Release: candidate, Stable: 2}
		if err := e.sensible(t.Context(), saved, spillway.Intent{Verb: spillway.VerbPromote}); (err != nil) != refused {
			t.Errorf("promotion of release %d: %v", candidate, err)
		}
	}
}
