package rollout_test

import (
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// A request that never ends keeps what lost its traffic for as long as its file says, and not at all for 0s.
func TestDecide_WaitsForOpenRequestsAsLongAsTheFileSays(t *testing.T) {
	for _, c := range []struct {
		stop        spillway.Stop
		least, most time.Duration
	}{
		{spillway.Stop{}, 30 * time.Second, 32 * time.Second}, // of a release that says nothing
		{spillway.Stop{Signal: "SIGTERM", Drain: spillway.Duration(5 * time.Second)}, 5 * time.Second, 7 * time.Second},
		{spillway.Stop{Signal: "SIGTERM"}, 0, 2 * time.Second},
	} {
		service := web(spillway.BlueGreen, 1)
		service.Stop = c.stop
		w := newWorld(t, release(1, nil, service), release(2, []string{"www"}, service))
		w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
		w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: spillway.VerbDeploy, Release: 2, At: w.now}}
		old, left := spillway.Group{Service: "www", Release: 1}, time.Time{} // left: when nobody wanted it any more
		kept := time.Duration(-1)
		for range 3600 {
			d := rollout.Decide(w.spec, w.status, w.obs, w.now)
			w.status, w.spec.Intents = d.Status, nil
			w.obs = rollout.Observation{Served: d.Desired.Route}
			if w.status.Stable == 2 && left.IsZero() { // until then it is kept warm
				left = w.now
			}
			if !slices.ContainsFunc(d.Desired.Groups, func(x rollout.Want) bool { return x.Group == old && x.Replicas > 0 }) {
				kept = w.now.Sub(left)
				break
			}
			for _, x := range d.Desired.Groups {
				g := rollout.Group{Group: x.Group, Running: x.Replicas, Ready: x.Replicas}
				if x.Group == old {
					g.InFlight = 1
				}
				w.obs.Groups = append(w.obs.Groups, g)
			}
			w.now = w.now.Add(time.Second)
		}
		if kept < c.least || kept > c.most {
			t.Errorf("%+v: kept for %v, want %v to %v", c.stop, kept, c.least, c.most)
		}
	}
}
