package platformtest

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// both brings an app to rest in which www.1 has all users and www.2 is ready.
func (s *stage) both(does string) {
	s.t.Helper()
	s.serve(2)
	s.release(2, service("www", does))
	s.wants(want("www", 1, 2), want("www", 2, 1))
	s.settle()
}

// asked counts the answers to n new users by release.
func (s *stage) asked(n int, host string) map[int]int {
	s.t.Helper()
	by := map[int]int{}
	for range n {
		by[s.ask(host, "/").Release]++
	}
	return by
}

func divides(s *stage) {
	s.both(Well)
	for _, candidate := range []int{0, 30, 100, 0} {
		w := spillway.Percent(candidate)
		s.edges(s.public("www", to("www", 1, spillway.Whole-w), to("www", 2, w)))
		s.apply()
		s.eventually("the route is acknowledged", s.acknowledged)
		if s.Client == nil {
			continue
		}
		const n = 120
		got := s.asked(n, s.host("www"))
		// 30 % of 120 are 36 with a standard deviation of 5: outside of 11 to 61 by chance once in a million.
		if candidate == 0 && got[2] > 0 || candidate == 100 && got[1] > 0 || candidate == 30 && (got[2] < 11 || got[2] > 61) {
			s.t.Errorf("%d %% for release 2 are %v", candidate, got)
		}
	}
	s.stays("all replicas run on", s.settled)
}

func generations(s *stage) {
	if s.Lacks.Generations {
		s.t.Skip("a lower generation is served")
	}
	s.both(Well)
	older := s.d
	s.edges(s.public("www", to("www", 1, 0), to("www", 2, spillway.Whole)))
	s.settle()
	_ = s.Platform.Apply(s.t.Context(), s.ref, s.named(), older) // it may refuse
	s.stays("the newer route is served", s.acknowledged)
}

func loses(s *stage) {
	s.both(Well)
	var load *traffic
	if s.Client != nil {
		load = s.load(s.host("www"))
	}
	for _, candidate := range []int{20, 60, 100} {
		w := spillway.Percent(candidate)
		if candidate == 100 {
			s.edges(s.public("www", to("www", 2, spillway.Whole)))
		} else {
			s.edges(s.public("www", to("www", 1, spillway.Whole-w), to("www", 2, w)))
		}
		s.wants(want("www", 1, 2), want("www", 2, candidate/50+1))
		s.settle()
	}
	if s.Client != nil {
		if got := s.asked(20, s.host("www")); got[2] != 20 {
			s.t.Errorf("release 2 has all users, and answered %v", got)
		}
	}
	s.wants(want("www", 2, 3))
	s.settle()
	s.wants(want("www", 2, 1)) // and fewer of those that serve
	s.settle()
	if load != nil {
		load.stop(s.t)
	}
}

func closedEdge(s *stage) {
	s.serve(1)
	const why = "recreate: www is being replaced"
	s.edges(spillway.Edge{Service: "www", Hosts: []string{s.host("www")}, Closed: why})
	s.settle()
	if s.Client != nil {
		a, err := s.send(s.t.Context(), http.MethodGet, s.host("www"), "/")
		switch {
		case err != nil || a.Status < 500:
			s.t.Errorf("a closed edge answers %v, %+v", err, a)
		case !s.Lacks.Closed && (a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Text, why)):
			s.t.Errorf("a closed edge answers %d without the reason: %q", a.Status, a.Text)
		}
	}
	s.edges(s.public("www", to("www", 1, spillway.Whole)))
	s.settle()
	if s.Client != nil {
		s.ask(s.host("www"), "/")
	}
}

