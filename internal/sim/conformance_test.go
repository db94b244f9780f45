package sim_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/sim"
	"github.com/spillway-dev/spillway/internal/sim/platformtest"
	"github.com/spillway-dev/spillway/internal/sim/storetest"
)

func TestStore_KeepsThePromisesOfAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) reconcile.Store { return sim.NewStore() })
}

func TestWorld_KeepsThePromisesOfAPlatform(t *testing.T) {
	u := &universe{worlds: map[spillway.Ref]*sim.World{}}
	u.run(t, platformtest.Lacks{Watch: true, Drain: true})
}

// A cluster's gateway trips nobody by itself, and takes what is written last.
func TestWorld_KeepsThePromisesOfAPlatformAsACluster(t *testing.T) {
	u := &universe{worlds: map[spillway.Ref]*sim.World{}, instances: 3}
	u.run(t, platformtest.Lacks{Watch: true, Drain: true, Tripwire: true, Generations: true})
}

func (u *universe) run(t *testing.T, lacks platformtest.Lacks) {
	platformtest.Run(t, platformtest.Bench{
		Platform: u, Fit: u.fit, Kill: u.kill, Mute: u.mute, Users: u.users, Pass: u.pass, Patience: 5 * time.Second,
		Lacks: lacks,
	})
	for ref, w := range u.worlds {
		if err := w.Broken(); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// universe is a world for each app: a world has one, whatever its name is.
type universe struct {
	instances int // of the gateway of a cluster; 0 = each is one machine
	mu        sync.Mutex
	worlds    map[spillway.Ref]*sim.World
}

// with gives the world of an app to do, alone.
func (u *universe) with(ref spillway.Ref, do func(*sim.World)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.worlds[ref] == nil {
		u.worlds[ref] = sim.NewWorld(uint64(len(u.worlds)))
		if u.instances > 0 {
			u.worlds[ref].Cluster(u.instances)
		}
	}
	do(u.worlds[ref])
}

func (u *universe) Observe(ctx context.Context, ref spillway.Ref) (o rollout.Observation, err error) {
	u.with(ref, func(w *sim.World) { o, err = w.Observe(ctx, ref) })
	return o, err
}

func (u *universe) Apply(ctx context.Context, ref spillway.Ref, releases map[int]spillway.Release, d rollout.Desired) (err error) {
	u.with(ref, func(w *sim.World) { err = w.Apply(ctx, ref, releases, d) })
	return err
}

func (u *universe) Forget(ctx context.Context, ref spillway.Ref) (err error) {
	u.with(ref, func(w *sim.World) { err = w.Forget(ctx, ref) })
	return err
}

func (u *universe) Watch(ctx context.Context, changed func(spillway.Ref)) error {
	return sim.NewWorld(0).Watch(ctx, changed)
}

// fit makes the replicas of a release act as the program of the suite does.
func (u *universe) fit(r *spillway.Release) {
	b := sim.Behaviour{Start: 2}
	for i := range r.Config.Services {
		svc := &r.Config.Services[i]
		svc.Run = spillway.Command{Exec: []string{"play"}}
		does := svc.Env[platformtest.Variable]
		b.Crash = b.Crash || does == platformtest.Crash
		b.Fatal = b.Fatal || does == platformtest.Missing
		b.Never = b.Never || does == platformtest.Never
		b.Task += map[string]string{platformtest.TaskFails: "fails", platformtest.TaskHangs: "hangs"}[svc.Env[platformtest.TaskVariable]]
		if does == platformtest.Fails {
			b.Errors = 1
		}
	}
	u.with(r.App, func(w *sim.World) { w.Know(*r, b) })
}

func (u *universe) kill(ref spillway.Ref, g spillway.Group) {
	u.with(ref, func(w *sim.World) { w.Kill(g) })
}

func (u *universe) mute(ref spillway.Ref, on bool) {
	u.with(ref, func(w *sim.World) { w.Mute(on) })
}

func (u *universe) users(ref spillway.Ref, n int) {
	u.with(ref, func(w *sim.World) { w.Users(n) })
}

// pass lets a tenth of a second pass everywhere.
func (u *universe) pass() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.worlds {
		w.Tick(100 * time.Millisecond)
	}
}
