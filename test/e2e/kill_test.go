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
	t.Parallel()
	in := install(t)
	a := newApp(t, "immortal")
	a.Tiers, a.Strategy, a.Steps, a.Watch, a.Deadline = true, "canary", "20%", "300ms", "2s"
	in.deploy(a).want(t, 0)
	in.healthy(a.Name, 1, 30*time.Second)
	users := in.send(a.Host(), keepAlive("GET", 120), newConnections("GET", 100))
	users.answered(100)
	kills := map[fate]int{}
	for try := 0; kills[promoted]+kills[rolledBack] < 50; try++ {
		if try > 150 {
			t.Fatalf("too many kills beside rollouts: %v", kills)
		}
		harmful := try%3 == 2
		delete(a.Env, "FAIL")
		if harmful {
			a.Env["FAIL"] = "all"
		}
		kills[in.killDuring(a, []string{"rolling", "blue-green", "canary"}[rand.IntN(3)], harmful)]++
	}
	seen := users.flawless(200)
	for what, n := range kills {
		t.Logf("%d kills %s", n, what)
	}
	t.Log(seen)
	in.exactly("immortal", 4)
}

// fate is what became of a rollout whose server was killed.
type fate string

const (
	promoted   fate = "in rollouts of good releases, which were promoted"
	rolledBack fate = "in rollouts of bad releases, which were rolled back"
	unborn     fate = "before the release was stored"
	late       fate = "after the end of the rollout"
)

// moment is a random time from the beginning of a deploy, about as long as its rollout takes.
func moment(strategy string, harmful bool) time.Duration {
	switch {
	case harmful:
		return rand.N(350 * time.Millisecond)
	case strategy == "canary":
		return rand.N(2500 * time.Millisecond)
	default:
		return rand.N(700 * time.Millisecond)
	}
}

// killDuring deploys, kills the server at a random moment, starts it again and checks how the rollout ends.
func (in *installation) killDuring(a *app, strategy string, harmful bool) fate {
	in.t.Helper()
	stable, before := in.overview(a.Name).Stable, in.newest(a.Name)
	began, moment := time.Now(), moment(strategy, harmful)
	done := in.behind("deploy", "--strategy", strategy, a.bump().write())
	<-time.After(moment)
	in.kill(syscall.SIGKILL)
	killed := time.Now()
	in.start()
	r := <-done
	newest := in.newest(a.Name)
	if newest == before {
		in.healthy(a.Name, stable, 10*time.Second)
		return unborn
	}
	o := in.status(a.Name, time.Minute, "the end of the rollout", func(o spillway.Overview) bool {
		return o.Rollout == nil && o.Last != nil && o.Last.Release == newest
	})
	wantStable, wantOutcome, wantCode := newest, spillway.Succeeded, 0
	if harmful {
		wantStable, wantOutcome, wantCode = stable, spillway.RolledBack, 3
	}
	if harmful && strategy != "canary" && r.code == 0 {
		wantCode = 0 // deploy returns at 100 %, and the proof of the harm came behind it, in the watch
	}
	switch {
	case o.Last.Outcome != wantOutcome || o.Stable != wantStable:
		in.t.Fatalf("release %d by %s (harmful: %v), killed after %v: want %s and release %d stable, got %s", newest, strategy, harmful, moment, wantOutcome, wantStable, describe(o))
	case strings.Contains(r.stderr, "is built and stored") && r.code != wantCode:
		in.t.Fatalf("release %d by %s (harmful: %v), killed after %v: want exit code %d from %v", newest, strategy, harmful, moment, wantCode, r)
	}
	in.healthy(a.Name, wantStable, 10*time.Second)
	in.t.Logf("release %d by %s, killed after %v: %s after %v", newest, strategy, moment, o.Last.Outcome, time.Since(began))
	switch {
	case o.Last.At.Before(killed):
		return late
	case harmful:
		return rolledBack
	}
	return promoted
}
