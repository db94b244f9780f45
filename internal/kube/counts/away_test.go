package counts_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// refuse counts n answers that Traefik gave itself, for a rule.
func (g *gateway) refuse(rule string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.series[fmt.Sprintf(`traefik_router_requests_total{code="503",method="GET",protocol="http",router="%s-%s@kubernetesgateway",service="%s-%s-wrr@kubernetesgateway"}`,
		prefix, rule, prefix, rule)] += int64(n)
}

// forget removes what was counted of a backend, as Traefik does when its Service is deleted.
func (g *gateway) forget(service string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.series, func(s string, _ int64) bool { return strings.Contains(s, "-svc-shop-"+service+"-") })
}

// TestJudge_StableWasDeleted: while the Service of stable is away, a canary that nobody asks for stands still as well, and
// the gateway knows no backend but the canary's behind the rule. What fails then is not the canary's alone.
func TestJudge_StableWasDeleted(t *testing.T) {
	for name, failures := range map[string][]int{"at once": {3}, "bit by bit": {3, 2, 0, 4}, "one at a time": {1, 1, 1, 1}, "many": {500, 500}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			g := w.gateways[0]
			g.refuse("1-abc", 1)
			g.answer("1-abc", "castle-www-4", 200, 10)
			g.answer("1-abc", "castle-www-5", 200, 1)
			w.follow(route(500))
			w.look()
			g.forget("castle-www-4")
			for _, n := range failures {
				g.refuse("1-abc", n)
				w.look()
			}
			w.look()
			w.look()
			w.want(spillway.NoTraffic, 0, 0, 0)
			for range 3 {
				g.answer("1-abc", "castle-www-4", 200, 2) // it is there again
				w.look()
			}
			if e, _, _ := w.Evidence("castle"); e.Verdict == spillway.Harmful || e.Failures > 1 {
				t.Errorf("the canary is charged with what failed without stable: %+v", *e)
			}
		})
	}
}

// TestJudge_StableWasAwayForAMoment: three of ten are more than a canary of 5 % gets, and enough to be proof against it.
func TestJudge_StableWasAwayForAMoment(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.refuse("1-abc", 1)
	g.answer("1-abc", "castle-www-4", 200, 10)
	g.answer("1-abc", "castle-www-5", 200, 1)
	w.follow(route(500))
	w.look()
	g.refuse("1-abc", 3)
	g.answer("1-abc", "castle-www-4", 200, 7)
	w.look()
	g.answer("1-abc", "castle-www-4", 200, 7)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 14)
}

// TestJudge_StableWasNeverSeen: that a rule shows the canary alone does not say that it leads there alone.
func TestJudge_StableWasNeverSeen(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.refuse("1-abc", 1)
	g.answer("1-abc", "castle-www-5", 200, 1)
	w.follow(route(500))
	w.look()
	for range 5 {
		g.refuse("1-abc", 3)
		w.look()
	}
	w.want(spillway.NoTraffic, 0, 0, 0)
}

// TestJudge_ARuleOfTheCanaryAlone: what fails behind it is the canary's, since stable is seen elsewhere.
func TestJudge_ARuleOfTheCanaryAlone(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.refuse("0-cookie", 1)
	g.answer("0-cookie", "castle-www-5", 200, 1)
	g.answer("1-abc", "castle-www-4", 200, 10)
	w.follow(route(500))
	w.look()
	for range 3 {
		g.refuse("0-cookie", 5)
		w.look()
	}
	w.want(spillway.Undecided, 10, 10, 0)
}

// TestJudge_WhatTheServerAsksIsNobodys: neither what replicas answer to it nor what the gateway answers instead.
func TestJudge_WhatTheServerAsksIsNobodys(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	r := route(500)
	for name, s := range r.Services {
		s.Asked = s.Name + "-reach"
		r.Services[name] = s
	}
	reach := "httproute-shop-castle-www-5-reach-gw-gateway-public-ep-web-1-5f37cfb7459399d672a0"
	ask := func(answered, refused int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.series[`traefik_service_requests_total{code="500",method="GET",protocol="http",service="`+reach+`-svc-shop-castle-www-5-0@kubernetesgateway"}`] += int64(answered)
		g.series[`traefik_router_requests_total{code="500",method="GET",protocol="http",router="`+reach+`@kubernetesgateway",service="`+reach+`-wrr@kubernetesgateway"}`] += int64(answered)
		g.series[`traefik_router_requests_total{code="503",method="GET",protocol="http",router="`+reach+`@kubernetesgateway",service="`+reach+`-wrr@kubernetesgateway"}`] += int64(refused)
	}
	ask(1, 1)
	g.answer("1-abc", "castle-www-4", 200, 10)
	w.follow(r)
	w.look()
	for range 10 {
		ask(5, 20)
		g.answer("1-abc", "castle-www-4", 200, 10)
		w.look()
	}
	w.want(spillway.NoTraffic, 0, 0, 100)
}
