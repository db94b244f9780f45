package local_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// A replica is told of what it needs how it is spoken to, and the table that is pushed says the same.
func TestApply_TellsWhoSpeaksTCP(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) { s.Needs = []string{"cache", "page"} })
	for n, r := range releases {
		r.Config.Services = append(r.Config.Services, spillway.Service{Name: "cache", Protocol: spillway.TCP}, spillway.Service{Name: "page", Protocol: spillway.HTTP})
		releases[n] = r
	}
	d := www(1, 1)
	d.Route.Edges = append(d.Route.Edges, spillway.Edge{Service: "cache", From: d.Groups[0].Group, Protocol: spillway.TCP, Closed: "not yet"})
	b.apply(releases, d)
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	var env []string
	if err := json.Unmarshal([]byte(b.ask("www.1-1", "/env")), &env); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CACHE_URL=tcp://127.0.0.1:", "PAGE_URL=http://127.0.0.1:"} {
		if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, want) }) {
			t.Errorf("%s… is missing in %q", want, env)
		}
	}
	b.router.mu.Lock()
	defer b.router.mu.Unlock()
	if !slices.ContainsFunc(b.router.tables["shop"].Route.Edges, func(e spillway.Edge) bool {
		return e.Service == "cache" && e.Protocol == spillway.TCP
	}) {
		t.Errorf("the table has the edges %+v", b.router.tables["shop"].Route.Edges)
	}
}
