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
	Budget   int       `json:"budget"` // failed requests that a rollout may cost; at least 1, default 20
	// BudgetUsers is the budget as a share of the users instead: no more than this part of those who come
	// during the rollout may have a failed request for it. 0 = Budget counts.
	BudgetUsers Share    `json:"budget_users,omitempty"`
	Watch       Duration `json:"watch"`    // how long the old release stays warm after 100 %; default 10m, 0 = not at all
	Deadline    Duration `json:"deadline"` // longest stay in one step beyond its hold; default 10m
	Gates       []Gate   `json:"gates,omitempty"`
	Thin        Thin     `json:"thin,omitempty"` // what to do when a step's evidence stays too thin; default pause
	// Warmup is how long a candidate may be slow at first: its answers in this time after its first one are
	// no evidence about its latency. They are about its errors. Default 0.
	Warmup Duration `json:"warmup,omitempty"`
	// Delay is how long a deploy waits before it begins, so that it can be cancelled. Default 0.
	Delay  Duration `json:"delay,omitempty"`
	Freeze []Window `json:"freeze,omitempty"` // when no deploy begins unless it is forced; rollbacks always may
	Keep   int      `json:"keep,omitempty"`   // releases kept, besides those in use; 0 = DefaultKeep
	// Prometheus is the base URL of the store that gates of metric "query" ask; "" = none.
	Prometheus string `json:"prometheus,omitempty"`
	// Routes are rules for requests that the hosts and tracks of services do not say enough about, in their order.
	Routes []HTTPRule `json:"routes,omitempty"`
}

// Window is a time in which no deploy begins: every week from one time of day to another, or once.
// "Fri 16:00 - Mon 08:00 Europe/Berlin" or "2026-12-24 00:00 - 2026-12-27 00:00 UTC".
type Window struct {
	Text  string    `json:"text"`           // as written
	From  Moment    `json:"from,omitzero"`  // weekly
	To    Moment    `json:"to,omitzero"`    // weekly; may be before From: then it spans the end of the week
	Zone  string    `json:"zone,omitempty"` // of the weekly form, as in the tz database; "" = UTC
	Begin time.Time `json:"begin,omitzero"` // once; a weekly window has none
	End   time.Time `json:"end,omitzero"`   // once
}

// Moment is a minute of a week in some time zone: Monday 00:00 is {time.Monday, 0}.
type Moment struct {
	Day    time.Weekday `json:"day"`
	Minute int          `json:"minute"` // of the day, 0 to 1439
}

// Service is one component of an app: a command (or image) with replicas and mostly a port.
type Service struct {
	Name  string `json:"name"` // DNS label, 1-30 characters: "www"
	Build *Build `json:"build,omitempty"`
	// Image is an OCI image to run, as it was written: "postgres:17". A release pins it by digest (Artefact.Image).
	// A service has Image or Build or neither: then it runs in the source as it is.
	Image string  `json:"image,omitempty"`
	Run   Command `json:"run,omitzero"` // with Image it may be zero: then the image's own command is run
	// Port is where the program listens in its container, 1 to 65535; 0 = nobody connects to it (Image), or the platform
	// chooses. A process is told its port as $PORT: this one in a container, a free one on a machine with others.
	Port     int      `json:"port,omitempty"`
	Host     []string `json:"host,omitempty"` // public names, or "*.example.com" for all below one; none = private to the app
	Protocol Protocol `json:"protocol,omitempty"`
	// Listen are the addresses at which the proxy takes connections for a service that speaks TCP: ":6379".
	Listen []string `json:"listen,omitempty"`
	// Announce is how a replica that speaks TCP is told the address of the client; "" = it is not.
	Announce Announce          `json:"proxy_protocol,omitempty"`
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
	// Max is the largest size that it may be scaled to; 0 = no limit. Scale is then the smallest.
	Max int `json:"max,omitempty"`
	// Targets leave the size between Scale and Max to an autoscaler; zero = to people. Max is given then.
	Targets Targets `json:"targets,omitzero"`
	// Release is run before a replica of a release that changed the service starts for the first time; when it
	// fails, nothing was changed. Once it has succeeded it is not run again for that release. Zero: there is none.
	Release   Command    `json:"release,omitzero"`
	TLS       *TLS       `json:"tls,omitempty"`       // its public names are also served over HTTPS
	Standby   *Standby   `json:"standby,omitempty"`   // blue-green only
	Tracks    []Track    `json:"tracks,omitempty"`    // lanes beside stable, sorted by name
	Synthetic *Synthetic `json:"synthetic,omitempty"` // requests of our own while a candidate is judged
}

