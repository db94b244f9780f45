package rollout

import (
	"slices"

	"github.com/spillway-dev/spillway"
)

// way is how users come to a service that may have another name in the candidate: the services that have a
// public name or address now and then.
type way struct {
	old, new string
	tcp      bool // by address and not by host name: connections instead of requests
}

// publicNames are the services of a release by the names and addresses at which users reach them. An address
// has a colon in it, and a host name has none.
func publicNames(r spillway.Release) map[string]string {
	services := map[string]string{}
	for _, s := range r.Config.Services {
		for _, name := range slices.Concat(s.Host, s.Listen) {
			services[name] = s.Name
		}
	}
	return services
}

// speak says on an edge what its service speaks, as the first of the releases has it that knows the service.
// For a private edge that is the release of those who call: their environment says it too.
func speak(edge *spillway.Edge, service string, releases ...spillway.Release) {
	for _, r := range releases {
		s, ok := r.Config.Service(service)
		if !ok {
			continue
		}
		if edge.Protocol = s.Protocol; s.Protocol == spillway.HTTP {
			edge.Protocol = "" // as in routes of before there was a choice
		}
		edge.Announce = s.Announce
		return
	}
}
