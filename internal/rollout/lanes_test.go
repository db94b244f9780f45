package rollout_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// world is an app in the hands of the engine: every route is acknowledged and every replica ready at once.
type world struct {
	t      *testing.T
	spec   rollout.Spec
	status rollout.Status
	obs    rollout.Observation
	now    time.Time
	said   []string
}

func newWorld(t *testing.T, releases ...spillway.Release) *world {
	w := &world{t: t, spec: rollout.Spec{App: "shop", Releases: map[int]spillway.Release{}}, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	for _, r := range releases {
		w.spec.Releases[r.Number] = r
	}
	return w
}

// ask lets the engine act on one intent, and then on what follows from it, for as many rounds.
func (w *world) ask(in spillway.Intent, rounds int) {
	w.t.Helper()
	in.Seq, in.At = w.status.Intent+1, w.now
	w.spec.Intents = []spillway.Intent{in}
	w.run(rounds)
}

func (w *world) run(rounds int) {
	for range rounds {
		d := rollout.Decide(w.spec, w.status, w.obs, w.now)
		w.status, w.spec.Intents = d.Status, nil
		for _, e := range d.Events {
			w.said = append(w.said, e.Text)
		}
		w.obs = rollout.Observation{Served: d.Desired.Route}
		for _, want := range d.Desired.Groups {
			w.obs.Groups = append(w.obs.Groups, rollout.Group{Group: want.Group, Running: want.Replicas, Ready: want.Replicas})
		}
		w.now = w.now.Add(time.Second)
	}
}

// public describes the public edges of the route asked for.
func (w *world) public() string {
	var lines []string
	for _, e := range w.status.Route.Edges {
		if e.From != (spillway.Group{}) {
			continue
		}
		var parts []string
		for _, b := range e.Backends {
			parts = append(parts, fmt.Sprintf("%s %s", b.Name(e.Service), b.Weight))
		}
		if e.Closed != "" {
			parts = append(parts, "closed: "+e.Closed)
		}
		for _, r := range e.Rules {
			parts = append(parts, fmt.Sprintf("%s %s=%s to %s", r.Kind, r.Name, r.Value, cmp.Or(r.Track, "stable")))
		}
		lines = append(lines, strings.Join(e.Hosts, " ")+": "+strings.Join(parts, ", "))
	}
	return strings.Join(lines, "\n")
}

func (w *world) want(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s:\n%s\nwant:\n%s\nevents: %q", what, got, want, w.said)
	}
}

// laned is a release of a service with tracks; made is the release in which www changed last.
func laned(number, made int, tracks ...spillway.Track) spillway.Release {
	s := spillway.Service{Name: "www", Host: []string{"shop.test"}, Scale: 3, Strategy: spillway.Rolling, Tracks: tracks}
	return spillway.Release{
		App: "shop", Number: number, Config: spillway.App{Name: "shop", Services: []spillway.Service{s}},
		Groups: map[string]int{"www": made}, Artefacts: map[string]spillway.Artefact{},
	}
}

var beta = spillway.Match{KeySource: spillway.KeySource{Kind: "cookie", Name: "beta"}, Value: "1"}

func TestDecide_DividesUsersBetweenTracksAndStable(t *testing.T) {
	canary := spillway.Track{Name: "canary", Replicas: 1, Share: spillway.Percent(10), Match: []spillway.Match{beta}, Host: []string{"canary.test"}}
	legacy := spillway.Track{Name: "legacy", URLs: []string{"http://10.0.0.1", "http://10.0.0.2"}, Share: spillway.Percent(30)}
	w := newWorld(t, laned(1, 1, canary, legacy), laned(2, 2, canary, legacy), laned(3, 3, canary, legacy))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 1)
	w.want("servers outside serve while the first release starts", w.public(), "canary.test: closed: www is new and has no traffic yet\nshop.test: www@legacy 100%, cookie beta=1 to stable")
	w.run(4)
	w.want("a track without a release is stable's", w.public(), "canary.test: www.1 100%\nshop.test: www@legacy 30%, www.1 70%, cookie beta=1 to stable")
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 4)
	w.want("the track has its users", w.public(), "canary.test: www.2 100%\nshop.test: www.2 10%, www@legacy 30%, www.1 60%, cookie beta=1 to canary")
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 3)
	w.want("a candidate of a third has its part of what tracks leave", lastLine(w.public()), "shop.test: www.2 10%, www@legacy 30%, www.1 40.01%, www.3 19.99%, cookie beta=1 to canary")
	w.run(12)
	w.ask(spillway.Intent{Verb: spillway.VerbRollback, Track: "canary"}, 2)
	w.want("a track that goes back to nothing is stable's", lastLine(w.public()), "shop.test: www@legacy 30%, www.3 70%, cookie beta=1 to stable")
}

