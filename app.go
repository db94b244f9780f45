package spillway

import (
	"slices"
	"time"
)

// Ref names one installation of an app: "castle" is the app castle in its production environment,
// "castle@staging" is its staging environment. It is a DNS label, or two with "@" between.
type Ref string

// App is what one spillway.yaml describes, with every default filled in.
type App struct {
	Name     string    `json:"app"`      // DNS label, 1-40 characters: "castle"
	Services []Service `json:"services"` // sorted by name; at least one
	Cohort   Cohort    `json:"cohort,omitzero"`
	Budget   int       `json:"budget"`   // failed requests that a rollout may cost; at least 1, default 20
	Watch    Duration  `json:"watch"`    // how long the old release stays warm after 100 %; default 10m, 0 = not at all
	Deadline Duration  `json:"deadline"` // longest stay in one step beyond its hold; default 10m
	Gates    []Gate    `json:"gates,omitempty"`
	Thin     Thin      `json:"thin,omitempty"` // what to do when a step's evidence stays too thin; default pause
}

// Service is one component of an app: a command (or image) with replicas and mostly a port.
type Service struct {
	Name     string            `json:"name"` // DNS label, 1-30 characters: "www"
	Build    *Build            `json:"build,omitempty"`
	Run      Command           `json:"run,omitzero"`
	Host     []string          `json:"host,omitempty"`  // public names; none = private to the app
	Needs    []string          `json:"needs,omitempty"` // names of services whose address it is given; sorted
	Env      map[string]string `json:"env,omitempty"`
	Health   Probe             `json:"health"`
	Scale    int               `json:"scale"` // replicas, default 1
	Limits   Limits            `json:"limits,omitzero"`
	Strategy Strategy          `json:"strategy"`        // default rolling
	Steps    []StepSpec        `json:"steps,omitempty"` // canary only; default DefaultSteps
	Surge    Count             `json:"surge"`           // rolling: replicas above scale; default 25 %
	// Unavailable is how many replicas may be missing during a rolling rollout; default 0. When both
	// it and Surge come to 0, Surge counts as 1.
	Unavailable Count `json:"unavailable"`
	Stop        Stop  `json:"stop"`
}

// Public reports whether the service has a public name, and so an edge for users.
func (s Service) Public() bool { return len(s.Host) > 0 }

// Build says how a service's artefact is made, once per release, in a clean copy of the source.
type Build struct {
	Dir     string  `json:"dir"`              // relative to the app file, slash-separated, inside its directory; "." is the directory itself
	Command Command `json:"command,omitzero"` // zero: found from the directory (go.mod, package.json)
}

// Command is a program and its arguments, or one line for the shell. The zero value is no command.
type Command struct {
	Shell string   `json:"shell,omitempty"` // run as /bin/sh -c Shell
	Exec  []string `json:"exec,omitempty"`  // run directly; wins over Shell
}

// Zero reports whether there is no command.
func (c Command) Zero() bool { return c.Shell == "" && len(c.Exec) == 0 }

// Probe says when a replica is ready and when it has to be restarted. A zero Path is a TCP connect to
// the replica's port; else an HTTP GET must answer 200-399 within Timeout.
type Probe struct {
	Path      string   `json:"path,omitempty"` // "/healthz"; "" = TCP connect
	Interval  Duration `json:"interval"`       // between probes of a ready replica; default 2s (a starting replica is probed faster)
	Timeout   Duration `json:"timeout"`        // default 1s
	Start     Duration `json:"start"`          // grace before failures of a starting replica count; default 60s: not ready by then = restarted
	Healthy   int      `json:"healthy"`        // successes in a row until ready; default 1
	Unhealthy int      `json:"unhealthy"`      // failures in a row until not ready and restarted; default 3
}

// Limits bound what one replica may use. Zero fields are unlimited.
type Limits struct {
	CPU    Milli `json:"cpu,omitempty"`
	Memory Bytes `json:"memory,omitempty"`
}

