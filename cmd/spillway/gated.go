package main

import (
	"context"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/metrics"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// gated is a platform that also knows what the external gates of rollouts answer, and notes which trials want requests of
// our own.
type gated struct {
	reconcile.Platform
	asker  *metrics.Asker
	trials *trials
}

var _ reconcile.Platform = gated{}

// Observe adds the answers to what the platform sees.
func (g gated) Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error) {
	o, err := g.Platform.Observe(ctx, app)
	o.Readings = g.asker.Readings(app)
	return o, err
}

// Apply also has exactly those gates asked that are wanted.
func (g gated) Apply(ctx context.Context, app spillway.Ref, releases map[int]spillway.Release, d rollout.Desired) error {
	g.asker.Set(app, d.Watch, releases)
	g.trials.note(app, d)
	return g.Platform.Apply(ctx, app, releases, d)
}
