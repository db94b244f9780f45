package judge_test

import (
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

func TestObserve_CatchesADeadCandidate(t *testing.T) {
	terms := spillway.Trial{ID: 1, Release: 7, Stable: 6, Budget: 20, Margin: spillway.Percent(1)}
	for _, w := range []int{1, 5, 10, 25, 50, 75, 100} {
		s := judge.New(1)
		for s.Cause == "" {
			s = s.Observe(judge.Answer{Candidate: true, Weight: spillway.Percent(w), Failed: true}, terms)
		}
		if s.Candidate.Failures > 20 {
			t.Errorf("at %d %%: %s", w, s.Evidence(terms).Reason)
		}
	}
}
