//go:build sim

package sim_test

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillway-dev/spillway/internal/sim"
)

// TestLong_KeepsTheInvariants runs seed after seed, from SIM_FIRST on, until SIM_ROUNDS rounds of the loop are done.
func TestLong_KeepsTheInvariants(t *testing.T) {
	want := int64(2_000_000)
	if n, err := strconv.ParseInt(os.Getenv("SIM_ROUNDS"), 10, 64); err == nil {
		want = n
	}
	first, _ := strconv.ParseUint(os.Getenv("SIM_FIRST"), 10, 64)
	var seed atomic.Uint64
	seed.Store(first)
	var rounds atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		// Owned by the test, which waits; each ends when the rounds are done or a seed fails.
		workers.Go(func() {
			for rounds.Load() < want && failed.Load() == nil {
				n, err := sim.Seed(seed.Add(1)-1, actions)
				rounds.Add(int64(n))
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	t.Logf("%d seeds, %d rounds", seed.Load()-first, rounds.Load())
}
