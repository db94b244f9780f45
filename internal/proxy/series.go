package proxy

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// shards keep processors that count at the same time out of each other's cache lines.
	shards = 4
	// maxRoutes bounds the names of rules in one series; the rest are counted as otherRoutes.
	maxRoutes   = 500
	otherRoutes = "other"
)

// bounds are the upper ends of the classes of times in the exposition, but for the last, which has none. They
// never change: recorded queries would break.
var bounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// codes are the classes of answers that are counted apart.
var codes = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx", "499"}

// codeClass gives the class of a record.code.
func codeClass(code int) int {
	switch {
	case code == 499:
		return 6
	case 100 <= code && code < 600:
		return code / 100
	}
	return 0
}

// shard is what was counted of one class of answers, by some processors. It fills three cache lines.
type shard struct {
	times   [len(bounds) + 1]atomic.Uint64 // requests by how long they took
	micros  atomic.Uint64                  // that they took together
	in, out atomic.Uint64                  // bytes of bodies
	retries atomic.Uint64
	left    atomic.Uint64
	_       [32]byte
}

// answers are the counts of one route by class of answer. A class that never came takes no memory.
type answers [len(codes)]atomic.Pointer[[shards]shard]

func (a *answers) count(r *record) {
	at := &a[codeClass(r.code())]
	block := at.Load()
	if block == nil {
		at.CompareAndSwap(nil, new([shards]shard))
		block = at.Load()
	}
	s := &block[rand.Uint32()%shards]
	i := 0
	for i < len(bounds) && r.whole > bounds[i] {
		i++
	}
	s.times[i].Add(1)
	s.micros.Add(uint64(max(r.whole.Microseconds(), 0)))
	if r.in > 0 {
		s.in.Add(uint64(r.in))
	}
	if r.out > 0 {
		s.out.Add(uint64(r.out))
	}
	if r.retries > 0 {
		s.retries.Add(uint64(r.retries))
	}
	if r.left {
		s.left.Add(1)
	}
}

// sum adds the shards of a class up; ok is false when the class never came.
func (a *answers) sum(class int) (total sums, ok bool) {
	block := a[class].Load()
	if block == nil {
		return sums{}, false
	}
	for i := range block {
		s := &block[i]
		for j := range s.times {
			n := s.times[j].Load()
			total.times[j] += n
			total.requests += n
		}
		total.micros += s.micros.Load()
		total.in += s.in.Load()
		total.out += s.out.Load()
		total.retries += s.retries.Load()
		total.left += s.left.Load()
	}
	return total, true
}

// sums are the counts of a class of answers at one moment.
type sums struct {
	times                                    [len(bounds) + 1]uint64
	requests, micros, in, out, retries, left uint64
}

// seriesKey is what requests are counted apart by, within an app: an edge, and what stood behind it.
type seriesKey struct {
	service string
	from    string // the service that calls; "" = users
	release int    // 0 = they were answered by no release
	track   string
}

// series counts the requests of one seriesKey. The zero value is ready.
type series struct {
	plain   answers       // of requests that no named rule sent
	rescued atomic.Uint64 // requests that stable was to answer instead
	named   sync.Map      // *answers by the name of the rule
	names   atomic.Int32  // in named, or about to be
	other   answers       // of rules beyond maxRoutes
}

func (s *series) of(route string) *answers {
	if route == "" {
		return &s.plain
	}
	if a, ok := s.named.Load(route); ok {
		return a.(*answers)
	}
	if s.names.Load() >= maxRoutes || s.names.Add(1) > maxRoutes {
		return &s.other
	}
	a, known := s.named.LoadOrStore(route, new(answers))
	if known {
		s.names.Add(-1)
	}
	return a.(*answers)
}

// each calls f for the counts of each route that has some: "" are those of no rule.
func (s *series) each(f func(route string, a *answers)) {
	f("", &s.plain)
	s.named.Range(func(name, a any) bool {
		f(name.(string), a.(*answers))
		return true
	})
	f(otherRoutes, &s.other)
}

// appSeen is what is counted of one app. Its map is guarded by plane.mu, the rest changes by itself.
type appSeen struct {
	all      map[seriesKey]*series
	refusals [refusedKinds]atomic.Uint64
	trips    atomic.Uint64
	mirrored mirrored
}

// series gives the counts of an edge and a backend behind it; of nil, those of requests that came to none.
// plane.mu is held.
func (a *app) series(spec spillway.Edge, b *spillway.Backend) *series {
	key := seriesKey{service: spec.Service, from: spec.From.Service}
	if b != nil {
		key.release, key.track = b.Release, b.Track
	}
	s := a.seen.all[key]
	if s == nil {
		s = new(series)
		if a.seen.all == nil {
			a.seen.all = map[seriesKey]*series{}
		}
		a.seen.all[key] = s
	}
	return s
}

// forgetSeries drops the counts of what the table knows nothing of, so that they stay few. plane.mu is held.
func (a *app) forgetSeries() {
	known := map[seriesKey]bool{}
	for _, e := range a.table.Route.Edges {
		key := seriesKey{service: e.Service, from: e.From.Service}
		known[key] = true
		for _, b := range e.Backends {
			key.release, key.track = b.Release, b.Track
			known[key] = true
		}
	}
	for key := range a.seen.all {
		if !known[key] {
			delete(a.seen.all, key)
		}
	}
}

// count counts a request where it belongs. It allocates nothing, but for what is counted for the first time.
func (s *seen) count(r *record) {
	at, refusals := &s.unplaced, &s.refusals
	if r.edge != nil {
		at, refusals = r.edge.series, &r.edge.app.seen.refusals
	}
	if r.arm != nil {
		at = r.arm.series
	}
	at.of(r.route).count(r)
	if r.failing != nil {
		r.failing.series.rescued.Add(1)
	}
	if r.refused != notRefused {
		refusals[r.refused].Add(1)
	}
}
