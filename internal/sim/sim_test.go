package sim_test

import (
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/spillway-dev/spillway/internal/sim"
)

// actions is the length of a life.
const actions = 800

// TestSeeds_KeepTheInvariants is the short run of every commit; make sim is the long one.
func TestSeeds_KeepTheInvariants(t *testing.T) {
	seeds, rounds := uint64(25), 0
	if n, err := strconv.ParseUint(os.Getenv("SIM_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	for seed := range seeds {
		n, err := sim.Seed(seed, actions)
		rounds += n
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds", rounds)
}

// TestOneSeed shows one seed again: SIM_SEED=12 go test -run TestOneSeed ./internal/sim, with SIM_TRACE=1 and
// every decision of it.
func TestOneSeed(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64)
	if err != nil {
		t.Skip("set SIM_SEED to the number of a seed")
	}
	var trace io.Writer
	if os.Getenv("SIM_TRACE") != "" {
		trace = os.Stdout
	}
	if _, err := sim.Show(n, actions, trace); err != nil {
		t.Fatal(err)
	}
}
