package proxy

import (
	"context"
	"net"
	"time"

	"github.com/spillway-dev/spillway"
)

// lookEvery is how often files of certificates are looked at, and addresses that another program
// has are tried again.
const lookEvery = time.Second

// lookAround notices what changes beside tables and requests, until ctx ends.
func (p *plane) lookAround(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.look()
			p.prune()
		}
	}
}

// prune closes connections to replicas that were idle for too long.
func (p *plane) prune() {
	before := time.Now().Add(-idleTimeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.endpoints {
		e.sender.prune(before)
	}
}

func (p *plane) look() {
	p.mu.Lock()
	var tables []spillway.Table
	for _, a := range p.apps {
		tables = append(tables, a.table)
		if p.frozen || p.closing() || !p.lacks(a.table) {
			continue
		}
		if bound := p.bind(a.table); len(bound) > 0 {
			p.accept(bound)
			p.watch.tell(a.ref)
		}
	}
	p.mu.Unlock()
	for _, t := range tables {
		if p.readCertificates(t) {
			p.watch.tell(t.App)
		}
	}
}

// lacks reports whether an address of the table is not bound. p.mu is held.
func (p *plane) lacks(t spillway.Table) bool {
	for name := range socketsOf(t) {
		if p.missing[name] != "" {
			return true
		}
	}
	return false
}

// bind listens on the addresses of a table that are not bound yet, private ones and those of TCP, by their names. Nothing is accepted before
// accept. An address that another program has is missing and is tried again by look: neither the other
// edges nor a roll-back must wait for it. p.mu is held.
func (p *plane) bind(t spillway.Table) map[string]*net.TCPListener {
	bound := map[string]*net.TCPListener{}
	for name, l := range socketsOf(t) {
		if p.listeners[name] != nil || p.intakes[name] != nil {
			continue
		}
		tcp, err := p.inherited.take(name)
		if err != nil {
			if p.missing[name] != err.Error() {
				p.log.Error("address is missing", "app", t.App, "service", l.Service, "from", l.From, "error", err)
			}
			p.missing[name] = err.Error()
			continue
		}
		delete(p.missing, name)
		bound[name] = tcp
	}
	return bound
}

// dead says what of an app cannot be used, by address, file or URL, and why. p.mu is held.
func (p *plane) dead(a *app) map[string]string {
	dead := map[string]string{}
	for key := range endpointsOf(a.table) {
		if e := p.endpoints[key]; e != nil && e.external() {
			if why := e.reach.dead(); why != "" {
				dead[key.Address] = why
			}
		}
	}
	p.badCertificates(a.table, dead)
	for name, l := range socketsOf(a.table) {
		if why := p.missing[name]; why != "" {
			dead[l.Address] = why
		}
	}
	return dead
}
