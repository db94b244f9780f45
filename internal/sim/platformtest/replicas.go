package platformtest

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// serve brings an app to rest in which www.1 has all users.
func (s *stage) serve(replicas int) {
	s.t.Helper()
	s.release(1, service("www", Well))
	s.wants(want("www", 1, replicas))
	s.edges(s.public("www", to("www", 1, spillway.Whole)))
	s.settle()
}

// kill ends one ready replica of www.1 from outside.
func (s *stage) kill() {
	s.t.Helper()
	switch {
	case s.Kill != nil:
		s.Kill(s.ref, group("www", 1))
	case s.Client != nil:
		_, _ = s.send(s.t.Context(), http.MethodPost, s.host("www"), "/exit") // its request is lost with it
	default:
		s.t.Fatal("the bench has neither Kill nor Client")
	}
}

func comes(s *stage) {
	s.serve(2)
	if s.Client != nil {
		s.boots(s.host("www"), 2)
	}
	s.stays("what is there stays", s.settled)
}

func twice(s *stage) {
	s.serve(2)
	before, o := map[string]bool{}, s.observe()
	if s.Client != nil {
		before = s.boots(s.host("www"), 2)
	}
	for range 3 {
		s.apply()
	}
	s.stays("nothing changes", func(n rollout.Observation) bool {
		was, is := find(o, group("www", 1)), find(n, group("www", 1))
		return s.settled(n) && was.Restarts == is.Restarts && was.Crashes == is.Crashes
	})
	if s.Client != nil {
		if after := s.boots(s.host("www"), 2); !maps.Equal(before, after) {
			s.t.Errorf("replicas were %v, and are %v", before, after)
		}
	}
}

func complete(s *stage) {
	s.release(1, service("www", Well), service("worker", Well))
	s.wants(want("www", 1, 1), want("worker", 1, 2))
	s.edges(s.public("www", to("www", 1, spillway.Whole)))
	s.settle()
	s.wants(want("www", 1, 1))
	s.apply()
	s.eventually("a group that is not named has no replicas", func(o rollout.Observation) bool {
		return find(o, group("worker", 1)).Running == 0
	})
	s.eventually("the group that is named has", s.settled)
	s.wants(want("www", 1, 1), want("worker", 1, 1))
	s.settle()
}

// half ends the context of an apply at different moments.
func half(s *stage) {
	s.serve(1)
	s.release(2, service("www", Well), service("worker", Well))
	s.wants(want("www", 1, 1), want("www", 2, 1), want("worker", 2, 1))
	for i, after := range []time.Duration{0, time.Millisecond, 4 * time.Millisecond, 20 * time.Millisecond} {
		share := spillway.Percent(10 * (i + 1))
		s.edges(s.public("www", to("www", 1, spillway.Whole-share), to("www", 2, share)))
		ctx, cancel := context.WithTimeout(s.t.Context(), after)
		_ = s.Platform.Apply(ctx, s.ref, s.named(), s.d) // whether it fails is its own affair
		cancel()
	}
	s.settle()
	if boots := find(s.observe(), group("www", 1)); boots.Restarts != 0 {
		s.t.Errorf("www.1 was restarted: %+v", boots)
	}
}

func ready(s *stage) {
	s.serve(1)
	s.release(2, service("www", Never))
	s.wants(want("www", 1, 1), want("www", 2, 2))
	s.apply()
	o := s.eventually("the replicas run, and it is said why they are not ready", func(o rollout.Observation) bool {
		g := find(o, group("www", 2))
		return g.Running == 2 && g.Problem != ""
	})
	if p := find(o, group("www", 2)).Problem; strings.Contains(p, "\n") {
		s.t.Errorf("the problem is not one line: %q", p)
	}
	s.stays("replicas that are not healthy are not ready", func(o rollout.Observation) bool {
		g := find(o, group("www", 2))
		return g.Ready == 0 && g.Running == 2 && !g.Fatal && find(o, group("www", 1)).Ready == 1 && find(o, group("www", 1)).Problem == ""
	})
}

func crashes(s *stage) {
	s.serve(1)
	s.release(2, service("www", Crash))
	s.wants(want("www", 1, 1), want("www", 2, 1))
	s.apply()
	o := s.eventually("crashes are counted", func(o rollout.Observation) bool {
		g := find(o, group("www", 2))
		if g.Ready > 0 || g.Restarts > 0 {
			s.t.Fatalf("it was never ready: %+v", g)
		}
		return g.Crashes >= 2 && g.Problem != ""
	})
	g := find(o, group("www", 2))
	if g.Fatal {
		s.t.Errorf("an end with code 3 is fatal: the next start may do better: %+v", g)
	}
	if s.Client != nil && (!strings.Contains(g.Problem, "code 3") || !strings.Contains(g.Problem, crashWords) || strings.Contains(g.Problem, "\n")) {
		s.t.Errorf("the problem is %q, and should say in one line code 3 and %q", g.Problem, crashWords)
	}
	if g := find(o, group("www", 1)); g.Ready != 1 || g.Crashes != 0 {
		s.t.Errorf("its neighbour: %+v", g)
	}
	s.wants(want("www", 1, 1))
	s.settle()
}

