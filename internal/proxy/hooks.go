package proxy

import (
	"errors"
	"net/http"
	"time"
)

// wants reports whether done and trace look at the request itself.
func (s *seen) wants() bool { return s.log != nil || s.spans != nil }

// kindOf sorts a refusal by its status, where nobody said more.
func kindOf(status int) refusedFor {
	switch status {
	case http.StatusNotFound:
		return noHost
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
		return notAllowed
	case http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return tooLarge
	case http.StatusTooManyRequests:
		return tooMany
	case http.StatusServiceUnavailable:
		return noBackend
	case http.StatusBadGateway:
		return unanswered
	case http.StatusGatewayTimeout:
		return tooLate
	}
	return badRequest
}

// trace begins to see the request, so that replicas can be told its trace.
func (x *exchange) trace() {
	if s := &x.plane.seen; s.wants() {
		x.rec.trace = s.trace(x.call)
	}
}

// ended sees the request when it is over, unless an heir has it.
func (x *exchange) ended() {
	if x.passedOn {
		return
	}
	x.now = time.Now()
	r := &x.rec
	r.whole = x.now.Sub(r.began)
	r.call, r.fast = x.call, x.fast
	r.bucket, r.rescued, r.retries = x.who.bucket, x.rescued, max(x.attempts-1, 0)
	if x.body != nil {
		r.in = x.body.read.Load()
	}
	x.plane.seen.done(r)
}

// refusedBy sorts the fault of the last attempt.
func refusedBy(err error) refusedFor {
	var f *fault
	switch {
	case !errors.As(err, &f):
		return unanswered
	case f.kind == late:
		return tooLate
	case f.kind == noConnection:
		return unreachable
	}
	return unanswered
}
