package spillway

import "time"

// Overview is what people want to know of one app now. It is derived from the saved status and an
// observation, and never stored.
type Overview struct {
	App      Ref               `json:"app"`
	Phase    Phase             `json:"phase"`
	Stable   int               `json:"stable"` // 0 = nothing serves yet
	Rollout  *RolloutOverview  `json:"rollout,omitempty"`
	Services []ServiceOverview `json:"services"`        // sorted by name
	Queue    int               `json:"queue,omitempty"` // release that waits
	Last     *LastRollout      `json:"last,omitempty"`
	Good     []int             `json:"good,omitempty"`     // earlier stable releases, newest first: rollback targets
	Held     bool              `json:"held,omitempty"`     // automatic deploys stay away until resume
	Intent   int64             `json:"intent"`             // the last intent acted on
	Problems []string          `json:"problems,omitempty"` // each with the reason and the next step
	NoData   bool              `json:"no_data,omitempty"`  // the proxy did not answer
}

// RolloutOverview is a rollout in progress.
type RolloutOverview struct {
	ID       int64     `json:"id"`
	Release  int       `json:"release"`
	Stable   int       `json:"stable"`
	Strategy Strategy  `json:"strategy"`
	Step     int       `json:"step"` // 1-based
	Steps    int       `json:"steps"`
	Asked    Share     `json:"asked"`   // weight of the candidate in the route asked for
	Served   Share     `json:"served"`  // weight of the candidate in the route that the data plane serves
	Waiting  string    `json:"waiting"` // what it waits for, in words: "2 of 3 replicas of www ready"
	Budget   int       `json:"budget"`
	Evidence *Evidence `json:"evidence,omitempty"`
	Left     Duration  `json:"left,omitempty"` // of the hold or the watch
	Back     bool      `json:"back,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Began    time.Time `json:"began"`
}

// LastRollout is how the previous rollout ended.
type LastRollout struct {
	ID       int64     `json:"id"`
	Release  int       `json:"release"`
	Outcome  Outcome   `json:"outcome"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	Evidence *Evidence `json:"evidence,omitempty"` // the last seen of its trial
}

// ServiceOverview is one service of an app.
type ServiceOverview struct {
	Name   string          `json:"name"`
	Hosts  []string        `json:"hosts,omitempty"`
	Size   int             `json:"size"` // replicas promised
	Groups []GroupOverview `json:"groups"`
}

// GroupOverview is the replicas of a service in one release.
type GroupOverview struct {
	Group    Group   `json:"group"`
	Role     string  `json:"role"` // "stable", "candidate", "both", "leaving"
	Want     int     `json:"want"`
	Running  int     `json:"running"`
	Ready    int     `json:"ready"`
	InFlight int     `json:"in_flight"`
	Weight   Share   `json:"weight"` // served on the public edge; on a private service the share of its callers' requests
	Problem  string  `json:"problem,omitempty"`
	Traffic  Traffic `json:"traffic,omitzero"`
}

// Plan is what a deploy would do.
type Plan struct {
	App       Ref        `json:"app"`
	Release   int        `json:"release"` // the number it would get
	From      int        `json:"from"`    // the stable release that it is compared with; 0 = first deploy
	Changes   []Change   `json:"changes"` // empty = nothing to do
	Strategy  Strategy   `json:"strategy"`
	Steps     []PlanStep `json:"steps"`
	Worst     string     `json:"worst"` // "if release 4 fails every request, at most 20 requests fail"
	Budget    int        `json:"budget"`
	Gap       bool       `json:"gap,omitempty"`       // recreate: nothing serves in between
	Unchanged []string   `json:"unchanged,omitempty"` // services that keep their replicas
}

// Change is one difference of a service or setting. Values of settings are never in it.
type Change struct {
	Service string `json:"service,omitempty"` // "" = of the whole app
	What    string `json:"what"`              // "source", "env LOG_LEVEL", "scale 2 -> 3", "new", "gone"
	Restart bool   `json:"restart"`           // replicas are replaced
}

// PlanStep is one step of a plan.
type PlanStep struct {
	Weight Share    `json:"weight"`
	Hold   Duration `json:"hold,omitempty"`
	Manual bool     `json:"manual,omitempty"`
	Text   string   `json:"text"` // "1 of 4 replicas of www, certified: errors < stable + 20 points"
}

// LogLine is one line that a replica wrote.
type LogLine struct {
	At      time.Time `json:"at"` // when it was read from the replica's output
	Replica string    `json:"replica"`
	Group   Group     `json:"group"`
	Stream  string    `json:"stream"` // "stdout" or "stderr"
	Text    string    `json:"text"`
}

// LogQuery selects lines. Zero fields select everything.
type LogQuery struct {
	Service string
	Replica string
	Release int  // group's release
	Lines   int  // the newest N of what is stored, then what follows; 0 = 100
	Follow  bool // go on until the context ends
}

// Check is one finding of doctor.
type Check struct {
	Name   string `json:"name"`  // "cgroups"
	State  string `json:"state"` // "ok", "warn", "fail"
	Text   string `json:"text"`  // what was found
	Remedy string `json:"remedy,omitempty"`
}
