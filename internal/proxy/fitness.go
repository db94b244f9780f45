package proxy

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// cooling is how long an endpoint that could not be connected to is passed over, for the first time.
	cooling = time.Second
	// longestCooling is how long it is passed over at most, when it fails each time that it is tried again.
	longestCooling = 30 * time.Second
	// unfitAfter is how many attempts in a row have to end without an answer, over connections that were made,
	// before an endpoint is passed over: one may be the fault of a single request.
	unfitAfter = 5
	// warmUp is how long the share of an endpoint grows that is new beside others, or was passed over.
	warmUp = 5 * time.Second
	// warmUpFrom is the part of its share that it begins with.
	warmUpFrom = 0.1
)

// fitness is what attempts have shown of an endpoint. An answer is a good sign whatever its status is: errors
// of the app are for the judge. The zero value is fit.
type fitness struct {
	missed atomic.Int32 // attempts without an answer since the last answer, or since it was passed over
	turns  atomic.Int32 // how often it was passed over since the last answer
	cold   atomic.Int64 // passed over until then, and warming up from then on, in Unix nanoseconds
}

// chill passes the endpoint over for a while, which doubles with each time: 1 s, 2 s, 4 s … 30 s. While it is passed
// over, further failures change nothing: they may all have begun before. It reports for how long; 0 = it was already.
func (f *fitness) chill(now time.Time) time.Duration {
	before := f.cold.Load()
	if before > now.UnixNano() {
		return 0
	}
	pause := min(cooling<<min(f.turns.Load(), 10), longestCooling)
	if !f.cold.CompareAndSwap(before, now.Add(pause).UnixNano()) {
		return 0 // somebody else did
	}
	f.turns.Add(1)
	f.missed.Store(0)
	return pause
}

// learn takes in how an attempt ended. It reports for how long the endpoint is passed over because of it; 0 = it is not.
func (f *fitness) learn(err error, now time.Time) time.Duration {
	if err == nil {
		if f.missed.Load() != 0 {
			f.missed.Store(0)
		}
		if f.turns.Load() != 0 && f.cold.Load() <= now.UnixNano() {
			f.turns.Store(0)
		}
		return 0
	}
	var why *fault
	if errors.As(err, &why) && why.kind == noConnection || f.missed.Add(1) >= unfitAfter {
		return f.chill(now)
	}
	return 0
}

// join lets the share of the endpoint grow from now on, because it is new beside others.
func (f *fitness) join(now time.Time) { f.cold.Store(now.UnixNano()) }

// part is the part of its share that an endpoint gets which is not passed over. Worked example: 2 s after it was
// passed over it gets 0.4.
func (f *fitness) part(now time.Time) float64 {
	since := time.Duration(now.UnixNano() - f.cold.Load())
	if since >= warmUp {
		return 1
	}
	return max(float64(since)/float64(warmUp), warmUpFrom)
}

// two is two of the endpoints that were added, each with the same chance.
type two struct {
	n    int
	a, b *endpoint
}

func (d *two) add(e *endpoint) {
	d.n++
	switch k := rand.IntN(d.n); {
	case d.n == 1 || k == 0 && d.n > 2:
		d.a = e
	case d.n == 2 || k == 1:
		d.b = e
	}
}

// best is the one with fewer requests in flight; nil when none was added.
func (d *two) best() *endpoint {
	a, b := d.a, d.b
	if b == nil {
		return a
	}
	if rand.IntN(2) == 0 {
		a, b = b, a
	}
	if b.inFlight.Load() < a.inFlight.Load() {
		return b
	}
	return a
}

// pick chooses the one with fewer requests in flight of two endpoints drawn at random, without those
// that have failed this request already. Cold endpoints are passed over, but never more than half of all, and
// never when there is no other, so the last one is never given up. nil when none is left.
func pick(endpoints, failed []*endpoint, now time.Time) *endpoint {
	open, plain, cold := 0, 0, 0
	for _, e := range endpoints {
		since := now.UnixNano() - e.cold.Load()
		switch {
		case e.closed.Load():
			continue
		case since < 0:
			cold++
		case since >= int64(warmUp) && len(failed) == 0:
			plain++
		}
		open++
	}
	if n := len(endpoints); plain == n && n > 1 {
		i, j := rand.IntN(n), rand.IntN(n-1)
		if j >= i {
			j++
		}
		d := two{2, endpoints[i], endpoints[j]}
		return d.best()
	}
	until := tolerable(endpoints, cold-open/2, now)
	var warm, warming, passed two
	for _, e := range endpoints {
		switch cold := e.cold.Load(); {
		case e.closed.Load() || slices.Contains(failed, e):
		case cold > max(until, now.UnixNano()):
			passed.add(e)
		case cold > now.UnixNano() || rand.Float64() < e.part(now):
			warm.add(e)
		default:
			warming.add(e)
		}
	}
	for _, some := range []*two{&warm, &warming, &passed} {
		if some.n > 0 {
			return some.best()
		}
	}
	return nil
}

// tolerable is until when an endpoint may be cold and is taken all the same, so that at least n of the cold ones are:
// those whose time is over first. 0 when n is not positive.
func tolerable(endpoints []*endpoint, n int, now time.Time) int64 {
	until := int64(0)
	for after := now.UnixNano(); n > 0; after = until {
		until = 0
		for _, e := range endpoints {
			if at := e.cold.Load(); at > after && !e.closed.Load() && (until == 0 || at < until) {
				until = at
			}
		}
		if until == 0 {
			return after
		}
		for _, e := range endpoints {
			if e.cold.Load() == until && !e.closed.Load() {
				n--
			}
		}
	}
	return until
}
