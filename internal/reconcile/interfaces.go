package reconcile

import (
	"context"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Platform is somewhere releases run. Implementations: local, kube, sim.
type Platform interface {
	// Observe says what runs and what the data plane serves for the app now. A data plane that does
	// not answer is not an error: Observation.NoData says so. An app that it has never seen is the
	// zero Observation.
	Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error)
	// Apply makes the world like d: at once, or by starting what will get there by itself. It is
	// idempotent and may fail half way. The releases are those that d names.
	Apply(ctx context.Context, app spillway.Ref, releases map[int]spillway.Release, d rollout.Desired) error
	// Forget removes what is kept of an app that is gone: its logs. An app that it does not know is nil.
	Forget(ctx context.Context, app spillway.Ref) error
	// Watch calls changed whenever an observation of an app may differ. It blocks until ctx ends.
	Watch(ctx context.Context, changed func(app spillway.Ref)) error
}

// Division is where the data plane of a platform can divide the requests of one edge between groups.
type Division string

// The divisions. The zero value is EveryEdge.
const (
	EveryEdge   Division = ""       // also between the tiers of an app: it sees their requests
	PublicEdges Division = "public" // only where users come in, so all callers of a changed service change with it
	// ByReplicas is PublicEdges by the number of ready replicas instead of weights, and without counts of answers.
	ByReplicas Division = "replicas"
)

// Saved is what a store holds of one app.
type Saved struct {
	Version int64 // of the status; 0 = never saved
	Status  rollout.Status
	Spec    rollout.Spec
}

// Store is what is remembered. Implementations: store, kube, sim.
type Store interface {
	// Apps lists the apps that have a release or an intent, sorted.
	Apps(ctx context.Context) ([]spillway.Ref, error)
	// Load gives status, releases and open intents of an app. ErrNotFound when there is none.
	Load(ctx context.Context, app spillway.Ref) (Saved, error)
	// Save replaces the status and appends the events in one transaction, if the saved version is
	// still the one given; ErrStale otherwise. Intents up to status.Intent count as acted on.
	Save(ctx context.Context, app spillway.Ref, version int64, status rollout.Status, events []spillway.Event) error
	// AddRelease numbers and stores a release together with the intent to deploy it, in one
	// transaction. It fills in and returns release.Number, intent.Seq and intent.Release, and
	// replaces each 0 in release.Groups (a changed service) by the new number.
	AddRelease(ctx context.Context, release spillway.Release, intent spillway.Intent) (spillway.Release, spillway.Intent, error)
	// AddIntent numbers and stores an intent. ErrNotFound when there is no such app.
	AddIntent(ctx context.Context, app spillway.Ref, intent spillway.Intent) (spillway.Intent, error)
	// Remove forgets an app that is gone.
	Remove(ctx context.Context, app spillway.Ref) error
}
