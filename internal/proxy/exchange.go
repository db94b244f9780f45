package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// holdTime is how long a request waits for a replica of stable before it is refused.
	holdTime = 2 * time.Second
	// holdRetry is how often a held request tries replicas that nobody could connect to.
	holdRetry = 100 * time.Millisecond
	// maxResends bounds the attempts after the first that may have reached a replica.
	maxResends = 2
)

// exchange is one request from its arrival to the end of its answer.
type exchange struct {
	plane *plane
	w     http.ResponseWriter
	r     *http.Request
	find  func(*routing) *edge // the edge by which it came in, in any routing
	who   unit

	header  http.Header // as replicas get it
	body    *upload     // nil when there is none
	interim interim

	dealt   bool   // it belongs to arm, and stays there for its attempts
	arm     string // the name of an arm; see dealt
	lease   lease
	failed  []*endpoint // passed over, because they failed this request
	resends int
	rescued bool      // the candidate failed it: only stable may answer it now
	until   time.Time // end of the hold; zero = not held yet
	last    error     // of the last attempt
}

// claim is an endpoint that counts this request as in flight.
type claim struct {
	edge     *edge
	arm      *arm
	endpoint *endpoint
}

// refusal is an answer of the proxy's own.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

// errHandedOver: another process claims endpoints now; it has to answer.
var errHandedOver = errors.New("handed over")