// reached acts as early as the engine does: it gives users to replicas in the moment in which they are seen to be ready,
// and asks in the moment in which the route is seen to be served. A data plane that learns later than the platform says
// would refuse some.
func reached(s *stage) {
	var load *traffic
	for n := 1; n <= 4; n++ {
		s.release(n, service("www", Well, "backend"), service("backend", Well))
		tiers := func(public, n int) []spillway.Edge {
			var edges []spillway.Edge
			for i := public; i <= n; i++ {
				edges = append(edges, private("backend", group("www", i), to("backend", i, spillway.Whole)))
			}
			return append(edges, s.public("www", to("www", public, spillway.Whole)))
		}
		old := max(1, n-1)
		s.wants(pairs(old, n)...)
		if n > 1 {
			s.edges(tiers(old, n)...)
		} else {
			s.edges(append(tiers(1, 1)[:1], spillway.Edge{Service: "www", Hosts: []string{s.host("www")}, Closed: "nobody is there"})...)
		}
		s.apply()
		s.eventually("both tiers are ready", func(o rollout.Observation) bool {
			return find(o, group("www", n)).Ready == 1 && find(o, group("backend", n)).Ready == 1 && s.acknowledged(o)
		})
		s.edges(append(tiers(old, n)[:1+n-old], s.public("www", to("www", n, spillway.Whole)))...)
		s.apply()
		s.eventually("the route is acknowledged", s.acknowledged)
		for range 20 {
			if s.Client == nil {
				break
			}
			if a := s.ask(s.host("www"), "/peer/backend"); a.Release != n || s.behind(a).Release != n {
				s.t.Errorf("release %d is served, and a request was answered by %d and %d behind it", n, a.Release, s.behind(a).Release)
			}
		}
		switch {
		case load == nil && s.Client != nil:
			load = s.load(s.host("www"))
		case s.Client == nil && s.Users != nil:
			s.Users(s.ref, 5)
			defer s.Users(s.ref, 0)
		}
		s.wants(pairs(n, n)...)
		s.edges(tiers(n, n)...)
		s.settle()
	}
	if load != nil {
		load.stop(s.t)
	}
}

// pairs are a replica of each tier of the releases.
func pairs(from, to int) []rollout.Want {
	var wants []rollout.Want
	for n := from; n <= to; n++ {
		wants = append(wants, want("www", n, 1), want("backend", n, 1))
	}
	return wants
}

func muted(s *stage) {
	if s.Mute == nil {
		s.t.Skip("the data plane cannot be kept from answering")
	}
	s.both(Well)
	before := s.observe()
	s.Mute(s.ref, true)
	defer s.Mute(s.ref, false)
	s.edges(s.public("www", to("www", 2, spillway.Whole)))
	s.wants(want("www", 2, 1))
	if s.Lacks.Drain { // then the engine alone keeps it from being stopped
		s.wants(want("www", 1, 2), want("www", 2, 1))
	}
	_ = s.Platform.Apply(s.t.Context(), s.ref, s.named(), s.d) // nobody can acknowledge it
	s.stays("the last answer stands, and nothing that it may serve is stopped", func(o rollout.Observation) bool {
		return o.NoData && reflect.DeepEqual(o.Served, before.Served) && find(o, group("www", 1)).Running == 2
	})
	if s.Client != nil {
		if got := s.asked(10, s.host("www")); got[1] != 10 {
			s.t.Errorf("users are still those of release 1, and answered by %v", got)
		}
	}
	s.Mute(s.ref, false)
	s.settle()
}

// tiers has two releases of two services, each with users of its own.
func tiers(s *stage) {
	for n := 1; n <= 2; n++ {
		s.release(n, service("www", Well, "backend"), service("backend", Well))
	}
	s.wants(want("www", 1, 1), want("www", 2, 1), want("backend", 1, 1), want("backend", 2, 1))
	s.edges(
		s.public("www", to("www", 1, spillway.Percent(50)), to("www", 2, spillway.Percent(50))),
		private("backend", group("www", 1), to("backend", 1, spillway.Whole)),
		private("backend", group("www", 2), to("backend", 2, spillway.Whole)),
	)
	s.settle()
	if s.Client == nil {
		return
	}
	both := map[int]bool{}
	for range 60 {
		a := s.ask(s.host("www"), "/peer/backend")
		both[a.Release] = true
		if peer := s.behind(a); peer.Service != "backend" || peer.Release != a.Release {
			s.t.Fatalf("www of release %d reaches %s of release %d", a.Release, peer.Service, peer.Release)
		}
	}
	if len(both) != 2 {
		s.t.Errorf("half of the users each, and the answers are of %v", both)
	}
	s.wants(want("www", 1, 1), want("www", 2, 1), want("backend", 2, 1))
	s.edges( // backend.2 serves both from now on
		s.public("www", to("www", 1, spillway.Whole)),
		private("backend", group("www", 1), to("backend", 2, spillway.Whole)),
		private("backend", group("www", 2), to("backend", 2, spillway.Whole)),
	)
	s.settle()
	a := s.ask(s.host("www"), "/peer/backend")
	if peer := s.behind(a); a.Release != 1 || peer.Release != 2 {
		s.t.Errorf("www of release %d reaches backend of release %d, want 1 and 2", a.Release, peer.Release)
	}
}

