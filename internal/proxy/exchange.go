package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
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
	plane  *plane
	call   *call
	client responder
	find   func(*routing, *call) *way // the way by which it came in, in any routing
	who    unit
	body   *upload // nil when there is none
	routes *routing
	way    *way // in routes

	began     time.Time
	now       time.Time // when it last looked at the clock: that costs as much as a lookup
	out       outgoing
	head      head
	synthetic bool   // Spillway itself made the request
	dealt     bool   // it belongs to arm, and stays there for its attempts
	arm       string // the name of an arm; see dealt
	lease     lease
	failed    []*endpoint // passed over, because they failed this request
	resends   int
	rescued   bool          // the candidate failed it: only stable may answer it now
	until     time.Time     // end of the wait for a replica; zero = it has not waited yet
	untimed   time.Duration // at its beginning, and not of the route's time: its app was held, or the candidate failed it
	last      *failure      // of the last attempt; nil = none failed

	rec      record // of how it went
	attempts int
	passedOn bool // to an heir, which sees it
	fast     bool // by the fast engine
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
	reason string     // for users: it names no address behind the proxy
	kind   refusedFor // notRefused: as kindOf has it
	detail string     // the reason for who runs the proxy, where that says more
}

func (r *refusal) Error() string { return r.reason }

// unserved refuses a method that no app gets; nil = it is served.
func unserved(method string) *refusal {
	if method == http.MethodConnect || method == http.MethodTrace { // TRACE shows the sender what others have added
		return &refusal{status: http.StatusMethodNotAllowed, reason: method + " is not served"}
	}
	return nil
}

// errClientLeft: the client went away while its request was held.
var errClientLeft = errors.New("the client went away")

// errHandedOver: another process claims endpoints now; it has to answer.
var errHandedOver = errors.New("handed over")

// serve answers one request that came in by an edge. x.plane, call, client, find and body are set; the rest is
// zero.
func (x *exchange) serve() {
	c, p := x.call, x.plane
	x.began = time.Now()
	x.now, x.rec.began = x.began, x.began
	defer x.ended()
	if no := unserved(c.method); no != nil {
		x.head.last = x.head.last || c.method == http.MethodConnect // what follows may be of any protocol
		x.refuse(no)
		return
	}
	if p.handedOver() {
		x.relay()
		return
	}
	if x.seek(p.routing.Load()); x.way == nil {
		x.refuse(x.routes.ways.nobody(c.name))
		return
	}
	if len(x.routes.certificates) > 0 && !c.secure && !x.way.private() && x.aside() {
		return
	}
	x.rec.route = x.way.name
	if p.active.Load() > p.most && !x.way.private() {
		x.lacks(errFull)
		return
	}
	x.rescued = here(c.client, c.local.Addr()) && c.header.Has(rescuedHeader)
	c.client = p.trust.behind(c)
	if no := x.way.instant(c, x.began); no != nil {
		x.rec.edge = x.way.first()
		x.respond(no)
		return
	}
	e := x.way.first()
	x.rec.edge = e
	x.trace()
	x.who = e.identify(c, p.keys)
	x.synthetic = !e.private() && p.keys.synthetic.made(c)
	if x.body != nil {
		x.body.limit = x.way.maxBody
	}
	if c.expect && x.body != nil {
		x.body.begun = func() { x.client.interim(http.StatusContinue, nil) }
	}
	defer x.lease.drop() // when it ends by a panic; settled leases do not mind
	if err := x.stay(e); err != nil {
		x.giveUp(err)
		return
	}
	x.run()
	if x.way != nil && len(x.way.mirrors) > 0 { // the app may have been removed meanwhile
		p.reflect(x.way, c, x.who.bucket, x.body.content)
	}
}

// seek finds the way in a routing.
func (x *exchange) seek(routes *routing) {
	if x.routes != routes {
		x.routes, x.way = routes, x.find(routes, x.call)
	}
}

// run makes attempts until one is answered or none is left.
func (x *exchange) run() {
	for {
		c, err := x.claim()
		switch {
		case errors.Is(err, errHandedOver):
			x.relay()
			return
		case err != nil:
			x.giveUp(err)
			return
		}
		if x.attempt(c) {
			return
		}
	}
}

// giveUp ends a request that is sent to nobody: it is refused, or the client went away while it was held.
func (x *exchange) giveUp(err error) {
	var no *refusal
	if errors.As(err, &no) {
		x.lease.settle(true)
		x.refuse(no)
		return
	}
	x.lease.drop()
	x.rec.left = true
	x.client.abort()
}

