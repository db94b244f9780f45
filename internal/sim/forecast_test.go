package sim_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/sim"
)

// shop is an app of two tiers with the default canary.
func shop(change func(*spillway.App)) spillway.App {
	www := spillway.Service{Name: "www", Host: []string{"shop.test"}, Needs: []string{"backend"}, Scale: 2, Strategy: spillway.Canary, Steps: spillway.DefaultSteps(), Stop: spillway.DefaultStop()}
	backend := spillway.Service{Name: "backend", Scale: 2, Strategy: spillway.Rolling, Stop: spillway.DefaultStop()}
	app := spillway.App{
		Name: "shop", Services: []spillway.Service{backend, www}, Budget: spillway.DefaultBudget,
		Watch: spillway.Duration(time.Minute), Deadline: spillway.DefaultDeadline,
	}
	if change != nil {
		change(&app)
	}
	return app
}

func TestForecast_SaysHowADeployWouldEnd(t *testing.T) {
	latency := func(a *spillway.App) {
		a.Gates = []spillway.Gate{{Text: "latency < 1.5x stable", Metric: "latency", Op: "<", Factor: 150}}
	}
	command := func(a *spillway.App) { a.Services[0].Release = spillway.Command{Shell: "migrate"} }
	pause := func(a *spillway.App) {
		a.Services[1].Steps = []spillway.StepSpec{{Weight: spillway.Percent(10)}, {Pause: true}, {Weight: spillway.Percent(50)}}
	}
	for name, c := range map[string]struct {
		question sim.Question
		outcome  spillway.Outcome
		reason   string
		failures int64 // at most
		whole    bool
	}{
		"as good as before":   {sim.Question{App: shop(nil), Rate: 50, Stable: 0.001, Errors: 0.001}, spillway.Succeeded, "", 60, true},
		"fails every request": {sim.Question{App: shop(nil), Rate: 50, Errors: 1}, spillway.RolledBack, "requests failed on release 2", 5, false},
		"fails a tenth":       {sim.Question{App: shop(nil), Rate: 50, Stable: 0.001, Errors: 0.1}, spillway.RolledBack, "requests failed on release 2", 20, false},
		"three times as slow": {sim.Question{App: shop(latency), Rate: 50, Slow: 3}, spillway.RolledBack, "slower than", 0, false},
		"slow without a gate": {sim.Question{App: shop(nil), Rate: 50, Slow: 3}, spillway.Succeeded, "", 0, true},
		"does not start":      {sim.Question{App: shop(nil), Rate: 50, Crash: true}, spillway.Failed, "before it was ready", 0, false},
		"nobody comes":        {sim.Question{App: shop(nil)}, "", "too thin", 0, false},
		"release command":     {sim.Question{App: shop(command), Rate: 50}, spillway.Succeeded, "", 0, true},
		"pause in the file":   {sim.Question{App: shop(pause), Rate: 50}, spillway.Succeeded, "", 0, true},
		"other strategy":      {sim.Question{App: shop(nil), Rate: 50, Strategy: spillway.BlueGreen}, spillway.Succeeded, "", 0, true},
		"recreate":            {sim.Question{App: shop(nil), Rate: 50, Strategy: spillway.Recreate}, spillway.Succeeded, "", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := sim.Forecast(c.question)
			if err != nil {
				t.Fatal(err)
			}
			if got.Outcome != c.outcome || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("it ends %q because %q, want %q because of %q", got.Outcome, got.Reason, c.outcome, c.reason)
			}
			if got.Failures > c.failures || got.Budget != spillway.DefaultBudget {
				t.Errorf("%d requests failed on it, want at most %d", got.Failures, c.failures)
			}
			if (got.Whole > 0) != c.whole {
				t.Errorf("all users after %s; want that: %v", got.Whole, c.whole)
			}
			before := spillway.Duration(0)
			for _, m := range got.Moments {
				if m.At < before || m.Requests > got.Requests {
					t.Errorf("a moment out of order: %+v", m)
				}
				before = m.At
			}
		})
	}
}

func TestForecast_IsTheSameForTheSameSeed(t *testing.T) {
	q := sim.Question{App: shop(nil), Rate: 20, Stable: 0.01, Errors: 0.05, Seed: 7}
	a, err := sim.Forecast(q)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := sim.Forecast(q)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("two forecasts of one question differ:\n%+v\n%+v", a, b)
	}
	q.Seed++
	if c, _ := sim.Forecast(q); reflect.DeepEqual(a, c) {
		t.Error("another seed gives the same timeline to the last request")
	}
}

func TestForecast_SaysWhatCannotBeSimulated(t *testing.T) {
	private := shop(func(a *spillway.App) { a.Services[1].Host = nil })
	for name, q := range map[string]sim.Question{"no host": {App: private, Rate: 1}, "too many": {App: shop(nil), Rate: sim.MaxRate + 1}, "negative": {App: shop(nil), Rate: -1}} {
		if _, err := sim.Forecast(q); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestForecast_WaitsForTheHoldsOfTheFile(t *testing.T) {
	got, err := sim.Forecast(sim.Question{App: shop(nil), Rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	holds := time.Duration(0)
	for _, s := range spillway.DefaultSteps() {
		holds += time.Duration(s.Hold)
	}
	if whole := time.Duration(got.Whole); whole < holds || whole > holds+time.Minute {
		t.Errorf("all users after %s, want about %s", whole, holds)
	}
	if took := time.Duration(got.Took - got.Whole); took < time.Minute || took > 2*time.Minute {
		t.Errorf("the end is %s after that, want the watch of 1m", took)
	}
}
