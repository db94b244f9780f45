package proxy

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// A connection that the transport opened and did not need keeps a net/http server from ending for 5 s. So
// the connections to a replica are closed when it drains, long before they have been idle for too long.
func TestPush_ClosesIdleConnectionsToAReplicaThatDrains(t *testing.T) {
	var open atomic.Int64
	s := httptest.NewUnstartedServer(text("hello"))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	r := start(t, tempDir(t), false)
	table := alone(1, s.Listener.Addr().String(), replica(t, text("hello")))
	r.push(table)
	eventually(t, "an idle connection to the replica", func() bool { r.get("/"); return open.Load() > 0 })
	began := time.Now()
	table.Revision = 2
	table.Endpoints = append([]spillway.Endpoint(nil), table.Endpoints...)
	table.Endpoints[0].Draining = true
	r.push(table)
	eventually(t, "no connection to the replica that drains", func() bool { return open.Load() == 0 })
	if took := time.Since(began); took >= idleTimeout {
		t.Errorf("closed after %v, as if it did not drain", took)
	}
}
