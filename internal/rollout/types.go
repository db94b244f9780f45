package rollout

import (
	"time"

	"github.com/spillway-dev/spillway"
)

// Spec is what is wanted of one app.
type Spec struct {
	App spillway.Ref
	// Releases are all releases that exist, by number. Every release that the status or an intent
	// names is here, or has been pruned.
	Releases map[int]spillway.Release
	Intents  []spillway.Intent // not yet acted on (Seq > Status.Intent), in the order of Seq
}

// Status is the engine's memory of one app, saved before anything is applied. The zero value is an app
// that has never been deployed. It names every release that may have replicas or traffic by the engine's will.
type Status struct {
	Phase  spillway.Phase `json:"phase"`
	Stable int            `json:"stable"` // the release that serves; 0 = none yet
	Good   []int          `json:"good"`   // earlier stable releases, newest first, at most 10: rollback targets
	Intent int64          `json:"intent"` // Seq of the last intent acted on

	Rollout  *Rollout `json:"rollout,omitempty"` // the one that runs, if any
	Rollouts int64    `json:"rollouts"`          // how many were started; numbers them
	Queue    *Queued  `json:"queue,omitempty"`   // the newest deploy that waits
	Last     *Result  `json:"last,omitempty"`    // how the last rollout ended
	// Bad are releases that were rolled back by themselves or failed, the last 20; of those that had served well, only
	// those that did harm. None is in Good, here or of a lane, and a rollback goes to one only when it is forced.
	Bad map[int]Blame `json:"bad,omitempty"`

	Sizes   map[string]int   `json:"sizes,omitempty"`   // replicas chosen by scale, by service; absent = as the release says
	Chosen  map[string]int   `json:"chosen,omitempty"`  // replicas that autoscalers chose last, by service; see follow
	Restart map[string]int64 `json:"restart,omitempty"` // how often a restart was asked for, by service
	Held    bool             `json:"held,omitempty"`    // automatic deploys stay away after a rollback until resume
	Lanes   map[string]Lane  `json:"lanes,omitempty"`   // tracks beside stable that hold or held a release, by name
	Standby *Standby         `json:"standby,omitempty"` // the colour that went dark last, while it is kept warm
	Told    Told             `json:"told,omitzero"`     // what the last EventRoute said
	Tripped int64            `json:"tripped,omitempty"` // the newest trial that is known to have been tripped
	// Prepared are the groups whose release commands have succeeded, newest first, at most 200.
	Prepared []spillway.Group `json:"prepared,omitempty"`
	Destroy  bool             `json:"destroy,omitempty"` // everything goes

	// Route is the last route asked for. Route.Generation never falls.
	Route spillway.Route `json:"route"`
	// Wants are the groups last asked for. What is in it is not stopped before its traffic is gone.
	Wants []Want `json:"wants,omitempty"`
	// Drain is how long each group that lost its traffic has been waited for, by Group.String().
	Drain map[string]spillway.Duration `json:"drain,omitempty"`
	// Now is the time of the last decision. Time in a step is added up from the differences, each
	// taken as 0 to maxTick, so a clock that jumps neither skips a hold nor misses a deadline by more.
	Now time.Time `json:"now"`
}

// Lane is a track beside stable. A lane without a release has no users of its own: they are stable's.
type Lane struct {
	Release int     `json:"release"`         // that it holds; 0 = none
	Good    []int   `json:"good,omitempty"`  // releases that it held before, newest first, at most 10
	Queue   *Queued `json:"queue,omitempty"` // the newest deploy to it that waits
}

// Standby is a release that has no users and is ready to take all of them.
type Standby struct {
	Release int               `json:"release"`
	Left    spillway.Duration `json:"left"` // until it is stopped
}

// Told identifies the route that the history was told of last.
type Told struct {
	Generation int64 `json:"generation"`
	Trial      int64 `json:"trial,omitempty"` // whose candidate was tripped then; 0 = none
}

