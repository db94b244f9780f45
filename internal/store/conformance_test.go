package store_test

import (
	"testing"

	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/sim/storetest"
	"github.com/spillway-dev/spillway/internal/store"
)

func TestStore_KeepsThePromisesOfAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) reconcile.Store {
		s, err := store.Open(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
