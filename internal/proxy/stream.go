package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

// stream is one connection that is passed through, from its arrival to its end. It is dealt like a request, and stays
// with the replica that it was given: whatever it carries is nobody's business here. Its unit is the address from
// which it comes: all who share one are on one side.
type stream struct {
	plane  *plane
	name   string // of the socket where it came in
	client *net.TCPConn
	head   []byte       // what the client sent already
	about  announcement // from where, and to which address
	who    *unit        // nil = not yet known

	arm     string // the name of the arm to which it belongs; "" = it was not dealt yet
	lease   lease
	rescued bool        // the candidate could not be connected to: only stable may have it now
	failed  []*endpoint // that could not be connected to
	until   time.Time   // end of the hold; zero = not held yet
	last    error
}

// passThrough serves one connection.
func (p *plane) passThrough(ctx context.Context, name string, client *net.TCPConn) {
	s := &stream{plane: p, name: name, client: client}
	s.about.client, _ = client.RemoteAddr().(*net.TCPAddr)
	s.about.server, _ = client.LocalAddr().(*net.TCPAddr)
	if n := p.needOfTCP(addressOf(s.about.client)); n != noHeader && isPublic(name) {
		said, head, err := readAnnouncement(client, n)
		if err != nil {
			p.complain("connection closed", "address", name, "peer", s.about.client, "error", err)
			return
		}
		if s.head = head; said != nil {
			s.about = *said
		}
	}
	defer s.lease.drop() // settled leases do not mind
	for {
		c, err := s.claim(ctx)
		switch {
		case errors.Is(err, errHandedOver):
			s.relay(ctx)
			return
		case ctx.Err() != nil:
			return
		case err != nil:
			s.lease.settle(true)
			p.complain("connection refused", "address", name, "reason", err)
			s.reset()
			return
		}
		if s.attempt(ctx, c) {
			return
		}
	}
}

func isPublic(name string) bool { return len(name) > len(tcpName) && name[:len(tcpName)] == tcpName }

// reset tells the client that there is nobody, in the only way in which TCP can.
func (s *stream) reset() {
	_ = s.client.SetLinger(0)
	s.client.Close()
}

// claim finds an endpoint for the next attempt and counts the connection in. It waits while there is none.
func (s *stream) claim(ctx context.Context) (claim, error) {
	p := s.plane
	for {
		routes := p.routing.Load()
		e := routes.streams[s.name]
		switch {
		case p.handedOver():
			return claim{}, errHandedOver
		case e == nil:
			return claim{}, errors.New("no app is reached here")
		}
		if i := s.deal(e); i >= 0 {
			a := &e.arms[i]
			if endpoint := pick(a.endpoints, s.failed, time.Now()); endpoint != nil && p.claim(endpoint) {
				s.arm = a.name
				return claim{e, a, endpoint}, nil
			}
			if s.arm == "" {
				s.lease.drop() // closed in between: the next routing knows
			}
			if p.routing.Load() != routes || p.handedOver() {
				continue
			}
		}
		if err := s.wait(ctx, e, routes.changed); err != nil {
			return claim{}, err
		}
	}
}

// unit is the one behind the connection: an address of the public, or nobody in particular behind a replica of ours.
func (s *stream) unit(e *edge) *unit {
	if s.who == nil {
		s.who = &unit{bucket: randomBucket()}
		if ip := addressOf(s.about.client); ip != (netip.Addr{}) && !e.private() {
			h := hashKey(e.app.ref, ip.String())
			s.who = &unit{bucket: bucketOf(h), key: h}
		}
	}
	return s.who
}

// deal gives the arm that is to have the connection, and takes the lease on it at the first attempt. -1: wait.
func (s *stream) deal(e *edge) int {
	if len(e.arms) == 0 {
		return -1
	}
	if s.arm != "" && !s.rescued {
		i := slices.IndexFunc(e.arms, func(a arm) bool { return a.name == s.arm })
		switch {
		case i < 0, !e.arms[i].candidate && e.stands(i, s.failed): // it left the edge, or stable may stand in: deal anew
			s.arm = ""
			s.lease.drop()
		case e.arms[i].able(s.failed) && !(e.arms[i].candidate && e.tripped()):
			return i
		case !e.arms[i].candidate || !s.rescue(e):
			return -1
		}
	}
	if s.rescued {
		if e.home >= 0 && e.arms[e.home].able(s.failed) {
			return e.home
		}
		return -1
	}
	i, weight := e.arm(s.unit(e).bucket), e.odds()
	if !e.arms[i].able(s.failed) {
		if e.arms[i].stable() && !s.overdue() {
			return -1
		}
		if i, weight = e.instead(i, s.failed), 0; i < 0 {
			return -1
		}
	}
	return s.admit(e, i, weight)
}

