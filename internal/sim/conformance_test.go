package sim_test

import (
	"testing"

	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/sim"
)

func TestStore_KeepsThePromisesOfAStore(t *testing.T) {
	sim.TestStore(t, func(*testing.T) reconcile.Store { return sim.NewStore() })
}
