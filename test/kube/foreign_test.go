//go:build kube

package kube

import (
	"errors"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// TestForeign_AServiceOfAGroupsNameHoldsUpNoRoute: as long as the group is kept, its Service is refused. Routes that lead
// elsewhere are served none the less, with all that goes.
func TestForeign_AServiceOfAGroupsNameHoldsUpNoRoute(t *testing.T) {
	p, namespace := newPlatform(t, "")
	pinned := push(t.Context(), t, "answer")
	foreign := &core.Service{
		ObjectMeta: meta.ObjectMeta{Name: "castle-www-2", Namespace: namespace},
		Spec:       core.ServiceSpec{Ports: []core.ServicePort{{Port: 80}}},
	}
	create(t.Context(), t, connect(t), foreign)

	group := func(service string, n int) spillway.Group { return spillway.Group{Service: service, Release: n} }
	releases, wants := map[int]spillway.Release{}, []rollout.Want{}
	for n := 1; n <= 2; n++ {
		r := spillway.Release{App: "castle", Number: n, Groups: map[string]int{"www": n, "backend": n}, Artefacts: map[string]spillway.Artefact{}}
		for _, name := range []string{"backend", "www"} {
			s := spillway.Service{Name: name, Run: spillway.Command{Exec: []string{"/program"}}, Health: spillway.DefaultProbe(), Stop: spillway.DefaultStop(), Scale: 1}
			if name == "www" {
				s.Host, s.Needs = []string{"foreign." + namespace + ".test"}, []string{"backend"}
			}
			r.Config.Services, r.Artefacts[name] = append(r.Config.Services, s), spillway.Artefact{Image: pinned}
			wants = append(wants, rollout.Want{Group: group(name, n), Replicas: 1, Release: n})
		}
		r.Config.Name, releases[n] = "castle", r
	}
	edge := func(service string, from spillway.Group, n int) spillway.Edge {
		return spillway.Edge{Service: service, From: from, Backends: []spillway.Backend{{Group: group(service, n), Release: n, Weight: spillway.Whole}}}
	}
	public := edge("www", spillway.Group{}, 1)
	public.Target, public.Hosts = "www", releases[1].Config.Services[1].Host

	// A canary of release 2 that has no users, and the way back from it.
	canary := []spillway.Edge{public, edge("backend", group("www", 1), 1), edge("backend", group("www", 2), 2)}
	for i, edges := range [][]spillway.Edge{canary, canary[:2]} {
		d := rollout.Desired{Groups: wants, Route: spillway.Route{Generation: int64(i + 1), Edges: edges}}
		served := func() bool {
			if err := p.Apply(t.Context(), "castle", releases, d); !errors.Is(err, spillway.ErrConflict) && !errors.Is(err, spillway.ErrStale) {
				t.Fatalf("want the foreign Service told, got %v", err)
			}
			o, err := p.Observe(t.Context(), "castle")
			return err == nil && !o.NoData && o.Served.Generation == d.Route.Generation
		}
		for end := time.Now().Add(time.Minute); !served(); <-time.After(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("route %d is not served", i+1)
			}
		}
	}
}
