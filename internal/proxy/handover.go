package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// heirTime is how long an heir may take to load the snapshot and to accept connections.
	heirTime = 20 * time.Second
	// countEvery is how often the heir is told how many requests are left here.
	countEvery = 10 * time.Millisecond

	// rescuedHeader goes from a replaced proxy to its heir: see relay.
	rescuedHeader = "X-Spillway-Rescued"

	lockName   = "proxy.lock"
	publicName = "public " // before the address, in the name of the public listener
	secureName = "https "  // the same for HTTPS
	ready      = "ready\n"
	gone       = "HTTP/1.1 410 Gone" // the answer of a proxy that has an heir already
)

// message is one line from a proxy to its heir. The first ones carry a descriptor each (Descriptor, in
// the ancillary data), up to Complete; then come answers and counts in any order. InFlight always comes
// after the outcomes of the requests that it no longer counts.
type message struct {
	Descriptor string `json:"descriptor,omitempty"` // "proxy.lock", "public :8080", "https :8443", "tcp :6379" or a private address
	Complete   bool   `json:"complete,omitempty"`   // that was the last descriptor

	App     spillway.Ref `json:"app,omitempty"` // of Outcome
	Trial   int64        `json:"trial,omitempty"`
	Outcome *outcome     `json:"outcome,omitempty"`

	InFlight *[]openRequests `json:"in_flight,omitempty"` // all that is left
}

type openRequests struct {
	endpointKey
	Open int64 `json:"open"`
}

// heir is the process that takes over, as the old one sees it.
type heir struct {
	mu    sync.Mutex
	queue []message
	wake  chan struct{} // has room for one
}

// tell never waits.
func (h *heir) tell(m message) {
	h.mu.Lock()
	h.queue = append(h.queue, m)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default: // it is awake
	}
}

func (h *heir) take() []message {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queue
	h.queue = nil
	return q
}

// bequeath hands this proxy over to the process behind conn. With an error this one goes on as if
// nothing had been.
func (p *plane) bequeath(conn *net.UnixConn) error {
	defer conn.Close()
	h := &heir{wake: make(chan struct{}, 1)}
	if p.handedOver() {
		_, _ = io.WriteString(conn, gone+"\r\nConnection: close\r\n\r\n")
		return errors.New("there is nothing left to hand over")
	}
	if err := p.freeze(h); err != nil {
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n%s", err)
		return err
	}
	defer p.servers.Done()
	if err := p.introduce(conn); err != nil {
		p.thaw()
		return err
	}
	// The heir accepts on copies of our listeners. Ours are closed before requests are passed on, so
	// that none comes back here.
	p.stopAccepting()
	p.stage.Store(handed)
	p.lock.Close() // the heir has a copy; should it die, its successor must not wait for our last request
	close(p.heired)
	p.tellTheEnd(conn, h)
	return nil
}

// freeze writes the last snapshot of this process. What is judged from then on, h is told. Without an
// error the caller owes p.servers a Done.
func (p *plane) freeze(h *heir) error {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	if p.frozen || p.closing() {
		p.mu.Unlock()
		return errors.New("this proxy is being replaced or stopped already")
	}
	p.frozen = true
	p.servers.Add(1) // Run waits for the last word to the heir
	text := p.snapshot(h)
	p.mu.Unlock()
	if err := writeFile(p.snapshotPath(), text); err != nil {
		p.servers.Done()
		p.thaw()
		return fmt.Errorf("save before the hand-over: %w", err)
	}
	return nil
}

// thaw takes tables and snapshot back from an heir that did not come to life.
func (p *plane) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = false
	for _, a := range p.apps {
		if a.trial != nil {
			a.trial.disown()
		}
	}
	p.soon()
}

