package e2e

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/load"
)

// traffic is load on an app, counted as users see it.
type traffic struct{ *e2etest.Traffic }

func (tr *traffic) counts() e2etest.Seen { return tr.Counts() }
func (tr *traffic) end() e2etest.Seen    { return tr.End() }
func (tr *traffic) answered(n int64)     { tr.T.Helper(); tr.Answered(n) }

func (tr *traffic) flawless(rate float64) e2etest.Seen { tr.T.Helper(); return tr.Flawless(rate) }

// keepAlive are users with connections that stay open; a request each is that of a new user.
func keepAlive(method string, rate float64) load.Plan {
	return load.Plan{Method: method, Rate: rate, Workers: 8}
}

// newConnections are users each of whom opens a connection for one request.
func newConnections(method string, rate float64) load.Plan {
	p := keepAlive(method, rate)
	p.Header = http.Header{"Connection": {"close"}}
	return p
}

// loadWith are users with open connections who send these header fields.
func loadWith(header http.Header, rate float64) load.Plan {
	p := keepAlive("GET", rate)
	p.Header = header
	return p
}

// send starts load on a host until end, or the end of the test.
func (in *installation) send(host string, plans ...load.Plan) *traffic {
	in.t.Helper()
	plans = slices.Clone(plans)
	for i := range plans {
		p := &plans[i]
		p.Host, p.URL = host, cmp.Or(p.URL, "http://"+in.http+"/")
		if p.Method == http.MethodPost {
			p.Body = cmp.Or(p.Body, "x=1")
		}
	}
	return &traffic{e2etest.Send(in.t, plans...)}
}
