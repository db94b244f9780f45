package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestSilent_SaysWhereLogsMayBe(t *testing.T) {
	config := spillway.App{Name: "castle", Services: []spillway.Service{{Name: "backend"}, {Name: "www"}}}
	saved := reconcile.Saved{Spec: rollout.Spec{App: "castle", Releases: map[int]spillway.Release{
		1: {Number: 1, Config: config, Groups: map[string]int{"www": 1, "backend": 1}},
		2: {Number: 2, Config: config, Groups: map[string]int{"www": 2, "backend": 1}},
	}}}
	const gone = "throws away what a pod wrote with the pod"
	for _, c := range []struct {
		q    spillway.LogQuery
		says []string
	}{
		{spillway.LogQuery{Release: 1}, []string{"no replicas of release 1 of castle", gone, "spillway.dev/release=1", "spillway events -a castle"}},
		{spillway.LogQuery{Release: 9}, []string{"has no release 9", "spillway releases -a castle"}},
		{spillway.LogQuery{Release: 2, Service: "backend"}, []string{"those of backend are of release 1: spillway logs -a castle --service backend --release 1"}},
		{spillway.LogQuery{Release: 2, Service: "www"}, []string{gone}},
		{spillway.LogQuery{Replica: "castle-www-1-x"}, []string{"named castle-www-1-x", gone, "spillway ps -a castle"}},
		{spillway.LogQuery{Service: "ww"}, []string{"no release of castle has a service ww"}},
	} {
		err := silent(saved, c.q)
		for _, text := range c.says {
			if !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), text) {
				t.Errorf("%+v: %v; want %q in it", c.q, err, text)
			}
		}
	}
}
