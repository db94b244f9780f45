//go:build sim

package sim_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/sim"
)

// rollouts is how many whole rollouts each case runs through the engine, the judge and the simulated
// data plane: SIM_ROLLOUTS, or 2,000.
var rollouts = func() int {
	if n, err := strconv.Atoi(os.Getenv("SIM_ROLLOUTS")); err == nil {
		return n
	}
	return 2000
}()

// TestRollouts_AnIdenticalReleaseIsKept counts false roll-backs: at most 1 % of rollouts in which the
// candidate is the stable release again, whatever happens to both.
func TestRollouts_AnIdenticalReleaseIsKept(t *testing.T) {
	for name, during := range map[string][]sim.Action{
		"constant":                {},
		"shared outage":           {"outage 0.2"},
		"sticky users":            {"users 5000"},
		"outage and sticky users": {"users 5000", "outage 0.2"},
		"restarts in between":     {"crash before-save", "proxy down 2", "crash after-save"},
	} {
		t.Run(name, func(t *testing.T) {
			back := countOutcomes(t, "errors=0.01", during, spillway.RolledBack)
			t.Logf("%d of %d rolled back", back, rollouts)
			if back > rollouts/100 {
				t.Errorf("%d of %d identical releases were rolled back, want at most 1 %%", back, rollouts)
			}
		})
	}
}

// TestRollouts_AWorseReleaseIsRolledBack is the other side: 1 % errors become 10 %.
func TestRollouts_AWorseReleaseIsRolledBack(t *testing.T) {
	back := countOutcomes(t, "errors=0.1", nil, spillway.RolledBack)
	t.Logf("%d of %d rolled back", back, rollouts)
	if back < rollouts*99/100 {
		t.Errorf("%d of %d releases with 10 %% errors were rolled back, want at least 99 %%", back, rollouts)
	}
}

// countOutcomes runs rollouts of a release against one with 1 % errors and counts those that end so.
func countOutcomes(t *testing.T, errors string, during []sim.Action, outcome spillway.Outcome) int {
	var n, next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		// Owned by the test, which waits; each ends when all rollouts are taken.
		workers.Go(func() {
			for i := next.Add(1); i <= int64(rollouts); i = next.Add(1) {
				got, err := oneRollout(uint64(i), errors, during)
				if err != nil {
					t.Error(err)
					return
				}
				if got == outcome {
					n.Add(1)
				}
			}
		})
	}
	workers.Wait()
	return int(n.Load())
}

func oneRollout(seed uint64, errors string, during []sim.Action) (spillway.Outcome, error) {
	r := sim.NewRun(rand.New(rand.NewPCG(seed, 3)))
	words := "www strategy=canary tier=rolling scale=2 watch=2m "
	actions := []sim.Action{"traffic 60", sim.Action("deploy " + words + "errors=0.01"), "settle", sim.Action("deploy " + words + errors)}
	for i := range 12 {
		actions = append(actions, "tick 3s", "once")
		if i == int(seed%12) {
			actions = append(actions, during...)
		}
	}
	for i := range 40 {
		actions = append(actions, "tick 1s", "once")
		if i == 30 {
			actions = append(actions, "outage 0")
		}
	}
	for _, a := range append(actions, "settle") {
		if err := r.Step(a); err != nil {
			return "", fmt.Errorf("seed %d, %s: %w", seed, a, err)
		}
	}
	events := r.Store.Events("shop")
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Kind == spillway.EventFinished && events[i].Release == 2 {
			return events[i].Outcome, nil
		}
	}
	return "", fmt.Errorf("seed %d: the rollout has no end", seed)
}