// behind is the answer that an answer of /peer tells.
func (s *stage) behind(a answer) answer {
	s.t.Helper()
	var peer answer
	if err := json.Unmarshal([]byte(a.Value), &peer); err != nil {
		s.t.Fatalf("the peer answers %q: %v", a.Value, err)
	}
	return peer
}

func tracks(s *stage) {
	s.both(Well)
	canary := to("www", 2, 0)
	canary.Track, canary.Within = "canary", spillway.Whole
	stable := to("www", 1, spillway.Whole)
	main, own := s.public("www", canary, stable), s.public("www", canary)
	main.Rules = []spillway.Rule{{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Track"}, Value: "beta"}, Track: "canary"}}
	own.Hosts, own.Only = []string{s.host("own")}, "canary"
	own.Backends = []spillway.Backend{canary}
	own.Backends[0].Weight = spillway.Whole
	s.edges(main, own)
	s.settle()
	if s.Client == nil {
		return
	}
	if got := s.asked(20, s.host("www")); got[1] != 20 {
		s.t.Errorf("users without the header are answered by %v", got)
	}
	for range 10 {
		if a := s.ask(s.host("www"), "/", "X-Track", "beta"); a.Release != 2 {
			s.t.Fatalf("a user with the header is answered by release %d", a.Release)
		}
		if a := s.ask(s.host("www"), "/", "X-Track", "alpha"); a.Release != 1 {
			s.t.Fatalf("a user with another value in the header is answered by release %d", a.Release)
		}
	}
	if got := s.asked(10, s.host("own")); got[2] != 10 {
		s.t.Errorf("users of the own host are answered by %v", got)
	}
}

func trial(s *stage) {
	s.both(Fails)
	s.d.Route.Trial = &spillway.Trial{
		ID: 7, Release: 2, Stable: 1, Candidate: []spillway.Group{group("www", 2)}, Budget: 1000, Margin: spillway.Percent(1), Tolerance: 100,
	}
	s.edges(s.public("www", to("www", 1, spillway.Percent(50)), to("www", 2, spillway.Percent(50))))
	s.apply()
	s.eventually("the trial is served", func(o rollout.Observation) bool {
		return s.acknowledged(o) && o.Served.Trial != nil && o.Served.Trial.ID == 7
	})
	if s.Client == nil || s.Lacks.Trials {
		return
	}
	o := s.eventually("the candidate is found harmful", func(o rollout.Observation) bool {
		for range 10 {
			if _, err := s.send(s.t.Context(), http.MethodGet, s.host("www"), "/"); err != nil {
				s.t.Fatal(err)
			}
		}
		return o.Evidence != nil && o.Evidence.Verdict == spillway.Harmful
	})
	if e := o.Evidence; e.Trial != 7 || e.Failures == 0 || e.Failures != e.Requests || e.BaseFails != 0 || e.Baseline == 0 || e.Reason == "" {
		s.t.Errorf("the evidence is %+v", *e)
	}
	if o.Served.Generation != s.d.Route.Generation {
		s.t.Errorf("generation %d is served, asked was %d", o.Served.Generation, s.d.Route.Generation)
	}
	if s.Lacks.Tripwire {
		return
	}
	for _, b := range o.Served.Edges[0].Backends {
		if b.Group.Release == 2 && b.Weight != 0 || b.Group.Release == 1 && b.Weight != spillway.Whole {
			s.t.Errorf("the candidate was not taken out: %+v", b)
		}
	}
	if got := s.asked(20, s.host("www")); !o.Evidence.Tripped || got[1] != 20 {
		s.t.Errorf("tripped %v, and answers of %v", o.Evidence.Tripped, got)
	}
	s.apply()
	s.stays("a repeated apply does not undo it", func(o rollout.Observation) bool { return o.Evidence != nil && o.Evidence.Tripped })
}

func counts(s *stage) {
	if s.Client == nil || s.Lacks.Traffic {
		s.t.Skip("no requests, or they are not counted")
	}
	s.both(Well)
	s.asked(30, s.host("www"))
	s.eventually("30 requests are counted", func(o rollout.Observation) bool {
		if g := find(o, group("www", 2)); g.Traffic.Requests != 0 {
			s.t.Fatalf("nobody asked it: %+v", g)
		}
		g := find(o, group("www", 1))
		return g.Traffic.Requests == 30 && g.Traffic.Failures == 0
	})
}