// claim finds an endpoint for the next attempt and counts the request in. It waits while there is none.
func (x *exchange) claim() (claim, error) {
	for {
		routes := x.plane.routing.Load()
		x.seek(routes)
		if x.plane.handedOver() {
			return claim{}, errHandedOver
		}
		if x.way == nil || x.way.first() == nil {
			return claim{}, &refusal{status: http.StatusServiceUnavailable, reason: "the app or the route was removed"}
		}
		if until := x.due(); !until.IsZero() && !x.now.Before(until) {
			return claim{}, x.overtime() // whoever is asked now could only be late
		}
		e := x.way.edge(x.who.bucket)
		switch {
		case len(e.arms) == 0:
			return claim{}, &refusal{status: http.StatusServiceUnavailable, reason: closedReason(e.spec)}
		}
		if i := x.deal(e); i >= 0 {
			a := &e.arms[i]
			if endpoint := pick(a.endpoints, x.failed, x.now); endpoint != nil && x.plane.claim(endpoint) {
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

// due is when the answer has to be whole; zero = no limit.
func (x *exchange) due() time.Time {
	if x.way.timeout <= 0 {
		return time.Time{}
	}
	return x.began.Add(x.untimed + x.way.timeout)
}

func (x *exchange) overtime() *refusal {
	no := &refusal{reason: fmt.Sprintf("nobody could be asked within %s", x.way.timeout)}
	if x.last != nil {
		no = x.last.refusal(0)
	}
	no.status, no.kind = http.StatusGatewayTimeout, tooLate
	return no
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
	i, weight = e.chosen(x.call, x.who.bucket)
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
// stays the candidate's, and the time of the route begins anew. The caller has made sure that the request may be sent
// once more.
func (x *exchange) rescue(e *edge) bool {
	if x.rescued || e.trial == nil || e.home < 0 || !e.arms[e.home].able(nil) {
		return false
	}
	x.lease.settle(true)
	x.rescued, x.failed, x.untimed = true, nil, x.now.Sub(x.began)
	if i := slices.IndexFunc(e.arms, func(a arm) bool { return a.name == x.arm }); i >= 0 {
		x.rec.failing = &e.arms[i]
	}
	return true
}

// wait holds the request until the routing changes or a replica may be tried again. It fails when the
// hold is over or the client goes away. For servers by URL nothing is held: nobody here is starting them,
// and they are not ours to be knocked at by everyone who waits.
func (x *exchange) wait(e *edge, changed <-chan struct{}) error {
	if x.place(e).external() {
		return x.noReplica(e)
	}
	first := x.until.IsZero()
	if first {
		x.until = x.now.Add(holdTime)
	}
	left := x.until.Sub(x.now)
	if left <= 0 {
		return x.noReplica(e)
	}
	if len(x.failed) > 0 {
		left = min(left, holdRetry)
	}
	if !e.app.gate.enter() {
		return errQueueFull(e.app)
	}
	defer e.app.gate.leave()
	gone := make(chan struct{})
	defer x.plane.seen.hold(first)()
	defer x.client.watch(sync.OnceFunc(func() { close(gone) }))()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-gone:
		return errClientLeft
	}
	x.now = time.Now()
	if !x.overdue() {
		x.failed = nil
	}
	return nil
}

func (x *exchange) overdue() bool { return !x.until.IsZero() && !x.now.Before(x.until) }

func (x *exchange) noReplica(e *edge) *refusal {
	if x.last != nil {
		return x.last.refusal(http.StatusBadGateway)
	}
	return &refusal{status: http.StatusServiceUnavailable, reason: laneOf(e.spec) + "no ready replica of " + x.place(e).name, kind: noReplica}
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
	x.rec.arm, x.rec.replica = c.arm, c.endpoint.name()
	x.attempts++
	began := x.now
	resp, err := x.try(c)
	x.now = time.Now()
	if err != nil && (x.clientLeft() || x.clientLate(err)) {
		x.lease.drop()
		x.turnAway()
		return true
	}
	if isShort(err) {
		x.lacks(err)
		return true
	}
	x.plane.judgeReach(c.endpoint, err, x.now)
	c.arm.tally.add(x.now.Sub(began), err != nil || resp.status >= 500, x.now)
	if err == nil {
		x.rec.first = x.now.Sub(x.rec.began)
		x.lease.outcome.Took = max(x.now.Sub(began), 1)
		if resp.status >= 500 && c.arm.candidate && x.mayRepeat() && x.rescue(c.edge) {
			resp.close()
			return false
		}
		x.answer(c.arm, resp)
		return true
	}
	return !x.again(c, err)
}

// again decides whether a failed attempt is followed by another, and answers the client if not.
func (x *exchange) again(c claim, err error) bool {
	x.last = &failure{c.endpoint, err}
	x.failed = append(x.failed, c.endpoint)
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{lost, err}
	}
	switch f.kind {
	case noConnection:
		return true
	case unsent:
		if x.body == nil || x.body.repeatable() {
			return true
		}
	case lost:
		if x.mayRepeat() && x.resends < x.way.resends() && c.arm.able(x.failed) {
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
	x.add(releaseHeader, c.arm.title) // it is this release that did not answer
	x.refuse(x.last.refusal(status))
	return false
}

// mayRepeat reports whether the request may reach a second replica although a first one may have acted
// on it.
func (x *exchange) mayRepeat() bool {
	return x.call.idempotent() && (x.body == nil || x.body.repeatable())
}

// clientLeft reports whether the attempt ended because of the client: it went away, or its body broke off.
func (x *exchange) clientLeft() bool {
	return x.client.gone() || (x.body != nil && x.body.broken() != nil)
}
