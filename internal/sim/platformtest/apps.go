package platformtest

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func unknown(s *stage) {
	for _, ref := range []spillway.Ref{s.ref, s.ref + "@staging"} {
		if o, err := s.Platform.Observe(s.t.Context(), ref); err != nil || !reflect.DeepEqual(o, rollout.Observation{}) {
			s.t.Errorf("observe %s: %+v, %v; want the zero observation", ref, o, err)
		}
		if err := s.Platform.Forget(s.t.Context(), ref); err != nil {
			s.t.Errorf("forget %s: %v, want nil", ref, err)
		}
	}
}

func watches(s *stage) {
	var mu sync.Mutex
	changes := map[spillway.Ref]int{}
	changed := func() int {
		mu.Lock()
		defer mu.Unlock()
		return changes[s.ref]
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	// Owned by this test, ended by cancel and waited for below.
	go func() {
		ended <- s.Platform.Watch(ctx, func(ref spillway.Ref) {
			mu.Lock()
			defer mu.Unlock()
			changes[ref]++
		})
	}()
	rises := func(what string, before int) {
		s.t.Helper()
		if !s.Lacks.Watch {
			s.eventually("who watches is told that "+what, func(rollout.Observation) bool { return changed() > before })
		}
	}
	s.serve(1)
	rises("an app came to be", 0)
	s.wants(want("www", 1, 2))
	before := changed()
	s.settle()
	rises("a replica became ready", before)
	before = changed()
	s.kill()
	rises("a replica died", before)
	select {
	case err := <-ended:
		s.t.Fatalf("watch ended before its context: %v", err)
	default:
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil && ctx.Err() == nil {
			s.t.Errorf("watch: %v", err)
		}
	case <-time.After(s.Patience):
		s.t.Error("watch does not end with its context")
	}
}

// remove takes everything of the app away, in the order of the engine: users first.
func (s *stage) remove() {
	s.t.Helper()
	s.edges()
	s.apply()
	s.eventually("the route is gone", s.acknowledged)
	s.wants()
	s.apply()
	s.eventually("the replicas are gone", func(o rollout.Observation) bool {
		for _, g := range o.Groups {
			if g.Running > 0 {
				return false
			}
		}
		return true
	})
}

func forgotten(s *stage) {
	for range 2 {
		s.serve(1)
		s.remove()
		var err error
		for deadline := time.Now().Add(s.Patience); time.Now().Before(deadline); s.Pass() {
			if err = s.Platform.Forget(s.t.Context(), s.ref); err == nil {
				break
			}
		}
		if err != nil {
			s.t.Fatalf("forget: %v", err)
		}
		unknown(s)
		if s.Client != nil {
			if a, err := s.send(s.t.Context(), http.MethodGet, s.host("www"), "/"); err == nil && a.Status == http.StatusOK {
				s.t.Errorf("a forgotten app answers: %+v", a)
			}
		}
		s.d = rollout.Desired{} // an app of the same name begins from the beginning
	}
}

func apart(s *stage) {
	other := newStage(s.t, s.Bench, s.ref+"@staging")
	s.serve(1)
	other.serve(1)
	boots := map[string]bool{}
	if s.Client != nil {
		boots = s.boots(s.host("www"), 1)
		if more := other.boots(other.host("www"), 1); maps.Equal(boots, more) {
			s.t.Errorf("%v serves %s, and %s too", boots, s.ref, other.ref)
		}
	}
	before := s.observe()
	other.release(2, service("www", Crash))
	other.wants(want("www", 1, 2), want("www", 2, 1))
	other.apply()
	other.eventually("it crashes", func(o rollout.Observation) bool { return find(o, group("www", 2)).Crashes > 0 })
	other.remove()
	o := s.observe()
	was, is := find(before, group("www", 1)), find(o, group("www", 1))
	if !s.settled(o) || len(o.Groups) != 1 || was.Restarts != is.Restarts || is.Crashes != 0 || is.Problem != "" {
		s.t.Errorf("before %+v, after %+v", was, o)
	}
	if s.Client != nil && !maps.Equal(boots, s.boots(s.host("www"), 1)) {
		s.t.Error("the replicas of one app were replaced because another went")
	}
}

// alike has apps, services and needs whose names give the same text when they are put together carelessly: the
// service b-www of the app P beside the service www of the app P-b, or what www of release 1 needs, backend-1, beside
// www-1-backend of release 1.
func alike(s *stage) {
	const need = "backend-1"
	var stages []*stage
	var hosts []string
	for _, x := range []struct{ ref, service string }{{"", "b-www"}, {"-b", "www"}, {"--b", "www"}, {"@b", "www"}} {
		other := s
		if x.ref != "" {
			other = newStage(s.t, s.Bench, s.ref+spillway.Ref(x.ref))
		}
		www := other.public(x.service, to(x.service, 1, spillway.Whole))
		other.release(1, service(x.service, Well, need), service(need, Well), service(x.service+"-1-backend", Well))
		other.wants(want(x.service, 1, 1), want(need, 1, 1), want(x.service+"-1-backend", 1, 1))
		other.edges(www, private(need, group(x.service, 1), to(need, 1, spillway.Whole)))
		other.apply()
		stages, hosts = append(stages, other), append(hosts, www.Hosts[0])
	}
	for i, x := range stages {
		x.eventually("what is asked for is there", x.settled)
		if s.Client == nil {
			continue
		}
		app, _, _ := strings.Cut(string(x.ref), "@")
		a := x.ask(hosts[i], "/peer/"+need)
		if peer := x.behind(a); a.App != app || peer.App != app || peer.Service != need {
			s.t.Errorf("a user of %s is answered by %s, and behind it by %s of %s", x.ref, a.App, peer.Service, peer.App)
		}
	}
}

// long are names of the greatest length, which differ in their last character.
func long(s *stage) {
	app := s.ref + spillway.Ref(strings.Repeat("a", 40-len(s.ref)))
	www, backend := strings.Repeat("w", 29)+"1", strings.Repeat("w", 29)+"2"
	for _, ref := range []spillway.Ref{app, app[:39] + "b", app + "@" + spillway.Ref(strings.Repeat("e", 30))} {
		x := newStage(s.t, s.Bench, ref)
		x.release(1, service(www, Well, backend), service(backend, Well))
		x.wants(want(www, 1, 1), want(backend, 1, 1))
		edge := x.public(www, to(www, 1, spillway.Whole))
		edge.Hosts = []string{strings.ReplaceAll(string(ref[36:40]), "@", "-") + "." + strings.ReplaceAll(string(ref), "@", ".") + ".test"}
		x.edges(edge, private(backend, group(www, 1), to(backend, 1, spillway.Whole)))
		x.settle()
		if s.Client == nil {
			continue
		}
		a := x.ask(edge.Hosts[0], "/peer/"+backend)
		if peer := x.behind(a); a.App != string(ref[:40]) || a.Service != www || peer.Service != backend || peer.App != a.App {
			s.t.Errorf("%s: %+v", ref, a)
		}
	}
}
