package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Run is one world with its store and all that was done to it.
type Run struct {
	World   *World
	Store   *Store
	Actions []Action
	Rounds  int
	Trace   io.Writer // gets what each round changed; nil = none
	checks  checks
}

// NewRun makes an empty world. The rng decides what the world does by itself.
func NewRun(rng *rand.Rand) *Run {
	return &Run{World: newWorld(rng), Store: NewStore(), checks: newChecks()}
}

// Failure is an invariant that broke, and how to see it again.
type Failure struct {
	Seed    uint64
	Actions []Action
	Events  []spillway.Event
	Err     error
}

// Error prints the scenario.
func (f *Failure) Error() string {
	lines := make([]string, len(f.Actions))
	for i, a := range f.Actions {
		lines[i] = string(a)
	}
	var facts []string
	for _, e := range f.Events[max(0, len(f.Events)-25):] {
		facts = append(facts, fmt.Sprintf("%s %s", e.At.Format("15:04:05"), e.Text))
	}
	return fmt.Sprintf("seed %d breaks after %d actions: %v\nevents:\n%s\nscenario:\n%s", f.Seed, len(lines), f.Err, strings.Join(facts, "\n"), strings.Join(lines, "\n"))
}

// Seed runs a random life of the given number of actions, then lets it come to rest with the faults off.
// It gives the number of rounds and a *Failure.
func Seed(seed uint64, actions int) (int, error) { return Show(seed, actions, nil) }

// Show is Seed, with what each round changed written to trace.
func Show(seed uint64, actions int, trace io.Writer) (int, error) {
	l := newLife(seed, rand.New(rand.NewPCG(seed, 1)))
	r := NewRun(rand.New(rand.NewPCG(seed, 2)))
	r.Trace = trace
	todo := l.first()
	for i := 0; i < actions; i++ {
		if len(todo) == 0 {
			todo = append(todo, l.draw(len(r.World.releases)))
		}
		if err := r.Step(todo[0]); err != nil {
			return r.Rounds, &Failure{seed, r.Actions, r.Store.Events(app), err}
		}
		todo = todo[1:]
	}
	if err := r.Settle(); err != nil {
		return r.Rounds, &Failure{seed, r.Actions, r.Store.Events(app), err}
	}
	if err := r.last(spillway.Strategies[seed/4%4]); err != nil {
		return r.Rounds, &Failure{seed, r.Actions, r.Store.Events(app), err}
	}
	return r.Rounds, nil
}

// last ends a life well: whatever happened, a good release that has traffic and no faults is promoted, to a
// track and from there to stable too, and a rollback brings back what was before.
func (r *Run) last(strategy spillway.Strategy) error {
	words := "watch=20s errors=0 strategy=" + string(strategy)
	if err := r.steps("traffic 20", "outage 0", "deploy both "+Action(words)+" track=canary:20%", "settle"); err != nil {
		return err
	}
	good := r.checks.last[""].Release
	if st, _ := r.resting(); st.Stable != good || st.Phase != spillway.Healthy {
		return fmt.Errorf("a good release is promoted: it is %s with release %d, not %d", st.Phase, st.Stable, good)
	}
	if err := r.steps("deploy both track=canary "+Action(words)+" track=canary:20%", "settle"); err != nil {
		return err
	}
	tried := r.checks.last["canary"].Release
	if st, _ := r.resting(); st.Lanes["canary"].Release != tried {
		return fmt.Errorf("a good release is what its track has: it is %d, not %d", st.Lanes["canary"].Release, tried)
	}
	if err := r.steps("promote canary", "settle"); err != nil {
		return err
	}
	if st, _ := r.resting(); st.Stable != tried {
		return fmt.Errorf("the release of a track becomes stable: it is %d, not %d", st.Stable, tried)
	}
	if err := r.steps("rollback", "settle"); err != nil {
		return err
	}
	if st, _ := r.resting(); st.Stable != good {
		return fmt.Errorf("a rollback brings back what was before: it is %d, not %d", st.Stable, good)
	}
	return r.drifts()
}

// steps does actions one after the other.
func (r *Run) steps(actions ...Action) error {
	for _, a := range actions {
		if err := r.Step(a); err != nil {
			return err
		}
	}
	return nil
}

// Step does one action and checks the world.
func (r *Run) Step(a Action) error {
	r.Actions = append(r.Actions, a)
	if err := r.do(a); err != nil && !errors.Is(err, errFault) {
		return err
	}
	return r.World.broken
}

// ask stores an intent. Before the first release there is no app to ask.
func (r *Run) ask(in spillway.Intent) error {
	in.At = r.World.Now
	_, err := r.Store.AddIntent(context.Background(), app, in)
	if errors.Is(err, spillway.ErrNotFound) {
		return nil
	}
	r.checks.asked(in)
	return err
}

// once is one round of the real loop, checked before and after.
func (r *Run) once() error {
	r.Rounds++
	world := &watched{World: r.World, run: r}
	result, err := reconcile.Once(context.Background(), loaded{r.Store, world}, world, app, r.World.Now)
	if errors.Is(err, spillway.ErrNotFound) {
		return nil
	}
	r.World.returned = r.World.returned && !result.Saved
	if errors.Is(err, errCrash) {
		r.World.reborn()
		r.World.returned = true
	}
	if r.checks.broken != nil {
		return r.checks.broken
	}
	if result.Gone {
		r.checks = newChecks()
	}
	return err
}

// watched is the world as a round sees it, with every decision checked on its way.
type watched struct {
	*World
	run   *Run
	saved reconcile.Saved
}

// loaded is the store as a round sees it: what it loads is what its decision is checked with.
type loaded struct {
	*Store
	round *watched
}

// Load remembers what it gives.
func (l loaded) Load(ctx context.Context, app spillway.Ref) (saved reconcile.Saved, err error) {
	saved, err = l.Store.Load(ctx, app)
	l.round.saved = saved
	return saved, err
}

// Observe checks the decision that this observation leads to, before anything can fail.
func (w *watched) Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error) {
	obs, err := w.World.Observe(ctx, app)
	if err != nil {
		return obs, err
	}
	before := fmt.Sprintf("%#v", w.saved.Status.Route)
	d := rollout.Decide(w.saved.Spec, w.saved.Status, obs, w.World.Now)
	again := rollout.Decide(w.saved.Spec, w.saved.Status, obs, w.World.Now)
	if !reflect.DeepEqual(d, again) {
		w.run.checks.fail("the same arguments give the same decision")
	}
	if before != fmt.Sprintf("%#v", w.saved.Status.Route) {
		w.run.checks.fail("Decide does not change its arguments")
	}
	w.run.checks.decision(w.World, w.saved, obs, d)
	w.run.tell(w.saved.Status, d)
	return obs, nil
}
