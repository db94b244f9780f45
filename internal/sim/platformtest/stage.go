package platformtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// stage is one app on the bench, with what was last asked for it.
type stage struct {
	*Bench
	t        *testing.T
	ref      spillway.Ref
	releases map[int]spillway.Release
	d        rollout.Desired
}

// newStage makes a stage that is cleared at the end of the test.
func newStage(t *testing.T, b *Bench, ref spillway.Ref) *stage {
	s := &stage{Bench: b, t: t, ref: ref, releases: map[int]spillway.Release{}}
	t.Cleanup(s.clear)
	return s
}

// clear removes all of the app in the order of the engine: its users first.
func (s *stage) clear() {
	if s.d.Route.Generation == 0 && len(s.d.Groups)+len(s.d.Tasks) == 0 {
		return
	}
	ctx := context.WithoutCancel(s.t.Context())
	closed := rollout.Desired{Groups: s.d.Groups, Route: spillway.Route{Generation: s.d.Route.Generation + 1}}
	gone := rollout.Desired{Route: closed.Route}
	empty := len(s.d.Groups)+len(s.d.Route.Edges)+len(s.d.Tasks) == 0 // then it was removed already, and nobody serves its route
	var err error
	for deadline := time.Now().Add(s.Patience); time.Now().Before(deadline); s.Pass() {
		if err = s.Platform.Apply(ctx, s.ref, s.named(), closed); err != nil {
			continue
		}
		o, failed := s.Platform.Observe(ctx, s.ref)
		if err = failed; err != nil || !empty && o.Served.Generation < closed.Route.Generation {
			continue
		}
		closed, empty = gone, true
		if err = s.Platform.Apply(ctx, s.ref, nil, gone); err != nil {
			continue
		}
		if err = s.Platform.Forget(ctx, s.ref); err == nil {
			return
		}
	}
	s.t.Errorf("the app cannot be removed: %v", err)
}

// host is a public name of the app.
func (s *stage) host(service string) string {
	return service + "." + strings.ReplaceAll(string(s.ref), "@", "-in-") + ".test"
}

// service is one that runs Play.
func service(name, does string, needs ...string) spillway.Service {
	ms := func(n int) spillway.Duration { return spillway.Duration(time.Duration(n) * time.Millisecond) }
	return spillway.Service{
		Name: name, Scale: 1, Needs: needs, Env: map[string]string{Variable: does}, Strategy: spillway.Rolling,
		Health: spillway.Probe{Path: "/healthz", Interval: ms(100), Timeout: ms(5000), Start: ms(60_000), Healthy: 1, Unhealthy: 2},
		Stop:   spillway.Stop{Signal: "SIGTERM", Grace: ms(5000), Drain: ms(20_000)},
	}
}

// release makes release n of the app, in which every service has changed.
func (s *stage) release(n int, services ...spillway.Service) {
	slices.SortFunc(services, func(a, b spillway.Service) int { return strings.Compare(a.Name, b.Name) })
	name, _, _ := strings.Cut(string(s.ref), "@")
	r := spillway.Release{
		App: s.ref, Number: n, Config: spillway.App{Name: name, Services: services, Budget: spillway.DefaultBudget},
		Artefacts: map[string]spillway.Artefact{}, Groups: map[string]int{}, Created: time.Unix(1_700_000_000, 0).UTC(),
	}
	for _, svc := range services {
		r.Groups[svc.Name] = n
	}
	s.Fit(&r)
	for i := range r.Config.Services {
		svc := &r.Config.Services[i]
		if svc.Env[TaskVariable] != "" {
			svc.Release = svc.Run
		}
		if svc.Env[Variable] == Missing {
			svc.Run = spillway.Command{Exec: []string{"/no/such/program"}}
		}
	}
	s.releases[n] = r
}

func group(service string, release int) spillway.Group {
	return spillway.Group{Service: service, Release: release}
}

func want(service string, release, replicas int) rollout.Want {
	return rollout.Want{Group: group(service, release), Replicas: replicas, Release: release}
}