// Targets are the shares of its limits that a replica should use in the mean: an autoscaler starts replicas when it
// uses more, and takes some away when it uses less. 0 = that figure does not count. {CPU: 60 %} with limits.cpu 500m
// aims at 0.3 cores a replica.
type Targets struct {
	CPU    Share `json:"cpu,omitempty"`    // of Limits.CPU, which is given then
	Memory Share `json:"memory,omitempty"` // of Limits.Memory, which is given then
	// Tolerance is how far the use may be off, as a part of the target, before the size changes: {CPU: 60 %, Tolerance: 5 %}
	// leaves it between 57 % and 63 %. 0 = what the autoscaler has by itself, 10 % on Kubernetes.
	Tolerance Share `json:"tolerance,omitempty"`
}

// Autoscaled reports whether an autoscaler chooses the size of the service.
func (s Service) Autoscaled() bool { return s.Targets.CPU > 0 || s.Targets.Memory > 0 }

// TLS says where the certificate of public names comes from: from two files on the server's machine, which are
// read again when they change, or, with Auto, from a certificate authority that the data plane asks by ACME
// (RFC 8555), a certificate per name, and asks again before it expires.
type TLS struct {
	Cert string `json:"cert,omitempty"` // absolute path of the PEM certificate chain
	Key  string `json:"key,omitempty"`  // absolute path of the PEM private key

	Auto  bool   `json:"auto,omitempty"`  // from a certificate authority; Cert and Key are then ""
	Email string `json:"email,omitempty"` // Auto: whom the authority may write to; "" = nobody
	CA    string `json:"ca,omitempty"`    // Auto: URL of the authority's ACME directory; "" = Let's Encrypt
	// Root is, with Auto, the absolute path of PEM certificates by which the authority's own server may be known
	// beside those that the machine trusts; "" = none.
	Root string `json:"root,omitempty"`

	// Redirect sends requests by HTTP to HTTPS with 308, once there is a certificate and where there is HTTPS.
	Redirect bool `json:"redirect,omitempty"`
}

// Standby is what a blue-green release keeps of the colour that went dark.
type Standby struct {
	Keep Duration `json:"keep"`           // how long it stays warm after the watch; at least 0
	Host []string `json:"host,omitempty"` // public names that always reach the dark colour
}

// Track is a lane of an environment beside stable that holds a release of its own, or servers that
// Spillway does not run (URLs). Users reach it by a rule of their request, by its own host, or by share.
type Track struct {
	Name     string   `json:"name"`               // DNS label, not "stable": "canary", "legacy"
	Branch   string   `json:"branch,omitempty"`   // of the repository, whose commits a pipeline deploys here
	Replicas int      `json:"replicas,omitempty"` // of the track's release; default 1; 0 with URLs
	Share    Share    `json:"share,omitempty"`    // of the users that no rule sends elsewhere
	Auto     bool     `json:"auto,omitempty"`     // share: auto = Replicas / (Replicas + stable's size)
	Match    []Match  `json:"match,omitempty"`    // requests that belong to it whatever its share; any one is enough
	Host     []string `json:"host,omitempty"`     // public names that always reach it
	URLs     []string `json:"urls,omitempty"`     // "http://10.0.0.1:8080"; the track then has no release
}

// Match is a rule about one request: it carries the header or cookie with this value.
type Match struct {
	KeySource
	Value string `json:"value"` // exact; "*" = any
}

// Synthetic says what requests Spillway itself makes to a service while its candidate is judged and too
// few come from users. Half of them go to the candidate, half to stable; a gateway
// of a cluster deals them like those of users.
type Synthetic struct {
	Path []string `json:"path"` // asked in turn by GET: ["/"]
	Rate int      `json:"rate"` // requests a second, 1 to 100
}

