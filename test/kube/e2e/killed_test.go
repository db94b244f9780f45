//go:build kube

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// ending is what a release does and how its rollout has to end, whoever dies meanwhile.
type ending struct {
	line    string // what it is given to do it; "" = it is good
	outcome spillway.Outcome
	code    int // of the deploy that followed it
}

// endings are those of a good release, of one that is never ready, and of one that answers 500 to everything.
func endings() []ending {
	return []ending{{"", spillway.Succeeded, 0}, {`NEVER_READY: "1"`, spillway.Failed, 1}, {dead, spillway.RolledBack, 3}}
}

// TestKilledServer kills the server at random moments of rollouts. The next one brings each to the end that it would
// have had, and no request fails but those that a dead release answered.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	in := install(t)
	c := newCastle(in)
	c.edit("watch: 4s", "watch: 4s\ndeadline: 10m")
	users, visitors := c.begin()
	forgiven, stable := int64(0), 1
	for i := range many("SPILLWAY_KUBE_KILLS", 3) {
		want := endings()[i%3]
		before := users.counts().Failures
		stable = c.killDuring(want, []string{"canary", "rolling"}[i%2], stable)
		if want.outcome == spillway.RolledBack {
			users.answered(50) // what was on its way
			forgiven += users.counts().Failures - before
			users.forget()
		}
	}
	users.answered(100)
	visitors.leave()
	if len(visitors.crossed) > 0 {
		t.Errorf("%d visitors met tiers of different releases, the first: %+v", len(visitors.crossed), visitors.crossed[0])
	}
	s := users.end()
	t.Logf("load: %v, %d of them by dead releases", s, forgiven)
	if s.Failures > forgiven {
		t.Errorf("%d requests failed that no dead release had to answer; the first failures:", s.Failures-forgiven)
		users.tellFailures()
	}
}

// killDuring deploys a release, kills the server at a random moment and starts the next; then it checks how the rollout
// ends, and gives the release that serves.
func (c *castle) killDuring(want ending, strategy string, stable int) int {
	c.Helper()
	c.change()
	if want.line != "" {
		c.with(want.line)
		defer c.without(want.line)
	}
	if want.outcome == spillway.Failed { // when the time is over, which the time without a server is a part of
		c.edit("deadline: 10m", "deadline: 40s")
		defer c.edit("deadline: 40s", "deadline: 10m")
	}
	before, moment := c.in.newest("castle"), rand.N(15*time.Second)
	done := c.in.behind("deploy", "--strategy", strategy, c.dir)
	await(c.T, time.Minute, "the release to be stored", func() bool { return c.in.newest("castle") > before })
	<-time.After(moment)
	c.in.kill(syscall.SIGKILL)
	killed := time.Now()
	c.in.start()
	r := <-done
	newest := c.in.newest("castle")
	o := c.in.status("castle", 2*time.Minute, "the end of the rollout", func(o spillway.Overview) bool {
		return o.Rollout == nil && o.Last != nil && o.Last.Release == newest
	})
	if want.outcome == spillway.Succeeded {
		stable = newest
	}
	switch {
	case o.Last.Outcome != want.outcome || o.Stable != stable:
		c.Fatalf("release %d by %s, killed after %v: want %s and release %d stable, got %s", newest, strategy, moment, want.outcome, stable, describe(o))
	case r.code == 1 && strings.Contains(r.stderr, "Error: deploy castle: the Spillway server") && strings.Contains(r.stderr, "went away"):
		// killed between the store of the release and the answer; who was answered follows on
	case r.code != want.code && (strategy == "canary" || r.code != 0):
		c.Fatalf("release %d by %s, killed after %v: want exit code %d from %v", newest, strategy, moment, want.code, r)
	}
	c.in.healthy("castle", stable, time.Minute)
	c.Logf("release %d by %s, killed after %v: %s %v after that", newest, strategy, moment, o.Last.Outcome, o.Last.At.Sub(killed))
	return stable
}

// TestTwoServers has two servers in one namespace. The one that leads is killed in a rollout that was asked of the other,
// which goes on with it when the lease has run out, and does nothing a second time.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	first := install(t)
	await(t, time.Minute, "the first server to lead", func() bool { return strings.Contains(first.logged(), "msg=leading") })
	second := installIn(t, first.namespace)
	second.start()
	c := newCastle(second)
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [25% 10s, 50% 1s]")
	users, visitors := c.begin()
	done := second.behind("deploy", c.change().dir)
	second.divided(25)
	if strings.Contains(second.logged(), "msg=leading") {
		t.Fatal("both servers lead")
	}
	killed := time.Now()
	first.kill(syscall.SIGKILL)
	await(t, time.Minute, "the second server to lead", func() bool { return strings.Contains(second.logged(), "msg=leading") })
	took := time.Since(killed)
	(<-done).want(t, 0)
	second.healthy("castle", 2, time.Minute)
	if took > 25*time.Second {
		t.Errorf("the second server led %v after the end of the first, want 15 s and some", took)
	}
	once(t, second.events("castle"))
	if n := second.newest("castle"); n != 2 {
		t.Errorf("there are %d releases, want 2", n)
	}
	t.Logf("the second server led %.1f s after the first was killed", took.Seconds())
	visitors.together(t)
	users.flawless(70)
}

// once fails the test when something happened twice.
func once(t *testing.T, events []spillway.Event) {
	t.Helper()
	ids, acts := map[int64]bool{}, map[string]int{}
	for _, e := range events {
		if ids[e.ID] {
			t.Errorf("two events have the number %d", e.ID)
		}
		ids[e.ID] = true
		acts[fmt.Sprintf("%s of release %d: %s", e.Kind, e.Release, e.Text)]++
	}
	for act, n := range acts {
		if n > 1 {
			t.Errorf("%d times %s", n, act)
		}
	}
}

// TestSilentAPIServer shuts the way to the API server in a rollout for some time: users notice nothing, the server
// lives, and the rollout goes on after.
func TestSilentAPIServer(t *testing.T) {
	t.Parallel()
	door, config := apiDoor(t)
	in := installIn(t, namespace(t))
	in.kubeconfig = config
	in.start()
	c := newCastle(in)
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [25% 5s, 50% 1s]")
	users, visitors := c.begin()
	c.change().deploy("--detach").want(t, 0)
	in.divided(25)
	door.shut()
	outage := time.Duration(many("SPILLWAY_KUBE_OUTAGE", 20)) * time.Second // a lease ends after 15
	<-time.After(outage)
	in.run("/", "status", "--app", "castle").tells(t, "the API server of the cluster does not answer")
	door.open()
	opened := time.Now()
	if in.ended() {
		t.Fatal("the server ended when the API server was away")
	}
	await(t, time.Minute, "a status", func() bool { return in.run("/", "status", "--app", "castle").code == 0 })
	in.healthy("castle", 2, 2*time.Minute)
	t.Logf("the API server was away for %v; the rollout ended %.1f s after it was back", outage, time.Since(opened).Seconds())
	once(t, in.events("castle"))
	visitors.together(t)
	users.flawless(70)
}
