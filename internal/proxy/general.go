package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// The general engine is the server of net/http: it takes what the fast one leaves, HTTP/2 above all.

// frontKey is where the context of a request has its connection.
type frontKey struct{}

// general answers a request that net/http has read. HTTP/2 has a new goroutine for each, whose stack would grow
// anew each time: a seventh of what such a request costs. So one that has answered others does it.
func (l *listener) general(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		l.serve(w, r)
		return
	}
	l.plane.crew.serve(l, w, r)
}

func (l *listener) serve(w http.ResponseWriter, r *http.Request) {
	p := l.plane
	p.active.Add(1)
	defer p.active.Add(-1)
	f := r.Context().Value(frontKey{}).(*front)
	s := p.served.Get().(*served)
	g, x := &netHTTP{w: w, r: r, front: f, open: true}, &s.x
	*x = exchange{plane: p, client: g, find: l.find, call: &s.call, failed: x.failed[:0], head: head{add: x.head.add[:0]}}
	f.callOf(x.call, r)
	x.head.last = r.ProtoMajor == 1 && x.call.header.Token("Connection", "close") // also beside keep-alive
	if why := f.objection(r, x.call); why != nil {
		x.head.last, x.rec.began = true, time.Now()
		if r.Method == http1.RefusedMethod {
			f.unread(x)
		}
		x.refuse(why)
		x.ended()
		return
	}
	if r.ContentLength != 0 {
		x.body = &upload{from: &slowBody{from: r.Body, rush: g.rush, length: r.ContentLength}}
		if r.ProtoMajor == 1 {
			// Else the server takes the rest of the body away as soon as an answer begins. It fails
			// only for writers that are not the server's.
			_ = g.control().EnableFullDuplex()
		}
	}
	g.body = x.body
	x.serve()
	if x.body == nil { // else somebody may still send it
		p.served.Put(s)
	}
}

// served is what a request of the general engine needs, to be used again. The zero value may be used.
type served struct {
	call call
	x    exchange
}

// callOf makes c the call of a request of net/http.
func (f *front) callOf(c *call, r *http.Request) {
	*c = call{
		header: c.header[:0], method: r.Method, major: r.ProtoMajor, minor: r.ProtoMinor, length: r.ContentLength,
		peer: f.peer, client: f.client, local: f.local, secure: f.tls != nil, ours: f.ours,
	}
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") && target != "*" {
		target = r.URL.RequestURI()
	}
	c.aim(r.Host, target)
	for name, values := range r.Header {
		for _, v := range values {
			c.header = append(c.header, http1.Field{Name: name, Value: v})
		}
	}
	for name := range r.Trailer { // net/http has taken the field away
		c.header = append(c.header, http1.Field{Name: "Trailer", Value: name})
	}
	c.named = r.ProtoMajor == 1 && len(r.Header["Connection"]) > 0
	c.upgrade = r.ProtoMajor == 1 && c.header.Upgrades()
	c.expect = c.header.Token("Expect", "100-continue")
	if r.ContentLength != 0 {
		c.trailer = func() http1.Fields { return fieldsOf(r.Trailer) }
	}
}

func fieldsOf(h http.Header) (fields http1.Fields) {
	for name, values := range h {
		for _, v := range values {
			fields = append(fields, http1.Field{Name: name, Value: v})
		}
	}
	return fields
}

// objection is why a request that net/http has let through is refused; nil when it is not.
func (f *front) objection(r *http.Request, c *call) *refusal {
	if f.guard != nil && r.Method == http1.RefusedMethod {
		if why := f.guard.Refused(); why != nil {
			return &refusal{status: why.Status, reason: why.Reason}
		}
	}
	if r.ProtoMajor > 1 {
		if why := http1.CheckTarget(c.method, c.target, c.host); why != nil {
			return &refusal{status: why.Status, reason: why.Reason}
		}
	}
	return nil
}

// netHTTP is the client of a request that net/http has read.
type netHTTP struct {
	w     http.ResponseWriter
	r     *http.Request
	front *front
	body  *upload     // nil = there is none
	left  atomic.Bool // the client went away, and the server does not know

	mu   sync.Mutex // of interim answers, which come from two goroutines
	open bool       // the answer proper has not begun
}

