package proxy

import (
	"net/url"
	"sync/atomic"

	"github.com/spillway-dev/spillway"
)

// endpointKey identifies an endpoint for as long as the process runs. A replica that restarts on
// another port is another endpoint. For a server by URL, Replica is the name of its backend
// ("www@legacy"), and Address is the URL.
type endpointKey struct {
	App     spillway.Ref `json:"app"`
	Replica string       `json:"replica"`
	Address string       `json:"address"`
}

// endpoint is one replica or server by URL as it is being used. It outlives tables.
type endpoint struct {
	endpointKey
	inFlight atomic.Int64
	base     *url.URL    // where it is
	reach    reach       // of a server by URL
	closed   atomic.Bool // draining or gone: takes no new request
	fitness

	// Each endpoint has connections of its own, so that those of one that drains can be closed.
	sender  sender // by HTTP/1
	streams sender // by HTTP/2
}

// by is how the endpoint is reached by a protocol.
func (e *endpoint) by(protocol spillway.Protocol) sender {
	if protocol == spillway.H2C || protocol == spillway.GRPC {
		return e.streams
	}
	return e.sender
}

func (e *endpoint) closeIdle() {
	e.sender.closeIdle()
	e.streams.closeIdle()
}

func newEndpoint(key endpointKey, blocks *blocks) *endpoint {
	e := &endpoint{endpointKey: key, base: &url.URL{Scheme: "http", Host: key.Address}}
	if u, err := serverURL(key.Address); err == nil { // checkTable has seen to that where it is one
		e.base = u
	}
	e.sender, e.streams = newOrigin(e.base, blocks), newStreams(e.base)
	return e
}

// name is the endpoint in sentences: "www.4-2", "http://10.0.0.1 (www@legacy)".
func (e *endpoint) name() string {
	if e.external() {
		return e.Address + " (" + e.Replica + ")"
	}
	return e.Replica
}

// endpointsOf lists the endpoints of a table, each with whether it may get new requests.
func endpointsOf(t spillway.Table) map[endpointKey]bool {
	open := map[endpointKey]bool{}
	for _, e := range t.Endpoints {
		open[endpointKey{t.App, e.Replica, e.Address}] = !e.Draining
	}
	for _, e := range t.Route.Edges {
		for _, b := range e.Backends {
			for _, server := range b.URLs {
				open[endpointKey{t.App, b.Name(e.Service), server}] = true
			}
		}
	}
	return open
}

// openGroups lists the replicas of a table whose group has others that get requests already. p.mu is held.
func (p *plane) openGroups(t spillway.Table) map[endpointKey]bool {
	open := map[spillway.Group]bool{}
	for _, e := range t.Endpoints {
		if known := p.endpoints[endpointKey{t.App, e.Replica, e.Address}]; known != nil && !known.closed.Load() {
			open[e.Group] = true
		}
	}
	beside := map[endpointKey]bool{}
	for _, e := range t.Endpoints {
		beside[endpointKey{t.App, e.Replica, e.Address}] = open[e.Group]
	}
	return beside
}
