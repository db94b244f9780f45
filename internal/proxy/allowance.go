package proxy

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"
)

// What a frame of HTTP/2 costs its client, and what earns the client more. Worked examples: whoever takes each request
// back at once (8 - 4) may do that 250 times, and then 12 times a second. An empty frame costs 1: that makes 1,000, and then 50
// a second. A download earns more than it costs to make room for it, and a stream of small messages more than a client spends
// that answers each with a ping and makes room twice.
const (
	firstAllowance = 1_000
	mostAllowance  = 10_000
	perSecond      = 50
	perRequest     = 4    // also for each frame of an answer
	perReset       = 8    // the cost of taking a request back
	perAnswer      = 1024 // so many bytes at once of an answer earn 1
)

// errFlood: a client sends frames that are good for nothing, and does not stop.
var errFlood = errors.New("a flood of HTTP/2 frames")

// allowance is how much a client of HTTP/2 may send that is good for no request: frames without content, and requests
// that it takes back. By itself each is allowed, and net/http bounds only some of them. Make it with newAllowance.
type allowance struct {
	place  place
	stream uint32 // the latest
	since  time.Time
	left   atomic.Int64
}

// newAllowance is for a connection that begins with the preface.
func newAllowance() *allowance {
	a := &allowance{since: time.Now(), place: place{have: frameHeader, left: len(preface)}}
	a.left.Store(firstAllowance)
	return a
}

// read goes past bytes that the client sent. It fails when there is nothing left.
func (a *allowance) read(b []byte) error {
	for len(b) > 0 {
		var begins bool
		if b, begins = a.place.next(b); !begins {
			continue
		}
		if f := &a.place; f.kind() == frameHeaders {
			a.stream = max(a.stream, binary.BigEndian.Uint32(f.header[5:])&^(1<<31))
		}
		if price := a.place.price(); price < 0 {
			a.earn(-price)
		} else if a.left.Add(-price) <= 0 && !a.rested() {
			return errFlood
		}
	}
	return nil
}

// rested counts the time since it was counted last, and reports whether something is left now.
func (a *allowance) rested() bool {
	now := time.Now()
	earned := int64(now.Sub(a.since) * perSecond / time.Second)
	if a.since = now; a.left.Load() <= 0 && earned == 0 {
		return false
	}
	a.earn(earned)
	return a.left.Load() > 0
}

// answered: the client is sent so many frames of answers, among so many bytes. What only answers frames of its own, such
// as pings, earns nothing.
func (a *allowance) answered(frames, bytes int) {
	if frames > 0 {
		a.earn(int64(frames*perRequest + bytes/perAnswer))
	}
}

// earn gives more, up to mostAllowance. Who writes does it too.
func (a *allowance) earn(n int64) {
	if more := a.left.Add(n) - mostAllowance; n > 0 && more > 0 {
		a.left.Add(-min(n, more))
	}
}

// price is what the frame costs that begins; less than nothing when it serves a request.
func (f *place) price() int64 {
	switch {
	case f.kind() == frameHeaders:
		return -perRequest
	case f.kind() == frameData && (f.left > 0 || f.endsStream()):
		return -1
	case f.kind() == frameReset:
		return perReset
	}
	return 1
}
