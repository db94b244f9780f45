package main

import (
	"context"

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

// draft is the table of an app file, as if it were deployed as release 1 of nothing.
func draft(app spillway.Ref, config spillway.App) spillway.Table {
	r := spillway.Release{App: app, Number: 1, Config: config, Groups: map[string]int{}}
	for _, s := range config.Services {
		r.Groups[s.Name] = 1
	}
	return spillway.Table{App: app, Route: rollout.Preview(r), Cohort: config.Cohort}
}
