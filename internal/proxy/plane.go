package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
)

// plane is a running data plane.
type plane struct {
	dir     string
	version string
	log     *slog.Logger
	keys    keys
	blocks  *blocks
	crew    *crew
	served  sync.Pool // of *served
	most    int64     // connections of clients at each public address
	general bool      // see Config.Engine
	watch   watchers
	seen    seen

	certificates certificates // in files
	keeper       keeper       // of those that authorities give
	outside      outside
	copies       copies // of requests, for mirrors

	trust      trust
	headers    bool // Config.ProxyProtocol
	complaints complaints

	routing atomic.Pointer[routing]
	stage   atomic.Int32 // one of the stages
	active  atomic.Int64 // requests being answered

	base    context.Context // of all connections; ends when the drain is over
	servers sync.WaitGroup  // accept loops, and listeners that are being shut down
	broken  chan error      // an accept loop ended by itself
	dirty   chan struct{}   // something should be saved soon
	left    chan struct{}   // closed when the drain begins
	heired  chan struct{}   // closed when an heir serves
	drained chan struct{}   // closed when the drain is over
	lock    *os.File        // of the directory

	saving sync.Mutex // one writer of the snapshot at a time; taken before mu

	mu        sync.Mutex // tables change one at a time
	frozen    bool       // handing over: an heir owns tables and snapshot
	public    *listener
	secure    *listener // HTTPS; nil = none
	inherited sockets   // of the replaced process, not yet used
	apps      map[spillway.Ref]*app
	endpoints map[endpointKey]*endpoint
	listeners map[string]*listener  // private ones, by the address in the table
	intakes   map[string]*intake    // of TCP, by the name of the socket
	missing   map[string]string     // why sockets of tables are not bound, by name
	elder     map[endpointKey]int64 // requests that the replaced process still has
}

// The stages of a plane, in order.
const (
	serving int32 = iota
	leaving       // every answer is the last of its connection
	handed        // leaving, and every new request goes to the heir
)

func (p *plane) closing() bool    { return p.stage.Load() >= leaving }
func (p *plane) handedOver() bool { return p.stage.Load() == handed }

// app is what is known of one app. Fields below plane and ref are guarded by plane.mu.
type app struct {
	plane   *plane
	ref     spillway.Ref
	gate    gate              // has no need of the lock
	table   spillway.Table    // Route.Trial.Memory is left out
	trial   *trial            // the newest, also while the table has none; nil = never one
	tallies map[string]*tally // by Backend.Name
	seen    appSeen
}

func (a *app) tally(name string) *tally {
	t := a.tallies[name]
	if t == nil {
		t = &tally{}
		a.tallies[name] = t
	}
	return t
}

// claim counts a request in, unless the endpoint was closed or handed over in the meantime. All of
// this is sequentially consistent: either the one who closes sees the count, or the claim fails.
func (p *plane) claim(e *endpoint) bool {
	e.inFlight.Add(1)
	if !e.closed.Load() && !p.handedOver() {
		return true
	}
	p.release(e)
	return false
}

// release counts a request out. The end of the last one of a closed endpoint is news.
func (p *plane) release(e *endpoint) {
	if e.inFlight.Add(-1) == 0 && e.closed.Load() {
		e.closeIdle()
		p.watch.tell(e.App)
	}
}

// react does what an answer's news calls for. A trip is on disk before the answer goes out.
func (p *plane) react(a *app, n news) {
	switch {
	case n.tripped:
		a.seen.trips.Add(1)
		p.log.Warn("candidate is harmful", "app", a.ref, "reason", n.because)
		if err := p.save(); err != nil {
			p.log.Error("the trip is in force and could not be saved", "app", a.ref, "error", err)
			p.soon()
		}
	case n.failed:
		p.soon()
	}
	if n.tripped || n.verdict {
		p.watch.tell(a.ref)
	}
}

