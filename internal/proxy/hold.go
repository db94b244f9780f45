package proxy

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// maxQueue is how many requests of one app may wait, for a replica or for the end of a hold.
	maxQueue = 1000
	// releasePace lies between two held requests that go on, 200 a second: the app was away or busy, and is not to be
	// met by all of them at once.
	releasePace = 5 * time.Millisecond
	// longestHold bounds how long a request is held. Clients and what is before us give up earlier, mostly.
	longestHold = 10 * time.Minute
)

// gate is where requests of an app wait. The zero value is open.
type gate struct {
	shut    atomic.Pointer[closedGate] // nil = open
	waiting atomic.Int64               // never above maxQueue for long
	next    atomic.Int64               // when the next held request may go on, in Unix nanoseconds
}

// closedGate is a hold.
type closedGate struct {
	since time.Time
	wait  time.Duration // for how long a request is held
	over  chan struct{} // closed at its end
}

// enter counts a request that is to wait. It fails when too many do. Whoever entered leaves.
func (g *gate) enter() bool {
	if g.waiting.Add(1) <= maxQueue {
		return true
	}
	g.waiting.Add(-1)
	return false
}

func (g *gate) leave() { g.waiting.Add(-1) }

// turn is how long a held request has to wait for its turn to go on.
func (g *gate) turn(now time.Time) time.Duration {
	for {
		next := g.next.Load()
		at := max(next, now.UnixNano())
		if g.next.CompareAndSwap(next, at+int64(releasePace)) {
			return time.Duration(at - now.UnixNano())
		}
	}
}

// open ends the hold, if there is one.
func (g *gate) open() {
	if h := g.shut.Swap(nil); h != nil {
		close(h.over)
	}
}

// close holds what comes from now on. A hold that is on goes on, with the new time for requests that come.
func (g *gate) close(since time.Time, wait time.Duration) {
	h := &closedGate{since, wait, make(chan struct{})}
	if old := g.shut.Load(); old != nil {
		h.since, h.over = old.since, old.over
	}
	g.shut.Store(h)
}

// told is the hold as it is told; nil = there is none.
func (g *gate) told() *spillway.Hold {
	h := g.shut.Load()
	if h == nil {
		return nil
	}
	return &spillway.Hold{Since: h.since, For: spillway.Duration(h.wait), Waiting: int(g.waiting.Load())}
}

// errQueueFull: too many requests wait already.
func errQueueFull(a *app) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: fmt.Sprintf("%d requests of %s wait already", maxQueue, a.ref), kind: tooMany}
}

// stay holds the request while its app is held. Calls between the services of an app pass: requests in flight need
// them to come to their end. An error is a refusal, or errClientLeft.
func (x *exchange) stay(e *edge) error {
	g := &e.app.gate
	h := g.shut.Load()
	if h == nil || e.private() {
		return nil
	}
	if !g.enter() {
		return errQueueFull(e.app)
	}
	defer g.leave()
	defer func() {
		x.now = time.Now()
		x.untimed = x.now.Sub(x.began)
	}()
	gone := make(chan struct{})
	defer x.plane.seen.hold(true)()
	defer x.client.watch(sync.OnceFunc(func() { close(gone) }))()
	timer := time.NewTimer(h.wait)
	defer timer.Stop()
	for over := h.over; ; over = nil {
		select {
		case <-gone:
			return errClientLeft
		case <-x.plane.left:
			if x.plane.handedOver() {
				return nil // the heir holds it
			}
			return &refusal{status: http.StatusServiceUnavailable, reason: fmt.Sprintf("%s is held, and the proxy stops", e.app.ref), kind: noBackend}
		case <-timer.C:
			if over == nil {
				return nil // it is its turn
			}
			return &refusal{status: http.StatusServiceUnavailable, reason: fmt.Sprintf("%s is held, and the request has waited for %v", e.app.ref, h.wait), kind: noBackend}
		case <-over:
			timer.Reset(g.turn(time.Now()))
		}
	}
}

// hold shuts the gate of an app, or opens it with a wait of 0, and tells the hold: as it is, or as it was.
func (p *plane) hold(ref spillway.Ref, wait time.Duration) (spillway.Hold, error) {
	if wait < 0 || wait > longestHold {
		return spillway.Hold{}, fmt.Errorf("hold %s: a request cannot be held for %v, only for up to %v: %w", ref, wait, longestHold, spillway.ErrInvalid)
	}
	p.mu.Lock()
	a := p.apps[ref]
	switch {
	case p.frozen || p.closing():
		p.mu.Unlock()
		return spillway.Hold{}, fmt.Errorf("hold %s: this proxy is being replaced; ask again: %w", ref, spillway.ErrUnavailable)
	case a == nil:
		p.mu.Unlock()
		return spillway.Hold{}, fmt.Errorf("hold %s: the proxy has no table of it: %w", ref, spillway.ErrNotFound)
	}
	var told *spillway.Hold
	if wait == 0 {
		told = a.gate.told()
		a.gate.open()
	} else {
		a.gate.close(time.Now(), wait)
		told = a.gate.told()
	}
	p.mu.Unlock()
	p.log.Info("hold", "app", ref, "on", wait > 0, "wait", wait)
	if err := p.save(); err != nil {
		p.log.Error("the hold is in force and could not be saved", "app", ref, "error", err)
		p.soon()
	}
	p.watch.tell(ref)
	if told == nil {
		return spillway.Hold{}, nil
	}
	return *told, nil
}

// serveHold is hold on the control socket.
func (p *plane) serveHold(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	wait, err := time.ParseDuration(q.Get("for"))
	if err != nil {
		sendError(w, fmt.Errorf("hold: %w: %w", err, spillway.ErrInvalid))
		return
	}
	told, err := p.hold(spillway.Ref(q.Get("app")), wait)
	sendResult(w, told, err)
}
