package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
)

// cooldown is how long a port stays unused after its replica ended, so that a late packet for the old
// one does not meet the new one.
const cooldown = time.Minute

// ports hands out loopback ports from a range. Which are in use is not stored here: whoever restores a
// replica or a listener from disk claims its port again.
type ports struct {
	mu    sync.Mutex
	low   int // first port of the range
	count int
	next  int               // offset to try first
	busy  map[int]time.Time // until when a port must not be given away; zero time = in use
}

// newPorts makes a pool of the ports [low, high). It starts at a random place, so that two servers on one
// machine, or one server after a restart, rarely reach for the same port.
func newPorts(low, high int) *ports {
	return &ports{low: low, count: high - low, next: rand.IntN(high - low), busy: map[int]time.Time{}}
}

// claim marks a port as in use.
func (p *ports) claim(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy[port] = time.Time{}
}

// release gives a port back; it cools down first.
func (p *ports) release(port int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port != 0 {
		p.busy[port] = now.Add(cooldown)
	}
}

// take finds a port on which something can listen now, and marks it as in use.
func (p *ports) take(now time.Time) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.count {
		port := p.low + p.next
		p.next = (p.next + 1) % p.count
		if until, ok := p.busy[port]; ok && (until.IsZero() || now.Before(until)) {
			continue
		}
		l, err := net.Listen("tcp4", loopback(port))
		if err != nil {
			continue
		}
		if l.Close() != nil {
			continue
		}
		p.busy[port] = time.Time{}
		return port, nil
	}
	return 0, fmt.Errorf("no free port from %d to %d: %w", p.low, p.low+p.count-1, spillway.ErrUnavailable)
}

// loopback gives "127.0.0.1:20001".
func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
