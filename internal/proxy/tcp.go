package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// tcpName is before the address, in the name of the socket of a public address of TCP. A private address is its own
// name, whatever is spoken there.
const tcpName = "tcp "

// Pauses after an accept that failed because the machine has no more to give.
const (
	acceptPause    = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// intake is an address at which connections are taken that are passed through as they are.
type intake struct {
	tcp   *net.TCPListener
	end   context.CancelFunc // ends its connections
	conns atomic.Int64
}

// openIntake serves a bound listener by the edge that the routing has for its name. p.mu is held.
func (p *plane) openIntake(name string, tcp *net.TCPListener) {
	ctx, end := context.WithCancel(p.base)
	in := &intake{tcp: tcp, end: end}
	p.intakes[name] = in
	p.servers.Add(1)
	// Owned by the plane; ends when the listener is closed; Run waits for it.
	go func() {
		defer p.servers.Done()
		if err := p.takeIn(ctx, in, name); err != nil {
			p.broken <- fmt.Errorf("accept on %s: %w", strings.TrimPrefix(name, tcpName), err)
		}
	}()
}

// takeIn accepts connections until the listener is closed.
func (p *plane) takeIn(ctx context.Context, in *intake, name string) error {
	pause := acceptPause
	for {
		conn, err := in.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case exhausted(err):
			p.complain("connections have to wait", "address", in.tcp.Addr(), "error", err)
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			pause = min(2*pause, maxAcceptPause)
			continue
		case err != nil:
			return err
		}
		pause = acceptPause
		p.active.Add(1)
		in.conns.Add(1)
		p.servers.Add(1)
		// Owned by the plane; ends with the connection, at the latest with ctx; Run waits for it.
		go func() {
			defer p.servers.Done()
			defer p.active.Add(-1)
			defer in.conns.Add(-1)
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			p.passThrough(ctx, name, conn)
		}()
	}
}

// exhausted reports whether an accept failed for want of something that comes back.
func exhausted(err error) bool {
	for _, number := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

// retireIntake lets an intake go whose listener is closed: its connections may end by themselves for drainTime.
func (p *plane) retireIntake(in *intake) {
	in.tcp.Close() // at once, so that the address can be bound again
	p.servers.Add(1)
	// Owned by the plane; ends when the connections have ended, or after drainTime; Run waits for it.
	go func() {
		defer p.servers.Done()
		defer in.end()
		ctx, cancel := context.WithTimeout(p.base, drainTime)
		defer cancel()
		poll(time.Now().Add(drainTime), func() bool { return in.conns.Load() == 0 || ctx.Err() != nil })
	}()
}

// socketsOf names the sockets that a table wants, each with whom to tell about when it is missing.
func socketsOf(t spillway.Table) map[string]spillway.EdgeListener {
	names := map[string]spillway.EdgeListener{}
	for _, l := range t.Listeners {
		names[l.Address] = l
	}
	for _, e := range t.Route.Edges {
		for _, address := range e.Listen {
			names[tcpName+address] = spillway.EdgeListener{Service: e.Service, Address: address}
		}
	}
	return names
}

// spokenAt is what is spoken at the sockets of a table: whether it is TCP, for those that an edge is reached at.
func spokenAt(t spillway.Table) map[string]bool {
	tcp := map[string]bool{}
	for _, e := range t.Route.Edges {
		for _, address := range e.Listen {
			tcp[tcpName+address] = true
		}
		for _, l := range t.Listeners {
			if l.Service == e.Service && l.From == e.From {
				tcp[l.Address] = e.Protocol == spillway.TCP
			}
		}
	}
	return tcp
}

// convert gives up the listeners of a table's private addresses at which something else is spoken from now on, and
// keeps their sockets for bind, so that nobody is refused in between. p.mu is held.
func (p *plane) convert(t spillway.Table) {
	for name, tcp := range spokenAt(t) {
		var old *net.TCPListener
		switch l, in := p.listeners[name], p.intakes[name]; {
		case tcp && l != nil:
			old = l.tcp
		case !tcp && in != nil:
			old = in.tcp
		default:
			continue
		}
		copied, err := duplicate(old)
		if err != nil {
			p.log.Warn("an address is bound anew, because something else is spoken there now", "address", name, "error", err)
		} else {
			if p.inherited == nil {
				p.inherited = sockets{}
			}
			p.inherited[name] = copied
		}
		p.giveUp(name)
	}
}

// duplicate is a second listener on the socket of a first one.
func duplicate(l *net.TCPListener) (*net.TCPListener, error) {
	f, err := l.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	copied, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return copied.(*net.TCPListener), nil
}

// giveUp closes the socket of a name and lets its connections end. p.mu is held.
func (p *plane) giveUp(name string) {
	if in := p.intakes[name]; in != nil {
		delete(p.intakes, name)
		p.retireIntake(in)
	}
	if l := p.listeners[name]; l != nil {
		delete(p.listeners, name)
		p.retire(l)
	}
}

// addressTaken says which app has a public address that a table wants; "" when none has. p.mu is held.
func (p *plane) addressTaken(t spillway.Table) (address string, by spillway.Ref) {
	for _, want := range addressesOf(t) {
		for ref, a := range p.apps {
			if ref != t.App && slices.ContainsFunc(addressesOf(a.table), func(has string) bool { return spillway.Collide(want, has) }) {
				return want, ref
			}
		}
	}
	return "", ""
}

// addressesOf are the public addresses of TCP in a table, sorted.
func addressesOf(t spillway.Table) []string {
	var list []string
	for _, e := range t.Route.Edges {
		list = append(list, e.Listen...)
	}
	slices.Sort(list)
	return list
}

// checkTCP refuses edges that mix connections and requests.
func checkTCP(t spillway.Table, bad func(format string, args ...any)) {
	for _, e := range t.Route.Edges {
		if e.Protocol != spillway.TCP {
			if len(e.Listen) > 0 {
				bad("edge %s listens at %s and does not speak tcp", e.Service, strings.Join(e.Listen, ", "))
			}
			continue
		}
		if len(e.Hosts)+len(e.Rules) > 0 || slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return len(b.URLs) > 0 }) {
			bad("edge %s speaks tcp, which knows no hosts, rules and URLs", e.Service)
		}
		for _, address := range e.Listen {
			if _, _, err := net.SplitHostPort(address); err != nil {
				bad("edge %s listens at %q instead of [IP]:PORT", e.Service, address)
			}
		}
	}
	list := addressesOf(t)
	for i, address := range list {
		if slices.ContainsFunc(list[:i], func(other string) bool { return spillway.Collide(address, other) }) {
			bad("the address %s is on two edges", address)
		}
	}
}

// intakeSockets lists the listeners of connections by name, for an heir. p.mu is held.
func (p *plane) intakeSockets() map[string]*net.TCPListener {
	all := map[string]*net.TCPListener{}
	for name, in := range maps.All(p.intakes) {
		all[name] = in.tcp
	}
	return all
}
