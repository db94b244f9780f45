package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// probe asks one process again and again whether it can serve, until it ended or ctx ends.
func (a *app) probe(ctx context.Context, r *replica, proc *process, rec record) {
	wait := a.p.conf.tune.probeMin
	looked := time.Now()
	for {
		seen := check(ctx, rec)
		var elsewhere []netip.AddrPort
		if errors.Is(seen, syscall.ECONNREFUSED) && time.Since(looked) > 10*a.p.conf.tune.probeMin {
			looked = time.Now()
			elsewhere = listening(proc.members())
		}
		if ctx.Err() != nil {
			return
		}
		starting, on := a.probed(time.Now(), r, proc, seen, elsewhere)
		if !on {
			return
		}
		pause := time.Duration(rec.Health.Interval)
		if starting {
			pause = wait
			wait = min(wait*3/2, a.p.conf.tune.probeMax)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-proc.ended:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil || closed(proc.ended) {
			return
		}
	}
}

// probed takes in the answer to one probe. on is false when the process needs no more probes.
func (a *app) probed(now time.Time, r *replica, proc *process, seen error, elsewhere []netip.AddrPort) (starting, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.nudge(a.wake)
	if r.proc != proc || (r.state != spillway.Starting && r.state != spillway.Ready) {
		return false, false
	}
	if seen == nil {
		r.good, r.bad = r.good+1, 0
		if r.state == spillway.Starting && r.good >= r.rec.Health.Healthy {
			a.becameReady(now, r)
		}
		return r.state == spillway.Starting, true
	}
	r.good, r.bad = 0, r.bad+1
	if r.state == spillway.Starting {
		a.explain(now, r, seen, elsewhere)
		return true, true
	}
	if r.bad >= r.rec.Health.Unhealthy {
		a.replace(now, r, seen.Error())
		return false, false
	}
	return false, true
}

// becameReady puts a replica into the pool. That it has been ready is on disk first: a server that starts
// later keeps it in the pool.
func (a *app) becameReady(now time.Time, r *replica) {
	r.rec.Ready = true
	if err := saveJSON(a.runPath(r.rec, ".json"), r.rec); err != nil {
		r.rec.Ready, r.problem = false, err.Error()
		a.log.Error("record is not saved; the replica is not used", "replica", r.name, "error", err)
		return
	}
	r.state, r.ready, r.crashes, r.problem, r.fatal, r.astray = spillway.Ready, now, 0, "", false, time.Time{}
	c := a.state.Counters[r.group.String()]
	if c.Crashes > 0 {
		c.Crashes = 0
		a.state.Counters[r.group.String()] = c
		a.saveStateOrWarn()
	}
	a.tellEvent(r.group, fmt.Sprintf("%s is ready after %s", r.name, now.Sub(r.rec.Started).Round(10*time.Millisecond)))
}

// explain says why a starting replica is not ready. One that listens, but not where it was told to, is a
// mistake that waiting does not mend.
func (a *app) explain(now time.Time, r *replica, seen error, elsewhere []netip.AddrPort) {
	switch {
	case len(elsewhere) > 0:
		r.problem = describeAstray(elsewhere, r.rec.Port)
		if r.astray.IsZero() {
			r.astray = now
		}
		r.fatal = r.fatal || now.Sub(r.astray) > a.p.conf.tune.wrongPort
	case r.astray.IsZero() || !errors.Is(seen, syscall.ECONNREFUSED):
		r.problem, r.astray = seen.Error(), time.Time{}
	}
}

// describeAstray says "listens on 127.0.0.1:8000 instead of $PORT (20001)".
func describeAstray(found []netip.AddrPort, port int) string {
	texts := make([]string, len(found))
	for i, a := range found {
		texts[i] = a.String()
	}
	list := strings.Join(texts, ", ")
	if slices.ContainsFunc(found, func(a netip.AddrPort) bool { return int(a.Port()) == port }) {
		return fmt.Sprintf("listens on %s, which is not reached at 127.0.0.1: listen on $HOST (127.0.0.1) or on all addresses", list)
	}
	return fmt.Sprintf("listens on %s instead of $PORT (%d)", list, port)
}

// check probes once. The error says what was asked and what was seen.
func check(ctx context.Context, rec record) error {
	probe, port := rec.Health, rec.Port
	timeout := cmp.Or(time.Duration(probe.Timeout), time.Second)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if probe.Path == "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", loopback(port))
		if err != nil {
			return silent(err, port, timeout)
		}
		return conn.Close()
	}
	resp, err := get(ctx, rec, speaksHTTP2(rec.Protocol))
	if err != nil {
		return fmt.Errorf("GET %s: %w", probe.Path, cmp.Or(foreign(ctx, rec, err), silent(err, port, timeout)))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("GET %s answered %s", probe.Path, resp.Status)
	}
	return nil
}

// overHTTP2 says that a replica is asked by HTTP/2 without TLS; otherwise it is HTTP/1.1, and never both.
type overHTTP2 bool

func speaksHTTP2(p spillway.Protocol) overHTTP2 { return p == spillway.H2C || p == spillway.GRPC }

// get asks a replica for the path of its probe. The body of the answer is closed.
func get(ctx context.Context, rec record, h2 overHTTP2) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(rec.Port)+rec.Health.Path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "spillway-probe")
	transport := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(bool(h2))
	transport.Protocols.SetHTTP1(!bool(h2))
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // no client: a redirect is an answer
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

// foreign says what to do when a replica that is connected to and does not answer would answer in the other version
// of HTTP. Servers differ in what they say to the wrong one, so that is tried. nil = it does not answer at all.
func foreign(ctx context.Context, rec record, seen error) error {
	if ctx.Err() != nil || errors.Is(seen, syscall.ECONNREFUSED) {
		return nil
	}
	h2 := speaksHTTP2(rec.Protocol)
	if _, err := get(ctx, rec, !h2); err != nil {
		return nil
	}
	if h2 {
		return fmt.Errorf("it speaks HTTP/1.1, and not HTTP/2 as protocol: %s says; write protocol: http, or have it speak HTTP/2 without TLS", rec.Protocol)
	}
	return errors.New("it speaks HTTP/2, and not HTTP/1.1; write protocol: h2c, or grpc")
}

// silent says in few words why nothing came back; errors.Is still sees the cause.
func silent(err error, port int, timeout time.Duration) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return fmt.Errorf("does not answer on %s: %w", loopback(port), errno)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("does not answer on %s within %s", loopback(port), timeout)
	}
	return fmt.Errorf("does not answer on %s: %w", loopback(port), err)
}
