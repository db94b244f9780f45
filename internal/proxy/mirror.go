package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

const (
	// mirrorHeader marks a request that is a copy, so that what gets it can tell.
	mirrorHeader = "X-Spillway-Mirror"
	// mirrorOpen bounds the copies that are under way at once; more are not made.
	mirrorOpen = 128
	// mirrorLimit is how long a copy may take.
	mirrorLimit = 10 * time.Second
	// mirrorAnswer is how much of its answer is read, so that the connection can be used again.
	mirrorAnswer = 1 << 20
)

// mirror is somebody who gets copies of the requests of a way.
type mirror struct {
	edge  *edge
	share spillway.Share
}

// copies makes copies of requests. They are no requests in any count and judged by nobody, and no request waits for them.
// The zero value is ready.
type copies struct{ open atomic.Int32 }

// mirrored counts what became of the copies that were to be made of an app's requests.
type mirrored struct {
	sent    atomic.Uint64
	skipped [skippedKinds]atomic.Uint64
}

// skippedFor is why a copy was not made.
type skippedFor int

const (
	bodyTooLarge skippedFor = iota // more than keptBody, or nobody read all of it
	copiesBusy                     // mirrorOpen are under way
	mirrorAway                     // no replica of the mirror is there
	otherwise                      // the client wants to switch protocols
	skippedKinds
)

// skips are the names of the kinds, for the metrics.
var skips = [skippedKinds]string{bodyTooLarge: "body", copiesBusy: "busy", mirrorAway: "no_replica", otherwise: "upgrade"}

// reflect sends copies of a call to the mirrors of a way. It is to be called when the call's own attempt is over, so
// that its body is there: body gives it whole, or says that it was too large to be kept. Nothing of the call is used
// after reflect has returned.
func (p *plane) reflect(w *way, c *call, bucket spillway.Share, body func() ([]byte, bool)) {
	count := &w.app.seen.mirrored
	for _, m := range w.mirrors {
		if spillway.Share(rand.IntN(int(spillway.Whole))) >= m.share {
			continue
		}
		content, whole := body()
		switch {
		case c.upgrade:
			count.skipped[otherwise].Add(1)
		case !whole:
			count.skipped[bodyTooLarge].Add(1)
		case len(m.edge.arms) == 0:
			count.skipped[mirrorAway].Add(1)
		default:
			p.copies.send(p, m.edge, c.host, w.outbound(c), bucket, bytes.Clone(content), count)
		}
	}
}

// send sends one copy to an edge, or does not: when too many are under way, or nobody is there. The copy is what the
// edge's own requests are, with the mark.
func (s *copies) send(p *plane, e *edge, host string, c *call, bucket spillway.Share, body []byte, count *mirrored) {
	a := &e.arms[e.arm(bucket)]
	to := pick(a.endpoints, nil, time.Now())
	switch {
	case to == nil:
		count.skipped[mirrorAway].Add(1)
		return
	case s.open.Add(1) > mirrorOpen:
		s.open.Add(-1)
		count.skipped[copiesBusy].Add(1)
		return
	case !p.claim(to):
		s.open.Add(-1)
		count.skipped[mirrorAway].Add(1)
		return
	}
	count.sent.Add(1)
	own := *c // the call's header is read anew for the next one
	own.header = slices.Clone(c.header)
	own.length, own.expect, own.trailer = int64(len(body)), false, nil
	out := &outgoing{
		call: &own, host: host, client: absent{p.base}, base: to.base, unit: unit{bucket: bucket}, mirror: true,
		limit: mirrorLimit, until: time.Now().Add(mirrorLimit),
	}
	if len(body) > 0 {
		out.body = &upload{from: bytes.NewReader(body)}
	}
	// Owned by the plane, whose base ends it, as its limit does; nobody waits for it: it holds nothing.
	go func() {
		defer s.open.Add(-1)
		defer p.release(to)
		r, err := to.by(a.Protocol).send(out)
		if err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, r.body, mirrorAnswer) // what it says does not matter
		r.close()
	}()
}

// absent is the client of a request that nobody waits for, while the proxy is there.
type absent struct{ base context.Context }

func (absent) interim(int, http1.Fields)                 {}
func (absent) begin(*head) error                         { return errors.ErrUnsupported }
func (absent) write([]byte) error                        { return errors.ErrUnsupported }
func (absent) flush() error                              { return nil }
func (absent) splice(*net.TCPConn, int64) (int64, error) { return 0, nil }
func (absent) end(http1.Fields) error                    { return nil }
func (absent) abort()                                    {}
func (a absent) gone() bool                              { return a.base.Err() != nil }
func (absent) hush()                                     {}
func (absent) takeOver() (net.Conn, []byte, error)       { return nil, nil, errors.ErrUnsupported }
func (a absent) watch(f func()) (stop func()) {
	end := context.AfterFunc(a.base, f)
	return func() { end() }
}