// Rollout is the move of a track from one release to another: of stable from Stable to Release, or of a
// lane from From to Release while Stable is what it is compared with.
type Rollout struct {
	ID       int64              `json:"id"`
	Release  int                `json:"release"`            // the candidate
	Stable   int                `json:"stable"`             // where it returns to; 0 on the first deploy
	Strategy spillway.Strategy  `json:"strategy"`           // of the lead service, or of the deploy command
	Steps    []Step             `json:"steps"`              // the last has Weight Whole
	Step     int                `json:"step"`               // index of the step that it is at or moving to
	Elapsed  spillway.Duration  `json:"elapsed"`            // in this step since it was begun (ready, route and hold)
	Held     spillway.Duration  `json:"held"`               // in this step since the data plane acknowledged its weight
	Routed   bool               `json:"routed"`             // the step's weight has been asked for
	Acked    bool               `json:"acked"`              // and the data plane has acknowledged it
	Passed   bool               `json:"passed"`             // a person let it go on from a pause step
	Exposed  bool               `json:"exposed"`            // the candidate has been given traffic at some time
	Cleared  bool               `json:"cleared"`            // recreate: the old replicas were stopped
	Returned bool               `json:"returned"`           // recreate, rolling back: the new replicas were stopped
	Paused   bool               `json:"paused"`             // by a person, by a pause step or by thin evidence
	Forced   bool               `json:"forced"`             // promote: no more holds and certificates
	Outcome  spillway.Outcome   `json:"outcome,omitempty"`  // RollingBack: how it will have ended
	Reason   string             `json:"reason,omitempty"`   // RollingBack: why; Paused: for what
	Harm     bool               `json:"harm,omitempty"`     // RollingBack: for what the release did, and not for trouble around it
	Back     bool               `json:"back,omitempty"`     // this is a rollback to an older release
	Evidence *spillway.Evidence `json:"evidence,omitempty"` // the last seen
	Memory   []byte             `json:"memory,omitempty"`   // the judge's state, for a data plane that lost it
	Began    time.Time          `json:"began"`
	// Before is Group.Restarts of groups that the candidate found running, by Group.String(): not its doing.
	Before map[string]int `json:"before,omitempty"`
	// Crashed is Group.Crashes of such groups.
	Crashed map[string]int `json:"crashed,omitempty"`
	Track   string         `json:"track,omitempty"` // "" = stable
	From    int            `json:"from,omitempty"`  // lane: the release that it held; 0 = none
	// Prepared: the release commands have been run, or there are none.
	Prepared bool `json:"prepared,omitempty"`
	Begun    bool `json:"begun,omitempty"` // the next release command has been asked for
	// Silent is how long the judge has had no data, since the last resume.
	Silent spillway.Duration `json:"silent,omitempty"`
	// Gates is what was last known of the gates that are not the judge's, by Gate.Text.
	Gates map[string]GateState `json:"gates,omitempty"`
}

// GateState is one gate of a rollout that is not the judge's.
type GateState struct {
	Verdict spillway.Verdict  `json:"verdict"`
	Broken  spillway.Duration `json:"broken,omitempty"` // how long it has been broken without a break
	Silent  spillway.Duration `json:"silent,omitempty"` // how long it has had no data
	At      time.Time         `json:"at,omitzero"`      // of the last answer of one that is asked outside
	Reason  string            `json:"reason,omitempty"`
}

// Queued is a deploy that waits for the present rollout to end.
type Queued struct {
	Release  int               `json:"release"`
	Strategy spillway.Strategy `json:"strategy,omitempty"`
	Back     bool              `json:"back,omitempty"`
	Intent   int64             `json:"intent"`
	Track    string            `json:"track,omitempty"` // "" = stable
	At       time.Time         `json:"at,omitzero"`     // not before
	Force    bool              `json:"force,omitempty"` // also in a freeze window; Back: to a bad release too
	By       string            `json:"by,omitempty"`
}

// Result is how a rollout ended.
type Result struct {
	ID       int64              `json:"id"`
	Release  int                `json:"release"`
	Outcome  spillway.Outcome   `json:"outcome"`
	Reason   string             `json:"reason"`
	At       time.Time          `json:"at"`
	Evidence *spillway.Evidence `json:"evidence,omitempty"` // the last seen of its trial
	Track    string             `json:"track,omitempty"`    // "" = stable
}

// Step is one resting point of a rollout. Candidate and Stable are parts of a service's size.
type Step struct {
	Weight    spillway.Share    `json:"weight"`    // of the users, on the candidate
	Candidate spillway.Share    `json:"candidate"` // capacity that must be ready before the weight moves
	Stable    spillway.Share    `json:"stable"`    // capacity that stays
	Hold      spillway.Duration `json:"hold"`      // shortest stay after the weight is acknowledged
	Manual    bool              `json:"manual"`    // waits for a person at this weight
	Certify   bool              `json:"certify"`   // goes on only with the verdict healthy
}

