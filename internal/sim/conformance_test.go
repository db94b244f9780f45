package sim_test

import (
	"testing"

	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/sim"
	"github.com/spillway-dev/spillway/internal/sim/storetest"
)

func TestStore_KeepsThePromisesOfAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) reconcile.Store { return sim.NewStore() })
}
