package proxy

import (
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/spillway-dev/spillway"
)

// A promotion takes no web socket away from who is connected to the old release: it lives until its user
// closes it, and until then the old replica has it in flight, so that it is not stopped. (docs/incidents.md)
func TestPush_KeepsUpgradedConnectionsOfTheOldRelease(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	old := replica(t, echo)
	r.push(alone(1, old))
	conn, reader := r.raw(upgrade)
	if resp, err := http.ReadResponse(reader, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%+v %v", resp, err)
	}
	promoted := alone(2, replica(t, text("new")))
	promoted.Route.Edges[0].Backends = []spillway.Backend{{Group: www2, Release: 2, Weight: spillway.Whole}}
	promoted.Endpoints[0].Replica, promoted.Endpoints[0].Group = "www.2-1", www2
	promoted.Endpoints = append(promoted.Endpoints, spillway.Endpoint{Replica: "www.1-1", Group: www1, Address: old, Draining: true})
	r.push(promoted)
	for range 20 {
		if a := r.get("/"); a.body != "new" {
			t.Fatalf("after the promotion: %+v", a)
		}
	}
	io.WriteString(conn, "hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "hello" {
		t.Fatalf("the web socket after the promotion: %q %v", got, err)
	}
	if n := r.report().InFlight["www.1-1"]; n != 1 {
		t.Errorf("the old replica has %d in flight, want 1", n)
	}
	conn.(*net.TCPConn).CloseWrite()
	io.ReadAll(reader)
	eventually(t, "nothing in flight", func() bool { return r.report().InFlight["www.1-1"] == 0 })
}

// A proxy that was started again knows who belongs to a track, by rule, by host and by bucket, before anybody
// speaks to it: after a restart no user of a track meets stable. (docs/incidents.md)
func TestRun_KeepsRulesAcrossARestart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	r.push(canary(1, spillway.Percent(10), replica(t, text("old")), replica(t, text("canary"))))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, false)
	low, high := usersAt(0, 9000, 1)[0], usersAt(9000, spillway.Whole, 1)[0]
	for want, asks := range map[string][][]string{
		"canary": {{"X-User", low, "X-Canary", "yes"}, {"X-User", low, "Cookie", "canary=1"}, {"X-User", low, "Host", "canary.test"}, {"X-User", high}},
		"old":    {{"X-User", low}},
	} {
		for _, header := range asks {
			if a := r.get("/", header...); a.body != want {
				t.Errorf("%q: %+v, want %s", header, a, want)
			}
		}
	}
}
