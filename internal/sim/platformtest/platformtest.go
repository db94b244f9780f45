// Package platformtest holds every implementation of reconcile.Platform to the promises of that interface, and of
// the observations and desired states that pass through it. It knows no implementation: a Bench says how to reach
// one, what its replicas run is Play, and Lacks is what it cannot do.
package platformtest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// Bench is an implementation that is put to the test. Every promise is tested with apps of its own, many at the
// same time.
type Bench struct {
	Platform reconcile.Platform
	// Fit completes a release so that the platform can run it: each service gets the command (and the artefact)
	// that ends up in Play, with the variables of Service.Env.
	Fit func(*spillway.Release)
	// Client reaches the data plane whatever host a URL names: http://shop.test/. It follows no redirects and
	// keeps no cookies. nil = there are no requests, and what only they can show is left out.
	Client *http.Client
	// Kill ends a ready replica of a group from outside. nil = a replica is asked by a request to end itself.
	Kill func(spillway.Ref, spillway.Group)
	// Mute lets the data plane of an app not answer the platform, true, or answer again, false; users are served as
	// before. nil = a test cannot bring that about.
	Mute func(spillway.Ref, bool)
	// Users lets so many users come to an app between two looks, where there is no Client; whoever sets it says whether
	// all were answered. nil = none can come.
	Users func(spillway.Ref, int)
	// Pass lets time pass between two looks. nil = 10 ms of real time.
	Pass func()
	// Patience is how long to wait, in real time, for what has to happen sooner or later.
	Patience time.Duration
	// Prefix begins the name of every app, at most 8 characters, so that runs can share a platform: "t1-".
	Prefix string
	Lacks  Lacks
}

// Lacks says what an implementation cannot do. The zero value is one that does everything.
type Lacks struct {
	InFlight    bool // Group.InFlight is always 0
	Traffic     bool // Group.Traffic.Requests is always 0
	Tripwire    bool // a harmful candidate keeps its weight until the engine takes it away; Evidence says that it is harmful
	Trials      bool // Evidence is never there
	Watch       bool // changed is never called: whoever wants to know looks by itself
	Drain       bool // replicas that have to go are gone at once, without Group.Draining
	Limits      bool // a release command is not ended when it takes longer than Task.Limit
	Templates   bool // replicas that run are replaced too when Want.Release changes what new ones are started with
	Closed      bool // a closed edge is answered with another 5xx than 503, or without the reason
	Generations bool // a route with a lower generation than the served one is served: nobody but the engine asks, and it never does
}

// promises are tested in this order; the longest come first, because they run side by side.
func promises() []promise {
	return []promise{
		{"a replica that has to go finishes its requests and is not ready meanwhile", drains},
		{"a replica that crashes at its start is counted, and its problem said", crashes},
		{"a command that is not there is fatal", fatal},
		{"a restart replaces replicas, ready before gone", restarts},
		{"what is called ready and served answers from that moment on", reached},
		{"moving all users and removing the old group loses no request", loses},
		{"a replica that dies is replaced, and that is counted", dies},
		{"a replica that says it is sick is replaced", sick},
		{"a release command runs once, and its end is told", tasks},
		{"a release command that fails says why", taskFails},
		{"a release command that is not wanted any more is ended and forgotten", taskForgotten},
		{"a release command that takes too long is ended and has failed", taskLimit},
		{"an app never seen is the zero observation", unknown},
		{"what is applied comes to be", comes},
		{"applying twice is applying once", twice},
		{"what is applied is complete", complete},
		{"an apply that failed half way can be repeated", half},
		{"ready are only those that would get requests", ready},
		{"scaling a group leaves the others alone", scales},
		{"new replicas run what Want.Release says", wantRelease},
		{"an acknowledged route divides the requests as asked", divides},
		{"a route of a lower generation does not undo the one that is served", generations},
		{"while the data plane does not answer, what is known stands and nothing is stopped", muted},
		{"a closed edge is closed", closedEdge},
		{"the tiers of a release move together", tiers},
		{"rules and own hosts of a track lead to its release", tracks},
		{"a candidate that fails is found out", trial},
		{"what a group is given is counted", counts},
		{"replicas are told who they are", told},
		{"whoever watches is told of changes, until its context ends", watches},
		{"a forgotten app is the zero observation, and can come back", forgotten},
		{"apps do not disturb each other", apart},
		{"names that run into each other are told apart", alike},
		{"names may be as long as an app file allows", long},
	}
}

type promise struct {
	name string
	keep func(*stage)
}

// Run holds the implementation to its promises, all of them at the same time. It returns when all are tested. One whose
// time is played, which has no Client, is held to one after the other: time would pass for all of them at every look, and
// what comes and goes would be missed.
func Run(t *testing.T, b Bench) {
	if b.Pass == nil {
		b.Pass = func() { <-time.After(10 * time.Millisecond) }
	}
	t.Run("promises", func(t *testing.T) {
		for i, p := range promises() {
			t.Run(strings.ReplaceAll(p.name, " ", "_"), func(t *testing.T) {
				if b.Client != nil {
					t.Parallel()
				}
				p.keep(newStage(t, &b, spillway.Ref(fmt.Sprintf("%sp%d", b.Prefix, i))))
			})
		}
	})
}
