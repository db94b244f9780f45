package rollout_test

import (
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestDescribe_SaysHowTheReleaseEndedThatLeavesNothing(t *testing.T) {
	for outcome, want := range map[spillway.Outcome]string{
		spillway.Failed:    "nothing serves: release 1 failed: www.1 cannot become ready",
		spillway.Aborted:   "nothing serves: release 1 was taken back: www.1 cannot become ready",
		spillway.Cancelled: "nothing serves: release 1 was dropped: www.1 cannot become ready",
	} {
		last := &rollout.Result{ID: 1, Release: 1, Outcome: outcome, Reason: "www.1 cannot become ready"}
		got := rollout.Describe(rollout.Spec{App: "shop"}, rollout.Status{Last: last, Phase: spillway.Degraded}, rollout.Observation{}).Problems
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s: problems = %q, want %q", outcome, got, want)
		}
	}
}

func TestDescribe_HoldingAutomaticDeploysIsNoProblem(t *testing.T) {
	o := rollout.Describe(rollout.Spec{App: "shop"}, rollout.Status{Stable: 0, Held: true, Phase: spillway.Healthy}, rollout.Observation{})
	if !o.Held || len(o.Problems) != 0 {
		t.Errorf("held = %t, problems = %q; want it told once", o.Held, o.Problems)
	}
}