func to(service string, release int, weight spillway.Share) spillway.Backend {
	return spillway.Backend{Group: group(service, release), Release: release, Weight: weight}
}

// public is the edge of the users of a service.
func (s *stage) public(service string, backends ...spillway.Backend) spillway.Edge {
	return spillway.Edge{Service: service, Hosts: []string{s.host(service)}, Backends: backends}
}

// private is the edge from a group to a service that it needs.
func private(service string, from spillway.Group, backends ...spillway.Backend) spillway.Edge {
	return spillway.Edge{Service: service, From: from, Backends: backends}
}

// wants sets the groups that are wanted.
func (s *stage) wants(wants ...rollout.Want) {
	slices.SortFunc(wants, func(a, b rollout.Want) int {
		if a.Group.Less(b.Group) {
			return -1
		}
		return 1
	})
	s.d.Groups = wants
}

// edges sets the route, with the next generation.
func (s *stage) edges(edges ...spillway.Edge) {
	slices.SortStableFunc(edges, func(a, b spillway.Edge) int {
		switch {
		case a.Service != b.Service:
			return strings.Compare(a.Service, b.Service)
		case a.From == b.From:
			return 0
		case a.From.Less(b.From):
			return -1
		}
		return 1
	})
	s.d.Route = spillway.Route{Generation: s.d.Route.Generation + 1, Edges: edges, Trial: s.d.Route.Trial}
}

// apply applies what is asked for, again if it fails.
func (s *stage) apply() {
	s.t.Helper()
	var err error
	for deadline := time.Now().Add(s.Patience); time.Now().Before(deadline); s.Pass() {
		if err = s.Platform.Apply(s.t.Context(), s.ref, s.named(), s.d); err == nil {
			return
		}
	}
	s.t.Fatalf("apply: %v", err)
}

// named are the releases that the desired state names.
func (s *stage) named() map[int]spillway.Release {
	named := map[int]spillway.Release{}
	for _, w := range s.d.Groups {
		named[w.Release] = s.releases[w.Release]
		named[w.Group.Release] = s.releases[w.Group.Release]
	}
	for _, task := range s.d.Tasks {
		named[task.Release] = s.releases[task.Release]
	}
	return named
}

// settle applies what is asked for and waits until it is so.
func (s *stage) settle() rollout.Observation {
	s.t.Helper()
	s.apply()
	return s.eventually("what is asked for is there", s.settled)
}

// settled reports that the world is as asked for: every replica is ready and no other runs, and the route is
// acknowledged.
func (s *stage) settled(o rollout.Observation) bool {
	for _, w := range s.d.Groups {
		if g := find(o, w.Group); g.Ready != w.Replicas || g.Running != w.Replicas {
			return false
		}
	}
	for _, g := range o.Groups {
		if g.Running > 0 && !slices.ContainsFunc(s.d.Groups, func(w rollout.Want) bool { return w.Group == g.Group }) {
			return false
		}
	}
	return s.acknowledged(o)
}

// acknowledged reports that the route asked for is served. It fails the test when the generation is, and its
// weights are not.
func (s *stage) acknowledged(o rollout.Observation) bool {
	s.t.Helper()
	if o.NoData || o.Served.Generation != s.d.Route.Generation {
		return false
	}
	if got, want := weights(o.Served.Edges), weights(s.d.Route.Edges); got != want {
		s.t.Errorf("generation %d is acknowledged and serves\n%s\nasked was\n%s", o.Served.Generation, got, want)
	}
	return true
}

