package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Observe says what runs and what the data plane serves for the app now.
func (p *Platform) Observe(ctx context.Context, ref spillway.Ref) (rollout.Observation, error) {
	a := p.app(ref)
	if a == nil {
		return rollout.Observation{}, nil
	}
	before := a.ackedRevision()
	call, cancel := context.WithTimeout(ctx, routerTimeout)
	defer cancel()
	report, err := p.conf.Router.Report(call, ref)
	if ctx.Err() != nil {
		return rollout.Observation{}, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	lost := errors.Is(err, spillway.ErrNotFound) && before > 0
	a.heard(before, report, err)
	o := rollout.Observation{Groups: a.observeGroups(), Served: a.courier.served, Tasks: a.observeTasks(), Dead: maps.Clone(a.courier.dead)}
	a.measure(time.Now(), o.Groups)
	switch {
	case err == nil:
		o.Evidence, o.Memory = report.Evidence, report.Memory
	case errors.Is(err, spillway.ErrNotFound):
		o.NoData = lost // it had the app: it will be told again, and its last answer stands until then
	default:
		o.NoData = true
	}
	return o, nil
}

// servedRoute makes the served route of a report. The trial is ours when it is the one that the evidence
// is about.
func (a *app) servedRoute(report spillway.Report) spillway.Route {
	served := spillway.Route{Generation: report.Generation, Edges: report.Edges}
	asked := a.want.Desired.Route
	switch {
	case report.Evidence != nil && asked.Trial != nil && asked.Trial.ID == report.Evidence.Trial:
		served.Trial = asked.Trial
	case report.Evidence != nil:
		served.Trial = &spillway.Trial{ID: report.Evidence.Trial}
	case report.Generation == asked.Generation:
		served.Trial = asked.Trial
	}
	return served
}

// observeGroups counts the replicas by group; groups that are wanted are there also without replicas.
func (a *app) observeGroups() []rollout.Group {
	var groups []rollout.Group
	for _, w := range a.allWants() {
		c := a.state.Counters[w.Group.String()]
		g := rollout.Group{Group: w.Group, Crashes: c.Crashes, Restarts: c.Restarts}
		for _, r := range a.replicas {
			if r.group != w.Group {
				continue
			}
			g.Running++
			if r.leaving {
				g.Draining++
			}
			if r.up() {
				g.Ready++
			}
			if r.problem != "" && (g.Problem == "" || (r.fatal && !g.Fatal)) {
				g.Problem, g.Fatal = oneLine(r.problem), r.fatal
			}
		}
		for name, n := range a.courier.inFlight {
			if strings.HasPrefix(name, w.Group.String()+"-") {
				g.InFlight += n
			}
		}
		groups = append(groups, g)
	}
	return groups
}

// Replicas lists the replicas of an app as people see them, sorted by group and index.
func (p *Platform) Replicas(ctx context.Context, ref spillway.Ref) ([]spillway.Replica, error) {
	a := p.app(ref)
	if a == nil {
		return nil, fmt.Errorf("app %s: %w", ref, spillway.ErrNotFound)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]spillway.Replica, 0, len(a.replicas))
	for _, r := range a.replicas {
		x := spillway.Replica{
			Name: r.name, Group: r.group, State: r.state, Restarts: r.restarts, InFlight: a.courier.inFlight[r.name], Problem: r.problem,
		}
		if r.proc != nil {
			x.PID, x.Address, x.Started, x.Enforced = r.rec.PID, loopback(r.rec.Port), r.rec.Started, r.rec.Enforced
			u := r.use(time.Now())
			x.CPU, x.Memory = u.cpu, u.memory
			if r.state == spillway.Ready && !r.up() {
				x.State = spillway.Unready
			}
		}
		list = append(list, x)
	}
	return list, ctx.Err()
}

// measure fills in what the groups use and what the data plane gave them.
func (a *app) measure(now time.Time, groups []rollout.Group) {
	for i := range groups {
		g, ready := &groups[i], 0
		g.Traffic = a.courier.counts[g.Group.String()]
		for _, r := range a.replicas {
			if r.group != g.Group || !r.up() {
				continue
			}
			u := r.use(now)
			ready++
			g.CPU += float64(u.cpu) / 1000
			g.Memory = max(g.Memory, u.memory)
		}
		g.CPU /= float64(max(1, ready))
	}
}

// usage is what a replica uses.
type usage struct {
	cpu    spillway.Milli
	memory spillway.Bytes
}

// use gives what a replica that runs used at a look that is at most a second old. Decisions are made more
// often than that, and a look is expensive where there are no control groups.
func (r *replica) use(now time.Time) usage {
	if r.looked.IsZero() || now.Sub(r.looked) >= time.Second {
		r.usage, r.looked = r.look(now), now
	}
	return r.usage
}

// look gives the CPU used since the last look that is at least two seconds old (at first, since the start)
// and the memory used now.
func (r *replica) look(now time.Time) usage {
	used, memory, ok := r.rec.Cgroup.usage()
	if !ok {
		used, memory = usageOf(r.proc.members())
	}
	since, before := r.seen, r.cpu
	if since.IsZero() {
		since, before = r.rec.Started, 0
	}
	span := now.Sub(since)
	if span >= 2*time.Second || r.seen.IsZero() {
		r.seen, r.cpu = now, used
	}
	if span <= 0 {
		return usage{memory: memory}
	}
	return usage{cpu: spillway.Milli(max(0, (used-before)*1000/span)), memory: memory}
}

// Logs calls line for each stored line that the query selects, oldest first, and with Follow for each that
// is written from then on. It ends with ctx or with the first error of line.
func (p *Platform) Logs(ctx context.Context, ref spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	a := p.app(ref)
	if a == nil {
		return fmt.Errorf("app %s: %w", ref, spillway.ErrNotFound)
	}
	if q.Service != "" || q.Replica != "" || q.Release != 0 {
		if err := a.knows(q); err != nil {
			return err
		}
	}
	return a.logs.tell(ctx, q, line)
}

// knows checks that a query can select something, now or when replicas start.
func (a *app) knows(q spillway.LogQuery) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	groups := a.logs.groups(spillway.LogQuery{Service: q.Service, Release: q.Release})
	for _, w := range a.allWants() {
		if (q.Service == "" || q.Service == w.Group.Service) && (q.Release == 0 || q.Release == w.Group.Release) {
			groups = append(groups, w.Group)
		}
	}
	groups = append(groups, a.taskGroups()...)
	if slices.ContainsFunc(groups, func(g spillway.Group) bool {
		return q.Replica == "" || strings.HasPrefix(q.Replica, g.String()+"-")
	}) {
		return nil
	}
	return fmt.Errorf("no replica of %s was ever named so (service %q, release %d, replica %q): %w",
		a.ref, q.Service, q.Release, cmp.Or(q.Replica, "any"), spillway.ErrNotFound)
}