func (g *netHTTP) control() *http.ResponseController { return http.NewResponseController(g.w) }

func (g *netHTTP) interim(status int, header http1.Fields) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open || !g.r.ProtoAtLeast(1, 1) {
		return
	}
	h := g.w.Header()
	for _, f := range header {
		if !http1.IsHop(f.Name) {
			h.Add(f.Name, f.Value)
		}
	}
	// No server sends a length with an interim answer, so that of HTTP/2 takes a copy without it. Else it may still read h
	// when WriteHeader has returned, because the client left.
	h["Content-Length"] = []string{"0"}
	g.w.WriteHeader(status)
	clear(h)
}

func (g *netHTTP) begin(a *head) error {
	g.mu.Lock()
	g.open = false
	g.mu.Unlock()
	h := g.w.Header()
	a.fields(func(name, value string) {
		name = http.CanonicalHeaderKey(name)
		h[name] = append(h[name], value)
	})
	for v := range a.header.All("Trailer") {
		h["Trailer"] = append(h["Trailer"], v)
	}
	if a.length >= 0 && a.status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.FormatInt(a.length, 10)}
	}
	if g.r.ProtoMajor == 1 && a.length < 0 && g.r.Method != http.MethodHead && a.status != http.StatusNotModified {
		a.last = a.last || g.r.ProtoMinor == 0
		if g.r.ProtoMinor > 0 {
			h["Transfer-Encoding"] = []string{"chunked"}
		}
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else the server guesses one
	}
	if a.last {
		h["Connection"] = []string{"close"}
	}
	g.w.WriteHeader(a.status)
	return nil
}

func (g *netHTTP) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := g.w.Write(p)
	return err
}

func (g *netHTTP) flush() error {
	if g.open {
		return nil // there is no answer yet, and net/http would make one
	}
	_ = g.control().Flush() // a broken connection shows at the next write
	return nil
}

func (g *netHTTP) splice(*net.TCPConn, int64) (int64, error) { return 0, nil }

func (g *netHTTP) end(trailer http1.Fields) error {
	h := g.w.Header()
	for _, f := range trailer {
		h.Add(http.TrailerPrefix+f.Name, f.Value)
	}
	return nil
}

func (g *netHTTP) abort() {
	_ = g.flush() // it is broken either way; see front.abort
	g.mu.Lock()
	g.open = false // an interim answer may still come: see streams.send
	g.mu.Unlock()
	panic(http.ErrAbortHandler)
}

func (g *netHTTP) gone() bool { return g.left.Load() || g.r.Context().Err() != nil }

// watch hears of the end of a stream. That of a connection of HTTP/1 the server sees only while the client has nothing
// to send.
func (g *netHTTP) watch(f func()) (stop func()) {
	end := context.AfterFunc(g.r.Context(), f)
	if g.r.ProtoMajor > 1 {
		return func() { end() }
	}
	if g.front.guard != nil {
		g.front.guard.Look()
	}
	done, enough := make(chan struct{}), make(chan struct{})
	// Owned by the request, which calls stop; ends when the client is gone, or by stop.
	go func() {
		defer close(done)
		if g.front.leaves(g.body, enough) {
			g.left.Store(true)
			f()
		}
	}()
	return sync.OnceFunc(func() {
		end()
		close(enough)
		<-done
	})
}

func (g *netHTTP) hush() { g.rush(time.Unix(1, 0)) }

// rush sets when the next bytes of the body must be there.
func (g *netHTTP) rush(until time.Time) {
	_ = g.control().SetReadDeadline(until) // a broken connection shows at the next read
}

func (g *netHTTP) takeOver() (net.Conn, []byte, error) {
	conn, buffered, err := g.control().Hijack()
	if err != nil {
		return nil, nil, err
	}
	first, err := buffered.Peek(buffered.Reader.Buffered())
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("take over a connection: %w", err)
	}
	return conn, first, nil
}