// admit takes the lease of a connection that was dealt to arm i, and gives the arm that it really gets: while the
// candidate could overspend its budget, stable stands in for it.
func (s *stream) admit(e *edge, i int, weight spillway.Share) int {
	if e.judged && e.arms[i].candidate {
		switch {
		case e.home < 0 || !e.arms[e.home].able(s.failed):
			e.trial.enter()
		case !e.trial.admit():
			i, weight = e.home, 0
		}
	}
	if e.judged && (e.arms[i].candidate || e.arms[i].baseline) {
		key := s.unit(e).key
		s.lease = lease{app: e.app, trial: e.trial, outcome: outcome{Candidate: e.arms[i].candidate, Weight: weight, Key: key, Known: key != 0}}
	}
	return i
}

// rescue turns a connection that no replica of the candidate took over to stable, if stable can have it. The failure
// stays the candidate's.
func (s *stream) rescue(e *edge) bool {
	if s.rescued || e.trial == nil || e.home < 0 || !e.arms[e.home].able(nil) {
		return false
	}
	s.lease.settle(true)
	s.rescued, s.failed = true, nil
	return true
}

// wait holds the connection until the routing changes or a replica may be tried again. It fails when the hold is over.
// It also holds where the edge is closed, because a service is being replaced: a request would be told so, and
// whoever made a connection can be told nothing.
func (s *stream) wait(ctx context.Context, e *edge, changed <-chan struct{}) error {
	now := time.Now()
	if s.until.IsZero() {
		s.until = now.Add(holdTime)
	}
	left := s.until.Sub(now)
	switch {
	case left <= 0 && s.last != nil:
		return s.last
	case left <= 0 && len(e.arms) == 0:
		return errors.New(closedReason(e.spec))
	case left <= 0:
		return errors.New("no ready replica of " + e.spec.Service)
	case len(s.failed) > 0:
		left = min(left, holdRetry)
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !s.overdue() {
		s.failed = nil
	}
	return nil
}

func (s *stream) overdue() bool { return !s.until.IsZero() && !time.Now().Before(s.until) }

// attempt connects to the endpoint that was claimed and, if it can, passes everything through. It reports whether the
// connection is over; if not, the next attempt is due: nothing was sent yet.
func (s *stream) attempt(ctx context.Context, c claim) (over bool) {
	defer s.plane.release(c.endpoint)
	began := time.Now()
	replica, err := s.connect(ctx, c)
	if ctx.Err() != nil {
		if err == nil {
			replica.Close()
		}
		return true
	}
	now := time.Now()
	if err != nil && isShort(dialFault(err)) {
		s.lease.drop()
		s.plane.complain("the proxy is short of something itself, a connection is closed", "endpoint", c.endpoint.name(), "error", err)
		return true
	}
	c.arm.tally.add(now.Sub(began), err != nil, now)
	if err != nil {
		s.last = fmt.Errorf("%s cannot be connected to: %w", c.endpoint.name(), err)
		s.failed = append(s.failed, c.endpoint)
		c.endpoint.chill(now)
		return false
	}
	c.endpoint.learn(nil, now)
	defer replica.Close()
	defer context.AfterFunc(ctx, func() { replica.Close() })()
	switch (&splice{client: s.client, replica: replica, head: s.head, answered: func() { s.lease.settle(false) }}).run() {
	case resetUnanswered:
		c.arm.tally.fail() // it had been counted as good
		s.lease.settle(true)
	case endedUnanswered:
		s.lease.settle(false)
	case leftUnanswered:
		s.lease.drop() // it says nothing about the release
	}
	return true
}

// connect makes the connection to a replica, and tells it who connects if it wants to know.
func (s *stream) connect(ctx context.Context, c claim) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", c.endpoint.Address)
	if err != nil {
		return nil, err
	}
	replica := conn.(*net.TCPConn)
	if c.arm.Announce == "" {
		return replica, nil
	}
	header, err := headerFor(c.arm.Announce, s.about)
	if err == nil {
		_, err = replica.Write(header) // it fits into any buffer
	}
	if err != nil {
		replica.Close()
		return nil, err
	}
	return replica, nil
}

// relay passes a connection that can claim nothing after the hand-over on to the heir, at the address where it came
// in. The heir takes it for one of this machine, unless headers are expected there.
func (s *stream) relay(ctx context.Context) {
	local := s.client.LocalAddr()
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", local.String())
	if err == nil && isPublic(s.name) && s.plane.needOfTCP(addressOf(conn.LocalAddr())) == mustHave {
		var header []byte
		if header, err = headerFor(spillway.AnnounceV2, s.about); err == nil {
			_, err = conn.Write(header)
		}
	}
	if err != nil {
		s.plane.complain("connection refused", "address", s.name, "reason", "the new proxy: "+err.Error())
		s.reset()
		return
	}
	heir := conn.(*net.TCPConn)
	defer heir.Close()
	defer context.AfterFunc(ctx, func() { heir.Close() })()
	(&splice{client: s.client, replica: heir, head: s.head, answered: func() {}}).run()
}
