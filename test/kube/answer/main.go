// answer is the program of the replicas in tests on a cluster.
package main

import (
	"os"

	"github.com/spillway-dev/spillway/internal/sim/platformtest"
)

func main() { os.Exit(platformtest.Play(os.Getenv)) }
