package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// routerTimeout bounds one call of the data plane.
const routerTimeout = 5 * time.Second

// courierState is what is known of the data plane. It is guarded by app.mu.
type courierState struct {
	acked    *spillway.Table // the last that was acknowledged; nil = none, or the data plane lost it
	deaf     bool            // it did not answer the last call
	inFlight map[string]int  // of the last report
	served   spillway.Route  // of the last report
	counts   map[string]spillway.Traffic
	dead     map[string]string
}

// table is what the data plane has to serve now, without a revision.
func (a *app) table() spillway.Table {
	t := spillway.Table{App: a.ref, Route: a.want.Desired.Route, Cohort: a.cohort()}
	for _, r := range a.replicas {
		draining := r.exposed && (r.state == spillway.Draining || r.state == spillway.Stopping)
		if r.proc == nil || closed(r.proc.ended) || (r.state != spillway.Ready && !draining) {
			continue
		}
		t.Endpoints = append(t.Endpoints, spillway.Endpoint{Replica: r.name, Group: r.group, Address: loopback(r.rec.Port), Draining: draining})
	}
	for name, port := range a.state.Listeners {
		l, _ := parseListener(name)
		l.Address = loopback(port)
		t.Listeners = append(t.Listeners, l)
	}
	slices.SortFunc(t.Listeners, func(x, y spillway.EdgeListener) int {
		if c := strings.Compare(x.Service, y.Service); c != 0 {
			return c
		}
		return compareGroups(x.From, y.From)
	})
	return t
}

// cohort is that of the newest release that has replicas. A release command changes nothing for users.
func (a *app) cohort() spillway.Cohort {
	newest := 0
	for _, w := range a.want.Desired.Groups {
		newest = max(newest, w.Release)
	}
	return a.want.Releases[newest].Config.Cohort
}

// tableChanged reports whether the data plane has to be told something.
func (a *app) tableChanged() bool {
	if a.removed || a.idle {
		return false
	}
	t := a.table()
	if a.courier.acked == nil {
		return true
	}
	t.Revision = a.courier.acked.Revision
	return !reflect.DeepEqual(t, *a.courier.acked)
}

// draining reports whether some replica waits for its last requests.
func (a *app) draining() bool {
	return slices.ContainsFunc(a.replicas, func(r *replica) bool { return r.state == spillway.Draining && !r.drained })
}

// push brings the present table to the data plane, if that does not have it, and returns when it is
// acknowledged.
func (a *app) push(ctx context.Context) error {
	a.pushing.Lock()
	defer a.pushing.Unlock()
	for tries := 0; ; tries++ {
		t, ok, err := a.nextTable()
		if err != nil || !ok {
			return err
		}
		err = a.p.conf.Router.Push(ctx, t)
		if errors.Is(err, spillway.ErrStale) && tries == 0 {
			err = a.catchUp(ctx) // our memory of the revision is older than the data plane's
			if err == nil {
				continue
			}
		}
		a.pushed(time.Now(), t, err)
		if err != nil {
			return fmt.Errorf("route of %s: %w", a.ref, err)
		}
		a.p.watchers.Changed(a.ref) // who waits for the acknowledgement may look now
		return nil
	}
}

// nextTable gives the table to push, with a revision that is on disk. ok is false when there is nothing new.
func (a *app) nextTable() (t spillway.Table, ok bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.tableChanged() {
		return t, false, nil
	}
	t = a.table()
	a.state.Revision++
	t.Revision = a.state.Revision
	for _, r := range a.replicas {
		r.exposed = r.exposed || r.up() // from now on the data plane may know it
	}
	return t, true, a.saveState()
}

// pushed takes in the answer to a push.
func (a *app) pushed(now time.Time, t spillway.Table, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setDeaf(err != nil)
	if err != nil {
		return
	}
	a.courier.acked = &t
	for _, e := range t.Endpoints {
		for _, r := range a.replicas {
			if e.Draining && r.name == e.Replica && r.state == spillway.Draining && r.acked == 0 {
				r.acked, r.ackedAt = t.Revision, now
			}
		}
	}
	a.nudge(a.wake)
}

// catchUp takes over the revision of the data plane.
func (a *app) catchUp(ctx context.Context) error {
	report, err := a.p.conf.Router.Report(ctx, a.ref)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Revision = max(a.state.Revision, report.Revision)
	return nil
}

// carry talks to the data plane until ctx ends: it pushes every change, again and again if need be, and
// asks for reports while something drains.
func (a *app) carry(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		call, cancel := context.WithTimeout(ctx, routerTimeout)
		err := a.push(call)
		if err == nil {
			err = a.consult(call)
		}
		cancel()
		if err == nil {
			failures = 0
			a.rest(ctx)
			continue
		}
		if failures == 0 && ctx.Err() == nil {
			a.log.Warn("data plane does not answer; nothing is stopped meanwhile", "error", err)
		}
		pause(ctx, min(a.p.conf.tune.drain<<failures, time.Second/2))
		failures = min(failures+1, 10)
	}
}

// rest waits until there is news or it is time to ask again.
func (a *app) rest(ctx context.Context) {
	a.mu.Lock()
	next := a.p.conf.tune.refresh
	if a.draining() {
		next = a.p.conf.tune.drain
	}
	a.mu.Unlock()
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-a.news:
	case <-timer.C:
	}
}

// consult asks the data plane what it serves, and notices when it lost the table.
func (a *app) consult(ctx context.Context) error {
	before := a.ackedRevision()
	if before == 0 {
		return nil // it has nothing of ours
	}
	report, err := a.p.conf.Router.Report(ctx, a.ref)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard(before, report, err)
	if errors.Is(err, spillway.ErrNotFound) {
		return nil
	}
	return err
}

// ackedRevision is that of the last acknowledged table, 0 = none.
func (a *app) ackedRevision() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.courier.acked == nil {
		return 0
	}
	return a.courier.acked.Revision
}

// setDeaf remembers whether the data plane answers.
func (a *app) setDeaf(deaf bool) {
	if a.courier.deaf != deaf {
		a.courier.deaf = deaf
		a.nudge(a.wake)
	}
}

// heard takes in a report that was asked for when the revision before was acknowledged.
func (a *app) heard(before int64, report spillway.Report, err error) {
	c := &a.courier
	unknown := errors.Is(err, spillway.ErrNotFound)
	a.setDeaf(err != nil && !unknown)
	if c.deaf {
		return
	}
	if report.Revision < before { // it started anew without our last table
		c.acked = nil
		a.nudge(a.news)
	}
	if unknown {
		return
	}
	if !maps.Equal(c.dead, report.Dead) {
		a.nudge(a.wake)
	}
	c.inFlight, c.served, c.counts, c.dead = report.InFlight, a.servedRoute(report), report.Counts, report.Dead
	for _, r := range a.replicas {
		if r.state == spillway.Draining && r.acked > 0 && report.Revision >= r.acked && report.InFlight[r.name] == 0 {
			r.drained = true
			a.nudge(a.wake)
		}
	}
}
