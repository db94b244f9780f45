package e2e

import (
	"cmp"
	"os"
	"strconv"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/load"
)

// slowApp is an app whose answers take 20 ms in the median, spread as those of real services are, with a
// gate on latency, and users of it.
func slowApp(t *testing.T, in *installation, gate string) (*app, *traffic) {
	a := newApp(t, "slow")
	a.Strategy, a.Steps, a.Watch = "canary", "50% 2s", "0s"
	a.Env["DELAY"], a.Env["SPREAD"] = "20ms", "0.8"
	a.Top = []string{"gates: [" + gate + "]"}
	in.deploy(a).want(t, 0)
	users := in.send(a.Host(), load.Plan{Rate: 250, Workers: 32})
	users.answered(500)
	return a, users
}

// A candidate that is twice as slow is rolled back.
func TestLatency_TwiceAsSlowIsRolledBack(t *testing.T) {
	for _, gate := range []string{"latency < 1.5x stable", "latency < 1.2x stable"} {
		t.Run(gate, func(t *testing.T) {
			in := install(t)
			a, users := slowApp(t, in, gate)
			a.Steps = "50% 2m"
			a.Env["DELAY"] = "40ms"
			in.deploy(a).want(t, 3).tells(t, "rolled back", "slower")
			o := in.overview(a.Name)
			if l := o.Last; l == nil || l.Outcome != spillway.RolledBack || l.Evidence == nil || l.Evidence.Cause != "latency" {
				t.Fatalf("want release 2 rolled back for its latency, got %s", describe(o))
			}
			t.Log(o.Last.Reason)
			users.flawless(150)
		})
	}
}

// One that is as fast as stable is not, whatever the gate. LATENCY_TRIES is how many rollouts are tried: 8, or
// the hundred that a rate of mistakes takes.
func TestLatency_AsFastIsNotRolledBack(t *testing.T) {
	tries, err := strconv.Atoi(cmp.Or(os.Getenv("LATENCY_TRIES"), "8"))
	if err != nil {
		t.Fatal(err)
	}
	in := install(t)
	a, users := slowApp(t, in, "latency < 1.2x stable")
	for range tries {
		in.deploy(a.bump()).want(t, 0)
	}
	users.flawless(150)
}