// serve answers one request that came in by an edge.
func (p *plane) serve(w http.ResponseWriter, r *http.Request, find func(*routing) *edge) {
	if r.Method == http.MethodConnect {
		refuse(w, &refusal{http.StatusMethodNotAllowed, "CONNECT is not served"})
		return
	}
	if p.handedOver() {
		p.relay(w, r, nil, false)
		return
	}
	e := find(p.routing.Load())
	if e == nil {
		refuse(w, &refusal{http.StatusNotFound, "no app answers to this host"})
		return
	}
	x := &exchange{plane: p, w: w, r: r, find: find, who: e.identify(r, p.keys), interim: interim{w: w, r: r}}
	x.header = forwarded(r, &p.trust)
	x.rescued = x.header.Get(rescuedHeader) != ""
	x.header.Del(rescuedHeader)
	x.header.Set(bucketHeader, x.who.pass())
	x.header.Del(syntheticHeader)
	if !e.private() && p.keys.synthetic.made(r) {
		x.header.Set(syntheticHeader, "1")
	}
	if r.ContentLength != 0 {
		x.body = &upload{from: r.Body}
		if hasToken(r.Header["Expect"], "100-continue") {
			// The server would do it by itself, but at the same time as other interim answers.
			x.body.begun = func() { x.interim.write(http.StatusContinue, nil) }
		}
		if r.ProtoMajor == 1 {
			// Else the server takes the rest of the body away as soon as an answer begins. It fails
			// only for writers that are not the server's.
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
	}
	defer x.lease.drop() // when the handler ends by a panic; settled leases do not mind
	x.run()
}

// run makes attempts until one is answered or none is left.
func (x *exchange) run() {
	for {
		c, err := x.claim()
		var no *refusal
		switch {
		case errors.Is(err, errHandedOver):
			x.plane.relay(x.w, x.r, x.body, x.rescued)
			return
		case errors.As(err, &no):
			x.lease.settle(true)
			refuse(x.w, no)
			return
		case err != nil: // the client went away while it was held
			x.lease.drop()
			panic(http.ErrAbortHandler)
		}
		if x.attempt(c) {
			return
		}
	}
}

// claim finds an endpoint for the next attempt and counts the request in. It waits while there is none.
func (x *exchange) claim() (claim, error) {
	for {
		routes := x.plane.routing.Load()
		e := x.find(routes)
		switch {
		case x.plane.handedOver():
			return claim{}, errHandedOver
		case e == nil:
			return claim{}, &refusal{http.StatusServiceUnavailable, "the app was removed"}
		case len(e.arms) == 0:
			return claim{}, &refusal{http.StatusServiceUnavailable, closedReason(e.spec)}
		}
		if i := x.deal(e); i >= 0 {
			a := &e.arms[i]
			if endpoint := pick(a.endpoints, x.failed, time.Now()); endpoint != nil && x.plane.claim(endpoint) {
				x.dealt, x.arm = true, a.name
				return claim{e, a, endpoint}, nil
			}
			if !x.dealt {
				x.lease.drop() // closed in between: the next routing knows
			}
			if x.plane.routing.Load() != routes || x.plane.handedOver() {
				continue
			}
		}
		if err := x.wait(e, routes.changed); err != nil {
			return claim{}, err
		}
	}
}

// deal gives the arm that is to answer, and takes the lease on it at the first attempt. -1: wait.
func (x *exchange) deal(e *edge) int {
	if x.dealt && !x.rescued {
		i := slices.IndexFunc(e.arms, func(a arm) bool { return a.name == x.arm })
		switch {
		case i < 0, !e.arms[i].candidate && e.stands(i, x.failed): // it left the edge, or stable may stand in: deal anew
			x.dealt = false
			x.lease.drop()
		case e.arms[i].able(x.failed) && !(e.arms[i].candidate && e.tripped()):
			return i
		case !e.arms[i].candidate || !x.rescue(e):
			return -1
		}
	}
	if x.rescued {
		if e.home >= 0 && e.arms[e.home].able(x.failed) {
			return e.home
		}
		return -1
	}
	i, weight := x.belongs(e)
	if !e.arms[i].able(x.failed) {
		if e.arms[i].stable() && !x.overdue() {
			return -1
		}
		if i, weight = e.instead(i, x.failed), 0; i < 0 {
			return -1
		}
	}
	return x.admit(e, i, weight)
}

// belongs gives the arm that the request should go to: a rule's, or that of its bucket. weight is that of
// its answer as evidence, 0 when it was not dealt at random.
func (x *exchange) belongs(e *edge) (i int, weight spillway.Share) {
	i, weight = e.chosen(x.r, x.who.bucket)
	switch uneven := x.who.tossed != nil || x.who.uneven; {
	case i >= 0 && uneven:
		return i, 0
	case i >= 0:
		return i, weight
	case x.who.tossed == e && x.who.within:
		i, _ = e.track("", x.who.bucket)
		return i, spillway.Percent(50)
	case x.who.tossed == e:
		return e.arm(x.who.bucket), spillway.Percent(50)
	case uneven: // the route changed since it was tossed, or it was dealt further ahead
		return e.arm(x.who.bucket), 0
	}
	return e.arm(x.who.bucket), e.odds()
}

// place gives the arm at which the request is, or else should be.
func (x *exchange) place(e *edge) *arm {
	i := -1
	if x.dealt {
		i = slices.IndexFunc(e.arms, func(a arm) bool { return a.name == x.arm })
	}
	if i < 0 {
		i, _ = x.belongs(e)
	}
	return &e.arms[i]
}

// admit takes the lease of a request that was dealt to arm i, and gives the arm that it really gets:
// while the candidate could overspend its budget, stable stands in for it. Only the candidate's answers
// and those of what it is compared with are judged.
func (x *exchange) admit(e *edge, i int, weight spillway.Share) int {
	if e.judged && e.arms[i].candidate {
		switch {
		case e.home < 0 || !e.arms[e.home].able(x.failed):
			e.trial.enter()
		case !e.trial.admit():
			i, weight = e.home, 0
		}
	}
	if !e.judged || !(e.arms[i].candidate || e.arms[i].baseline) {
		return i
	}
	x.lease = lease{app: e.app, trial: e.trial, outcome: outcome{
		Candidate: e.arms[i].candidate, Weight: weight, Key: x.who.key, Known: x.who.key != 0 && x.who.cookie == "" && !e.private(),
	}}
	return i
}

// rescue turns a request that the candidate failed over to stable, if stable can take it. The failure
// stays the candidate's. The caller has made sure that the request may be sent once more.
func (x *exchange) rescue(e *edge) bool {
	if x.rescued || e.trial == nil || e.home < 0 || !e.arms[e.home].able(nil) {
		return false
	}
	x.lease.settle(true)
	x.rescued, x.failed = true, nil
	return true
}

// wait holds the request until the routing changes or a replica may be tried again. It fails when the
// hold is over or the client goes away. For servers by URL nothing is held: nobody here is starting them,
// and they are not ours to be knocked at by everyone who waits.
func (x *exchange) wait(e *edge, changed <-chan struct{}) error {
	if x.place(e).external() {
		return x.noReplica(e)
	}
	now := time.Now()
	if x.until.IsZero() {
		x.until = now.Add(holdTime)
	}
	left := x.until.Sub(now)
	if left <= 0 {
		return x.noReplica(e)
	}
	if len(x.failed) > 0 {
		left = min(left, holdRetry)
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-x.r.Context().Done():
		return context.Cause(x.r.Context())
	}
	if !x.overdue() {
		x.failed = nil
	}
	return nil
}

func (x *exchange) overdue() bool { return !x.until.IsZero() && !time.Now().Before(x.until) }

func (x *exchange) noReplica(e *edge) *refusal {
	if x.last != nil {
		return &refusal{http.StatusBadGateway, x.last.Error()}
	}
	return &refusal{http.StatusServiceUnavailable, laneOf(e.spec) + "no ready replica of " + x.place(e).name}
}

func closedReason(e spillway.Edge) string {
	return laneOf(e) + cmp.Or(e.Closed, e.Service+" has no backend")
}

// laneOf begins the reason of a refusal on an edge that leads to one track only: "track canary: ".
func laneOf(e spillway.Edge) string {
	switch e.Only {
	case "":
		return ""
	case "standby":
		return "standby: "
	}
	return "track " + e.Only + ": "
}

// attempt sends the request to the endpoint that it claimed. It reports whether the client has been
// answered; if not, the next attempt is due.
func (x *exchange) attempt(c claim) (answered bool) {
	defer x.plane.release(c.endpoint)
	began := time.Now()
	resp, err := x.try(c.endpoint)
	if err != nil && x.clientLeft() {
		x.lease.drop()
		x.turnAway()
		return true
	}
	x.plane.judgeReach(c.endpoint, err)
	now := time.Now()
	c.arm.tally.add(now.Sub(began), err != nil || resp.StatusCode >= 500, now)
	if err == nil {
		x.lease.outcome.Took = max(now.Sub(began), 1)
		if resp.StatusCode >= 500 && c.arm.candidate && x.mayRepeat() && x.rescue(c.edge) {
			resp.Body.Close()
			return false
		}
		x.answer(c.arm, resp)
		return true
	}
	return !x.again(c, err)
}

// again decides whether a failed attempt is followed by another, and answers the client if not.
func (x *exchange) again(c claim, err error) bool {
	x.last = fmt.Errorf("%s %w", c.endpoint.name(), err)
	x.failed = append(x.failed, c.endpoint)
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{lost, err}
	}
	switch f.kind {
	case noConnection:
		c.endpoint.chill(time.Now())
		return true
	case unsent:
		if x.body == nil || x.body.repeatable() {
			return true
		}
	case lost:
		if x.mayRepeat() && x.resends < maxResends && c.arm.able(x.failed) {
			x.resends++
			return true
		}
	}
	if c.arm.candidate && x.mayRepeat() && x.rescue(c.edge) {
		return true
	}
	x.lease.settle(true)
	status := http.StatusBadGateway
	if f.kind == late {
		status = http.StatusGatewayTimeout
	}
	x.w.Header().Set("X-Spillway-Release", c.arm.title()) // it is this release that did not answer
	refuse(x.w, &refusal{status, x.last.Error()})
	return false
}

// mayRepeat reports whether the request may reach a second replica although a first one may have acted
// on it.
func (x *exchange) mayRepeat() bool {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
	default:
		if x.r.Header.Get("Idempotency-Key") == "" {
			return false
		}
	}
	return !isUpgrade(x.r.Header) && (x.body == nil || x.body.repeatable())
}

// clientLeft reports whether the attempt ended because of the client: it went away, or its body broke off.
func (x *exchange) clientLeft() bool {
	return x.r.Context().Err() != nil || (x.body != nil && x.body.broken() != nil)
}

// turnAway ends a request whose client is to blame for its end.
func (x *exchange) turnAway() {
	if x.r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody is there to read an answer
	}
	x.w.Header().Set("Connection", "close")
	refuse(x.w, &refusal{http.StatusBadRequest, "the body of the request cannot be read: " + x.body.broken().Error()})
}
