package proxy

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
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

// copies makes copies of requests. They are counted nowhere and judged by nobody, and no request waits for them.
// The zero value is ready.
type copies struct {
	once      sync.Once
	transport *http.Transport
	open      atomic.Int32
}

// reflect sends copies of a call to the mirrors of a way. It is to be called when the call's own attempt is over, so
// that its body is there: body gives it whole, or says that it was too large to be kept. Nothing of the call is used
// after reflect has returned.
func (p *plane) reflect(w *way, c *call, bucket spillway.Share, body func() ([]byte, bool)) {
	for _, m := range w.mirrors {
		if c.upgrade || len(m.edge.arms) == 0 || spillway.Share(rand.IntN(int(spillway.Whole))) >= m.share {
			continue
		}
		content, whole := body()
		if !whole {
			return
		}
		p.copies.send(p, m.edge, w.outbound(c), bucket, bytes.Clone(content))
	}
}

// send sends one copy to an edge, or does not: when too many are under way, or nobody is there.
func (s *copies) send(p *plane, e *edge, c *call, bucket spillway.Share, body []byte) {
	to := pick(e.arms[e.arm(bucket)].endpoints, nil, time.Now())
	if to == nil {
		return
	}
	if s.open.Add(1) > mirrorOpen || !p.claim(to) {
		s.open.Add(-1)
		return
	}
	s.once.Do(func() {
		s.transport = &http.Transport{MaxIdleConns: 32, MaxIdleConnsPerHost: 8, IdleConnTimeout: 4 * time.Second, DisableCompression: true}
	})
	ctx, cancel := context.WithTimeout(p.base, mirrorLimit)
	r := copyOf(c, to, body).WithContext(ctx)
	// Owned by the plane, whose base ends it, as its limit does; nobody waits for it: it holds nothing.
	go func() {
		defer s.open.Add(-1)
		defer p.release(to)
		defer cancel()
		resp, err := s.transport.RoundTrip(r)
		if err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, resp.Body, mirrorAnswer) // what it says does not matter
		resp.Body.Close()
	}()
}

// copyOf is the request of a copy. Its strings are its own, because those of a call are read anew for the next one.
func copyOf(c *call, to *endpoint, body []byte) *http.Request {
	u := *to.base
	path, query, _ := strings.Cut(strings.Clone(c.target), "?")
	u.RawPath, u.RawQuery = strings.TrimSuffix(to.base.EscapedPath(), "/")+path, query
	if plain, err := url.PathUnescape(u.RawPath); err == nil {
		u.Path = plain
	} else {
		u.Path = u.RawPath
	}
	h := http.Header{}
	for _, f := range c.header {
		if !http1.Is(f.Name, "Host") && !http1.Is(f.Name, "Content-Length") {
			h.Add(strings.Clone(f.Name), strings.Clone(f.Value))
		}
	}
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"} {
		h.Del(name)
	}
	if _, ok := h["User-Agent"]; !ok {
		h.Set("User-Agent", "") // else net/http adds its own
	}
	h.Set(mirrorHeader, "1")
	r := &http.Request{Method: strings.Clone(c.method), URL: &u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: strings.Clone(c.host), Header: h}
	if len(body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return r
}
