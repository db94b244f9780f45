package e2e

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// The server is killed at 50 random moments of rollouts, and each time the next server brings the rollout
// to the end that it would have had: a good release serves, a bad one is back. No user notices.
func TestKillServer_50Times(t *testing.T) {
	in := install(t)
	a := newApp(t, "immortal")
	a.Tiers, a.Strategy, a.Steps, a.Watch, a.Deadline = true, "canary", "20%", "300ms", "2s"
	in.deploy(a).want(t, 0)
	in.healthy(a.Name, 1, 30*time.Second)
	users := in.send(a.Host(), keepAlive("GET", 120), newConnections("GET", 100))
	users.answered(100)
	var good, bad, unborn int
	for try := 0; good+bad < 50; try++ {
		harmful := try%3 == 2
		delete(a.Env, "FAIL")
		if harmful {
			a.Env["FAIL"] = "all"
		}
		strategy := []string{"rolling", "blue-green", "canary"}[rand.IntN(3)]
		switch stored := in.killDuring(a, strategy, harmful); {
		case !stored:
			if unborn++; unborn > 50 {
				t.Fatal("half of the deploys were killed before they were stored: the moments are too early")
			}
		case harmful:
			bad++
		default:
			good++
		}
	}
	seen := users.flawless(200)
	t.Logf("50 kills: %d good releases promoted, %d bad ones rolled back; %d kills before the release was stored: %v", good, bad, unborn, seen)
	in.exactly("immortal", 4)
}

// killDuring deploys, kills the server at a random moment, starts it again and checks how the rollout ends.
// It reports whether there was one: a server killed while it builds has stored nothing.
func (in *installation) killDuring(a *app, strategy string, harmful bool) (stored bool) {
	in.t.Helper()
	stable, before := in.overview(a.Name).Stable, in.newest(a.Name)
	began := time.Now()
	done := in.behind("deploy", "--strategy", strategy, a.bump().write())
	moment := rand.N(1200 * time.Millisecond)
	<-time.After(moment)
	in.kill(syscall.SIGKILL)
	in.start()
	r := <-done
	o := in.settled(a.Name, time.Minute)
	newest := in.newest(a.Name)
	if newest == before {
		in.healthy(a.Name, stable, 10*time.Second)
		return false
	}
	wantStable, wantOutcome, wantCode := newest, spillway.Succeeded, 0
	if harmful {
		wantStable, wantOutcome, wantCode = stable, spillway.RolledBack, 3
	}
	switch {
	case o.Last == nil || o.Last.Release != newest || o.Last.Outcome != wantOutcome || o.Stable != wantStable:
		in.t.Fatalf("release %d by %s (harmful: %v), killed after %v: want %s and release %d stable, got %s", newest, strategy, harmful, moment, wantOutcome, wantStable, describe(o))
	case strings.Contains(r.stderr, "is built and stored") && r.code != wantCode:
		in.t.Fatalf("release %d by %s (harmful: %v), killed after %v: want exit code %d from %v", newest, strategy, harmful, moment, wantCode, r)
	}
	in.healthy(a.Name, wantStable, 10*time.Second)
	in.t.Logf("release %d by %s, killed after %v: %s after %v", newest, strategy, moment, o.Last.Outcome, time.Since(began))
	return true
}