// weights says what edges do, in a form that can be compared.
func weights(edges []spillway.Edge) string {
	var lines []string
	for _, e := range edges {
		line := fmt.Sprintf("%s from %s %q only %q closed %q:", e.Service, e.From, e.Hosts, e.Only, e.Closed)
		for _, b := range e.Backends {
			line += fmt.Sprintf(" %s=%d", b.Group, b.Weight)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// find gives a group of an observation; the zero value when it is not there.
func find(o rollout.Observation, g spillway.Group) rollout.Group {
	for _, x := range o.Groups {
		if x.Group == g {
			return x
		}
	}
	return rollout.Group{Group: g}
}

func (s *stage) observe() rollout.Observation {
	s.t.Helper()
	o, err := s.Platform.Observe(s.t.Context(), s.ref)
	if err != nil {
		s.t.Fatalf("observe: %v", err)
	}
	for _, g := range o.Groups {
		if g.Ready+g.Draining > g.Running || g.Ready < 0 || g.InFlight < 0 {
			s.t.Errorf("an observation that cannot be: %+v", g)
		}
	}
	return o
}

// eventually looks until something is so, and gives what it saw then.
func (s *stage) eventually(what string, ok func(rollout.Observation) bool) rollout.Observation {
	s.t.Helper()
	for deadline := time.Now().Add(s.Patience); ; s.Pass() {
		o := s.observe()
		if ok(o) {
			return o
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("never happened: %s\nobserved %+v\nwanted %+v", what, o, s.d)
		}
	}
}

// stays looks some times, and fails the test when something is not so.
func (s *stage) stays(what string, ok func(rollout.Observation) bool) {
	s.t.Helper()
	for range 15 {
		if o := s.observe(); !ok(o) {
			s.t.Fatalf("is not so: %s\nobserved %+v\nwanted %+v", what, o, s.d)
		}
		s.Pass()
	}
}

// send makes a request to a public host.
func (s *stage) send(ctx context.Context, method, host, path string, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{Status: resp.StatusCode}
	if json.Unmarshal(text, &a) != nil {
		a.Text = string(text)
	}
	return a, nil
}

// ask makes a request that has to be answered with 200 by the program.
func (s *stage) ask(host, path string, header ...string) answer {
	s.t.Helper()
	a, err := s.send(s.t.Context(), http.MethodGet, host, path, header...)
	if err != nil || a.Status != http.StatusOK || a.Boot == "" {
		s.t.Fatalf("GET http://%s%s: %v, %+v", host, path, err, a)
	}
	return a
}

// boots lists the n processes that answer at a host. A new one may get few requests at first, so it asks until it
// has seen all of them.
func (s *stage) boots(host string, n int) map[string]bool {
	s.t.Helper()
	return s.seen(n, func() string { return s.ask(host, "/").Boot })
}

// learns is how long a gateway may take to lead users to a replica that is ready again.
const learns = 10 * time.Second

// seen collects what many requests give, until there are n different ones. It fails the test when there are fewer.
func (s *stage) seen(n int, ask func() string) map[string]bool {
	s.t.Helper()
	seen, until := map[string]bool{}, time.Now().Add(learns)
	for i := 0; i < 20 || len(seen) < n && (i < 2000 || time.Now().Before(until)); i++ {
		seen[ask()] = true
	}
	if len(seen) != n {
		s.t.Errorf("%d different ones answer, want %d: %v", len(seen), n, seen)
	}
	return seen
}

// traffic is a stream of requests to one host.
type traffic struct {
	cancel   context.CancelFunc
	done     chan struct{}
	releases map[int]int // answers by release
	failures []string
}

// load sends requests until they are stopped, one after the other, each of a new user.
func (s *stage) load(host string) *traffic {
	ctx, cancel := context.WithCancel(s.t.Context())
	load := &traffic{cancel: cancel, done: make(chan struct{}), releases: map[int]int{}}
	// Owned by whoever stops it, which ends it and waits; the end of the test ends it too.
	go func() {
		defer close(load.done)
		for ctx.Err() == nil {
			a, err := s.send(context.WithoutCancel(ctx), http.MethodGet, host, "/")
			if err != nil || a.Status != http.StatusOK {
				load.failures = append(load.failures, fmt.Sprintf("%v %+v", err, a))
			}
			load.releases[a.Release]++
			<-time.After(2 * time.Millisecond)
		}
	}()
	return load
}

// stop ends the requests and fails the test when one has failed.
func (l *traffic) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	<-l.done
	if len(l.failures) > 0 {
		t.Errorf("%d of %v requests failed, the first with %s", len(l.failures), l.releases, l.failures[0])
	}
}
