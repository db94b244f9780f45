package e2etest

import (
	"testing"
	"time"
)

// Await waits until a condition holds, and ends the test when it does not in time.
func Await(t *testing.T, d time.Duration, what string, holds func() bool) {
	t.Helper()
	if !Within(d, holds) {
		t.Fatalf("waited %v for %s", d, what)
	}
}

// Within reports whether a condition comes to hold in time. It is looked at every 10 ms at first and every 50 ms later.
func Within(d time.Duration, holds func() bool) bool {
	began := time.Now()
	for time.Since(began) < d {
		if holds() {
			return true
		}
		<-time.After(min(max(time.Since(began)/20, 10*time.Millisecond), 50*time.Millisecond))
	}
	return holds()
}
