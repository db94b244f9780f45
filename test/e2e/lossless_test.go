package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/load"
)

// everybody is a load of 220 requests a second: users with old and with new connections, who read and write.
func everybody() []load.Plan {
	return []load.Plan{keepAlive("GET", 70), newConnections("GET", 70), keepAlive("POST", 40), newConnections("POST", 40)}
}

// season is a long series of changes of one app under load.
type season struct {
	in     *installation
	app    *app
	random *rand.Rand

	deploys, aborts, rollbacks int // done
}

// newSeason deploys the app for the first time. It has a canary's steps in its file, so that each strategy
// can be asked for by name.
func newSeason(in *installation, a *app) *season {
	in.t.Helper()
	a.Strategy, a.Steps, a.Watch, a.Deadline = "canary", "5%, 50%", "1m", "2s"
	in.deploy(a).want(in.t, 0)
	seed := uint64(time.Now().UnixNano())
	in.t.Logf("random moments from seed %d", seed)
	return &season{in: in, app: a, random: rand.New(rand.NewPCG(seed, 0))}
}

// serves is the release that has all traffic, watched or not; 0 when it is divided.
func (s *season) serves() int { return e2etest.Serves(s.in.overview(s.app.Name)) }

// check fails the test when another release serves.
func (s *season) check(want int, after string) {
	s.in.t.Helper()
	if got := s.serves(); got != want {
		s.in.t.Fatalf("after %s, release %d serves, want %d; %s", after, got, want, describe(s.in.overview(s.app.Name)))
	}
}

// deploy lets out a release, which makes it.
func (s *season) deploy(strategy string) {
	s.in.t.Helper()
	s.in.deploy(s.app.bump(), "--strategy", strategy).want(s.in.t, 0)
	s.check(s.in.newest(s.app.Name), "deploy by "+strategy)
	s.deploys++
}

// abort lets out a release and takes it back at a random moment: while it starts, while it has some of the
// users, or while it is watched. One that had not even begun does not count.
func (s *season) abort(strategy string) {
	s.in.t.Helper()
	serves := s.serves()
	s.in.spillway("deploy", "--detach", "--strategy", strategy, s.app.bump().write()).want(s.in.t, 0)
	<-time.After(time.Duration(s.random.IntN(700)) * time.Millisecond)
	newest := s.in.newest(s.app.Name)
	s.in.spillway("abort", "--app", s.app.Name).want(s.in.t, 0).tells(s.in.t, fmt.Sprintf("release %d of season has weight 0", newest))
	o := s.in.settled(s.app.Name, 30*time.Second)
	s.check(serves, "abort of "+strategy)
	if o.Last.Release != newest {
		return
	}
	if o.Last.Outcome != spillway.Aborted {
		s.in.t.Fatalf("after abort: %s", describe(o))
	}
	s.aborts++
}

// rollback goes back to the last good release, out of the watch, or to any of the last five by its number.
func (s *season) rollback() {
	s.in.t.Helper()
	target := e2etest.Earlier(s.random, s.in.newest(s.app.Name), s.serves())
	s.in.spillway("rollback", fmt.Sprint(target), "--app", s.app.Name).want(s.in.t, 0)
	s.check(target, fmt.Sprintf("rollback to %d", target))
	s.rollbacks++
}

func TestLoad_NoRequestIsLost(t *testing.T) {
	strategies := []string{"rolling", "blue-green", "canary"}
	for _, tt := range []struct {
		name    string
		tiers   bool
		deploys [3]int // by strategy
		others  int    // aborts, and as many rollbacks
	}{
		{"one tier", false, [3]int{28, 28, 14}, 35},
		{"two tiers", true, [3]int{12, 12, 6}, 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := install(t)
			a := newApp(t, "season")
			a.Tiers = tt.tiers
			s := newSeason(in, a)
			users := in.send(a.Host(), everybody()...)
			users.answered(100)
			for i, n := range tt.deploys {
				for range n {
					s.deploy(strategies[i])
				}
			}
			for i := 0; s.aborts < tt.others; i++ {
				s.abort(strategies[i%3])
			}
			for range tt.others {
				s.rollback()
			}
			users.answered(100)
			seen := users.flawless(200)
			t.Logf("%d deploys, %d aborts, %d rollbacks: %v", s.deploys, s.aborts, s.rollbacks, seen)
			replicas := 2
			if tt.tiers {
				replicas = 4
			}
			in.spillway("promote", "--app", a.Name) // ends the watch, if one is on
			in.settled(a.Name, 30*time.Second)
			in.exactly("season", replicas)
		})
	}
}

// recreate stops the old replicas first. There is a gap, and everybody says so: the plan, the deploy, and
// the proxy to those who come in the meantime.
func TestRecreate_SaysThatThereIsAGap(t *testing.T) {
	in := install(t)
	a := newApp(t, "gap")
	a.Strategy = "recreate"
	in.deploy(a).want(t, 0)
	a.Env["START"] = "1s"
	in.spillway("plan", a.write()).want(t, 10).tells(t, "nothing serves while the old replicas are replaced", "recreate stops the old replicas first")
	done := in.behind("deploy", a.dir)
	gap := ""
	await(t, 20*time.Second, "a 503 in the gap", func() bool {
		status, text := in.get(a.Host(), "/")
		if status == 503 {
			gap = text
		}
		return status == 503
	})
	result{stdout: gap}.tells(t, "recreate: web is being replaced")
	(<-done).want(t, 0).tells(t, "recreate")
	if status, text := in.get(a.Host(), "/"); status != 200 {
		t.Errorf("after the gap: %d %s", status, text)
	}
}