// push makes a table the one that is served for its app.
func (p *plane) push(t spillway.Table) error {
	if err := checkTable(t); err != nil {
		return err
	}
	p.readCertificates(t)
	p.mu.Lock()
	err := p.admitTable(t)
	if err == nil {
		p.convert(t)
		bound := p.bind(t)
		p.swap(t)
		p.accept(bound)
		p.unbind()
		if p.lacks(t) {
			p.accept(p.bind(t)) // an address may have been in the way of another
		}
	}
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("table %d of %s: %w", t.Revision, t.App, err)
	}
	p.log.Info("table", "app", t.App, "revision", t.Revision, "generation", t.Route.Generation, "edges", len(t.Route.Edges), "endpoints", len(t.Endpoints))
	if err := p.save(); err != nil {
		// The table is in force, and a full disk must not stop a roll-back.
		p.log.Error("the table is served and could not be saved", "app", t.App, "error", err)
		p.soon()
	}
	return nil
}

// admitTable checks a table against what is served. p.mu is held.
func (p *plane) admitTable(t spillway.Table) error {
	if p.frozen || p.closing() {
		return fmt.Errorf("this proxy is being replaced; ask again: %w", spillway.ErrUnavailable)
	}
	if a := p.apps[t.App]; a != nil {
		if t.Revision < a.table.Revision {
			return fmt.Errorf("revision %d is served already: %w", a.table.Revision, spillway.ErrStale)
		}
		if a.outrun(t) {
			p.watch.tell(t.App) // who pushed it has not heard
			return fmt.Errorf("release %d was found harmful meanwhile, and would keep its users: %w", a.table.Route.Trial.Release, spillway.ErrConflict)
		}
	}
	if address, ref := p.addressTaken(t); ref != "" {
		return fmt.Errorf("the address %s belongs to %s: %w", address, ref, spillway.ErrConflict)
	}
	claims := claimsOf(t)
	for ref, a := range p.apps {
		if ref == t.App {
			continue
		}
		taken := claimsOf(a.table)
		for _, host := range claims {
			if _, is := slices.BinarySearch(taken, host); is {
				return fmt.Errorf("host %s belongs to %s: %w", host, ref, spillway.ErrConflict)
			}
		}
		for _, l := range t.Listeners {
			if slices.ContainsFunc(a.table.Listeners, func(o spillway.EdgeListener) bool { return o.Address == l.Address }) {
				return fmt.Errorf("listener %s belongs to %s: %w", l.Address, ref, spillway.ErrConflict)
			}
		}
	}
	return nil
}

// swap makes the table visible and then closes the endpoints that left. p.mu is held.
func (p *plane) swap(t spillway.Table) {
	a := p.apps[t.App]
	if a == nil {
		a = &app{plane: p, ref: t.App, tallies: map[string]*tally{}}
		p.apps[t.App] = a
	}
	begun := false
	if terms := t.Route.Trial; terms != nil {
		begun = p.try(a, *terms)
		kept := *terms
		kept.Memory = nil
		t.Route.Trial = &kept
	}
	a.table = t
	if begun {
		times, n := a.usualTimes(time.Now())
		a.trial.usual(&times, n)
	}
	known := endpointsOf(t)
	others := p.openGroups(t)
	for key, open := range known {
		if p.endpoints[key] == nil {
			p.endpoints[key] = newEndpoint(key, p.blocks)
			if others[key] {
				p.endpoints[key].join(time.Now())
			}
		}
		if open {
			p.endpoints[key].closed.Store(false)
		}
	}
	p.reroute()
	p.closeEndpoints(t.App, known)
	a.forgetTallies()
	a.forgetSeries()
}

// try begins the trial of a table, or goes on with it under new terms. p.mu is held.
func (p *plane) try(a *app, terms spillway.Trial) (begun bool) {
	if a.trial != nil && a.trial.terms.ID == terms.ID {
		a.trial.renew(terms)
		return false
	}
	t, err := newTrial(terms)
	if err != nil {
		p.log.Warn("trial begins without its memory", "app", a.ref, "trial", terms.ID, "error", err)
	}
	a.trial = t
	return true
}

