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
