// Package rollout is not as pure as it should be.
package rollout

import (
	"context" // want "pure-imports"
	"fmt"
	clock "time"

	"github.com/spillway-dev/spillway"
)

// Decide asks the world.
func Decide(ctx context.Context, in chan int) { // want "pure-code"
	// The comment that a go statement needs does not help here.
	go Decide(ctx, nil) // want "pure-code"
	select {            // want "pure-code"
	case <-in:
	}
	if clock.Now().IsZero() { // want "pure-code"
		fmt.Println(spillway.Table) // want "pure-code"
	}
	_ = clock.Unix(0, 0)
}
