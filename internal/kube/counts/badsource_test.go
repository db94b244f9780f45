package counts_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
}

const one = `traefik_service_requests_total{code="200",service="httproute-x-svc-shop-castle-www-4-0@kubernetesgateway"} `

// TestJudge_BadSources: each is a source that is down, with the reason, and nothing is counted.
func TestJudge_BadSources(t *testing.T) {
	for name, test := range map[string]struct {
		serve http.HandlerFunc
		says  string
	}{
		"error":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "it answers 500 Internal Server Error"},
		"denied":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "it answers 401 Unauthorized"},
		"redirect":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, "it answers 302 Found"},
		"a page":       {text("<html><body>Welcome to nginx!</body></html>"), "what it answers are no metrics"},
		"nothing":      {text(""), "what it answers are no metrics"},
		"binary":       {text("\x00\xff\x1b\n\n\x00"), "what it answers are no metrics"},
		"broken line":  {text("# TYPE traefik_service_requests_total counter\ntraefik_service_requests_total{code=\"200\n"), "its metrics cannot be read"},
		"cut off":      {text("# TYPE traefik_service_requests_total counter\n" + one + "12"), "its metrics end in the middle of a line"},
		"not a number": {text("# TYPE traefik_service_requests_total counter\n" + one + "NaN\n"), "is NaN"},
		"infinite":     {text("# TYPE traefik_service_requests_total counter\n" + one + "+Inf\n"), "is +Inf"},
		"negative":     {text("# TYPE traefik_service_requests_total counter\n" + one + "-4\n"), "is -4"},
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			line := strings.Repeat("# TYPE x counter\n", 64<<10)
			for range 40 {
				fmt.Fprint(w, line)
			}
		}, "longer than 32 MiB"},
		"shorter than it says": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "# TYPE x counter\n")
		}, "EOF"},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer within"},
		"hangs in the middle": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "# TYPE x counter\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "no answer within"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, func(c *counts.Config) { c.Timeout = 5 * time.Second })
			if strings.HasPrefix(name, "hangs") {
				w = newWorld(t, 1, func(c *counts.Config) { c.Timeout = 100 * time.Millisecond })
			}
			w.gateways[0].instead(test.serve)
			w.follow(route(500))
			w.want(spillway.NoData, 0, 0, 0)
			w.says("the counters of the gateway cannot be read since 12:00:02 UTC: 127.0.0.1:")
			w.says(test.says)
		})
	}
}

// TestJudge_OneInstanceHangs: the other is read all the same, and within the timeout.
func TestJudge_OneInstanceHangs(t *testing.T) {
	w := newWorld(t, 2)
	w.gateways[0].answer("1", "castle-www-4", 200, 5)
	w.gateways[1].instead(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	began := time.Now()
	w.follow(route(500))
	if took := time.Since(began); took < time.Second || took > 3*time.Second {
		t.Errorf("the look took %v, the timeout is 1s", took)
	}
	w.gateways[0].answer("1", "castle-www-4", 200, 5)
	w.gateways[1].instead(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 5)
	w.says("; 1 of 2 instances of the gateway cannot be read")
}

func TestJudge_NoInstance(t *testing.T) {
	w := newWorld(t, 0)
	w.follow(route(500))
	w.want(spillway.NoData, 0, 0, 0)
	w.says("it has no instance that the server was told of: --gateway-metrics or --prometheus")
}

// TestJudge_LargeExposition: a gateway with many apps costs little.
func TestJudge_LargeExposition(t *testing.T) {
	w := newWorld(t, 1, func(c *counts.Config) { c.Timeout = 30 * time.Second })
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 5)
	for i := range 3000 {
		g.answer("1", fmt.Sprintf("app-%d-www-1", i), 200, i)
	}
	exposition := g.text() + strings.Repeat("some_other_metric{with=\"labels\",that=\"are long\"} 12345\n", 400_000)
	g.instead(text(exposition))
	began := time.Now()
	w.follow(route(500))
	t.Logf("%d MiB read in %v", len(exposition)>>20, time.Since(began))
	w.want(spillway.NoTraffic, 0, 0, 0)
}
