package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

const (
	releaseHeader = "X-Spillway-Release"
	// farewell is how long a client may still send to a replica that has ended an upgraded connection.
	farewell = 2 * time.Second
	// largeBody is from where on a body is passed on without being looked at, where that can be done. Its answer is
	// judged a moment after the client has all of it: holding the end back costs a quarter of such a request.
	largeBody = 32 << 10
	// spliceBlock is passed on at once: the client has sendTime for it.
	spliceBlock = 1 << 20
)

// add adds a field of the proxy's own to the answer.
func (x *exchange) add(name, value string) {
	x.head.add = append(x.head.add, http1.Field{Name: name, Value: value})
}

// refuse answers with a page of the proxy's own.
func (x *exchange) refuse(why *refusal) {
	if x.rec.refused = why.kind; why.kind == notRefused {
		x.rec.refused = kindOf(why.status)
	}
	x.rec.status, x.rec.why = why.status, cmp.Or(why.detail, why.reason)
	page := fmt.Sprintf("%d %s\n\nSpillway: %s.\n", why.status, http.StatusText(why.status), why.reason)
	x.add("Server", "spillway")
	x.add("X-Spillway-Reason", why.reason)
	x.add("Content-Type", "text/plain; charset=utf-8")
	x.add("Cache-Control", "no-store")
	if why.status == http.StatusServiceUnavailable {
		x.add("Retry-After", "1")
	}
	x.say(why.status, page)
}

// say answers with a text of the proxy's own. Fields were added before.
func (x *exchange) say(status int, page string) {
	x.rec.status = status
	x.head.status, x.head.reason, x.head.length = status, http.StatusText(status), int64(len(page))
	x.head.last = x.head.last || x.plane.closing()
	if x.call.method == http.MethodHead {
		page = ""
	}
	x.send(page)
}

// send writes an answer of the proxy's own, whose head is there.
func (x *exchange) send(page string) {
	x.add("Date", time.Now().UTC().Format(http.TimeFormat))
	err := x.client.begin(&x.head)
	if err == nil {
		err = x.client.write([]byte(page))
	}
	if err == nil {
		err = x.client.end(nil)
	}
	if err != nil {
		x.client.abort()
	}
}

// respond gives the answer of a way that asks nobody.
func (x *exchange) respond(now *instant) {
	for _, f := range now.header {
		x.add(f.Name, f.Value)
	}
	if now.reason != "" {
		x.refuse(&refusal{status: now.status, reason: now.reason})
		return
	}
	x.add("Server", "spillway")
	x.rec.status = now.status
	x.head.status, x.head.reason, x.head.last = now.status, http.StatusText(now.status), x.head.last || x.plane.closing()
	x.send("")
}

// try makes one attempt at the endpoint that was claimed.
func (x *exchange) try(c claim) (*reply, error) {
	x.out = outgoing{
		now: x.now, trace: x.rec.trace, call: x.way.outbound(x.call), host: x.call.host, body: x.body, client: x.client, base: c.endpoint.base, unit: x.who, synthetic: x.synthetic,
		again: x.body == nil && x.call.idempotent() && x.way.retries != 0, limit: answerTimeout,
	}
	if x.way.timeout > 0 {
		x.out.until, x.out.limit = x.due(), x.way.timeout
	}
	return c.endpoint.by(c.arm.Protocol).send(&x.out)
}

// answer passes a replica's answer on to the client, and settles the lease before the client can have
// all of it: whoever asks one request after the other finds each one counted.
func (x *exchange) answer(a *arm, r *reply) {
	defer r.close()
	x.rec.status = r.status
	if r.status >= 500 {
		x.lease.settle(true)
	}
	x.add(releaseHeader, a.title)
	if x.who.cookie != "" {
		c := http.Cookie{
			Name: cookieName, Value: x.who.cookie, Path: "/", MaxAge: cookieAge,
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.call.scheme() == "https",
		}
		x.add("Set-Cookie", c.String())
	}
	if r.status == http.StatusSwitchingProtocols {
		x.lease.settle(false)
		x.join(r)
		return
	}
	if x.early(r) {
		x.lease.settle(false)
	}
	err := x.pass(r)
	switch {
	case err == nil:
		x.lease.settle(false)
		return
	case errors.Is(err, errReplica) && !x.clientLeft():
		if r.status < 500 {
			a.tally.fail() // it had been counted as good
		}
		x.lease.settle(true)
		x.rec.broken, x.rec.why = true, err.Error()
	default:
		x.lease.drop()
		x.rec.left = true
	}
	x.client.abort() // the client must see that the answer is not whole
}

// early reports whether an answer is judged by its head: it has no body, or one that may never end.
func (x *exchange) early(r *reply) bool {
	return r.length == 0 || x.call.method == http.MethodHead || isEventStream(r)
}

