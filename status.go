package spillway

import "time"

// Phase is where an app is between two releases.
type Phase string

// The phases. The zero value is invalid in a saved status; an app that never had a deploy is Healthy with no release.
const (
	Healthy     Phase = "Healthy"     // at rest; the stable release serves with the promised capacity
	Progressing Phase = "Progressing" // the candidate climbs its steps
	Paused      Phase = "Paused"      // the candidate rests at its weight until a person says so
	Promoting   Phase = "Promoting"   // the candidate has all traffic; the old release is warm; the judge watches
	RollingBack Phase = "RollingBack" // the candidate has weight 0; the data plane has not acknowledged it or it still drains
	Degraded    Phase = "Degraded"    // at rest, but the promised capacity is not there, or nothing serves
	Destroying  Phase = "Destroying"  // everything is stopped, and the app is forgotten then
)

// Outcome is how a rollout ended.
type Outcome string

// The outcomes.
const (
	Succeeded  Outcome = "succeeded"   // the candidate became stable
	RolledBack Outcome = "rolled-back" // by itself: the judge, or a crash
	Failed     Outcome = "failed"      // never became ready; the old release serves as before
	Aborted    Outcome = "aborted"     // by a person
	Superseded Outcome = "superseded"  // by a newer deploy
	Cancelled  Outcome = "cancelled"   // by a person, before it got traffic
)

// Verb is what a person or a trigger asks of an app.
type Verb string

// The verbs that reach the engine as intents.
const (
	VerbDeploy   Verb = "deploy"   // Release: make this release stable
	VerbPromote  Verb = "promote"  // skip the remaining holds; during the watch: end it
	VerbPause    Verb = "pause"    // stay at the present weight
	VerbResume   Verb = "resume"   // go on; also lets automatic deploys go on after a rollback
	VerbAbort    Verb = "abort"    // candidate to weight 0, now
	VerbRollback Verb = "rollback" // back to Release, or with 0 to the last good one
	VerbCancel   Verb = "cancel"   // drop the queued deploy, or abort the running one
	VerbScale    Verb = "scale"    // Service to Replicas; Replicas 0 with Auto = as the file says
	VerbRestart  Verb = "restart"  // replace the replicas of Service ("" = all), one by one
	VerbDestroy  Verb = "destroy"  // stop everything; the history goes too
)

// Intent is one verb, stored before it is acted on. The engine acts on intents in the order of Seq,
// and an intent at or below the saved status.Intent has been acted on.
type Intent struct {
	Seq      int64     `json:"seq"` // 1, 2, 3 … per Ref, given by the store
	Verb     Verb      `json:"verb"`
	Release  int       `json:"release,omitempty"`
	Service  string    `json:"service,omitempty"`
	Replicas int       `json:"replicas,omitempty"`
	Auto     bool      `json:"auto,omitempty"`
	Strategy Strategy  `json:"strategy,omitempty"` // deploy only: instead of the file's
	By       string    `json:"by,omitempty"`
	At       time.Time `json:"at"`
	// Track is the lane that it is about; "" = stable for deploy and rollback, for the other verbs whatever
	// rollout runs. Promote with a Track, when no rollout of it runs, makes its release stable.
	Track     string    `json:"track,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"` // deploy: begin then; zero = as soon as it may
	Force     bool      `json:"force,omitempty"`     // deploy: begin in a freeze window and without the app's delay; rollback: to a bad release too
}

// Event is one fact in the history of an app.
type Event struct {
	ID      int64     `json:"id,omitempty"` // given by the store; rises per Ref
	App     Ref       `json:"app,omitempty"`
	At      time.Time `json:"at"`
	Kind    EventKind `json:"kind"`
	Release int       `json:"release,omitempty"` // what it is about
	Rollout int64     `json:"rollout,omitempty"`
	Service string    `json:"service,omitempty"`
	By      string    `json:"by,omitempty"`      // who or which rule
	Text    string    `json:"text"`              // one sentence for people
	Outcome Outcome   `json:"outcome,omitempty"` // EventFinished only
	Track   string    `json:"track,omitempty"`   // of the release that it is about; "" = stable
	Edges   []Edge    `json:"edges,omitempty"`   // EventRoute only: who was given what from At on
}

// EventKind says what sort of fact an Event is.
type EventKind string

// The kinds of event.
const (
	EventAsked    EventKind = "asked"    // a person or trigger asked for something
	EventStarted  EventKind = "started"  // a rollout began
	EventStep     EventKind = "step"     // a rollout reached a weight
	EventPaused   EventKind = "paused"   // a rollout rests
	EventResumed  EventKind = "resumed"  // a rollout goes on
	EventServing  EventKind = "serving"  // the candidate has all traffic (100 %): deploy returns here
	EventAborting EventKind = "aborting" // weight 0 was asked for, with the reason
	EventFinished EventKind = "finished" // a rollout ended, with its Outcome
	EventScaled   EventKind = "scaled"   // a service has a new size
	EventReplica  EventKind = "replica"  // a replica crashed, was restarted, was killed, became ready
	EventHealth   EventKind = "health"   // Healthy became Degraded, or back
	EventIgnored  EventKind = "ignored"  // an intent that had nothing to do, and why
	EventProblem  EventKind = "problem"  // something failed that the user should know
	EventRoute    EventKind = "route"    // the data plane serves another route: Edges has its public edges
	EventTask     EventKind = "task"     // a release command began or ended
	EventGate     EventKind = "gate"     // a gate changed its verdict
)

// Replica is one running copy as people see it.
type Replica struct {
	Name     string       `json:"name"` // "www.4-2"
	Group    Group        `json:"group"`
	State    ReplicaState `json:"state"`
	PID      int          `json:"pid,omitempty"`
	Address  string       `json:"address,omitempty"`
	Started  time.Time    `json:"started,omitzero"`
	Restarts int          `json:"restarts"`
	InFlight int          `json:"in_flight"`
	CPU      Milli        `json:"cpu"`               // used, averaged over the last seconds
	Memory   Bytes        `json:"memory"`            // working set
	Problem  string       `json:"problem,omitempty"` // why it is not ready, in words, with the last probe answer or exit code
	Enforced bool         `json:"enforced"`          // its limits are enforced by a cgroup
}

// ReplicaState is where a replica is in its life.
type ReplicaState string

// The states of a replica.
const (
	Starting ReplicaState = "starting" // the program runs and has not been ready yet
	Ready    ReplicaState = "ready"    // it may get requests
	Unready  ReplicaState = "unready"  // it was ready and its probe fails now
	Waiting  ReplicaState = "waiting"  // it ended and waits for its next start
	Draining ReplicaState = "draining" // it gets no new request and finishes its open ones
	Stopping ReplicaState = "stopping" // it was signalled
)
