package proxy

import (
	"context"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// TestRun_TakesOnlySoManyConnections: one too many is closed at once, and taken again when another has gone.
func TestRun_TakesOnlySoManyConnections(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	dir, ready, ended := tempDir(t), make(chan struct{}), make(chan error, 1)
	go func() { // owned by the test, which waits for ended
		ended <- Run(ctx, Config{Dir: dir, HTTP: "127.0.0.1:0", Connections: 2, Ready: func() { close(ready) }})
	}()
	<-ready
	info, err := Dial(dir).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Most != 2 || info.Files < 64 {
		t.Errorf("it says of itself that it takes %d connections with %d files", info.Most, info.Files)
	}
	open := func() net.Conn {
		conn, err := net.Dial("tcp", info.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		return conn
	}
	served := func(conn net.Conn) bool {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		head := make([]byte, 64)
		n, _ := conn.Read(head)
		return strings.HasPrefix(string(head[:n]), "HTTP/1.1 404 ")
	}
	one, two := open(), open()
	if !served(one) || !served(two) {
		t.Error("the first two are not served")
	}
	three := open()
	if served(three) {
		t.Error("the third is served")
	}
	one.Close()
	eventually(t, "another one is served", func() bool {
		conn := open()
		defer conn.Close()
		return served(conn)
	})
	two.Close()
	three.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// shortOf is a replica that cannot be connected to, for want of something that the proxy itself needs.
type shortOf struct {
	always200
	err error
}

func (s shortOf) send(*outgoing) (*reply, error) { return nil, dialFault(s.err) }

// TestLimits_AShortProxyBlamesNobody: what the proxy cannot try is no failure of a release that is on trial, and
// nobody is passed over.
func TestLimits_AShortProxyBlamesNobody(t *testing.T) {
	for _, number := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ECONNREFUSED} {
		p := handler(t)
		p.base = t.Context()
		p.serveTable(t, divided(1, spillway.Percent(50), "127.0.0.1:1", "127.0.0.1:2"))
		short := shortOf{err: &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", number)}}
		for _, e := range p.endpoints {
			e.sender = short
		}
		ask := func() head {
			w := &recorder{}
			x := &exchange{plane: p, call: asks("X-User", "anna"), client: w, find: byHost}
			x.serve()
			return w.head
		}
		h := ask()
		a := p.apps[shop]
		var requests int64
		for _, tally := range a.tallies {
			requests += tally.traffic(time.Now()).Requests
		}
		cold := slices.ContainsFunc(slices.Collect(maps.Values(p.endpoints)), func(e *endpoint) bool { return e.cold.Load() != 0 })
		evidence := a.trial.evidence()
		judged := evidence.Requests + evidence.Baseline
		reason := h.add.Get("X-Spillway-Reason")
		if number == syscall.ECONNREFUSED { // so that the test can see a difference
			if h.status != 502 || requests == 0 || !cold {
				t.Errorf("%v: %d %q, %d requests counted, passed over: %t", number, h.status, reason, requests, cold)
			}
			continue
		}
		if h.status != 503 || !strings.Contains(reason, number.Error()) || h.add.Has(releaseHeader) || h.add.Get("Retry-After") == "" {
			t.Errorf("%v: %d %v", number, h.status, h.add)
		}
		if requests != 0 || cold || judged != 0 {
			t.Errorf("%v: %d requests counted, %d judged, passed over: %t; want none", number, requests, judged, cold)
		}
	}
}

// TestLimits_BoundsRequestsToo: on connections of HTTP/2 there may be many more requests than connections.
func TestLimits_BoundsRequestsToo(t *testing.T) {
	p := handler(t)
	p.base, p.most = t.Context(), 10
	p.serveTable(t, alone(1, "127.0.0.1:1"))
	for active, want := range map[int64]int{10: 200, 11: 503} {
		p.active.Store(active)
		w := &recorder{}
		x := &exchange{plane: p, call: asks("X-User", "anna"), client: w, find: byHost}
		x.serve()
		if w.head.status != want {
			t.Errorf("with %d requests being answered: %d %v, want %d", active, w.head.status, w.head.add, want)
		}
	}
}
