package sim_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/sim"
)

// TestSeeds_KeepTheInvariants is the short run of every commit.
func TestSeeds_KeepTheInvariants(t *testing.T) {
	seeds, rounds := uint64(60), 0
	if n, err := strconv.ParseUint(os.Getenv("SIM_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	for seed := range seeds {
		n, err := sim.Seed(seed, 800)
		rounds += n
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d seeds, %d rounds", seeds, rounds)
}

// TestManySeeds counts the seeds that break, by reason; for work on the engine.
func TestManySeeds(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("SIM_MANY"), 10, 64)
	if err != nil {
		t.Skip("set SIM_MANY to a number of seeds")
	}
	why := map[string][]uint64{}
	for seed := range n {
		var f *sim.Failure
		if _, err := sim.Seed(seed, 800); errors.As(err, &f) {
			key, _, _ := strings.Cut(f.Err.Error(), ":")
			why[key] = append(why[key], seed)
		}
	}
	for k, seeds := range why {
		t.Logf("%5d %s %v", len(seeds), k, seeds[:min(8, len(seeds))])
	}
}

func TestOneSeed(t *testing.T) {
	n, err := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64)
	if err != nil {
		t.Skip("set SIM_SEED to see one")
	}
	if _, err := sim.Seed(n, 800); err != nil {
		t.Fatal(err)
	}
}
