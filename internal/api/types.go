package api

import (
	"context"
	"io"
	"time"

	"github.com/spillway-dev/spillway"
)

// Engine is all that the API offers to the outside. The server of cmd/spillway implements it on the
// loop, the store and the platform; tests implement it in memory. Errors wrap the sentinels of the root.
type Engine interface {
	Info(ctx context.Context) Info
	Apps(ctx context.Context) ([]spillway.Ref, error)
	Overview(ctx context.Context, app spillway.Ref) (spillway.Overview, error)
	Releases(ctx context.Context, app spillway.Ref) ([]spillway.Release, error) // newest first
	Replicas(ctx context.Context, app spillway.Ref) ([]spillway.Replica, error)
	// Events gives those with ID > since, oldest first, at most limit (0 = 1000); with tail > 0 only the newest tail.
	Events(ctx context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error)
	// Logs calls line for each line until all are told, or with Follow until ctx ends or line fails.
	Logs(ctx context.Context, app spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error
	// Deploy builds the source and asks for the release. log gets the output of the build, line by
	// line. It returns when the release and the intent are stored, not when it serves.
	Deploy(ctx context.Context, r DeployRequest, log func(string)) (DeployResult, error)
	// Plan says what Deploy would do; it builds and changes nothing.
	Plan(ctx context.Context, r DeployRequest) (spillway.Plan, error)
	// Ask stores an intent after checking that it makes sense now (the release exists with its
	// artefacts, the service exists), and wakes the loop.
	Ask(ctx context.Context, app spillway.Ref, intent spillway.Intent) (spillway.Intent, error)
	// Who says which release a user had at a time. Without edges the history does not reach back to it.
	Who(ctx context.Context, app spillway.Ref, q WhoQuery) (Who, error)
	// Routes tell what the proxy does with the requests to the hosts of an app, as it serves them now.
	Routes(ctx context.Context, app spillway.Ref) ([]spillway.RouteLine, error)
	// TestRoute says what would become of a request, which is not made.
	TestRoute(ctx context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error)
	// Hold has the proxy let new requests to the public hosts of an app wait, each for up to a time; with 0, it lets
	// them go on. It gives the hold as it is or, with 0, as it was: zero when there was none.
	Hold(ctx context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error)
	Doctor(ctx context.Context) []spillway.Check
}

// Info describes the server.
type Info struct {
	Version string `json:"version"`
	Dir     string `json:"dir"`             // state directory
	Listen  string `json:"listen"`          // address of the API
	HTTP    string `json:"http"`            // address of the proxy, "[::]:8080"
	HTTPS   string `json:"https,omitempty"` // its address for HTTPS; "" = none
	PID     int    `json:"pid"`
	Proxy   int    `json:"proxy"` // pid of the proxy, 0 = not running
}

// DeployRequest asks for a new release from source.
type DeployRequest struct {
	Source    io.Reader         `json:"-"`             // gzipped tar of the app's directory
	File      string            `json:"file"`          // path of the app file inside Source, "spillway.yaml"
	Env       string            `json:"env,omitempty"` // environment; "" = production
	Strategy  spillway.Strategy `json:"strategy,omitempty"`
	IfRelease int               `json:"if_release,omitempty"` // only when this is the newest release; 0 = always
	Commit    string            `json:"commit,omitempty"`
	Dirty     bool              `json:"dirty,omitempty"`
	By        string            `json:"by,omitempty"` // filled in by the server from who is authenticated
	Note      string            `json:"note,omitempty"`
	Track     string            `json:"track,omitempty"`     // lane to deploy to; "" = stable
	NotBefore time.Time         `json:"not_before,omitzero"` // begin then; zero = as soon as it may
	Force     bool              `json:"force,omitempty"`     // begin in a freeze window, and without the app's delay
	// App and From take the source and artefacts of the release that serves App in the environment From,
	// or of its release Release, instead of Source. Nothing is built.
	App     string `json:"app,omitempty"`
	From    string `json:"from,omitempty"`
	Release int    `json:"release,omitempty"`
}

// HoldRequest asks for a hold, or for its end.
type HoldRequest struct {
	For spillway.Duration `json:"for"` // how long a request waits before it is refused; 0 = let all go on
}

// WhoQuery asks which release a user had.
type WhoQuery struct {
	Key string    // what the cohort's header or cookie carries: an account
	At  time.Time // zero = now
}

// Who is what a user had at a time.
type Who struct {
	App    spillway.Ref   `json:"app"`
	Key    string         `json:"key"`
	At     time.Time      `json:"at"`
	Bucket spillway.Share `json:"bucket"` // 0 to 9,999
	Edges  []WhoEdge      `json:"edges"`  // one for each public service
	// Since is when the route in force at At was taken over; zero when the history does not reach back.
	Since time.Time `json:"since,omitzero"`
	// Loose says why users are not bound to what Edges say; "" = they are.
	Loose string `json:"loose,omitempty"`
	// Doubt says, of a question about now, why users may have something else at the moment; "" = they have this.
	Doubt string `json:"doubt,omitempty"`
}

// WhoEdge is what a user had at one public service.
type WhoEdge struct {
	Service string   `json:"service"`
	Hosts   []string `json:"hosts"`
	Release int      `json:"release"`         // 0 with a track of servers that Spillway does not run
	Track   string   `json:"track,omitempty"` // "" = stable
	// Closed is why nobody was served; "" = somebody was.
	Closed string `json:"closed,omitempty"`
	// Otherwise lists what requests get that fit a rule, as "cookie beta=1: release 8 (track canary)".
	Otherwise []string `json:"otherwise,omitempty"`
}

// DeployResult names what was stored.
type DeployResult struct {
	App      spillway.Ref `json:"app"`
	Release  int          `json:"release"`
	Intent   int64        `json:"intent"`             // follow events until status.Intent >= Intent
	Event    int64        `json:"event"`              // the newest event ID before this deploy: follow from here
	Same     bool         `json:"same,omitempty"`     // nothing differs from the newest release: nothing was stored
	Underway bool         `json:"underway,omitempty"` // with Same: that release is being rolled out
	URLs     []string     `json:"urls,omitempty"`     // where its public services answer
}

// DeployLine is one line of the NDJSON answer to a deploy: exactly one field is set.
type DeployLine struct {
	Log    string        `json:"log,omitempty"`
	Result *DeployResult `json:"result,omitempty"`
	Error  *Error        `json:"error,omitempty"`
}

// Error is an error on the wire.
type Error struct {
	Kind   string                `json:"kind"` // "not found", "conflict", … the text of a sentinel, or "internal"
	Text   string                `json:"text"`
	Fields []spillway.FieldError `json:"fields,omitempty"`
}