func fatal(s *stage) {
	s.release(1, service("www", Missing))
	s.wants(want("www", 1, 1))
	s.edges()
	s.apply()
	o := s.eventually("it is fatal", func(o rollout.Observation) bool { return find(o, group("www", 1)).Fatal })
	if g := find(o, group("www", 1)); g.Problem == "" || g.Ready != 0 {
		s.t.Errorf("%+v", g)
	}
}

func dies(s *stage) {
	s.serve(2)
	s.kill()
	s.eventually("the end is counted, and the replica replaced", func(o rollout.Observation) bool {
		g := find(o, group("www", 1))
		if g.Crashes != 0 {
			s.t.Fatalf("the replica had been ready: %+v", g)
		}
		return g.Restarts == 1 && g.Ready == 2 && g.Problem == ""
	})
	s.eventually("all is well", s.settled)
}

func sick(s *stage) {
	if s.Client == nil {
		s.t.Skip("no requests")
	}
	s.serve(2)
	a, err := s.send(s.t.Context(), http.MethodPost, s.host("www"), "/sick")
	if err != nil || a.Status != http.StatusOK {
		s.t.Fatalf("%v, %+v", err, a)
	}
	s.eventually("the end is counted, and the replica replaced", func(o rollout.Observation) bool {
		g := find(o, group("www", 1))
		return g.Restarts >= 1 && s.settled(o)
	})
	if s.boots(s.host("www"), 2)[a.Boot] {
		s.t.Errorf("%s is sick and still gets requests", a.Boot)
	}
}

func scales(s *stage) {
	s.release(1, service("www", Well, "backend"), service("backend", Well))
	s.wants(want("www", 1, 1), want("backend", 1, 1))
	from := group("www", 1)
	s.edges(s.public("www", to("www", 1, spillway.Whole)), private("backend", from, to("backend", 1, spillway.Whole)),
		s.public("backend", to("backend", 1, spillway.Whole)))
	s.settle()
	backend := map[string]bool{}
	if s.Client != nil {
		backend = s.boots(s.host("backend"), 1)
	}
	generation := s.d.Route.Generation
	for _, n := range []int{3, 1, 2} {
		s.wants(want("www", 1, n), want("backend", 1, 1))
		s.settle()
	}
	s.edges(s.public("backend", to("backend", 1, spillway.Whole)), private("backend", from, to("backend", 1, spillway.Whole)),
		spillway.Edge{Service: "www", Hosts: []string{s.host("www")}, Closed: "nobody is there"})
	s.apply()
	s.eventually("the route is acknowledged", s.acknowledged)
	s.wants(want("www", 1, 0), want("backend", 1, 1))
	s.settle()
	s.wants(want("www", 1, 1), want("backend", 1, 1))
	o := s.settle()
	if g := find(o, group("backend", 1)); g.Restarts != 0 || g.Crashes != 0 || o.Served.Generation != generation+1 {
		s.t.Errorf("the scale of www did something to its neighbour: %+v, generation %d", g, o.Served.Generation)
	}
	if s.Client != nil && !maps.Equal(backend, s.boots(s.host("backend"), 1)) {
		s.t.Error("the replicas of backend are others than before")
	}
}

func restarts(s *stage) {
	s.serve(2)
	before := map[string]bool{}
	var load *traffic
	if s.Client != nil {
		before = s.boots(s.host("www"), 2)
		load = s.load(s.host("www"))
	}
	w := want("www", 1, 2)
	w.Restart = 1
	s.wants(w)
	s.apply()
	most := 0
	s.eventually("all replicas are new", func(o rollout.Observation) bool {
		g := find(o, group("www", 1))
		if g.Ready < 2 {
			s.t.Errorf("less than was ready is ready: %+v", g)
		}
		most = max(most, g.Running)
		if !s.settled(o) || s.Client == nil {
			return s.settled(o) && most > 2
		}
		for boot := range s.boots(s.host("www"), 2) {
			if before[boot] {
				return false
			}
		}
		return true
	})
	if s.Client == nil {
		s.stays("it is one restart", s.settled)
		return
	}
	load.stop(s.t)
	after := s.boots(s.host("www"), 2)
	s.apply()
	s.stays("it is one restart", s.settled)
	if !maps.Equal(after, s.boots(s.host("www"), 2)) {
		s.t.Error("replicas were replaced again")
	}
	if g := find(s.observe(), group("www", 1)); g.Restarts != 0 || g.Crashes != 0 {
		s.t.Errorf("a restart that was asked for counts as an end of its own: %+v", g)
	}
}

