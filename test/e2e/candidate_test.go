package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/load"
)

const castleHost = "www.castle.localhost"

// deadCastle deploys the castle, and then makes its www answer 500 to everything, not yet deployed.
func deadCastle(t *testing.T, in *installation) (dir string) {
	t.Helper()
	dir = castle(t)
	in.spillway("deploy", dir).want(t, 0)
	file := filepath.Join(dir, "spillway.yaml")
	replace(t, file, "GREETING: Welcome to the castle", `FAIL: "1"`)
	return dir
}

// A release that answers 500 to everybody gets 5 % of 83 GETs a second. It costs at most 5 requests, no user
// sees one, and it is without traffic at most 2 s after its first request.
func TestDeadCandidate(t *testing.T) {
	t.Parallel()
	in := install(t)
	dir := deadCastle(t, in)
	users := in.send(castleHost, keepAlive("GET", 83))
	users.answered(100)

	fate := make(chan time.Duration, 1)
	go func() { fate <- in.lifeOfCandidate("castle") }() // ends with the rollout, or after a minute
	r := in.spillway("deploy", dir).want(t, 3)
	r.tells(t, "rolled back", "next:", "spillway logs --release 2")
	if took := <-fate; took > 2*time.Second {
		t.Errorf("the candidate had traffic for %v after its first request, want at most 2 s", took)
	} else {
		t.Logf("weight 0 after %v", took)
	}
	users.answered(100)
	users.flawless(75)
	in.deadAtMost(t, 5)
}

// lifeOfCandidate measures from the first request that the candidate answered to weight 0. It watches from
// outside, so it is up to two looks too long.
func (in *installation) lifeOfCandidate(name string) time.Duration {
	var first, last time.Time
	within(time.Minute, func() bool {
		o, err := in.client.Overview(in.ctx(5*time.Second), spillway.Ref(name))
		if err != nil {
			return false
		}
		r := o.Rollout
		if first.IsZero() && r != nil && r.Evidence != nil && r.Evidence.Requests > 0 {
			first = time.Now()
		}
		last = time.Now()
		return !first.IsZero() && (r == nil || r.Served == 0)
	})
	if first.IsZero() { // it was gone within one look
		return 0
	}
	return last.Sub(first)
}

// deadAtMost checks what a candidate that failed everything has cost, by the judge and by the candidate itself.
func (in *installation) deadAtMost(t *testing.T, most int) {
	t.Helper()
	o := in.healthy("castle", 1, 30*time.Second)
	l := o.Last
	if l == nil || l.Release != 2 || l.Outcome != spillway.RolledBack || l.Evidence == nil {
		t.Fatalf("want release 2 rolled back with evidence, got %s", describe(o))
	}
	if n := l.Evidence.Failures; n < 1 || n > int64(most) {
		t.Errorf("%d requests failed at the candidate, want 1 to %d; %s", n, most, l.Reason)
	}
	n := 0 // what it wrote is read from its output, a little later
	within(5*time.Second, func() bool {
		n = in.logged("castle", 2, "failing on purpose (FAIL=1)")
		return int64(n) >= l.Evidence.Failures
	})
	if n < 1 || n > most {
		t.Errorf("the candidate says that it failed %d requests, want 1 to %d", n, most)
	}
	t.Logf("%d requests failed at the candidate: %s", l.Evidence.Failures, l.Reason)
}

// The same with nobody at the controls: the server is killed before the candidate gets its first request,
// so the proxy has to stop it alone, and the next server has to find that out and to clean up.
func TestDeadCandidate_ServerKilled(t *testing.T) {
	t.Parallel()
	in := install(t)
	dir := deadCastle(t, in)
	replace(t, filepath.Join(dir, "spillway.yaml"), "5% 5s", "5% 1h")
	in.spillway("deploy", "--detach", dir).want(t, 0)
	in.status("castle", 30*time.Second, "5% to be served", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Percent(5)
	})
	in.kill(syscall.SIGKILL)
	users := in.send(castleHost, keepAlive("GET", 83))
	users.answered(500) // 25 of them would be the candidate's
	in.start()
	users.answered(50)
	users.flawless(75)
	in.deadAtMost(t, 5)
	in.exactly("castle", 4)
}

