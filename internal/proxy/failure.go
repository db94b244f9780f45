package proxy

import (
	"errors"
	"net"
	"strings"
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
