package spillway

import (
	"encoding/json"
	"time"
)

// Route is what the engine asks of the data plane for one app: how requests are divided between groups.
// It names no replica; a platform adds Endpoints and makes a Table of it. It is complete, never a difference.
type Route struct {
	// Generation rises by one with every change of the route that the engine asks for, and never
	// falls. The data plane acknowledges the generation that it serves.
	Generation int64  `json:"generation"`
	Edges      []Edge `json:"edges"` // sorted by Service, then From
	// Rules are those of routes. Each leads to the edges whose Target is what it names.
	Rules []HTTPRule `json:"rules,omitempty"`
	Trial *Trial     `json:"trial,omitempty"`
	// Over is the newest trial whose candidate the engine knows to have been tripped: whom this route gives
	// users was decided with that known. The data plane refuses a route that would undo a trip of a later trial.
	Over int64 `json:"over,omitempty"`
}

// Edge is one way into a service: from the public (From is zero) by host name or by address, or from one
// group of the same app that needs it.
type Edge struct {
	Service string   `json:"service"`
	From    Group    `json:"from,omitzero"`
	Hosts   []string `json:"hosts,omitempty"`  // public edge only
	TLS     *TLS     `json:"tls,omitempty"`    // public edge only: its hosts are served over HTTPS too
	Target  string   `json:"target,omitempty"` // the Target.Name by which rules of the route lead here; "" = none does
	// Protocol is what the service behind the edge speaks. With TCP, connections are passed on instead of
	// requests, and there are no hosts, rules and servers by URL.
	Protocol Protocol `json:"protocol,omitempty"`
	Listen   []string `json:"listen,omitempty"` // public edge of TCP only: the addresses where it is reached: ":6379"
	// Only is the track that the hosts of this edge always reach, or "standby" for the dark colour of a
	// blue-green service; "" = users are divided.
	Only string `json:"only,omitempty"`
	// Rules send requests to the backends of a track whatever their bucket; the first that fits wins. A
	// rule whose track has no backend here fits nothing. Public edge only.
	Rules []Rule `json:"rules,omitempty"`
	// Backends and their weights: first those of tracks by name, then stable, then the candidate. The last
	// one has the lowest buckets, so that a candidate of weight w has the buckets [0, w) and a track of
	// share s the highest. Weights sum to Whole, or the list is empty: then every request is answered
	// 503 with the reason Closed.
	Backends []Backend `json:"backends"`
	Closed   string    `json:"closed,omitempty"` // why there is no backend: "recreate: www is being replaced"
}

// Rule sends the requests that fit to a track; "" is stable, and its candidate.
type Rule struct {
	Match
	Track string `json:"track"`
}

// Backend is one group behind an edge, or servers that Spillway does not run.
type Backend struct {
	Group Group `json:"group,omitzero"`
	// Release is the release that a request given to this backend is a request of: the number in the
	// X-Spillway-Release header. It can be newer than Group.Release when the service did not change.
	Release int    `json:"release"`
	Weight  Share  `json:"weight"`
	Track   string `json:"track,omitempty"` // "" = stable, or the candidate for stable
	// Within is the part of the requests that a rule sends to the backends of its track, where there are
	// several: stable and its candidate divide what stable gets. They sum to Whole; 0 where no tracks divide.
	Within Share  `json:"within,omitempty"`
	Color  string `json:"color,omitempty"` // "blue" or "green" of a blue-green service. The route is the only record of it
	// URLs are the servers of a track that has no release; Group and Release are then zero, and the track
	// is named in the X-Spillway-Release header instead.
	URLs []string `json:"urls,omitempty"`
	// Protocol is what its replicas speak, "" = HTTP/1.1: while a release moves a service from one protocol to
	// another, the backends of an edge differ. They all speak TCP, or none does.
	Protocol Protocol `json:"protocol,omitempty"`
	Announce Announce `json:"proxy_protocol,omitempty"` // TCP only: how its replicas are told who connects
}

// Name identifies the backend in counts: its group, "www.4", or "www@legacy" for servers of a track.
func (b Backend) Name(service string) string {
	if len(b.URLs) > 0 {
		return service + "@" + b.Track
	}
	return b.Group.String()
}

// Trial tells the data plane that a candidate is being judged, so that it can count by release, judge
// every answer and, when the candidate is harmful, move it to weight 0 by itself (the tripwire).
type Trial struct {
	ID        int64           `json:"id"`               // number of the rollout; evidence is kept while it stays the same
	Release   int             `json:"release"`          // the candidate
	Stable    int             `json:"stable"`           // what it is compared with
	Candidate []Group         `json:"candidate"`        // groups that only the candidate release has
	Budget    int             `json:"budget"`           // failed requests that it may cost; math.MaxInt32 = any number: it is a way back
	Margin    Share           `json:"margin"`           // a certificate says: error rate < stable's + Margin
	Tolerance int             `json:"tolerance"`        // hundredths: 100 = "not worse", 200 = "less than 2x stable"
	Limit     Share           `json:"limit"`            // absolute gate: error rate above it is harmful where no comparison is possible; 0 = half
	Memory    json.RawMessage `json:"memory,omitempty"` // evidence to start from when the data plane has none for ID

	Track     string               `json:"track,omitempty"`     // the track whose release is tried; "" = stable
	Users     Share                `json:"users,omitempty"`     // the budget as a share of the users; 0 = Budget counts
	Latency   []Slower             `json:"latency,omitempty"`   // gates on latency; none = latency is not judged
	Warmup    Duration             `json:"warmup,omitempty"`    // see App.Warmup
	Synthetic map[string]Synthetic `json:"synthetic,omitempty"` // by public service, while the trial lasts
}