// introduce sends the heir every descriptor and waits until it serves.
func (p *plane) introduce(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(heirTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spillway-handover\r\n\r\n"); err != nil {
		return err
	}
	p.mu.Lock()
	all := map[string]syscall.Conn{lockName: p.lock, publicName + p.public.address: p.public.tcp}
	if p.secure != nil {
		all[secureName+p.secure.address] = p.secure.tcp
	}
	if p.seen.metrics != nil {
		all[metricsName+p.seen.conf.Metrics] = p.seen.metrics
	}
	for address, l := range p.listeners {
		all[address] = l.tcp
	}
	for name, tcp := range p.intakeSockets() {
		all[name] = tcp
	}
	p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := sendDescriptor(conn, name, all[name]); err != nil {
			return fmt.Errorf("send %s: %w", name, err)
		}
	}
	if err := json.NewEncoder(conn).Encode(message{Complete: true}); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(ready))); err != nil {
		return fmt.Errorf("the new proxy did not come to serve: %w", err)
	}
	return conn.SetDeadline(time.Time{})
}

func sendDescriptor(conn *net.UnixConn, name string, c syscall.Conn) error {
	line, err := json.Marshal(message{Descriptor: name})
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	// Not File and Fd: they would make the listener, which is shared, block.
	err = raw.Control(func(fd uintptr) {
		_, _, err = conn.WriteMsgUnix(append(line, '\n'), syscall.UnixRights(int(fd)), nil)
	})
	return err
}

// tellTheEnd tells the heir what still happens here, until the drain is over and the process before this
// one, if there is one, is done too. An heir that is gone is no reason to drop requests, so its errors
// are not looked at.
func (p *plane) tellTheEnd(conn *net.UnixConn, h *heir) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	lines := json.NewEncoder(conn)
	var told []openRequests
	for first, drained := true, false; ; first = false {
		// Counted before the outcomes are taken: see message.
		open := p.openRequests()
		for _, m := range h.take() {
			_ = lines.Encode(m)
		}
		if first || !slices.Equal(open, told) {
			_ = lines.Encode(message{InFlight: &open})
			told = open
		}
		if drained && len(open) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-h.wake:
		}
		select {
		case <-p.drained:
			drained = true
		default:
		}
	}
}

// openRequests lists the endpoints that have requests of this process, and of the one before it.
func (p *plane) openRequests() []openRequests {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := maps.Clone(p.elder) // of endpoints that this process may have forgotten
	if count == nil {
		count = map[endpointKey]int64{}
	}
	for key, e := range p.endpoints {
		count[key] += e.inFlight.Load()
	}
	open := []openRequests{}
	for key, n := range count {
		if n > 0 {
			open = append(open, openRequests{key, n})
		}
	}
	slices.SortFunc(open, func(a, b openRequests) int { return compareKeys(a.endpointKey, b.endpointKey) })
	return open
}

// relay passes a request that can claim nothing after the hand-over on to the heir, at the address where
// it came in; what came over TLS goes to the public listener without, with the header that says so. If the
// candidate has failed it here already, stable has to answer it there.
func (x *exchange) relay() {
	p, c := x.plane, x.call
	x.passedOn = true
	local := c.local.String()
	if c.secure {
		local = p.public.tcp.Addr().String()
	}
	x.head.last = true
	if x.body != nil && !x.body.repeatable() {
		x.passedOn = false
		x.refuse(&refusal{status: http.StatusBadGateway, reason: "the proxy was replaced while the request was being sent", kind: replaced})
		return
	}
	x.out = outgoing{
		call: c, host: c.host, body: x.body, client: x.client, base: &url.URL{Scheme: "http", Host: local}, unit: x.who, synthetic: x.synthetic,
		rescued: x.rescued, relayed: true, last: !c.upgrade, limit: answerTimeout + holdTime,
	}
	r, err := newOrigin(x.out.base, p.blocks).send(&x.out)
	if err != nil {
		x.passedOn = false
		x.refuse(&refusal{status: http.StatusBadGateway, reason: "the new proxy " + plainly(err), kind: replaced, detail: "the new proxy " + err.Error()})
		return
	}
	defer r.close()
	if release := r.header.Get(releaseHeader); release != "" {
		x.add(releaseHeader, release)
	}
	if r.status == http.StatusSwitchingProtocols {
		x.join(r)
		return
	}
	x.way = &way{retries: -1} // nothing is done to the heir's answer
	if x.pass(r) != nil {
		x.client.abort()
	}
}