// Observation is all that is known about the world, possibly some rounds old.
type Observation struct {
	Groups []Group
	// Served is the route that the data plane serves, with the generation that it acknowledges: of a
	// tripped candidate the weight is 0 here although the generation is the one asked for.
	Served spillway.Route
	// NoData: the data plane did not answer; Served and Evidence are the last known.
	NoData bool
	// Silence says why there are no data, where it is not that a proxy of our own does not answer; "" = it is.
	Silence string
	// Away: nobody decided for a while before this, because a server has just begun to. What happened meanwhile was not
	// acted on, so that time counts against no deadline of a step.
	Away bool
	// Stuck is why what was asked for last is not in place though it should be, in words: the platform refuses an object,
	// the data plane a route; "" = it is, or is on its way.
	Stuck string
	// Plain is why the data plane divides users by ready replicas alone and counts no answers, with the next step;
	// "" = it does both as asked. Served has the shares that users really get.
	Plain    string
	Evidence *spillway.Evidence // of Served.Trial
	Memory   []byte             // the judge's state behind Evidence
	Tasks    []TaskState        // of release commands that are wanted or were
	Readings []Reading          // of the external gates that are wanted
	Dead     map[string]string  // servers of tracks that cannot be reached, by URL, with the reason
}

// TaskState is how a task is.
type TaskState struct {
	Task    Task
	Done    bool   // it has ended
	Failed  string // why it failed, in words with its last lines; "" = it did not
	Problem string // why it does not begin, in words with the next step; "" = it runs, or is about to
}

// Task is a command that runs once: the release command of a service. Tasks are equal when they are the same.
type Task struct {
	Rollout int64             `json:"rollout"`
	Service string            `json:"service"`
	Release int               `json:"release"` // whose artefact and configuration it runs with
	Limit   spillway.Duration `json:"limit"`   // it is killed, and failed, when it takes longer
}

// Reading is what an external gate answered last.
type Reading struct {
	Rollout int64
	Gate    string    // Gate.Text
	OK      bool      // the condition holds
	NoData  bool      // nobody could say: the source is down, or does not have what was asked for
	Text    string    // "0.93", "connection refused"
	At      time.Time // when it was asked last
}

// Watch is an external gate that has to be asked again and again.
type Watch struct {
	Rollout int64         `json:"rollout"`
	Release int           `json:"release"` // the candidate
	Stable  int           `json:"stable"`
	Track   string        `json:"track,omitempty"`
	Gate    spillway.Gate `json:"gate"`
	Store   string        `json:"store,omitempty"` // App.Prometheus
}

// Group is all replicas of one spillway.Group that exist.
type Group struct {
	Group    spillway.Group
	Running  int    // replicas that exist in any state
	Draining int    // of those, on their way out: no new requests
	Ready    int    // of those, ready, not draining
	InFlight int    // open requests
	Crashes  int    // ends of replicas that never had been ready, in a row, since the last one became ready
	Restarts int    // ends of replicas that had been ready, since the group exists
	Problem  string // why a replica is not ready, in words; "" when none has a problem
	Told     bool   // Problem says the next step itself: no program has run that could have written why
	Fatal    bool   // waiting longer cannot help: it listens on another port, its command is not found

	// Chosen is how many replicas its autoscaler asks for; 0 = it has none, or that is not known.
	Chosen int
	// Scaling says what keeps its autoscaler from what it should do, in words with the next step; "" = nothing.
	Scaling string

	CPU     float64          // cores used by a replica, the mean of those that are ready
	Memory  spillway.Bytes   // used by a replica, the largest of those that are ready
	Traffic spillway.Traffic // that the data plane gave it
}

// Desired is what must be the case. It is complete: a group that is not in it has no replicas.
// Applying it twice is harmless.
type Desired struct {
	Groups []Want         // sorted by group
	Route  spillway.Route // Generation included
	Tasks  []Task         `json:",omitempty"` // run each once; one that is not here is ended and forgotten
	Watch  []Watch        `json:",omitempty"` // ask these again and again
}

// Want is the number of replicas of one group, or who chooses it.
type Want struct {
	Group    spillway.Group
	Replicas int   `json:"replicas"`          // >= 0
	Release  int   `json:"release"`           // the release whose configuration of the service starts new replicas
	Restart  int64 `json:"restart,omitempty"` // replicas started under a lower number are replaced, one by one, ready before gone
	// Scaling leaves the number to an autoscaler. Zero: Replicas is what runs.
	Scaling Scaling `json:"scaling,omitzero"`
}

// Decision is what to remember and what to do.
type Decision struct {
	Status  Status           // save this and Events, in one transaction, BEFORE applying Desired
	Events  []spillway.Event // what changed and why
	Desired Desired          // complete, never a difference; applying it twice is harmless
	WakeAt  time.Time        // decide again at this time; zero: only when something changes
}