// Stop says how a replica is asked to end after its last request.
type Stop struct {
	Signal string   `json:"signal"` // "SIGTERM" (default), "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"
	Grace  Duration `json:"grace"`  // from the signal to SIGKILL; default 10s
	Drain  Duration `json:"drain"`  // longest wait for open requests before the signal; default 30s
}

// Cohort says what identifies a user. The first source that a request carries wins; a request with
// none gets a signed first-party cookie. The key hashes to the bucket that decides its release.
type Cohort struct {
	Key []KeySource `json:"key,omitempty"`
}

// KeySource is one place of a request that can identify a user.
type KeySource struct {
	Kind string `json:"kind"` // "header" or "cookie"
	Name string `json:"name"` // "X-Account-Id"
}

// Strategy is how traffic moves from one release to the next.
type Strategy string

// The strategies. Each compiles to a list of Steps.
const (
	Rolling   Strategy = "rolling"    // replica by replica, weight follows capacity; the default
	Canary    Strategy = "canary"     // weight by steps with a hold, each certified by the judge
	BlueGreen Strategy = "blue-green" // full second set in the dark, then one atomic switch
	Recreate  Strategy = "recreate"   // stop the old, then start the new: there is a gap, and it says so
)

// Strategies lists every strategy in the order of the documentation.
var Strategies = []Strategy{Rolling, Canary, BlueGreen, Recreate}

// StepSpec is one step of a canary as the file gives it: "5% 2m" or "pause".
type StepSpec struct {
	Weight Share    `json:"weight"`          // of the users
	Hold   Duration `json:"hold,omitempty"`  // shortest stay
	Pause  bool     `json:"pause,omitempty"` // waits for a person; Weight is that of the step before
}

// Thin is the app's choice when a step is still undecided at its deadline.
type Thin string

// The choices for thin evidence.
const (
	ThinPause   Thin = "pause"   // stay at the weight and wait for a person (default)
	ThinPromote Thin = "promote" // go on without a certificate
)

// Gate is one condition that a rollout must keep, in one of three forms:
//
//	errors < 2x stable     Metric "errors", Factor 2 (in hundredths: 200)
//	errors < 2%            Metric "errors", Limit 2 %
//	restarts <= 0          Metric "restarts", Max 0
type Gate struct {
	Text   string `json:"text"`             // as written
	Metric string `json:"metric"`           // "errors" or "restarts"
	Factor int    `json:"factor,omitempty"` // hundredths of stable's rate; 0 = not relative
	Limit  Share  `json:"limit,omitempty"`  // absolute share of requests; 0 = none
	Max    int    `json:"max,omitempty"`    // restarts that are still fine
}

// Defaults of the app file, in one place so that documentation, schema and parser cannot disagree.
const (
	DefaultBudget   = 20
	DefaultWatch    = Duration(10 * time.Minute)
	DefaultDeadline = Duration(10 * time.Minute)
)

// DefaultSteps are the steps of a canary that names none.
func DefaultSteps() []StepSpec {
	return []StepSpec{
		{Weight: Percent(1)},
		{Weight: Percent(5), Hold: Duration(time.Minute)},
		{Weight: Percent(25), Hold: Duration(2 * time.Minute)},
		{Weight: Percent(50), Hold: Duration(2 * time.Minute)},
	}
}

// DefaultProbe is the probe of a service that says nothing about its health: a TCP connect.
func DefaultProbe() Probe {
	return Probe{Interval: Duration(2 * time.Second), Timeout: Duration(time.Second), Start: Duration(time.Minute), Healthy: 1, Unhealthy: 3}
}

// DefaultStop is how a replica is stopped when the file says nothing.
func DefaultStop() Stop {
	return Stop{Signal: "SIGTERM", Grace: Duration(10 * time.Second), Drain: Duration(30 * time.Second)}
}

// Service finds a service by name.
func (a App) Service(name string) (Service, bool) {
	i := slices.IndexFunc(a.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return a.Services[i], true
}

// Hosts lists the public names of all services, sorted, without repetition.
func (a App) Hosts() []string {
	var hosts []string
	for _, s := range a.Services {
		hosts = append(hosts, s.Host...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
