package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/spillway-dev/spillway"
)

// failure is an attempt without an answer that could be passed on.
type failure struct {
	endpoint *endpoint
	err      error // a *fault
}

// refusal is the answer to the user when nothing else is tried. It names the replica, or the track of a server by URL,
// and no address.
func (f *failure) refusal(status int) *refusal {
	return &refusal{
		status: status, kind: refusedBy(f.err),
		reason: f.endpoint.Replica + " " + plainly(f.err), detail: f.endpoint.name() + " " + f.err.Error(),
	}
}

// plainly is an error without the addresses of the sockets, and of the name server, that it came from: "closed the
// connection before it answered: read: connection reset by peer".
func plainly(err error) string {
	text := err.Error()
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &op) && op.Err != nil:
		return strings.Replace(text, op.Error(), plainly(op.Err), 1)
	case errors.As(err, &dns):
		return strings.Replace(text, dns.Error(), dns.Err, 1)
	}
	return text
}

// clientLate reports whether there was no answer in time because the client did not send its body in time. One of unknown
// length may be a stream, whose client waits for the answer.
func (x *exchange) clientLate(err error) bool {
	var f *fault
	return errors.As(err, &f) && f.kind == late && x.call.length > 0 && x.body != nil && !x.out.until.IsZero() && x.body.late(x.out.until)
}

// turnAway ends a request whose client is to blame for its end.
func (x *exchange) turnAway() {
	x.rec.left = true
	var err error
	if x.body != nil {
		x.body.rest() // net/http says that the client has gone before the read ends that is to blame
		err = x.body.broken()
	}
	var slow tooSlow
	late := errors.As(err, &slow)
	if x.client.gone() && !late { // net/http takes a client that is late for one that has gone
		x.client.abort() // nobody is there to read an answer
		return
	}
	x.head.last = true
	switch {
	case late:
		x.refuse(&refusal{status: http.StatusRequestTimeout, reason: slow.Error()})
	case err == nil:
		x.refuse(&refusal{status: http.StatusRequestTimeout, reason: fmt.Sprintf("the body of the request did not come within the %s that the route allows", x.way.timeout)})
	case errors.Is(err, errTooLarge): // by the route that it came in by, whatever that is now
		x.refuse(&refusal{status: http.StatusRequestEntityTooLarge, reason: fmt.Sprintf("route %s: the body is larger than %s", x.rec.route, spillway.Bytes(x.body.limit))})
	default:
		x.refuse(&refusal{status: http.StatusBadRequest, reason: "the body of the request cannot be read: " + plainly(err), detail: "the body of the request cannot be read: " + err.Error()})
	}
}
