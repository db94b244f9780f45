package rollout_test

import (
	"slices"
	"testing"
	"time"

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
		got := rollout.Describe(rollout.Spec{App: "shop"}, rollout.Status{Last: last, Phase: spillway.Degraded}, rollout.Observation{}, time.Time{}).Problems
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s: problems = %q, want %q", outcome, got, want)
		}
	}
}

// An app that is destroyed on purpose has no problem because nothing of it serves.
func TestDecide_SaysThatAnAppIsBeingDestroyed(t *testing.T) {
	last := &rollout.Result{ID: 1, Release: 1, Outcome: spillway.Succeeded}
	spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: release(1, []string{"www"}, web(spillway.Rolling, 2))}}
	seen := rollout.Observation{Groups: []rollout.Group{{Group: spillway.Group{Service: "www", Release: 1}, Running: 2}}}
	status := rollout.Decide(spec, rollout.Status{Stable: 1, Phase: spillway.Healthy, Last: last, Destroy: true}, seen, time.Unix(1, 0)).Status
	o := rollout.Describe(spec, status, seen, time.Unix(1, 0))
	if o.Phase != spillway.Destroying || len(o.Problems) != 0 {
		t.Errorf("phase %s, problems %q", o.Phase, o.Problems)
	}
}

// What a replica wrote is no place to look at when there was none.
func TestDescribe_SaysWhereToLook(t *testing.T) {
	g := spillway.Group{Service: "www", Release: 1}
	for problem, want := range map[string]string{
		"cannot start: save x: no space left on device": "www.1: cannot start: save x: no space left on device; look at: spillway doctor",
		"exited with code 3 after 0.2s":                 "www.1: exited with code 3 after 0.2s; look at: spillway logs -a shop --service www",
	} {
		spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: release(1, []string{"www"}, web(spillway.Rolling, 2))}}
		seen := rollout.Observation{Groups: []rollout.Group{{Group: g, Running: 2, Problem: problem}}}
		got := rollout.Describe(spec, rollout.Status{Stable: 1, Phase: spillway.Healthy}, seen, time.Time{}).Problems
		if !slices.Contains(got, want) {
			t.Errorf("problems = %q, want %q", got, want)
		}
	}
}

func TestDescribe_HoldingAutomaticDeploysIsNoProblem(t *testing.T) {
	o := rollout.Describe(rollout.Spec{App: "shop"}, rollout.Status{Stable: 0, Held: true, Phase: spillway.Healthy}, rollout.Observation{}, time.Time{})
	if !o.Held || len(o.Problems) != 0 {
		t.Errorf("held = %t, problems = %q; want it told once", o.Held, o.Problems)
	}
}

func TestDescribe_CountsDownBetweenDecisions(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	steady := release(2, []string{"www"}, web(spillway.Canary, 2))
	steps := []rollout.Step{{Weight: spillway.Percent(5), Hold: spillway.Duration(time.Minute)}, {Weight: spillway.Whole}}
	for _, tt := range []struct {
		phase spillway.Phase
		after time.Duration
		want  time.Duration
	}{
		{spillway.Progressing, 0, 50 * time.Second},
		{spillway.Progressing, 12 * time.Second, 38 * time.Second},
		{spillway.Progressing, -time.Hour, 50 * time.Second}, // a clock that went back
		{spillway.Progressing, time.Hour, 0},
		{spillway.Promoting, 12 * time.Second, time.Duration(steady.Config.Watch) - 42*time.Second},
	} {
		status := rollout.Status{Phase: tt.phase, Stable: 1, Now: began, Rollout: &rollout.Rollout{
			ID: 1, Release: 2, Stable: 1, Steps: steps, Acked: true,
			Elapsed: spillway.Duration(30 * time.Second), Held: spillway.Duration(10 * time.Second),
		}}
		spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: release(1, nil, web(spillway.Canary, 2)), 2: steady}}
		o := rollout.Describe(spec, status, rollout.Observation{}, began.Add(tt.after))
		if got := time.Duration(o.Rollout.Left); got != tt.want {
			t.Errorf("%s after %s: %s left, want %s", tt.phase, tt.after, got, tt.want)
		}
	}
}

