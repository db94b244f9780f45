package proxy

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

func TestRun_RoutesByHost(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, text("shop"))))
	other := alone(1, replica(t, text("other")))
	other.App, other.Route.Edges[0].Hosts = "other", []string{"Other.Test"}
	r.push(other)
	for host, want := range map[string]string{
		"shop.test": "shop", "SHOP.Test:8080": "shop", "shop.test.": "shop", "shop.test.:80": "shop", "other.test": "other",
	} {
		if a := r.get("/", "Host", host); a.status != 200 || a.body != want || a.release != "1" {
			t.Errorf("host %s: %+v, want %s", host, a, want)
		}
	}
	for _, host := range []string{"", "unknown.test", "x.shop.test", "127.0.0.1"} {
		a := r.get("/", "Host", host)
		if host == "" {
			continue // the client sends the address instead
		}
		if a.status != 404 || a.header.Get("Server") != "spillway" || !strings.Contains(a.body, "Spillway") || strings.Contains(a.body, "shop.test") {
			t.Errorf("unknown host %s: %+v", host, a)
		}
	}
}

func TestRun_Says503WithTheReason(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	closed := alone(1)
	closed.Route.Edges[0].Backends, closed.Route.Edges[0].Closed = nil, "recreate: www is being replaced"
	r.push(closed)
	if a := r.get("/"); a.status != 503 || a.header.Get("X-Spillway-Reason") != "recreate: www is being replaced" {
		t.Errorf("closed edge: %+v", a)
	}
	r.push(alone(2))
	if a := r.get("/"); a.status != 503 || a.header.Get("X-Spillway-Reason") != "no ready replica of www.1" {
		t.Errorf("no replica: %+v", a)
	}
}

func TestRun_HoldsRequestsUntilAReplicaIsReady(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1))
	done := make(chan answer)
	go func() { // ends with the answer, which the test waits for
		a, _ := r.do("POST", "/", strings.NewReader("x"))
		done <- a
	}()
	r.push(alone(2))
	r.push(alone(3, replica(t, text("late"))))
	if a := <-done; a.status != 200 || a.body != "late" {
		t.Errorf("held request: %+v", a)
	}
}

func TestRun_ServesPrivateEdgesByAddress(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := unused(t)
	table := alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, req.Header.Get(bucketHeader))
	}))
	backend := spillway.Group{Service: "backend", Release: 1}
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{Service: "backend", From: www1, Backends: []spillway.Backend{{Group: backend, Release: 1, Weight: spillway.Whole}}})
	table.Listeners = []spillway.EdgeListener{{Service: "backend", From: www1, Address: address}}
	table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: "backend.1-1", Group: backend, Address: replica(t, func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, "private "+req.Header.Get(bucketHeader))
	})})
	r.push(table)
	a, err := do(newClient(), "http://"+address, "GET", "/", nil, bucketHeader, "1234")
	if err != nil || a.body != "private 1234" {
		t.Errorf("private edge: %+v %v", a, err)
	}
	if a := r.get("/", bucketHeader, "1234", "Host", "shop.test"); a.body == "" {
		t.Errorf("the public edge passes no bucket on: %+v", a)
	}
	other := alone(1, "127.0.0.1:1")
	other.App, other.Route.Edges[0].Hosts, other.Listeners = "other", nil, table.Listeners
	wantError(t, r.Push(t.Context(), other), spillway.ErrConflict, address)

	table.Revision, table.Listeners = 2, nil
	r.push(table)
	eventually(t, "the address is free", func() bool {
		_, err := do(newClient(), "http://"+address, "GET", "/", nil)
		return err != nil
	})
}

func TestPush_RefusesWhatCannotBeServed(t *testing.T) {
	r := start(t, tempDir(t), false)
	r.push(alone(5, "127.0.0.1:1"))
	weights := alone(6, "127.0.0.1:1")
	weights.Route.Edges[0].Backends[0].Weight = 5
	outside := alone(6)
	outside.Listeners = []spillway.EdgeListener{{Service: "www", From: www1, Address: "0.0.0.0:99"}}
	stolen := alone(1, "127.0.0.1:1")
	stolen.App = "thief"
	for name, c := range map[string]struct {
		table spillway.Table
		want  error
		text  string
	}{
		"stale":   {alone(4), spillway.ErrStale, "revision 5 is served"},
		"weights": {weights, spillway.ErrInvalid, "0.05% instead of 100%"},
		"outside": {outside, spillway.ErrInvalid, "no loopback"},
		"host":    {stolen, spillway.ErrConflict, "shop.test belongs to shop"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, r.Push(t.Context(), c.table), c.want, c.text) })
	}
	if err := r.Push(t.Context(), alone(5, "127.0.0.1:2")); err != nil {
		t.Errorf("the same revision again: %v", err)
	}
	_, err := r.Report(t.Context(), "nobody")
	wantError(t, err, spillway.ErrNotFound, "nobody")
	if err := r.Remove(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	wantError(t, r.Remove(t.Context(), shop), spillway.ErrNotFound, "shop")
	if a := r.get("/"); a.status != 404 {
		t.Errorf("removed app: %+v", a)
	}
	_, err = Dial(tempDir(t)).Report(t.Context(), shop)
	wantError(t, err, spillway.ErrUnavailable, "proxy.sock")
}