func drains(s *stage) {
	if s.Client == nil || s.Lacks.Drain {
		s.t.Skip("it has no requests, or does not drain")
	}
	s.serve(1)
	s.release(2, service("www", Well))
	s.wants(want("www", 1, 1), want("www", 2, 1))
	s.settle()
	type result struct {
		answer
		err error
	}
	done := make(chan result, 1)
	// Owned by this test, which waits for its answer.
	go func() {
		a, err := s.send(s.t.Context(), http.MethodGet, s.host("www"), "/slow/1s")
		done <- result{a, err}
	}()
	if s.Lacks.InFlight {
		<-time.After(300 * time.Millisecond)
	} else {
		s.eventually("the request is seen", func(o rollout.Observation) bool { return find(o, group("www", 1)).InFlight == 1 })
	}
	s.edges(s.public("www", to("www", 2, spillway.Whole)))
	s.apply()
	s.eventually("the route is acknowledged", s.acknowledged)
	s.wants(want("www", 2, 1))
	s.apply()
	s.eventually("it drains", func(o rollout.Observation) bool {
		g := find(o, group("www", 1))
		return g.Draining == 1 && g.Ready == 0 && g.Running == 1
	})
	if r := <-done; r.err != nil || r.Status != http.StatusOK || r.Release != 1 {
		s.t.Errorf("the open request: %v, %+v", r.err, r.answer)
	}
	s.eventually("it is gone", s.settled)
}

// wantRelease moves a group that did not change to a newer release: that starts new replicas and leaves others.
func wantRelease(s *stage) {
	if s.Client == nil {
		s.t.Skip("no requests")
	}
	s.serve(1)
	before := s.boots(s.host("www"), 1)
	s.release(2, service("www", Well))
	next := s.releases[2]
	next.Groups = map[string]int{"www": 1}
	next.Config.Services[0].Scale = 2
	s.releases[2] = next
	w := want("www", 1, 1)
	w.Release = 2
	s.wants(w)
	s.edges(s.public("www", spillway.Backend{Group: w.Group, Release: 2, Weight: spillway.Whole}))
	s.settle()
	s.stays("the release changes and the replicas do not", s.settled)
	if !maps.Equal(before, s.boots(s.host("www"), 1)) {
		s.t.Error("a group that did not change has other replicas")
	}
	next.Number, next.Config.Services = 3, slices.Clone(next.Config.Services)
	next.Config.Services[0].Env = map[string]string{Variable: Well, "COLOUR": "green"}
	next.Config.Services[0].Limits = spillway.Limits{Memory: 512 << 20}
	s.releases[3] = next
	w.Release, w.Replicas = 3, 2
	s.wants(w)
	s.settle()
	colours := map[string]bool{}
	s.eventually("the new replica is one of the new release", func(rollout.Observation) bool {
		for range 100 {
			colours[s.ask(s.host("www"), "/env/COLOUR").Value] = true
		}
		return colours["green"]
	})
	if !s.Lacks.Templates && !colours[""] {
		s.t.Errorf("the replica of before and the new one have the colours %v, want none and green", colours)
	}
}

func told(s *stage) {
	if s.Client == nil {
		s.t.Skip("no requests")
	}
	s.serve(2)
	app, environment, _ := strings.Cut(string(s.ref), "@")
	if environment == "" {
		environment = "production"
	}
	got := map[string]string{}
	for _, name := range []string{"SPILLWAY_APP", "SPILLWAY_ENVIRONMENT", "SPILLWAY_SERVICE", "SPILLWAY_TRACK", "SPILLWAY_RELEASE"} {
		got[name] = s.ask(s.host("www"), "/env/"+name).Value
	}
	want := map[string]string{
		"SPILLWAY_APP": app, "SPILLWAY_ENVIRONMENT": environment, "SPILLWAY_SERVICE": "www", "SPILLWAY_TRACK": "stable", "SPILLWAY_RELEASE": "1",
	}
	if !reflect.DeepEqual(got, want) {
		s.t.Errorf("%v, want %v", got, want)
	}
	if replicas := s.seen(2, func() string { return s.ask(s.host("www"), "/env/SPILLWAY_REPLICA").Value }); replicas[""] {
		s.t.Errorf("the two replicas are called %v", replicas)
	}
}
