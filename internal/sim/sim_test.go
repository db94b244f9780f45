package sim_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/spillway-dev/spillway/internal/sim"
)

// actions is the length of a life.
const actions = 800

// TestSeeds_KeepTheInvariants is the short run of every commit; make sim is the long one.
func TestSeeds_KeepTheInvariants(t *testing.T) {
	seeds, rounds := uint64(60), 0
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

// TestOneSeed shows one seed again: SIM_SEED=12 go test -run TestOneSeed ./internal/sim
func TestOneSeed(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64)
	if err != nil {
		t.Skip("set SIM_SEED to the number of a seed")
	}
	if _, err := sim.Seed(n, actions); err != nil {
		t.Fatal(err)
	}
}