func TestRun_ForwardsHeadersAndQueryAsTheyAre(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var got *http.Request
	r.push(alone(1, replica(t, func(w http.ResponseWriter, req *http.Request) {
		got = req
		w.Header()["Content-Type"] = nil
		w.Header().Set("X-Spillway-Release", "99")
		w.Header().Set("Connection", "X-Secret")
		w.Header().Set("X-Secret", "1")
		w.WriteHeader(200)
		io.WriteString(w, "<html>")
	})))
	a := r.get("/a%2Fb?x=1;y=2&z", "X-Forwarded-For", "203.0.113.9", "Connection", "X-Private", "X-Private", "1", "Accept-Encoding", "")
	if got.RequestURI != "/a%2Fb?x=1;y=2&z" || got.Host != "shop.test" {
		t.Errorf("replica got %s at %s", got.RequestURI, got.Host)
	}
	h := got.Header
	if h.Get("X-Forwarded-For") != "203.0.113.9, 127.0.0.1" || h.Get("X-Forwarded-Host") != "shop.test" || h.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("forwarded: %v", h)
	}
	if _, ok := h["X-Private"]; ok || h.Get("Connection") != "" {
		t.Errorf("hop-by-hop headers pass: %v", h)
	}
	if got := a.header.Values("X-Spillway-Release"); len(got) != 1 || got[0] != "1" {
		t.Errorf("release %v", got)
	}
	if _, ok := a.header["Content-Type"]; ok || a.header.Get("X-Secret") != "" {
		t.Errorf("answer %v", a.header)
	}
}

func TestOutgoing_BelievesOnlyThisMachine(t *testing.T) {
	c := asks("X-Forwarded-For", "203.0.113.9")
	c.header = append(c.header, http1.Field{Name: "x-forwarded-proto", Value: "https"}, http1.Field{Name: "Forwarded", Value: "for=1"})
	c.ours, c.peer = false, "198.51.100.7"
	head := string((&outgoing{call: c, host: c.host, base: &url.URL{}}).appendHead(nil))
	for _, line := range []string{"X-Forwarded-For: 198.51.100.7\r\n", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: shop.test\r\n"} {
		if strings.Count(head, line) != 1 {
			t.Errorf("no line %q in %q", line, head)
		}
	}
	if strings.Contains(head, "203.") || strings.Contains(head, "Forwarded: for") {
		t.Errorf("a stranger is believed: %q", head)
	}
}

func FuzzNormalHost(f *testing.F) {
	for _, s := range []string{"a.test", "A.test:80", "[::1]:80", "::1", "a.test.", ":", "[", "]:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		normalHost(host)
		for _, b := range []byte(host) {
			if b >= 0x80 {
				return // case is a matter of ASCII in host names; must only not panic
			}
		}
		if upper := strings.ToUpper(host); normalHost(upper) != normalHost(host) {
			t.Errorf("normalHost(%q) = %q, normalHost(%q) = %q", host, normalHost(host), upper, normalHost(upper))
		}
		if name, ok := strings.CutSuffix(host, ":80"); ok && !strings.ContainsAny(name, ":[]") && normalHost(host) != normalHost(name) {
			t.Errorf("the port of %q is not cut off: %q", host, normalHost(host))
		}
	})
}

func TestRules_LeadToStableAndItsCandidate(t *testing.T) {
	beta := spillway.Match{KeySource: spillway.KeySource{Kind: "cookie", Name: "beta"}, Value: "1"}
	spec := spillway.Edge{
		Service: "www", Hosts: []string{"shop.test"}, Rules: []spillway.Rule{{Match: beta}},
		Backends: []spillway.Backend{
			{Track: "legacy", URLs: []string{"http://127.0.0.1:9"}, Weight: spillway.Whole},
			{Group: spillway.Group{Service: "www", Release: 1}, Release: 1, Within: spillway.Percent(75)},
			{Group: spillway.Group{Service: "www", Release: 2}, Release: 2, Within: spillway.Percent(25)},
		},
	}
	p := &plane{endpoints: map[endpointKey]*endpoint{}}
	a := &app{plane: p, ref: "shop", tallies: map[string]*tally{}, table: spillway.Table{Route: spillway.Route{
		Edges: []spillway.Edge{spec}, Trial: &spillway.Trial{ID: 1, Release: 2, Stable: 1, Candidate: []spillway.Group{{Service: "www", Release: 2}}},
	}}}
	a.trial, _ = newTrial(*a.table.Route.Trial)
	e := newEdge(a, spec, nil)
	r := asks("X-None", "")
	if i, _ := e.chosen(r, 0); i != -1 || e.arm(0) != 0 {
		t.Errorf("without the cookie: arm %d, by bucket %d; want none, and the servers outside", i, e.arm(0))
	}
	r = asks("Cookie", "beta=1")
	for bucket, want := range map[spillway.Share]int{0: 2, 2499: 2, 2500: 1, 9999: 1} {
		if i, weight := e.chosen(r, bucket); i != want || weight != spillway.Percent(25) {
			t.Errorf("bucket %d: arm %d with weight %s, want %d with 25%%", bucket, i, weight, want)
		}
	}
	a.trial.harmful.Store(true)
	if i, weight := e.chosen(r, 0); i != 1 || weight != 0 {
		t.Errorf("after the trip: arm %d with weight %s, want stable's", i, weight)
	}
}
