package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// twoTracks deploys an app of two tiers with a track as release 1 and gives it another release for the track.
func twoTracks(t *testing.T, in *installation, track string) *app {
	t.Helper()
	a := newApp(t, "lanes")
	a.Tiers, a.Scale, a.Watch, a.Deadline = true, 3, "1s", "10s"
	a.Lines = []string{"tracks: {canary: " + track + "}"}
	a.Top = []string{"cohort: {key: [header X-Account-Id]}"}
	in.deploy(a).want(t, 0)
	in.deploy(a.bump(), "--track", "canary").want(t, 0)
	in.holds(a.Name, 2)
	return a
}

// holds waits until nothing goes on and the canary holds a release.
func (in *installation) holds(name string, release int) spillway.Overview {
	in.t.Helper()
	return in.status(name, 30*time.Second, fmt.Sprintf("the canary to hold release %d at rest", release), func(o spillway.Overview) bool {
		return o.Rollout == nil && o.Queue == 0 && len(o.Waits) == 0 && canaryOf(o).Release == release
	})
}

// A harmful release of a track goes back to the one that the track held, within the budget, and the users
// of stable do not notice.
func TestTrack_HarmfulReleaseGoesBack(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := twoTracks(t, in, "{share: 20%, cookie: beta=1, host: canary.lanes.localhost}")
	client := in.browser()
	people := accounts("header X-Account-Id", 2000)
	before := meet(t, client, "http://"+a.Host()+"/", people)
	if n := tally(before)["2"]; math.Abs(float64(n-400)) > 3*sigma(2000, 0.2) {
		t.Errorf("%d of 2000 people met the canary, want a fifth", n)
	}
	users := in.send(a.Host(), keepAlive("POST", 100))
	users.answered(100)
	a.Env["FAIL"] = "POST"
	if r := in.deploy(a.bump(), "--track", "canary"); r.code != 3 && r.code != 0 {
		t.Fatalf("want exit code 3, or 0 when it had all of the track's traffic before the proof of the harm was there: %v", r)
	}
	o := in.holds(a.Name, 2)
	if l := o.Last; l.Release != 3 || l.Outcome != spillway.RolledBack {
		t.Errorf("want release 3 rolled back, got %s", describe(o))
	}
	s := users.end()
	t.Logf("load: %v", s)
	if n := s.Releases["3"].Failures; n < 1 || n > 20 || s.Failures != n {
		t.Errorf("%d requests failed, %d of them at release 3; want 1 to 20, and all of them there", s.Failures, n)
	}
	if after := meet(t, client, "http://"+a.Host()+"/", people); !slices.Equal(after, before) {
		t.Error("people are not where they were before release 3")
	}
	if p := open(client, "http://canary.lanes.localhost/", nil); p.Release != "2" {
		t.Errorf("the canary's host gives %v, want release 2", p)
	}
	in.exactly("lanes", 6+2)
}

// The tiers of a track are paired too, and a rollout of stable beside it moves none of its users.
func TestTrack_IsLeftAloneByARolloutOfStable(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := twoTracks(t, in, "{share: 20%}")
	client, url := in.browser(), "http://"+a.Host()+"/"
	people := accounts("header X-Account-Id", 1000)
	before := meet(t, client, url, people)
	a.Strategy, a.Steps = "canary", "50% 1h"
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	in.status(a.Name, 30*time.Second, "half of stable's users on release 3", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Release == 3 && o.Rollout.Served == spillway.Percent(50)
	})
	met := meet(t, client, url, people)
	for i := range people {
		if (before[i] == "2") != (met[i] == "2") {
			t.Fatalf("person %d met release %s before the rollout of stable, and release %s in it", i, before[i], met[i])
		}
	}
	n := tally(met)
	if math.Abs(float64(n["3"]-n["1"])) > 6*sigma(800, 0.5) || n["2"] == 0 {
		t.Errorf("people met %v, want a fifth on the track and the others in halves", n)
	}
	for _, p := range people[:200] {
		page := open(client, url, p.header)
		if strings.Count(page.Body, `"release":"`+page.Release+`"`) != 2 {
			t.Fatalf("the tiers are of different releases: %v", page)
		}
	}
	in.spillway("abort", "--app", a.Name).want(t, 0)
	if after := meet(t, client, url, people); !slices.Equal(after, before) {
		t.Error("people are not where they were before the rollout")
	}
}

// share: auto is the canary's part of all replicas, and follows them.
func TestTrack_ShareByReplicas(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := twoTracks(t, in, "{share: auto}")
	client, url := in.browser(), "http://"+a.Host()+"/"
	people := accounts("header X-Account-Id", 4000)
	share := func(want float64) {
		t.Helper()
		if n := tally(meet(t, client, url, people))["2"]; math.Abs(float64(n)-want*4000) > 3*sigma(4000, want) {
			t.Errorf("%d of 4000 people met the canary, want %.0f%%", n, want*100)
		}
	}
	share(0.25) // 1 of 4
	in.spillway("scale", "web=9", "--app", a.Name).want(t, 0)
	in.status(a.Name, 30*time.Second, "10% on the canary", func(o spillway.Overview) bool {
		return canaryOf(o).Share == spillway.Percent(10)
	})
	share(0.1) // 1 of 10
}

// The server is killed at random moments of rollouts of a track: each ends as it would have.
func TestTrack_ServerKilled(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := twoTracks(t, in, "{share: 30%, cookie: beta=1}")
	users := in.send(a.Host(), keepAlive("GET", 120), newConnections("GET", 100))
	canary := in.send(a.Host(), loadWith(http.Header{"Cookie": {"beta=1"}}, 30))
	users.answered(100)
	lane := 2
	for try := range 10 {
		harmful := try%2 == 1
		delete(a.Env, "FAIL")
		if harmful {
			a.Env["FAIL"] = "all"
		}
		in.spillway("deploy", "--detach", "--track", "canary", a.bump().write()).want(t, 0)
		<-time.After(rand.N(800 * time.Millisecond))
		in.kill(syscall.SIGKILL)
		in.start()
		if newest := in.newest(a.Name); !harmful {
			lane = newest
		}
		in.holds(a.Name, lane)
	}
	canary.flawless(20)
	users.flawless(200)
	in.exactly("lanes", 6+2)
}
