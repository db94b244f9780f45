package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Question is what a forecast is about: the deploy of an app in which every service has changed, onto a
// release that serves.
type Question struct {
	App      spillway.App
	Strategy spillway.Strategy // instead of the file's; "" = the file's
	Rate     int               // requests a second to the first public service, 0 to MaxRate
	Stable   float64           // share of the stable release's requests that fail: 0.001
	Errors   float64           // share of the new release's requests that fail
	Slow     float64           // how many times as long the new release takes to answer; 0 counts as 1
	Crash    bool              // its replicas end before they are ready
	Seed     uint64            // the same question and seed have the same answer
}

// MaxRate bounds Question.Rate. More requests a second need no longer to be judged, so nothing is learned from
// simulating them.
const MaxRate = 1000

// Timeline is what would happen.
type Timeline struct {
	Moments  []Moment          `json:"-"`
	Outcome  spillway.Outcome  `json:"outcome"` // "" = it rests until a person decides
	Reason   string            `json:"reason,omitempty"`
	Took     spillway.Duration `json:"took"`     // until the outcome, the watch included
	Whole    spillway.Duration `json:"whole"`    // until the new release had all users; 0 = it never had
	Requests int64             `json:"requests"` // that the new release answered
	Failures int64             `json:"failures"` // of those
	Budget   int               `json:"budget"`   // failed requests that the app allows
}

// Moment is one line of a timeline.
type Moment struct {
	At       spillway.Duration `json:"at"`       // since the deploy was asked for
	Weight   spillway.Share    `json:"weight"`   // of the users, on the new release, as served
	Requests int64             `json:"requests"` // that the new release has answered
	Failures int64             `json:"failures"` // of those; what it has spent of the budget
	Verdict  spillway.Verdict  `json:"verdict"`
	Event    string            `json:"event,omitempty"` // what has happened, in a sentence; "" = nothing new but the numbers
}

const (
	forecastTick = 100 * time.Millisecond
	forecastEnd  = 24 * time.Hour // far beyond every rollout that goes on by itself
	ticksARound  = 5              // the engine looks twice a second
	startTicks   = 10             // a replica is ready after a second
	quietLine    = time.Minute    // a line is written at least so often, and later on after a quarter of the time so far
)

// Forecast lets the real engine and the real judge roll a release out in the simulated world, in virtual time.
// Nothing of the app is run: its release commands succeed, external gates are told that all is well, and a
// person resumes where the file has a pause. An error says what cannot be simulated.
func Forecast(q Question) (Timeline, error) {
	if !slices.ContainsFunc(q.App.Services, spillway.Service.Public) {
		return Timeline{}, fmt.Errorf("no service of %s has a host, so nobody's requests can be simulated: %w", q.App.Name, spillway.ErrInvalid)
	}
	if q.Rate < 0 || q.Rate > MaxRate {
		return Timeline{}, fmt.Errorf("%d requests a second cannot be simulated, only 0 to %d: %w", q.Rate, MaxRate, spillway.ErrInvalid)
	}
	f := &forecast{Run: NewRun(rand.New(rand.NewPCG(q.Seed, 4))), rate: q.Rate}
	f.World.onlyFront = true
	for _, b := range []Behaviour{{Start: startTicks, Errors: q.Stable}, {Start: startTicks, Errors: q.Errors, Slow: q.Slow, Crash: q.Crash}} {
		if err := f.deploy(q, b); err != nil {
			return Timeline{}, err
		}
		if err := f.follow(); err != nil {
			return Timeline{}, err
		}
	}
	f.Budget = q.App.Budget
	return f.Timeline, nil
}

// forecast is a rollout that is being simulated; its timeline is that of the last deploy.
type forecast struct {
	*Run
	Timeline
	rate    int
	ticks   int
	began   time.Time
	trial   spillway.Evidence // the last seen
	release int
}