func lastLine(text string) string { return text[strings.LastIndex(text, "\n")+1:] }

func TestDecide_PromotesATrackWithoutNewReplicas(t *testing.T) {
	canary := spillway.Track{Name: "canary", Replicas: 1, Auto: true}
	w := newWorld(t, laned(1, 1, canary), laned(2, 2, canary))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 5)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 5)
	w.want("one replica beside three has a quarter of the users", w.public(), "shop.test: www.2 25%, www.1 75%")
	w.ask(spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, 20)
	w.want("the track's release is stable", w.public(), "shop.test: www.2 100%")
	if w.status.Stable != 2 || w.status.Lanes["canary"].Release != 0 {
		t.Errorf("stable is %d, the track has %d: want 2 and none", w.status.Stable, w.status.Lanes["canary"].Release)
	}
}

func TestDecide_ADeployToStableGoesFirst(t *testing.T) {
	canary := spillway.Track{Name: "canary", Replicas: 1, Share: spillway.Percent(10)}
	slow := laned(2, 2, canary)
	slow.Config.Watch = spillway.Duration(time.Hour)
	w := newWorld(t, laned(1, 1, canary), slow, laned(3, 3, canary))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 5)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2, Track: "canary"}, 1)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 40)
	if w.status.Stable != 3 {
		t.Fatalf("stable is %d, want 3: %q", w.status.Stable, w.said)
	}
	w.run(5)
	if r := w.status.Rollout; r == nil || r.Release != 2 || r.Track != "canary" {
		t.Errorf("release 2 did not begin again: %+v, %q", r, w.said)
	}
}

func TestDecide_AWaitingDeployBeginsAtItsTime(t *testing.T) {
	frozen := laned(2, 2)
	frozen.Config.Freeze = []spillway.Window{{Text: "now", Begin: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 11, 21, 12, 1, 0, 0, time.UTC)}}
	delayed := laned(3, 3)
	delayed.Config.Delay = spillway.Duration(30 * time.Second)
	w := newWorld(t, laned(1, 1), frozen, delayed)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 5)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 10)
	if w.status.Rollout != nil {
		t.Errorf("a rollout began in a freeze window: %q", w.said)
	}
	w.now = w.now.Add(time.Minute)
	w.run(1)
	if r := w.status.Rollout; r == nil || r.Release != 2 {
		t.Errorf("no rollout began after the freeze window: %q", w.said)
	}
	w.run(20)
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 2)
	if w.status.Rollout != nil || w.status.Queue == nil {
		t.Errorf("a rollout began before its delay was over: %q", w.said)
	}
	w.ask(spillway.Intent{Verb: spillway.VerbRollback, Release: 1}, 2)
	if r := w.status.Rollout; w.status.Stable != 1 && (r == nil || r.Release != 1) {
		t.Errorf("a rollback waited: %+v, %q", w.status, w.said)
	}
}

func TestDecide_KeepsTheDarkColourWarm(t *testing.T) {
	colour := func(n int) spillway.Release {
		r := laned(n, n)
		s := &r.Config.Services[0]
		s.Strategy, s.Standby = spillway.BlueGreen, &spillway.Standby{Keep: spillway.Duration(time.Minute), Host: []string{"off.test"}}
		return r
	}
	w := newWorld(t, colour(1), colour(2))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 5)
	w.want("one colour", w.public(), "off.test: closed: there is no dark colour of www now\nshop.test: www.1 100%")
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 8)
	w.want("the other is dark", w.public(), "off.test: www.1 100%\nshop.test: www.2 100%")
	colors := map[string]string{}
	for _, e := range w.status.Route.Edges {
		colors[e.Backends[0].Group.String()] = e.Backends[0].Color
	}
	if colors["www.1"] != "blue" || colors["www.2"] != "green" {
		t.Errorf("colours: %v", colors)
	}
	w.ask(spillway.Intent{Verb: spillway.VerbRollback}, 1)
	w.want("back in one round", lastLine(w.public()), "shop.test: www.2 0%, www.1 100%")
	w.run(5)
	w.want("the colours have changed places", w.public(), "off.test: www.2 100%\nshop.test: www.1 100%")
	w.run(70)
	w.want("it is not kept for ever", w.public(), "off.test: closed: there is no dark colour of www now\nshop.test: www.1 100%")
	if len(w.obs.Groups) != 1 {
		t.Errorf("still running: %v", w.obs.Groups)
	}
}
