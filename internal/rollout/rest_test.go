package rollout_test

import (
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// untilRouted goes on until the weight of a step has been asked for.
func untilRouted(t *testing.T, w *world) {
	t.Helper()
	for i := 0; w.status.Rollout == nil || !w.status.Rollout.Routed; i++ {
		if i > 20 {
			w.dump()
			t.Fatal("it has no step")
		}
		w.run(1)
	}
}

// TestDecide_RestsWhatIsPausedBeforeItsRouteIsServed pauses between the wish for a weight and its acknowledgement.
func TestDecide_RestsWhatIsPausedBeforeItsRouteIsServed(t *testing.T) {
	w := newWorld(t, release(1, nil, web(spillway.Canary, 2)), release(2, []string{"www"}, web(spillway.Canary, 2)))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	untilRouted(t, w)
	w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: spillway.VerbPause, At: w.now}}
	w.run(3) // it is served by now
	d := rollout.Decide(w.spec, w.status, w.obs, w.now)
	if d.Status.Phase != spillway.Paused || d.Status.Rollout.Acked {
		t.Fatalf("%s, want a pause of what is not known to be served: %+v", d.Status.Phase, d.Status.Rollout)
	}
	if rest := d.WakeAt.Sub(w.now); rest < time.Second {
		t.Errorf("it looks again after %v, as long as nobody resumes", rest)
	}
}

// TestDecide_WaitsForReplicasToEndOnTheWayBack aborts a recreation before its route is acknowledged, and new replicas that
// take their time to end: they are looked at every now and then.
func TestDecide_WaitsForReplicasToEndOnTheWayBack(t *testing.T) {
	w := newWorld(t, release(1, nil, web(spillway.Recreate, 1)), release(2, []string{"www"}, web(spillway.Recreate, 1)))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	untilRouted(t, w)
	w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: spillway.VerbAbort, At: w.now}}
	w.run(1)
	for range 3 {
		w.obs.Groups = []rollout.Group{{Group: spillway.Group{Service: "www", Release: 2}, Running: 1, Draining: 1}}
		d := rollout.Decide(w.spec, w.status, w.obs, w.now)
		if w.status = d.Status; w.status.Phase != spillway.RollingBack {
			w.dump()
			t.Fatalf("%s, want it on its way back", w.status.Phase)
		}
		if rest := d.WakeAt.Sub(w.now); rest < 100*time.Millisecond {
			t.Errorf("it looks again after %v, until they have ended", rest)
		}
		w.obs.Served, w.now = d.Desired.Route, w.now.Add(time.Second)
	}
}

// TestDecide_EndsAWayBackThatChangesNoRouteAtOnce aborts before anything of the candidate was asked for: nobody will say that
// the route is served, and no replica ends.
func TestDecide_EndsAWayBackThatChangesNoRouteAtOnce(t *testing.T) {
	migrates := web(spillway.Canary, 2)
	migrates.Release = spillway.Command{Shell: "./migrate"}
	w := newWorld(t, release(1, nil, web(spillway.Canary, 2)), release(2, []string{"www"}, migrates))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 8)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 3)
	w.spec.Intents = []spillway.Intent{{Seq: w.status.Intent + 1, Verb: spillway.VerbAbort, At: w.now}}
	d := rollout.Decide(w.spec, w.status, w.obs, w.now)
	if d.Status.Phase != spillway.RollingBack || d.Desired.Route.Generation != w.obs.Served.Generation {
		t.Fatalf("%s, route %d while %d is served: want a way back that changes no route", d.Status.Phase, d.Desired.Route.Generation, w.obs.Served.Generation)
	}
	if rest := d.WakeAt.Sub(w.now); rest > time.Second {
		t.Errorf("it looks again after %v", rest)
	}
}