// closeEndpoints lets no new request to the endpoints of an app that are not open any more, and forgets
// those that left the table and have no request left. known is as of endpointsOf. p.mu is held.
//
// Their idle connections go too: a program that is asked to end may wait for a connection on which it
// never had a request (net/http does, for 5 s).
func (p *plane) closeEndpoints(ref spillway.Ref, known map[endpointKey]bool) {
	for key, e := range p.endpoints {
		open, listed := known[key]
		if key.App != ref || open {
			continue
		}
		e.closed.Store(true)
		if e.inFlight.Load() > 0 {
			continue // release does the rest
		}
		e.closeIdle()
		if !listed {
			delete(p.endpoints, key)
		}
	}
}

// forgetTallies drops the counts of backends that the table knows nothing of.
func (a *app) forgetTallies() {
	known := map[string]bool{}
	for _, e := range a.table.Endpoints {
		known[e.Group.String()] = true
	}
	for _, e := range a.table.Route.Edges {
		for _, b := range e.Backends {
			known[b.Name(e.Service)] = true
		}
	}
	for name := range a.tallies {
		if !known[name] {
			delete(a.tallies, name)
		}
	}
}

// reroute makes the routing of all tables visible. p.mu is held.
func (p *plane) reroute() {
	next := &routing{private: map[string]*way{}, streams: map[string]*edge{}, certificates: map[string]secureHost{}, changed: make(chan struct{}), ways: newWays()}
	var before *ways
	if old := p.routing.Load(); old != nil {
		before = old.ways
	}
	for _, a := range p.apps {
		ready := map[string][]*endpoint{}
		for _, e := range a.table.Endpoints {
			if name := e.Group.String(); !e.Draining {
				ready[name] = append(ready[name], p.endpoints[endpointKey{a.ref, e.Replica, e.Address}])
			}
		}
		var edges []*edge
		sticky := a.sticky()
		for _, spec := range a.table.Route.Edges {
			e := newEdge(a, spec, ready)
			e.sticky = sticky
			edges = append(edges, e)
			for _, address := range spec.Listen {
				next.streams[tcpName+address] = e
			}
			for _, l := range a.table.Listeners {
				if l.Service == spec.Service && l.From == spec.From {
					if spec.Protocol == spillway.TCP {
						next.streams[l.Address] = e
					} else {
						next.private[l.Address] = plainWay(e, l.Address)
					}
				}
			}
		}
		secureHosts(a.table, func(host string, terms spillway.TLS) {
			next.certificates[normalHost(host)] = secureHost{p.sourceOf(terms, host), terms.Redirect}
		})
		if err := next.ways.add(a, edges, before); err != nil {
			p.log.Error("the rules of a table are no good, although they were checked", "app", a.ref, "error", err)
		}
	}
	if old := p.routing.Swap(next); old != nil {
		close(old.changed)
	}
}

// remove forgets an app. Its open requests end as they would have.
func (p *plane) remove(ref spillway.Ref) error {
	p.mu.Lock()
	if p.frozen || p.closing() {
		p.mu.Unlock()
		return fmt.Errorf("remove %s: this proxy is being replaced; ask again: %w", ref, spillway.ErrUnavailable)
	}
	if p.apps[ref] == nil {
		p.mu.Unlock()
		return fmt.Errorf("remove %s: %w", ref, spillway.ErrNotFound)
	}
	gate := &p.apps[ref].gate
	delete(p.apps, ref)
	p.reroute()
	gate.open()
	p.closeEndpoints(ref, nil)
	p.unbind()
	p.mu.Unlock()
	p.log.Info("app removed", "app", ref)
	if err := p.save(); err != nil {
		p.log.Error("the app is removed and that could not be saved", "app", ref, "error", err)
		p.soon()
	}
	return nil
}

