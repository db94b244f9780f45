package store_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestPrune_ForgetsWhatIsNamedAndNeverTheNewest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for range 4 {
		_, _, err := s.AddRelease(t.Context(), release("castle"), deploy())
		check(t, err)
	}
	check(t, s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 3, Intent: 3}, nil))
	dropped, err := s.Prune(t.Context(), "castle", func(saved reconcile.Saved) []int {
		if saved.Status.Stable != 3 || len(saved.Spec.Releases) != 4 || len(saved.Spec.Intents) != 1 {
			t.Errorf("asked with %+v", saved)
		}
		return []int{1, 2, 4}
	})
	check(t, err)
	if !slices.Equal(dropped, []int{1, 2}) {
		t.Errorf("dropped %v, want 1 and 2", dropped)
	}
	if _, err := s.Release(t.Context(), "castle", 2); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("release 2: %v, want ErrNotFound", err)
	}
	has := func(want ...int) {
		t.Helper()
		saved, err := s.Load(t.Context(), "castle")
		check(t, err)
		if got := slices.Sorted(maps.Keys(saved.Spec.Releases)); !slices.Equal(got, want) {
			t.Errorf("loaded releases %v, want %v", got, want)
		}
	}
	has(3, 4)
	next, _, err := s.AddRelease(t.Context(), release("castle"), deploy())
	check(t, err)
	if next.Number != 5 {
		t.Errorf("the next release is %d, want 5", next.Number)
	}
	has(3, 4, 5) // with a gap below what is kept in memory
	check(t, s.Close())
	s = open(t, dir)
	has(3, 4, 5)
}

func TestPrune_OfAnAppThatIsNotThere(t *testing.T) {
	_, err := open(t, t.TempDir()).Prune(t.Context(), "castle", func(reconcile.Saved) []int { return []int{1} })
	if !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

func TestNewest_FindsTheEventInForceAtATime(t *testing.T) {
	s := open(t, t.TempDir())
	_, _, err := s.AddRelease(t.Context(), release("castle"), deploy())
	check(t, err)
	route := func(minute, release int) spillway.Event {
		return spillway.Event{At: at.Add(time.Duration(minute) * time.Minute), Kind: spillway.EventRoute, Release: release}
	}
	step := route(3, 9)
	step.Kind = spillway.EventStep
	check(t, s.AppendEvents(t.Context(), "castle", []spillway.Event{route(0, 1), route(2, 2), step, route(4, 3)}))
	for minute, want := range map[int]int{-1: 0, 0: 1, 1: 1, 2: 2, 3: 2, 4: 3, 60: 3} {
		e, ok, err := s.Newest(t.Context(), "castle", spillway.EventRoute, at.Add(time.Duration(minute)*time.Minute))
		check(t, err)
		if e.Release != want || ok != (want != 0) {
			t.Errorf("minute %d: release %d, %v; want %d", minute, e.Release, ok, want)
		}
	}
}
