package counts_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// timed counts n good answers of a backend that took less than a bound of Traefik's histogram: 100 ms, 300 ms, 1.2 s, 5 s.
func (g *gateway) timed(release, bound, n int) {
	g.answer("1", fmt.Sprintf("castle-www-%d", release), 200, n)
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, le := range []string{"0.1", "0.3", "1.2", "5", "+Inf"} {
		series := fmt.Sprintf(`traefik_service_request_duration_seconds_bucket{code="200",method="GET",protocol="http",service="%s-1-svc-shop-castle-www-%d-0@kubernetesgateway",le="%s"}`, prefix, release, le)
		if g.series[series] += 0; i >= bound { // all bounds are there from the beginning
			g.series[series] += int64(n)
		}
	}
}

func gated(gates ...spillway.Slower) counts.Route {
	r := route(spillway.Percent(10))
	r.Route.Trial.Latency = gates
	return r
}

func TestJudge_JudgesLatencyByTheHistogram(t *testing.T) {
	for name, test := range map[string]struct {
		gate spillway.Slower
		slow int // of 17 answers of the candidate that take more than 100 ms
		want bool
	}{
		"slower":          {spillway.Slower{Factor: 100}, 17, true},
		"as quick":        {spillway.Slower{Factor: 100}, 1, false},
		"over its limit":  {spillway.Slower{Quantile: 95, Limit: spillway.Duration(100 * time.Millisecond)}, 9, true},
		"under its limit": {spillway.Slower{Quantile: 95, Limit: spillway.Duration(250 * time.Millisecond)}, 9, false},
	} {
		w := newWorld(t, 1)
		g := w.gateways[0]
		g.timed(4, 0, 9500)
		g.timed(4, 1, 500)
		w.follow(gated(test.gate))
		w.look()
		var e *spillway.Evidence
		for range 20 {
			g.timed(4, 0, 142)
			g.timed(4, 1, 7)
			g.timed(5, 0, 17-test.slow)
			g.timed(5, 1, test.slow)
			w.look()
			if e, _, _ = w.Evidence("castle"); e.Verdict == spillway.Harmful {
				break
			}
		}
		if (e.Verdict == spillway.Harmful) != test.want || test.want && e.Cause != "latency" {
			t.Errorf("%s: %s %s: %s", name, e.Verdict, e.Cause, e.Reason)
		}
	}
}

func TestJudge_WaitsForTheWarmup(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.timed(4, 0, 10_000)
	r := gated(spillway.Slower{Factor: 100})
	r.Route.Trial.Warmup = spillway.Duration(20 * time.Second)
	w.follow(r)
	w.look()
	for range 10 {
		g.timed(4, 0, 149)
		g.timed(5, 2, 17)
		w.look()
	}
	w.want(spillway.Undecided, 170, 0, 1490)
	for range 3 {
		g.timed(4, 0, 149)
		g.timed(5, 2, 17)
		w.look()
	}
	if e, _, _ := w.Evidence("castle"); e.Verdict != spillway.Harmful {
		t.Errorf("%+v", e)
	}
}

func TestJudge_SaysWhatLatencyIsNotJudged(t *testing.T) {
	w := newWorld(t, 1)
	w.gateways[0].answer("1", "castle-www-4", 200, 5)
	w.follow(gated(spillway.Slower{Factor: 150}))
	w.says("; its latency is not judged: the gateway shows none")
	w.gateways[0].timed(4, 0, 5)
	w.gateways[0].timed(5, 0, 5)
	w.look()
	w.says("; its latency is not compared yet: too few answers of release 4")

	w = newWorld(t, 1)
	w.gateways[0].timed(4, 0, 500)
	w.follow(gated(spillway.Slower{Limit: spillway.Duration(10 * time.Second)}))
	w.says("; its latency is not held against 10s: the gateway's histogram ends at 5s")

	w = newWorld(t, 0, store(t, text(vector([4]string{"a", "castle-www-4", "200", "5"}))))
	w.follow(gated(spillway.Slower{Factor: 150}))
	w.says("; its latency is not judged: this gateway's is not known")
}
