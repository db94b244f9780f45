package state_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Every event is an Event once, and so is what an App was refused for. What is written together is told together: two
// Events that differ by their texts alone would be counted as one.
func TestStore_TellsWhoLooksAtTheCluster(t *testing.T) {
	c, namespace := cluster(t)
	var said []string
	s := state.New(state.Config{Client: c, Namespace: namespace, Recorder: recorder(func(kind, reason, note string) {
		said = append(said, kind+" "+reason+": "+note)
	})})
	deploy(t, s, file)
	happened := []spillway.Event{
		{Kind: spillway.EventStarted, Text: "release 1 begins"}, {Kind: spillway.EventRoute, Text: "route 1"},
		{Kind: spillway.EventTask, Text: "one"}, {Kind: spillway.EventTask, Text: "two"},
		{Kind: spillway.EventFinished, Outcome: spillway.RolledBack, Text: "it failed"},
	}
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, happened); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, happened); !errors.Is(err, spillway.ErrStale) {
		t.Fatal(err)
	}
	mistake := fmt.Errorf("spec:1:1: no services: %w", spillway.ErrInvalid)
	generation := resource(t, c, namespace, "castle").Generation + 1
	for _, mistakes := range []error{mistake, nil} {
		if err := s.Answer(t.Context(), "castle", generation, mistakes); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"Normal Started: release 1 begins", "Normal Task: one; two", "Warning RolledBack: it failed", "Warning Invalid: spec:1:1: no services: invalid"}
	if !slices.Equal(said, want) {
		t.Errorf("told %q, want %q", said, want)
	}
}
