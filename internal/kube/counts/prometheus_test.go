package counts_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// store is something that is asked instead of a Prometheus.
func store(t *testing.T, serve http.HandlerFunc) func(*counts.Config) {
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return func(c *counts.Config) { c.Prometheus = s.URL }
}

// vector is an answer with one series a row: instance, service, code, value.
func vector(rows ...[4]string) string {
	var all []string
	for _, r := range rows {
		all = append(all, fmt.Sprintf(`{"metric":{"instance":%q,"service":"target","exported_service":"httproute-x-svc-shop-%s-0@kubernetesgateway","code":%q},"value":[1800000000.1,%q]}`,
			r[0], r[1], r[2], r[3]))
	}
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(all, ",") + `]}}`
}

func TestJudge_AsksPrometheus(t *testing.T) {
	now := vector()
	w := newWorld(t, 0, store(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/query" || r.FormValue("query") == "" {
			t.Errorf("%s %s", r.URL, r.FormValue("query"))
		}
		_, _ = io.WriteString(w, now)
	}))
	show := func(rows ...[4]string) { now = vector(rows...); w.look() }
	w.follow(route(500))
	w.says("counts nothing for shop/castle-www-4:80")
	show([4]string{"a", "castle-www-4", "200", "1000"}, [4]string{"b", "castle-www-4", "200", "500"})
	w.want(spillway.NoTraffic, 0, 0, 0)
	show([4]string{"a", "castle-www-4", "200", "1100"}, [4]string{"b", "castle-www-4", "200", "550"})
	w.want(spillway.NoTraffic, 0, 0, 150)
	show([4]string{"a", "castle-www-4", "200", "1200"}, [4]string{"b", "castle-www-4", "200", "5"}, [4]string{"a", "castle-www-5", "503", "8"})
	w.want(spillway.Harmful, 8, 8, 255)
	for range 5 {
		show()
	}
	_, _, noData := w.Evidence("castle")
	if !strings.Contains(noData, "prometheus has none of it any more") {
		t.Errorf("no data: %q", noData)
	}
}

func TestJudge_BadPrometheus(t *testing.T) {
	for name, test := range map[string]struct{ body, says string }{
		"NaN":              {vector([4]string{"a", "castle-www-4", "200", "NaN"}), `is "NaN"`},
		"infinite":         {vector([4]string{"a", "castle-www-4", "200", "+Inf"}), `is "+Inf"`},
		"a page":           {"<html>", "is not what a Prometheus does"},
		"error":            {`{"status":"error","error":"query timed out"}`, "the query failed: query timed out"},
		"nothing":          {"", "is not what a Prometheus does"},
		"no value":         {`{"status":"success","data":{"result":[{"metric":{}}]}}`, `is ""`},
		"something else":   {`{"status":"success","data":{"result":[1]}}`, "is not what a Prometheus does"},
		"nothing is known": {vector(), "has no traefik_service_requests_total"},
	} {
		w := newWorld(t, 0, store(t, text(test.body)))
		w.follow(route(500))
		w.want(spillway.NoData, 0, 0, 0)
		if e, _, _ := w.Evidence("castle"); !strings.Contains(e.Reason, test.says) {
			t.Errorf("%s: %s", name, e.Reason)
		}
	}
}

// TestJudge_RealPrometheus lets a Prometheus read a gateway and judges by it. It needs the program prometheus:
// apt-get install prometheus.
func TestJudge_RealPrometheus(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v: apt-get install prometheus", err)
	}
	g, dir, address := newGateway(t), t.TempDir(), freeAddress(t)
	config := fmt.Sprintf("scrape_configs: [{job_name: traefik, scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: [{targets: [%q], labels: {service: metrics, pod: traefik-1}}]}]\n",
		strings.TrimPrefix(g.URL, "http://"))
	if err := os.WriteFile(filepath.Join(dir, "p.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config.file="+filepath.Join(dir, "p.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	w := newWorld(t, 0, func(c *counts.Config) { c.Prometheus = "http://" + address + "/" })
	until := func(ok func(e *spillway.Evidence) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
			w.look()
			if e, _, _ := w.Evidence("castle"); ok(e) {
				return
			}
		}
		e, _, _ := w.Evidence("castle")
		t.Fatalf("it does not come to that: %+v", e)
	}
	g.answer("1", "castle-www-4", 200, 1000)
	w.follow(route(500))
	until(func(e *spillway.Evidence) bool { return e.Verdict == spillway.NoTraffic })
	g.answer("1", "castle-www-4", 200, 150)
	until(func(e *spillway.Evidence) bool { return e.Baseline == 150 })
	g.both(150, 8)
	until(func(e *spillway.Evidence) bool {
		return e.Verdict == spillway.Harmful && e.Failures == 8 && e.Baseline == 300
	})
	g.Close()
	until(func(*spillway.Evidence) bool { _, _, noData := w.Evidence("castle"); return noData != "" })
}
