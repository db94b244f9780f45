// Package proxy is the data plane: it gives every request to a replica, counts the answers by release,
// and takes a harmful candidate out of the route by itself.
//
// It knows tables (spillway.Table), endpoints, cohorts, trials and sockets. It must not know rollouts,
// strategies or steps, how replicas are started, or who decides: it is given a complete table per app
// with a generation and a revision, serves it, and reports. It runs as a process of its own (Run), is
// spoken to over a unix socket (Client), and goes on serving its last snapshot when nobody speaks to it.
//
// # How a request comes in
//
// A front is a client's connection. It reads HTTP/1.1 by itself and is the fast engine; what is out of the
// ordinary it gives to net/http, the general one, behind an http1.Guard. Both make a call of a request, and an
// exchange answers it to them as a responder. To a replica, requests go by an origin.
//
// # How a request finds its replica
//
// An immutable routing behind one atomic pointer maps hosts and private listener addresses to edges.
// An edge divides requests between arms (one per backend) by the bucket of the user. Endpoints live
// outside the routing, so that a new table disturbs no open request. A claim raises the endpoint's
// in-flight count first and then looks whether the endpoint is still open; a push first makes the new
// routing visible and then closes the endpoints that left. So after a push has returned, no request
// that has not been counted before can reach an endpoint that left: nothing is between "picked" and
// "counted".
//
// Arms come in the order tracks, stable, candidate, and the last has the lowest buckets. A rule of the
// edge goes before the bucket. Where an arm has no endpoint, stable stands in; where the candidate may not
// have a request (it tripped, or its budget could be overspent), stable has it. Of the answers, those of
// the candidate and of the release that it is compared with are evidence, with the odds at which the two
// were dealt. Servers by URL are arms like any other, but nothing stands in for them.
//
// The routing also has the certificates of hosts that are served over HTTPS, so one switch is one for
// both listeners.
//
// # Connections of TCP
//
// An edge that speaks TCP has intakes instead of listeners. A connection is a stream: it is dealt, claimed and
// judged as a request is, with the address of the client as its user, and then spliced. Until a replica has taken
// it, nothing was sent and another one can have it; from then on it belongs to the two ends. It fails for the judge
// when nobody could be connected to, or when it was reset before a byte came back.
//
// # How it is replaced
//
// A new process asks the old one over the control socket for its listeners and its lock. From then on
// the old one writes no snapshot, takes no table, and tells the new one every judged answer. Once the
// new one accepts connections, the old one claims no endpoint any more: it finishes what it has, tells
// how much that is, and passes late requests of kept connections on to its heir with Connection: close.
package proxy