// Public reports whether the service has a public name or address, and so an edge for users.
func (s Service) Public() bool { return len(s.Host)+len(s.Listen) > 0 }

// ContainerPort is the port at which the service's program listens in a container: Port, or DefaultPort for a process,
// which is told it as $PORT. It is 0 for an image to which nobody connects.
func (s Service) ContainerPort() int {
	if s.Port == 0 && s.Image == "" {
		return DefaultPort
	}
	return s.Port
}

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
	Drain  Duration `json:"drain"`  // longest wait for open requests before the signal, 0 = none; default 30s
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

// Gate is one condition that a rollout must keep: METRIC OP VALUE [for WINDOW].
//
//	errors < 2x stable            Factor 200
//	errors < 2%                   Limit 2 %
//	latency < 1.5x stable         Factor 150: p50, p75, p90, p95 and p99 together
//	p95 < 1.2x stable             Factor 120
//	p95 < 300ms                   Value 0.3
//	rps > 5                       Value 5: requests a second of the candidate
//	restarts <= 0                 Max 0
//	cpu < 80%                     Value 0.8: of the limit of a replica, without one of a core
//	memory < 400Mi                Value: bytes of a replica
//	query: up{job="x"} > 0        Source is the PromQL text, Op and Value as behind it
//	http: http://127.0.0.1:9/ok   Source is the URL; it has to answer 2xx
//	run: ./check.sh               Source is a line for the shell; it has to end with 0
type Gate struct {
	Text   string   `json:"text"`              // as written
	Metric string   `json:"metric"`            // the first word of the forms above; "p50", "p75", "p90", "p95", "p99"
	Op     string   `json:"op,omitempty"`      // "<", "<=", ">", ">=", "=="; "" for http and run, and for errors and restarts without DryRun: never above
	Factor int      `json:"factor,omitempty"`  // hundredths of stable's; 0 = not relative
	Limit  Share    `json:"limit,omitempty"`   // errors: absolute share of requests; 0 = none
	Max    int      `json:"max,omitempty"`     // restarts that are still fine
	Value  float64  `json:"value,omitempty"`   // in seconds, requests a second, cores, bytes, or the unit of the query
	For    Duration `json:"for,omitempty"`     // how long it has to be broken before it counts; 0 = at once
	Source string   `json:"source,omitempty"`  // what query, http and run ask
	From   Share    `json:"from,omitempty"`    // it counts from this weight of the candidate on; 0 = always
	DryRun bool     `json:"dry_run,omitempty"` // it is told and has no consequence
}

// External reports whether the gate is asked of something outside: a metric store, a URL, a command.
func (g Gate) External() bool { return g.Metric == "query" || g.Metric == "http" || g.Metric == "run" }

// Defaults of the app file, in one place so that documentation, schema and parser cannot disagree.
const (
	DefaultBudget   = 20
	DefaultWatch    = Duration(10 * time.Minute)
	DefaultDeadline = Duration(10 * time.Minute)
	DefaultKeep     = 50
	DefaultPort     = 8080 // of a process in a container: see Service.ContainerPort
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

// Track finds a track of the service by name.
func (s Service) Track(name string) (Track, bool) {
	i := slices.IndexFunc(s.Tracks, func(t Track) bool { return t.Name == name })
	if i < 0 {
		return Track{}, false
	}
	return s.Tracks[i], true
}

// Lanes lists the names of the tracks that hold a release, of all services, sorted, without repetition.
func (a App) Lanes() []string {
	var names []string
	for _, s := range a.Services {
		for _, t := range s.Tracks {
			if len(t.URLs) == 0 {
				names = append(names, t.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Hosts lists the public names of all services, of their tracks, their standbys and of routes, sorted, without
// repetition.
func (a App) Hosts() []string {
	var hosts []string
	for _, s := range a.Services {
		hosts = append(hosts, s.Host...)
		for _, t := range s.Tracks {
			hosts = append(hosts, t.Host...)
		}
		if s.Standby != nil {
			hosts = append(hosts, s.Standby.Host...)
		}
	}
	for _, r := range a.Routes {
		hosts = append(hosts, r.Hosts...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
