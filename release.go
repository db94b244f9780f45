package spillway

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// Release is one immutable, numbered state of a whole app: its file, its artefacts, its source. It is
// never rebuilt and never edited; rolling back is deploying an older one again.
type Release struct {
	App       Ref                 `json:"ref"`
	Number    int                 `json:"number"` // 1, 2, 3 … per Ref; 0 is "no release"
	Config    App                 `json:"config"`
	Source    Source              `json:"source"`
	Artefacts map[string]Artefact `json:"artefacts"` // by service name
	// Groups says for each service which group serves it in this release: the number of the release
	// in which the service last changed. Groups[s] <= Number. A service that did not change keeps the
	// group, and so the replicas, that it had.
	Groups  map[string]int `json:"groups"`
	Created time.Time      `json:"created"`
	By      string         `json:"by,omitempty"`   // who asked: "root", "token ci"
	Note    string         `json:"note,omitempty"` // free text of the deployer
	// File is the text of the app file, so that the same source can be released in another environment.
	File string `json:"file,omitempty"`
	// Track is the lane that it was made for; "" = stable. In a release for a lane every service that needs
	// a changed one has a group of its own too, so that its requests stay in the lane.
	Track string `json:"track,omitempty"`
}

// Source is where a release came from.
type Source struct {
	Commit string `json:"commit,omitempty"` // full hash of the checked-out commit, "" when not in git
	Dirty  bool   `json:"dirty,omitempty"`  // the working tree differed from Commit
	Digest string `json:"digest"`           // "sha256:…" of the packed source
}

// Artefact is what a service runs: a directory, addressed by its content, an image, or an image of a directory.
type Artefact struct {
	Digest string `json:"digest"` // "sha256:…" over names, modes and contents; of an image that was not built here: its own
	Dir    string `json:"dir"`    // absolute; the working directory of replicas; read-only by convention; "" = nothing was built
	Source string `json:"source"` // "sha256:…" of what it was built from: the same source is not built twice; "" = nothing was built
	// Image is what a container of the service runs, pinned: "registry.example.com/shop/castle-www@sha256:…".
	// "" = it runs as a process of the server's machine.
	Image string `json:"image,omitempty"`
}

// Built reports whether there is a directory that was built: not so for a service of a foreign image.
func (a Artefact) Built() bool { return a.Dir != "" || a.Source != "" }

// Group is all replicas of one service in one release-of-change: "www.4" is the replicas of www as
// release 4 changed it. Replicas of a group are interchangeable.
type Group struct {
	Service string `json:"service"`
	Release int    `json:"release"`
}

// String prints "www.4".
func (g Group) String() string { return fmt.Sprintf("%s.%d", g.Service, g.Release) }

// Less orders groups by service, then release.
func (g Group) Less(h Group) bool {
	if g.Service != h.Service {
		return g.Service < h.Service
	}
	return g.Release < h.Release
}

// Group gives the group that serves a service in this release; false when the release has no such service.
func (r Release) Group(service string) (Group, bool) {
	n, ok := r.Groups[service]
	return Group{Service: service, Release: n}, ok
}

// Fingerprint identifies everything about a service in this release that a running replica depends on:
// artefact, image and port, commands, environment, needs and which of them speak TCP (it is told so in NAME_URL),
// probe and whether it is made by HTTP/2, limits and stop. Two releases in which a service has the same fingerprint share
// its replicas. Scale, targets, hosts and strategy are not part of it: they change without a restart. It is "" when the
// release has no such service.
func (r Release) Fingerprint(service string) string {
	s, ok := r.Config.Service(service)
	if !ok {
		return ""
	}
	var tcp []string
	for _, need := range s.Needs {
		if peer, _ := r.Config.Service(need); peer.Protocol == TCP {
			tcp = append(tcp, need)
		}
	}
	var probed Protocol // in which a replica is asked for its path, when that is not HTTP/1.1
	if s.Health.Path != "" && (s.Protocol == H2C || s.Protocol == GRPC) {
		probed = H2C // as for GRPC
	}
	// What came later is left out where it is empty: stored releases keep the fingerprint that they had.
	text, err := json.Marshal(struct {
		Artefact string
		Run      Command
		Needs    []string
		TCP      []string `json:",omitempty"`
		Env      map[string]string
		Health   Probe
		Limits   Limits
		Stop     Stop
		Release  Command  `json:",omitzero"`
		Probed   Protocol `json:",omitempty"`
		Image    string   `json:",omitempty"`
		Port     int      `json:",omitempty"`
	}{r.Artefacts[service].Digest, s.Run, s.Needs, tcp, s.Env, s.Health, s.Limits, s.Stop, s.Release, probed,
		cmp.Or(r.Artefacts[service].Image, s.Image), s.Port})
	if err != nil {
		panic(err) // strings, numbers and maps of strings always marshal
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}
