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
	NoData   bool              `json:"no_data,omitempty"`  // the proxy did not answer, or see Silence
	Silence  string            `json:"silence,omitempty"`  // why else there are no data
	Note     string            `json:"note,omitempty"`     // what is good to know and no problem
	Hold     *Hold             `json:"hold,omitempty"`     // the proxy holds requests
	Tracks   []TrackOverview   `json:"tracks,omitempty"`   // besides stable, sorted by name
	Standby  *StandbyOverview  `json:"standby,omitempty"`  // the dark colour that is warm
	Waits    []Wait            `json:"waits,omitempty"`    // deploys that have not begun, in the order in which they will
	// Uncounted: the data plane does not tell what each group of replicas was given; their Traffic and InFlight are 0.
	Uncounted bool   `json:"uncounted,omitempty"`
	Color     string `json:"color,omitempty"` // of what the route served gives the users; "" = not blue-green
}

// TrackOverview is one track beside stable.
type TrackOverview struct {
	Name    string   `json:"name"`
	Release int      `json:"release"`         // that it holds; 0 = none: its users are stable's
	Share   Share    `json:"share"`           // served
	Rules   []string `json:"rules,omitempty"` // "cookie _AUSER_TYPE=canary", "host web-canary.example.com"
	URLs    []string `json:"urls,omitempty"`
	Good    []int    `json:"good,omitempty"`    // releases that it held before, newest first
	Problem string   `json:"problem,omitempty"` // why it cannot be reached
	Traffic Traffic  `json:"traffic,omitzero"`
}

// StandbyOverview is the release that went dark last and is still warm.
type StandbyOverview struct {
	Release int      `json:"release"`
	Left    Duration `json:"left"`  // until it is stopped
	Ready   bool     `json:"ready"` // it could take all traffic now
	Color   string   `json:"color,omitempty"`
	Hosts   []string `json:"hosts,omitempty"`
}

// Wait is a deploy that has not begun.
type Wait struct {
	Release int       `json:"release"`
	Track   string    `json:"track,omitempty"`
	Reason  string    `json:"reason"`      // "the rollout of release 7 to end", "the freeze window …"
	At      time.Time `json:"at,omitzero"` // not before
	By      string    `json:"by,omitempty"`
}

// GateOverview is a gate of the running rollout as it was seen last.
type GateOverview struct {
	Text    string  `json:"text"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"` // "0.93 at 12:04:10"
	DryRun  bool    `json:"dry_run,omitempty"`
}

// RolloutOverview is a rollout in progress.
type RolloutOverview struct {
	ID       int64    `json:"id"`
	Release  int      `json:"release"`
	Stable   int      `json:"stable"`
	Strategy Strategy `json:"strategy"`
	Step     int      `json:"step"` // 1-based
	Steps    int      `json:"steps"`
	Asked    Share    `json:"asked"`  // weight of the candidate in the route asked for
	Served   Share    `json:"served"` // weight of the candidate in the route that the data plane serves
	// Unacknowledged: the route that was asked for last is not known to be served, so that Served may change yet.
	Unacknowledged bool           `json:"unacknowledged,omitempty"`
	Waiting        string         `json:"waiting"` // what it waits for, in words: "2 of 3 replicas of www ready"
	Budget         int            `json:"budget"`
	Users          Share          `json:"users,omitempty"` // the budget as a share of the users; 0 = Budget counts
	Evidence       *Evidence      `json:"evidence,omitempty"`
	Left           Duration       `json:"left,omitempty"` // of the hold or the watch
	Back           bool           `json:"back,omitempty"`
	Reason         string         `json:"reason,omitempty"`
	Began          time.Time      `json:"began"`
	Track          string         `json:"track,omitempty"` // "" = stable
	Gates          []GateOverview `json:"gates,omitempty"` // those that are not part of Evidence
}

// LastRollout is how the previous rollout ended.
type LastRollout struct {
	ID       int64     `json:"id"`
	Release  int       `json:"release"`
	Outcome  Outcome   `json:"outcome"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	Evidence *Evidence `json:"evidence,omitempty"` // the last seen of its trial
	Track    string    `json:"track,omitempty"`    // "" = stable
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
	Track     string     `json:"track,omitempty"`     // "" = stable
	Tasks     []string   `json:"tasks,omitempty"`     // release commands, in their order: "www: bin/migrate"
	// Takes is about how long it takes until 100 % at Rate, the requests a second of the lead service now;
	// 0 without traffic: then it takes as long as it takes until enough requests came.
	Takes  Duration `json:"takes,omitempty"`
	Rate   float64  `json:"rate,omitempty"`
	Frozen string   `json:"frozen,omitempty"` // the freeze window that it would wait for
}

// Change is one difference of a service or setting. Values of settings are never in it.
type Change struct {
	Service string `json:"service,omitempty"` // "" = of the whole app
	What    string `json:"what"`              // "source", "env LOG_LEVEL", "scale 2 -> 3", "new", "gone"
	Restart bool   `json:"restart"`           // replicas are replaced
}

// PlanStep is one step of a plan.
type PlanStep struct {
	Weight Share    `json:"weight"`           // that is asked for
	Served Share    `json:"served,omitempty"` // what the data plane makes of it, at most; 0 = Weight
	Hold   Duration `json:"hold,omitempty"`
	Manual bool     `json:"manual,omitempty"`
	Text   string   `json:"text"` // "1 of 4 replicas of www, certified: errors < stable + 20 points"
}

// LogLine is one line that a replica wrote.
type LogLine struct {
	At      time.Time `json:"at"` // when it was read from the replica's output
	Replica string    `json:"replica"`
	Group   Group     `json:"group"`
	Stream  string    `json:"stream"` // "stdout", "stderr", or StreamNote
	Text    string    `json:"text"`
}

// StreamNote is the stream of what no replica wrote, but the server says about the lines: what of them it leaves out.
const StreamNote = "note"

// LogQuery selects lines. Zero fields select everything.
type LogQuery struct {
	Service string
	Replica string
	Release int  // group's release
	Lines   int  // the newest N of what is stored, then what follows; 0 = 100
	Follow  bool // go on until the context ends
}

// EventQuery selects events of an app.
type EventQuery struct {
	Since int64 // IDs above it
	Tail  int   // only the newest; 0 = all
	Limit int   // at most; 0 = 1000
}

// Check is one finding of doctor.
type Check struct {
	Name   string `json:"name"`  // "cgroups"
	State  string `json:"state"` // "ok", "warn", "fail"
	Text   string `json:"text"`  // what was found
	Remedy string `json:"remedy,omitempty"`
}