// Slower is one gate on latency.
type Slower struct {
	Quantile int      `json:"quantile,omitempty"` // 50, 75, 90, 95 or 99; 0 = all five, averaged
	Factor   int      `json:"factor,omitempty"`   // hundredths: slower than so many times stable is harmful; 0 = Limit counts
	Limit    Duration `json:"limit,omitempty"`    // absolute: the quantile above it is harmful
}

// Table is a Route with the replicas that serve it now: all that the data plane needs for one app.
type Table struct {
	App    Ref    `json:"app"`
	Route  Route  `json:"route"`
	Cohort Cohort `json:"cohort,omitzero"`
	// Revision rises with every table of the app that a platform pushes, also when only endpoints
	// changed. A table with a lower revision than the one served is refused as ErrStale.
	Revision  int64          `json:"revision"`
	Listeners []EdgeListener `json:"listeners,omitempty"` // one per private edge
	Endpoints []Endpoint     `json:"endpoints"`           // replicas that may get new requests, and those that drain
}

// EdgeListener is the loopback address at which one group reaches a service that it needs.
type EdgeListener struct {
	Service string `json:"service"`
	From    Group  `json:"from"`
	Address string `json:"address"` // "127.0.0.1:20017"
}

// Endpoint is one replica as the data plane sees it.
type Endpoint struct {
	Replica  string `json:"replica"` // "www.4-2"
	Group    Group  `json:"group"`
	Address  string `json:"address"`            // "127.0.0.1:20018"
	Draining bool   `json:"draining,omitempty"` // takes no new request; its open ones are still counted
}

// Report is what the data plane says about one app.
type Report struct {
	App        Ref                `json:"app"`
	Revision   int64              `json:"revision"`   // of the table that it serves
	Generation int64              `json:"generation"` // of that table's route
	Edges      []Edge             `json:"edges"`      // as they are served: a tripped candidate has weight 0 here
	InFlight   map[string]int     `json:"in_flight"`  // open requests by replica name; draining ones included
	Counts     map[string]Traffic `json:"counts"`     // since the proxy started, by Backend.Name ("www.4")
	Evidence   *Evidence          `json:"evidence,omitempty"`
	Memory     json.RawMessage    `json:"memory,omitempty"` // the trial's whole state, for safe keeping
	// Dead says what cannot be used, and why: servers of tracks by URL, files of certificates by path, what an
	// authority does not give by "certificate of shop.example.com", and private and public addresses that another
	// program has ("127.0.0.1:20017", ":6379"). All are tried again.
	Dead map[string]string `json:"dead,omitempty"`
	Hold *Hold             `json:"hold,omitempty"` // nil = requests pass
}

// Hold is that the proxy lets new requests to the public hosts of an app wait. The zero value is none.
type Hold struct {
	Since   time.Time `json:"since,omitzero"`
	For     Duration  `json:"for"`     // how long a request waits until it is refused, up to 10 minutes
	Waiting int       `json:"waiting"` // requests that wait, also for a replica
}

// Traffic counts the answers of one group.
type Traffic struct {
	Requests int64 `json:"requests"` // sent to the group, retries included
	Failures int64 `json:"failures"` // 5xx, reset, no connection, timeout
	P50      int64 `json:"p50_us"`   // microseconds, of the last minute; 0 without data
	P95      int64 `json:"p95_us"`
	P99      int64 `json:"p99_us"`
	// Rate is requests a second over the last minute, or over the time since the first one.
	Rate float64 `json:"rate"`
}

// Verdict is what a gate says about a candidate.
type Verdict string

// The verdicts.
const (
	Undecided Verdict = "undecided"  // evidence in neither direction yet
	Certified Verdict = "healthy"    // worse than the margin is ruled out
	Harmful   Verdict = "harmful"    // the candidate is worse; roll back
	NoTraffic Verdict = "no-traffic" // nobody asked it anything
	NoData    Verdict = "no-data"    // the source of counts is down; says nothing about the candidate
)

// Evidence is the state of a trial in numbers that a person can check.
type Evidence struct {
	Trial     int64     `json:"trial"`  // Trial.ID
	Margin    Share     `json:"margin"` // for which Verdict was made
	Verdict   Verdict   `json:"verdict"`
	Requests  int64     `json:"requests"` // answered by the candidate
	Failures  int64     `json:"failures"` // of those, failed: what it has spent of the budget
	Baseline  int64     `json:"baseline"` // answered by stable during the trial
	BaseFails int64     `json:"base_fails"`
	Chance    string    `json:"chance,omitempty"`  // "1 in 400": how likely this is if the candidate were fine
	Needs     int64     `json:"needs,omitempty"`   // about how many more candidate requests a certificate takes
	Tripped   bool      `json:"tripped,omitempty"` // the data plane took the candidate out of the route
	Reason    string    `json:"reason,omitempty"`  // one sentence with the numbers, for people
	Cause     string    `json:"cause,omitempty"`   // Harmful: "errors", "limit", "budget" or "latency"
	At        time.Time `json:"at,omitzero"`       // of the last change of the verdict
}
