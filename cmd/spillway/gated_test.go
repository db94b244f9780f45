package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/metrics"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// bare is a platform that sees one group and takes everything.
type bare struct{ reconcile.Platform }

func (bare) Observe(context.Context, spillway.Ref) (rollout.Observation, error) {
	return rollout.Observation{Groups: []rollout.Group{{Ready: 2}}}, nil
}

func (bare) Apply(context.Context, spillway.Ref, map[int]spillway.Release, rollout.Desired) error {
	return errors.New("applied")
}

func TestGated_AsksTheGatesThatAreWantedAndTellsTheirAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	changed := make(chan spillway.Ref, 10)
	asker := metrics.New(metrics.Config{Changed: func(app spillway.Ref) { changed <- app }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- asker.Run(ctx) }() // ended by cancel, waited for below
	g := gated{bare{}, asker, &trials{}}
	watch := rollout.Watch{Rollout: 3, Release: 8, Stable: 7, Gate: spillway.Gate{Text: "http: ok", Metric: "http", Source: server.URL}}
	if err := g.Apply(ctx, "castle", nil, rollout.Desired{Watch: []rollout.Watch{watch}}); err == nil || err.Error() != "applied" {
		t.Errorf("%v, want what the platform said", err)
	}
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told of the answer")
	}
	o, err := g.Observe(ctx, "castle")
	if err != nil || len(o.Groups) != 1 || len(o.Readings) != 1 || !o.Readings[0].OK || o.Readings[0].Rollout != 3 {
		t.Errorf("observed %+v, %v", o, err)
	}
	g.Apply(ctx, "castle", nil, rollout.Desired{})
	if o, _ := g.Observe(ctx, "castle"); len(o.Readings) != 0 {
		t.Errorf("a gate that nobody wants is still told: %+v", o.Readings)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