func TestDescribe_SaysWhyThereAreNoData(t *testing.T) {
	for silence, want := range map[string]string{"": "the proxy does not answer: the counts are those last seen, and nothing is stopped or judged; look at: spillway doctor", "b leads": "b leads"} {
		o := rollout.Describe(rollout.Spec{App: "shop"}, rollout.Status{Phase: spillway.Healthy}, rollout.Observation{NoData: true, Silence: silence}, time.Time{})
		if !slices.Equal(o.Problems, []string{want}) || o.Silence != silence || !o.NoData {
			t.Errorf("problems = %q, silence = %q; want %q", o.Problems, o.Silence, want)
		}
	}
}

func TestDescribe_SaysWhatGoesOnWithoutTraffic(t *testing.T) {
	spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: release(1, nil, web(spillway.Canary, 2)), 2: release(2, []string{"www"}, web(spillway.Canary, 2))}}
	for evidence, want := range map[*spillway.Evidence]string{
		nil: "enough evidence to go on: no traffic; promote goes on without requests",
		{Trial: 1, Verdict: spillway.NoTraffic, Reason: "release 2 has not answered any request yet"}: "enough evidence to go on: release 2 has not answered any request yet; promote goes on without requests",
		{Trial: 1, Verdict: spillway.Undecided, Requests: 3, Reason: "3 requests"}:                    "enough evidence to go on: 3 requests",
	} {
		status := rollout.Status{Phase: spillway.Progressing, Stable: 1, Rollout: &rollout.Rollout{
			ID: 1, Release: 2, Stable: 1, Routed: true, Acked: true, Exposed: true, Evidence: evidence,
			Steps: []rollout.Step{{Weight: spillway.Percent(5), Certify: true}, {Weight: spillway.Whole}},
		}}
		if got := rollout.Describe(spec, status, rollout.Observation{}, time.Time{}).Rollout.Waiting; got != want {
			t.Errorf("waiting: %s, want %s", got, want)
		}
	}
}

// A step of a rolling deploy that waits for an old replica to end says so: all that there is of the new release is ready.
func TestDescribe_SaysThatReplicasHaveToEndFirst(t *testing.T) {
	for strategy, old := range map[spillway.Strategy]int{spillway.Rolling: 2, spillway.Recreate: 1} {
		www := web(strategy, 2)
		www.Stop = spillway.Stop{Drain: spillway.Duration(30 * time.Second), Grace: spillway.Duration(10 * time.Second)}
		spec := rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: release(1, nil, www), 2: release(2, []string{"www"}, www)}}
		before, after := spillway.Group{Service: "www", Release: 1}, spillway.Group{Service: "www", Release: 2}
		status := rollout.Status{Phase: spillway.Progressing, Stable: 1, Wants: []rollout.Want{{Group: after, Replicas: 1}}, Rollout: &rollout.Rollout{
			ID: 1, Release: 2, Stable: 1, Strategy: strategy, Step: 1, Prepared: true, Steps: []rollout.Step{{Weight: spillway.Percent(50)}, {Weight: spillway.Whole, Candidate: spillway.Whole}},
		}}
		for draining, want := range map[int]string{
			0: "1 of 2 replicas of www ready",
			1: "1 of 2 replicas of www ready, for the rest 1 replica of www.1 to end, which may take 40s (its stop: drain 30s, grace 10s)",
		} {
			seen := rollout.Observation{Groups: []rollout.Group{{Group: before, Running: old, Draining: draining, Ready: old - draining}, {Group: after, Running: 1, Ready: 1}}}
			if got := rollout.Describe(spec, status, seen, time.Time{}).Rollout.Waiting; got != want {
				t.Errorf("%s: waiting: %s, want %s", strategy, got, want)
			}
		}
	}
}
