package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

// ask is a verb by the API, which is what the commands use; a thousand commands would take minutes.
func (in *installation) ask(name string, verb spillway.Verb, release int) {
	in.t.Helper()
	_, err := in.client.Ask(in.ctx(10*time.Second), spillway.Ref(name), spillway.Intent{Verb: verb, Release: release})
	if err != nil {
		in.t.Fatal(err)
	}
}

// The two colours of a service are switched a thousand times under load. Nobody notices, and the way back
// to the warm colour is short. Each fifth switch is a command, and says how long it took.
func TestSwitches_ThousandTimesUnderLoad(t *testing.T) {
	in := install(t)
	a := newApp(t, "colors")
	a.Strategy, a.Watch = "blue-green", "0s"
	a.Lines = []string{"standby: {keep: 1h}"}
	in.deploy(a).want(t, 0)
	in.deploy(a.bump()).want(t, 0)
	in.healthy(a.Name, 2, 30*time.Second)
	replicas := pids(in.replicas(a.Name))
	users := in.send(a.Host(), everybody()...)
	users.answered(100)
	var took []time.Duration // of rollbacks, by their own words
	for i := range 1000 {
		to := 1 + i%2
		switch {
		case i%5 == 0:
			r := in.spillway("rollback", fmt.Sprint(to), "--app", a.Name).want(t, 0)
			took = append(took, e2etest.Acknowledged(t, r.String()))
		case i%5 < 3:
			in.ask(a.Name, spillway.VerbRollback, to)
		default:
			in.ask(a.Name, spillway.VerbDeploy, to)
		}
		in.healthy(a.Name, to, 10*time.Second)
	}
	users.answered(100)
	users.flawless(200)
	slices.Sort(took)
	t.Logf("%d rollbacks to the warm colour: effective after %v at least, %v in the median, %v at most", len(took), took[0], took[len(took)/2], took[len(took)-1])
	if median := took[len(took)/2]; median >= 100*time.Millisecond {
		t.Errorf("a rollback to the warm colour takes %v in the median, want less than 100ms", median)
	}
	in.healthy(a.Name, 2, 10*time.Second)
	if now := pids(in.replicas(a.Name)); !slices.Equal(now, replicas) {
		t.Errorf("the replicas were %v and are %v: a switch between warm colours starts nothing", replicas, now)
	}
	in.exactly("colors", 4)
}
