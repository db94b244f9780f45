package counts_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// gateway is an instance of Traefik that counts what it is told to.
type gateway struct {
	*httptest.Server

	mu     sync.Mutex
	series map[string]int64
	start  float64
	serve  http.HandlerFunc // instead of the series
}

func newGateway(t *testing.T) *gateway {
	g := &gateway{series: map[string]int64{}, start: 1_800_000_000}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

// ServeHTTP shows the metrics.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.serve != nil {
		g.serve(w, r)
		return
	}
	_, _ = io.WriteString(w, g.text())
}

// text is the exposition.
func (g *gateway) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %g\n", g.start)
	for _, metric := range []string{"traefik_service_requests_total", "traefik_router_requests_total", "traefik_service_request_duration_seconds"} {
		kind := "counter"
		if strings.HasSuffix(metric, "seconds") {
			kind = "histogram"
		}
		fmt.Fprintf(&b, "# HELP %s x\n# TYPE %s %s\n", metric, metric, kind)
		for _, s := range slices.Sorted(maps.Keys(g.series)) {
			if strings.HasPrefix(s, metric) {
				fmt.Fprintf(&b, "%s %d\n", s, g.series[s])
			}
		}
	}
	return b.String()
}

const prefix = "httproute-shop-castle-www-gw-gateway-public-ep-web"

// answer counts n answers of a backend of a rule.
func (g *gateway) answer(rule, service string, code, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.series[fmt.Sprintf(`traefik_service_requests_total{code="%d",method="GET",protocol="http",service="%s-%s-svc-shop-%s-0@kubernetesgateway"}`,
		code, prefix, rule, service)] += int64(n)
}

// both counts good answers of stable and failures of the candidate, in the same moment.
func (g *gateway) both(good, failures int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	series := `traefik_service_requests_total{code="%d",method="GET",protocol="http",service="` + prefix + `-1-svc-shop-castle-www-%d-0@kubernetesgateway"}`
	g.series[fmt.Sprintf(series, 200, 4)] += int64(good)
	g.series[fmt.Sprintf(series, 500, 5)] += int64(failures)
}

// restart makes another process of it.
func (g *gateway) restart(at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.series, g.start = map[string]int64{}, float64(at.Unix())
}

// instead serves something else, nil = the series again.
func (g *gateway) instead(serve http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serve = serve
}

// world is a judge with its gateways and a clock of its own.
type world struct {
	*counts.Judge
	t        *testing.T
	now      time.Time
	gateways []*gateway
	changed  int
	problem  string // of the list of gateways
}

func newWorld(t *testing.T, instances int, change ...func(*counts.Config)) *world {
	w := &world{t: t, now: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}
	for range instances {
		w.gateways = append(w.gateways, newGateway(t))
	}
	c := counts.Config{
		Flavour: counts.Traefik, Now: func() time.Time { return w.now }, Changed: func(spillway.Ref) { w.changed++ },
		Instances: func() (all []counts.Instance, problem string) {
			for _, g := range w.gateways {
				all = append(all, counts.Instance{URL: g.URL + "/metrics"})
			}
			return all, w.problem
		},
	}
	for _, f := range change {
		f(&c)
	}
	w.Judge = counts.New(c)
	return w
}

// look asks once, two seconds later.
func (w *world) look() {
	w.now = w.now.Add(2 * time.Second)
	w.Look(w.t.Context())
}

// route gives release 5 of castle a part of the users of release 4.
func route(weight spillway.Share) counts.Route {
	www := func(release int) spillway.Group { return spillway.Group{Service: "www", Release: release} }
	return counts.Route{
		Route: spillway.Route{
			Edges: []spillway.Edge{{Service: "www", Hosts: []string{"castle.example.com"}, Backends: []spillway.Backend{
				{Group: www(4), Release: 4, Weight: spillway.Whole - weight}, {Group: www(5), Release: 5, Weight: weight},
			}}},
			Trial: &spillway.Trial{
				ID: 3, Release: 5, Stable: 4, Candidate: []spillway.Group{www(5)}, Budget: 20, Margin: spillway.Percent(1), Tolerance: 100,
			},
		},
		Services: map[string]counts.Service{
			"www.4": {Namespace: "shop", Name: "castle-www-4", Port: 80}, "www.5": {Namespace: "shop", Name: "castle-www-5", Port: 80},
		},
	}
}

// follow begins a trial at a weight that has been acknowledged, and looks until it is compared.
func (w *world) follow(r counts.Route) {
	w.t.Helper()
	r.Acknowledged = w.now
	if err := w.Follow("castle", r); err != nil {
		w.t.Fatal(err)
	}
	w.look()
}

// want fails unless the evidence is so.
func (w *world) want(verdict spillway.Verdict, requests, failures, baseline int64) spillway.Evidence {
	w.t.Helper()
	e, _, noData := w.Evidence("castle")
	if e == nil {
		w.t.Fatal("no evidence")
	}
	if e.Verdict != verdict || e.Requests != requests || e.Failures != failures || e.Baseline != baseline {
		w.t.Fatalf("evidence is %s with %d of %d failed, stable %d: %s\nwant %s with %d of %d, stable %d",
			e.Verdict, e.Failures, e.Requests, e.Baseline, e.Reason, verdict, failures, requests, baseline)
	}
	if (noData != "") != (verdict == spillway.NoData) {
		w.t.Fatalf("no data: %q", noData)
	}
	return *e
}

// says fails unless the reason has a text in it.
func (w *world) says(part string) {
	w.t.Helper()
	if e, _, _ := w.Evidence("castle"); e == nil || !strings.Contains(e.Reason, part) {
		w.t.Fatalf("evidence %+v does not say %q", e, part)
	}
}
