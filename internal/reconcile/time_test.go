package reconcile_test

import (
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestOnlyTime_IsWhatNeedsNoSaveOfItsOwn(t *testing.T) {
	now := time.Unix(1000, 0)
	status := func(after time.Duration, change func(*rollout.Status)) rollout.Status {
		s := rollout.Status{
			Phase: spillway.Progressing, Now: now.Add(after), Drain: map[string]spillway.Duration{"www.1": spillway.Duration(after)},
			Rollout: &rollout.Rollout{ID: 1, Release: 2, Acked: true, Elapsed: spillway.Duration(after), Held: spillway.Duration(after), Silent: spillway.Duration(after)},
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	earlier := status(0, nil)
	for _, c := range []struct {
		name  string
		later rollout.Status
		only  bool
	}{
		{"a moment", status(100*time.Millisecond, nil), true},
		{"many moments", status(19*time.Second, nil), true},
		{"20 seconds", status(20*time.Second, nil), false},
		{"a clock that went back", status(-time.Millisecond, nil), false},
		{"at rest", status(time.Millisecond, func(s *rollout.Status) { s.Now = time.Time{} }), false},
		{"another step", status(time.Millisecond, func(s *rollout.Status) { s.Rollout.Step = 1 }), false},
		{"other wants", status(time.Millisecond, func(s *rollout.Status) { s.Wants = []rollout.Want{{Replicas: 1}} }), false},
		{"another group that is drained", status(time.Millisecond, func(s *rollout.Status) { s.Drain["www.2"] = 0 }), false},
		{"its end", status(time.Millisecond, func(s *rollout.Status) { s.Rollout = nil }), false},
	} {
		if got := reconcile.OnlyTime(earlier, c.later); got != c.only {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if earlier.Rollout.Elapsed != 0 || earlier.Drain["www.1"] != 0 || len(earlier.Drain) != 1 {
		t.Error("it changed what it was given")
	}
}
