package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
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
	return &Run{World: newWorld(rng), Store: NewStore()}
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
func Seed(seed uint64, actions int) (int, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := NewRun(rand.New(rand.NewPCG(seed, 2)))
	faults := seed%4 != 0
	todo := []Action{"traffic " + Action(strconv.Itoa(rng.IntN(3)*8)), drawDeploy(rng)}
	for i := 0; i < actions; i++ {
		if len(todo) == 0 {
			todo = append(todo, draw(rng, faults, len(r.World.releases)))
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

// last ends a life well: whatever happened, a good release that has traffic and no faults is promoted.
func (r *Run) last(strategy spillway.Strategy) error {
	for _, a := range []Action{"traffic 20", "deploy both watch=20s errors=0 strategy=" + Action(strategy), "settle"} {
		if err := r.Step(a); err != nil {
			return err
		}
	}
	if st, _ := r.resting(); st.Stable != r.checks.last.Release || st.Phase != spillway.Healthy {
		return fmt.Errorf("a good release is promoted: it is %s with release %d, not %d", st.Phase, st.Stable, r.checks.last.Release)
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
	saved, err := r.Store.Load(context.Background(), app)
	if errors.Is(err, spillway.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	result, err := reconcile.Once(context.Background(), r.Store, watched{r.World, r, saved}, app, r.World.Now)
	if result.Gone {
		r.checks.last = spillway.Intent{}
	}
	if r.checks.broken != nil {
		return r.checks.broken
	}
	return err
}

// watched is the world as a round sees it, with every decision checked on its way.
type watched struct {
	*World
	run   *Run
	saved reconcile.Saved
}

// Observe checks the decision that this observation leads to, before anything can fail.
func (w watched) Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error) {
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
	w.run.checks.decision(w.saved, obs, d)
	w.run.tell(w.saved.Status, d)
	return obs, nil
}

// release makes a new release that changes the services named, and asks for it.
func (r *Run) release(words []string) error {
	release := spillway.Release{App: app, Groups: map[string]int{}, Created: r.World.Now}
	behaviour, in := Behaviour{Start: 1}, spillway.Intent{Verb: spillway.VerbDeploy, At: r.World.Now, By: "ann"}
	config := spillway.App{Name: string(app), Budget: spillway.DefaultBudget, Deadline: spillway.Duration(deadline)}
	www := spillway.Service{Name: "www", Host: []string{"shop.test"}, Needs: []string{"backend"}, Scale: 2, Surge: spillway.Count{Share: spillway.Percent(25)}}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		if err := set(key, value, &behaviour, &config, &www); err != nil {
			return err
		}
	}
	www.Stop.Drain = spillway.Duration(drainLimit)
	tier := spillway.Strategy(config.Name)
	config.Name = string(app)
	if tier == spillway.Strategy(app) {
		tier = spillway.Rolling
	}
	config.Services = []spillway.Service{www}
	for _, name := range www.Needs {
		s := www
		s.Name, s.Host, s.Needs, s.Steps, s.Strategy = name, nil, nil, nil, tier
		config.Services = append(config.Services, s)
	}
	slices.SortFunc(config.Services, func(a, b spillway.Service) int { return strings.Compare(a.Name, b.Name) })
	release.Config = config
	for _, s := range config.Services {
		release.Groups[s.Name] = 0
		if changed := words[0] == "both" || words[0] == s.Name || words[0] == "www" && s.Public(); !changed {
			release.Groups[s.Name] = r.World.kept(s)
		}
	}
	release, in, err := r.Store.AddRelease(context.Background(), release, in)
	r.World.releases[release.Number] = release
	r.World.behave[release.Number] = behaviour
	r.checks.asked(in)
	return err
}

// kept is the group that an unchanged service goes on with: that of the newest release in which it was as it
// is now. 0 = there is none.
func (w *World) kept(s spillway.Service) int {
	for n := len(w.releases); n > 0; n-- {
		if old, ok := w.releases[n].Config.Service(s.Name); ok {
			if slices.Equal(old.Needs, s.Needs) {
				return w.releases[n].Groups[s.Name]
			}
			return 0
		}
	}
	return 0
}

// set reads one word of a deploy action.
func set(key, value string, b *Behaviour, config *spillway.App, www *spillway.Service) (err error) {
	switch key {
	case "errors":
		b.Errors, err = strconv.ParseFloat(value, 64)
	case "start":
		b.Start, err = strconv.Atoi(value)
	case "never":
		b.Never = true
	case "crash":
		b.Crash = true
	case "fatal":
		b.Fatal = true
	case "scale":
		www.Scale, err = strconv.Atoi(value)
	case "unavailable":
		www.Unavailable.N, err = strconv.Atoi(value)
	case "strategy":
		www.Strategy = spillway.Strategy(value)
	case "front": // another name for the public service
		www.Name = value
	case "alone": // without a tier behind it
		www.Needs = nil
	case "cache": // with one more tier
		www.Needs = []string{"backend", "cache"}
	case "tier": // the strategy of the backend, kept in the name until the services are made
		config.Name = value
	case "watch":
		err = config.Watch.UnmarshalText([]byte(value))
	case "thin":
		config.Thin = spillway.Thin(value)
	case "pause":
		www.Steps = []spillway.StepSpec{{Weight: spillway.Percent(10)}, {Pause: true}, {Weight: spillway.Percent(50), Hold: spillway.Duration(holdTime)}}
	default:
		err = fmt.Errorf("unknown word %s", key)
	}
	if www.Strategy == spillway.Canary && www.Steps == nil {
		www.Steps = []spillway.StepSpec{{Weight: spillway.Percent(5)}, {Weight: spillway.Percent(25), Hold: spillway.Duration(holdTime)}, {Weight: spillway.Percent(50), Hold: spillway.Duration(holdTime)}}
	}
	return err
}