// report says what is served for an app now.
func (p *plane) report(ref spillway.Ref) (spillway.Report, error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.apps[ref]
	if a == nil {
		return spillway.Report{}, fmt.Errorf("the proxy has no table of %s: %w", ref, spillway.ErrNotFound)
	}
	r := spillway.Report{
		Hold: a.gate.told(), App: ref, Revision: a.table.Revision, Generation: a.table.Route.Generation,
		InFlight: p.inFlight(a), Counts: map[string]spillway.Traffic{}, Dead: p.dead(a),
	}
	for name, t := range a.tallies {
		r.Counts[name] = t.traffic(now)
	}
	for _, spec := range a.table.Route.Edges {
		r.Edges = append(r.Edges, newEdge(a, spec, nil).served())
	}
	if a.table.Route.Trial != nil {
		evidence := a.trial.evidence()
		evidence.Tripped = a.tripped()
		r.Evidence, r.Memory = &evidence, a.trial.memory(nil)
	}
	return r, nil
}

// inFlight counts the open requests of an app by replica: its own, and those that the replaced process
// still has. p.mu is held.
func (p *plane) inFlight(a *app) map[string]int {
	n := map[string]int{}
	for _, e := range a.table.Endpoints {
		n[e.Replica] = 0
	}
	for key, e := range p.endpoints {
		if open := e.inFlight.Load(); key.App == a.ref && open > 0 {
			n[key.Replica] += int(open)
		}
	}
	for key, open := range p.elder {
		if key.App == a.ref && open > 0 {
			n[key.Replica] += int(open)
		}
	}
	return n
}

// hostsOf are the public names in a table, normal, sorted.
func hostsOf(t spillway.Table) []string {
	var hosts []string
	for _, e := range t.Route.Edges {
		for _, h := range e.Hosts {
			hosts = append(hosts, normalHost(h))
		}
	}
	slices.Sort(hosts)
	return hosts
}

// claimsOf are the public names that a table has, by edges and by rules, sorted, without repetition.
func claimsOf(t spillway.Table) []string {
	hosts := hostsOf(t)
	for _, r := range t.Route.Rules {
		for _, h := range r.Hosts {
			hosts = append(hosts, normalHost(h))
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// checkTable refuses what cannot be served.
func checkTable(t spillway.Table) error {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format+": %w", append(args, spillway.ErrInvalid)...))
	}
	if t.App == "" {
		bad("the table names no app")
	}
	for _, e := range t.Route.Edges {
		sum := spillway.Share(0)
		for _, b := range e.Backends {
			sum += b.Weight
			for _, server := range b.URLs {
				if _, err := serverURL(server); err != nil {
					problems = append(problems, fmt.Errorf("edge %s, track %s: %w", e.Service, b.Track, err))
				}
			}
			if b.Weight < 0 {
				bad("edge %s from %s: backend %s has the weight %s", e.Service, e.From, b.Name(e.Service), b.Weight)
			}
		}
		if len(e.Backends) > 0 && sum != spillway.Whole {
			bad("edge %s from %s: the weights come to %s instead of 100%%", e.Service, e.From, sum)
		}
	}
	for _, e := range t.Endpoints {
		if _, _, err := net.SplitHostPort(e.Address); err != nil {
			bad("endpoint %s has the address %q instead of host:port", e.Replica, e.Address)
		}
	}
	for _, l := range t.Listeners {
		host, _, err := net.SplitHostPort(l.Address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			bad("listener of %s for %s: %q is no loopback address like 127.0.0.1:20017", l.Service, l.From, l.Address)
		}
	}
	checkTCP(t, bad)
	hosts := hostsOf(t)
	if unique := slices.Compact(slices.Clone(hosts)); len(unique) != len(hosts) {
		bad("a host is on two edges")
	}
	if err := checkRules(t); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// compareKeys orders endpoints.
func compareKeys(a, b endpointKey) int {
	return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Address, b.Address))
}