func isEventStream(r *reply) bool {
	kind, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// errReplica is an answer that broke off on the replica's side.
var errReplica = errors.New("the answer broke off")

// pass copies an answer to the client. The lease is settled when all of it is there, before the last of it is
// written. An error that is no errReplica comes from the client's connection.
func (x *exchange) pass(r *reply) error {
	h := &x.head
	h.status, h.reason, h.header, h.named, h.length = r.status, r.reason, x.way.answered(x.call, r.header), r.named, r.length
	h.last = h.last || x.plane.closing()
	if x.call.method == http.MethodHead || r.status == http.StatusNotModified {
		h.length = told(r.header)
	}
	if err := x.client.begin(h); err != nil {
		return err
	}
	if r.length != 0 {
		if err := x.copyBody(r); err != nil {
			return err
		}
	}
	var trailer http1.Fields
	if r.trailer != nil {
		trailer = r.trailer()
	}
	return x.client.end(trailer)
}

// told is the length that an answer without a body tells of the body that it would have; unknown otherwise.
func told(header http1.Fields) int64 {
	if n, ok := http1.ParseLength(header.Get("Content-Length")); ok {
		return n
	}
	return http1.ToTheEnd
}

func (x *exchange) copyBody(r *reply) error {
	var block *[]byte // taken when it is needed: a slow client of a large body must not hold one
	defer func() {
		if block != nil {
			x.plane.blocks.give(block)
		}
	}()
	left := r.length
	waits := func() bool { return r.ready == nil || !r.ready() && (r.length < 0 || r.slow()) }
	if waits() {
		if err := x.client.flush(); err != nil {
			return err
		}
	}
	for {
		if r.plain != nil && left > largeBody && !r.ready() {
			n, err := x.client.splice(r.plain, min(left, spliceBlock))
			r.skip(n)
			x.rec.out += n
			if left -= n; err != nil || n == 0 {
				r.plain = nil // the usual way finds out whose fault that is
			}
			if left == 0 {
				return nil
			}
			continue
		}
		if block == nil {
			block = x.plane.blocks.take()
		}
		buf := *block
		if 0 <= left && left < int64(len(buf)) {
			buf = buf[:left+1] // one more, so that the first read can see the end
		}
		n, err := r.body.Read(buf)
		if left -= int64(n); n > 0 && left == 0 || err == io.EOF {
			x.lease.settle(false)
		}
		if n > 0 {
			if err := x.client.write(buf[:n]); err != nil {
				return err
			}
			x.rec.out += int64(n)
			if err == nil && waits() {
				if err := x.client.flush(); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errReplica, err)
		}
	}
}

// join makes one connection of the client's and the replica's after they switched protocols, until both
// directions have ended, or until the plane is done.
func (x *exchange) join(r *reply) {
	replica := r.switched
	h := &x.head
	h.status, h.reason, h.header, h.named = r.status, r.reason, r.header, r.named
	client, first, err := x.client.takeOver()
	if err != nil {
		x.head = head{}
		x.refuse(&refusal{status: http.StatusBadGateway, reason: "the connection cannot switch protocols: " + plainly(err)})
		return
	}
	defer client.Close()
	defer replica.Close()
	_ = client.SetWriteDeadline(time.Now().Add(sendTime)) // a broken connection shows at once
	if _, err := client.Write(h.appendSwitch(nil)); err != nil {
		return
	}
	_ = client.SetWriteDeadline(time.Time{})
	bye := func(uint16, string) {}
	if isWebSocket(h) {
		s := &socket{Conn: client}
		client, bye = s, s.bye
	}
	defer context.AfterFunc(x.plane.base, func() {
		_ = client.SetWriteDeadline(time.Now().Add(time.Second)) // who does not take it must not hold up the end
		bye(goingAway, "the proxy stops")
		client.Close()
		replica.Close()
	})()
	up := make(chan struct{})
	// Owned by this call, which waits for it; ends when the client sends no more or a side is closed.
	go func() {
		defer close(up)
		// first are bytes of the new protocol already.
		_, err := replica.Write(first)
		if err == nil {
			_, err = io.Copy(replica, client)
		}
		if half, ok := replica.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
			replica.Close()
		}
	}()
	_, err = io.Copy(client, replica)
	select {
	case <-up: // the client has ended it
	default:
		_ = client.SetWriteDeadline(time.Now().Add(farewell))
		bye(serviceRestart, "the replica was stopped")
	}
	if half, ok := client.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
		client.Close()
	}
	// The replica is gone. The client gets a moment to read what is left and to hang up.
	_ = client.SetReadDeadline(time.Now().Add(farewell))
	<-up
}

// appendSwitch appends the head of an answer that switches the protocol of the connection.
func (h *head) appendSwitch(b []byte) []byte {
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\n"...)
	h.fields(func(name, value string) { b = http1.AppendField(b, name, value) })
	b = http1.AppendField(b, "Connection", "Upgrade")
	b = http1.AppendField(b, "Upgrade", h.header.Get("Upgrade"))
	return append(b, "\r\n"...)
}