// deploy makes a release of the app in which everything has changed, and asks for it.
func (f *forecast) deploy(q Question, b Behaviour) error {
	saved, err := f.Store.Load(context.Background(), app)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	release := spillway.Release{App: app, Config: q.App, Artefacts: map[string]spillway.Artefact{}, Created: f.World.Now}
	for _, s := range q.App.Services {
		release.Artefacts[s.Name] = spillway.Artefact{Digest: fmt.Sprint(len(saved.Spec.Releases) + 1)}
	}
	in := spillway.Intent{Verb: spillway.VerbDeploy, Strategy: q.Strategy, At: f.World.Now, Force: true}
	release, _, err = f.Store.AddRelease(context.Background(), reconcile.Regroup(release, saved, reconcile.EveryEdge), in)
	f.World.releases[release.Number], f.World.behave[release.Number] = release, b
	f.Timeline, f.trial, f.began, f.release = Timeline{}, spillway.Evidence{}, f.World.Now, release.Number
	return err
}

// follow lets time pass until the rollout has ended or waits for a person.
func (f *forecast) follow() error {
	for f.now() < forecastEnd {
		for range ticksARound {
			f.World.traffic = (f.ticks+1)*f.rate/10 - f.ticks*f.rate/10
			f.ticks++
			f.World.Tick(forecastTick)
		}
		result, err := reconcile.Once(context.Background(), f.Store, f.World, app, f.World.Now)
		if err != nil {
			return err
		}
		saved, err := f.Store.Load(context.Background(), app)
		if err != nil {
			return err
		}
		if f.write(result.Events, saved.Status); f.ended(saved.Status) {
			f.Took, f.Requests, f.Failures = spillway.Duration(f.now()), f.trial.Requests, f.trial.Failures
			return nil
		}
		if err := f.resume(saved.Status); err != nil {
			return err
		}
	}
	return fmt.Errorf("it has not ended after %s of simulated time", forecastEnd)
}

func (f *forecast) now() time.Duration { return f.World.Now.Sub(f.began) }

// ended reports whether the deploy has an outcome, or will have none without a person.
func (f *forecast) ended(st rollout.Status) bool {
	switch {
	case st.Phase == spillway.Paused && !atPause(st):
		f.Reason = st.Rollout.Reason
		return true
	case st.Last != nil && st.Last.Release == f.release && st.Rollout == nil:
		f.Outcome, f.Reason = st.Last.Outcome, st.Last.Reason
		return true
	}
	return false
}

// atPause reports whether it rests because its file says so.
func atPause(st rollout.Status) bool {
	o := st.Rollout
	return o.Steps[o.Step].Manual && !o.Passed && o.Held >= o.Steps[o.Step].Hold
}

// resume is the person at a pause of the file.
func (f *forecast) resume(st rollout.Status) error {
	if st.Phase != spillway.Paused {
		return nil
	}
	_, err := f.Store.AddIntent(context.Background(), app, spillway.Intent{Verb: spillway.VerbResume, At: f.World.Now})
	return err
}

// write adds what happened to the timeline, or just the numbers when nothing did for a while.
func (f *forecast) write(events []spillway.Event, st rollout.Status) {
	served := f.World.plane.effective()
	if t := served.Trial; t != nil && t.Release == f.release {
		f.trial = f.World.plane.state.Evidence(*t)
	}
	m := Moment{
		At: spillway.Duration(f.now()), Weight: given(served, front(f.World.releases[f.release]), ""),
		Requests: f.trial.Requests, Failures: f.trial.Failures, Verdict: cmp.Or(f.trial.Verdict, spillway.NoTraffic),
	}
	for _, e := range events {
		switch e.Kind {
		case spillway.EventRoute, spillway.EventAsked:
		case spillway.EventServing:
			f.Whole = m.At
			fallthrough
		default:
			m.Event = e.Text
			f.Moments = append(f.Moments, m)
		}
	}
	last := Moment{Verdict: spillway.NoTraffic}
	if n := len(f.Moments); n > 0 {
		last = f.Moments[n-1]
	}
	m.Event = ""
	if st.Rollout != nil && (m.Weight != last.Weight || m.Verdict != last.Verdict || m.At-last.At >= max(spillway.Duration(quietLine), m.At/4)) {
		f.Moments = append(f.Moments, m)
	}
}