// plan says: "if this release fails every request, at most 20 requests fail". So it is, however many come at
// once, and though none may be repeated.
func TestWorstCase(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"rolling", "blue-green", "canary"} {
		t.Run(strategy, func(t *testing.T) {
			in := install(t)
			a := newApp(t, "worst")
			a.Scale, a.Strategy, a.Watch = 4, strategy, "1m"
			a.Env["DELAY"] = "50ms" // so that 64 requests are open before the first has failed
			if strategy == "canary" {
				a.Steps = "50% 1m"
			}
			in.deploy(a).want(t, 0)
			a.Env["FAIL"] = "POST"
			in.spillway("plan", a.write()).want(t, 10).tells(t, "if release 2 fails every request, at most 20 requests fail")

			users := in.send(a.Host(), load.Plan{Method: http.MethodPost, Workers: 64, Rate: 1000})
			users.answered(100)
			if r := in.deploy(a); r.code != 3 && (strategy == "canary" || r.code != 0) {
				t.Fatalf("want exit code 3, or 0 when it had all traffic before the proof of the harm was there: %v", r)
			}
			o := in.healthy("worst", 1, 30*time.Second)
			s := users.end()
			t.Logf("load: %v", s)
			failed := 0 // what the candidate wrote is read from its output, a little later
			within(5*time.Second, func() bool {
				failed = in.logged("worst", 2, "failing on purpose: POST")
				return int64(failed) >= s.Failures
			})
			if seen := s.Releases["2"].Failures; s.Failures != seen {
				t.Errorf("%d requests failed, but only %d of them at the candidate", s.Failures, seen)
				users.TellFailures()
			}
			if s.Failures > 20 || failed > 20 || failed < 1 {
				t.Errorf("users saw %d failures, the candidate answered %d; want 1 to 20", s.Failures, failed)
			}
			t.Logf("users saw %d failures, the candidate answered %d, the judge counted %d: %s", s.Failures, failed, o.Last.Evidence.Failures, o.Last.Reason)
		})
	}
}

// A budget may be a share of the users instead: here of a percent of those who come, and of three at least.
func TestWorstCase_ShareOfTheUsers(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "few")
	a.Strategy, a.Watch = "blue-green", "1m"
	a.Top = []string{"budget: 1% of users"}
	in.deploy(a).want(t, 0)
	a.Env["FAIL"] = "POST"
	in.spillway("plan", a.write()).want(t, 10).tells(t, "1% of the users")
	users := in.send(a.Host(), load.Plan{Method: http.MethodPost, Workers: 16, Rate: 300})
	users.answered(100)
	in.deploy(a)
	o := in.healthy(a.Name, 1, 30*time.Second)
	s := users.end()
	if most := max(3, s.Requests/100); s.Failures < 1 || s.Failures > most {
		t.Errorf("%d of %d users saw a failure, want 1 to %d", s.Failures, s.Requests, most)
	}
	t.Logf("%d of %d users saw a failure: %s", s.Failures, s.Requests, o.Last.Reason)
}

// A user who is given the candidate web is answered by the candidate peer, each time.
func TestTiersMoveTogether(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "tiers")
	a.Tiers, a.Strategy, a.Steps = true, "canary", "50% 1h"
	in.deploy(a).want(t, 0)
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	in.status("tiers", 30*time.Second, "half of the users on release 2", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Percent(50)
	})
	met := map[string]int{}
	for user := range 40 {
		client := newUser(t)
		mine := ""
		for request := range 50 {
			var s says
			if err := client.ask(in.http, a.Host(), &s); err != nil {
				t.Fatalf("user %d, request %d: %v", user, request, err)
			}
			if s.Peer == nil || s.Peer.Release != s.Release || s.Peer.N != s.N {
				t.Fatalf("user %d, request %d: the tiers are of different releases: %+v, peer %+v", user, request, s, s.Peer)
			}
			if mine == "" {
				mine = s.Release
			}
			if s.Release != mine {
				t.Fatalf("user %d moved from release %s to %s at a constant weight", user, mine, s.Release)
			}
			met[s.Release]++
		}
	}
	if met["1"] == 0 || met["2"] == 0 {
		t.Errorf("2000 requests at 50%% met only %v", met)
	}
	t.Log(strings.TrimPrefix(fmt.Sprint(met), "map"), "requests by release, none crossed")
}
