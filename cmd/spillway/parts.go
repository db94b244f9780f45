package main

import (
	"context"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/store"
)

// records is what a server remembers: in its state directory, or in the cluster.
type records interface {
	reconcile.Store
	// Releases gives those that are stored, newest first. ErrNotFound when there is no such app.
	Releases(ctx context.Context, app spillway.Ref) ([]spillway.Release, error)
	// Prune forgets the releases that drop names, and gives them.
	Prune(ctx context.Context, app spillway.Ref, drop func(reconcile.Saved) []int) ([]int, error)
	Events(ctx context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error)
	AppendEvents(ctx context.Context, app spillway.Ref, events []spillway.Event) error
	// LastEvent is the ID of the newest event.
	LastEvent(ctx context.Context, app spillway.Ref) (int64, error)
	// Newest is the newest event of a kind at a time; false when there is none.
	Newest(ctx context.Context, app spillway.Ref, kind spillway.EventKind, at time.Time) (spillway.Event, bool, error)
}

// runner is where releases run, with what people want to know of it beyond what decisions need.
type runner interface {
	reconcile.Platform
	// Run supervises until ctx ends.
	Run(ctx context.Context) error
	Replicas(ctx context.Context, app spillway.Ref) ([]spillway.Replica, error)
	Logs(ctx context.Context, app spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error
	Doctor(ctx context.Context) []spillway.Check
	// Halt stops everything that runs.
	Halt(ctx context.Context) error
}

// dataPlane is who serves users, as far as it can be asked. Errors are ErrUnavailable when it does not answer, or
// has no words for it.
type dataPlane interface {
	Info(ctx context.Context) (proxy.Info, error)
	Report(ctx context.Context, app spillway.Ref) (spillway.Report, error)
	Routes(ctx context.Context, app spillway.Ref) ([]spillway.RouteLine, error)
	Explain(ctx context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error)
	Hold(ctx context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error)
}

// wishes is what people ask of apps by resources of the cluster: see state.Store.
type wishes interface {
	Hold(ctx context.Context, app spillway.Ref) error
	Asked(ctx context.Context, app spillway.Ref) (state.Wish, error)
	Answer(ctx context.Context, app spillway.Ref, generation int64, mistakes error) error
	Withdraw(ctx context.Context, app spillway.Ref) error
	// Refused says that the newest spec is no release, and why; "" = it is one, or nobody has looked at it yet.
	Refused(ctx context.Context, app spillway.Ref) (string, error)
	// AllRefused are the apps of which Refused says something, with that; those too that have never been a release.
	AllRefused(ctx context.Context) (map[spillway.Ref]string, error)
}

var (
	_ wishes    = (*state.Store)(nil)
	_ records   = (*store.Store)(nil)
	_ runner    = (*local.Platform)(nil)
	_ dataPlane = (*proxy.Client)(nil)
)
