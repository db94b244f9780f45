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

// speak says on an edge what its service speaks, as the release has it: the one that counts, or for a private edge that of
// those who call, whose environment says it too.
func speak(edge *spillway.Edge, service string, r spillway.Release) {
	s, _ := r.Config.Service(service)
	edge.Protocol = spoken(s)
}

// spoken is what a service speaks as routes have it: "" for HTTP/1.1, as in those of before there was a choice.
func spoken(s spillway.Service) spillway.Protocol {
	if s.Protocol == spillway.HTTP {
		return ""
	}
	return s.Protocol
}

// speakEach says on each backend what its replicas speak, by the release that its requests are of. A backend that speaks
// TCP and one that does not cannot stand on one edge: then the edge says it.
func (t *turn) speakEach(edges []spillway.Edge) {
	for _, e := range edges {
		for i := range e.Backends {
			b := &e.Backends[i]
			s, ok := t.spec.Releases[b.Release].Config.Service(b.Group.Service)
			if !ok {
				continue
			}
			b.Protocol, b.Announce = spoken(s), s.Announce
			if tcp := e.Protocol == spillway.TCP; tcp != (b.Protocol == spillway.TCP) {
				b.Protocol, b.Announce = e.Protocol, ""
			}
		}
	}
}
