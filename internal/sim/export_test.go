package sim

import (
	"math/rand/v2"

	"github.com/spillway-dev/spillway"
)

// NewWorld makes a world that nothing runs in yet, with luck of its own.
func NewWorld(seed uint64) *World { return newWorld(rand.New(rand.NewPCG(seed, 3))) }

// Cluster makes the world a cluster with so many instances of its gateway.
func (w *World) Cluster(instances int) { w.cluster = newCluster(instances) }

// Users makes so many requests a tick.
func (w *World) Users(n int) { w.traffic = n }

// Know tells the world of a release and of how its replicas act.
func (w *World) Know(r spillway.Release, b Behaviour) {
	w.releases[r.Number], w.behave[r.Number] = r, b
}

// Kill ends one ready replica of a group.
func (w *World) Kill(g spillway.Group) { w.kill(g.String()) }

// Mute lets the data plane not answer until it is told otherwise.
func (w *World) Mute(on bool) {
	w.down = 0
	if on {
		w.down = 1 << 30
	}
}

// Broken is the first invariant that broke inside the world.
func (w *World) Broken() error { return w.broken }
