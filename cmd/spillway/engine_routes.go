package main

import (
	"context"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Routes tell what the proxy does with the requests to the hosts of an app.
func (e *engine) Routes(ctx context.Context, app spillway.Ref) ([]spillway.RouteLine, error) {
	if _, err := e.store.Load(ctx, app); err != nil {
		return nil, err
	}
	return e.proxy.Routes(ctx, app)
}

// TestRoute says what would become of a request. The proxy says it, by what it would do.
func (e *engine) TestRoute(ctx context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	if _, err := e.store.Load(ctx, app); err != nil {
		return spillway.RouteAnswer{}, err
	}
	return e.proxy.Explain(ctx, app, q)
}

// Hold has the proxy let new requests to an app wait, or go on. The proxy remembers it, also across its replacement.
func (e *engine) Hold(ctx context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error) {
	if _, err := e.store.Load(ctx, app); err != nil {
		return spillway.Hold{}, err
	}
	return e.proxy.Hold(ctx, app, wait)
}

// draft is the table of an app file, as if it were deployed as release 1 of nothing.
func draft(app spillway.Ref, config spillway.App) spillway.Table {
	r := spillway.Release{App: app, Number: 1, Config: config, Groups: map[string]int{}}
	for _, s := range config.Services {
		r.Groups[s.Name] = 1
	}
	return spillway.Table{App: app, Route: rollout.Preview(r), Cohort: config.Cohort}
}
