package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// number asks the store for a query that gives one number. ok is false while it gives none.
func (m *metricStore) number(query string) (n float64, ok bool) {
	m.t.Helper()
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	p := open(http.DefaultClient, "http://"+m.address+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err := json.Unmarshal([]byte(p.Body), &answer); err != nil {
		m.t.Fatalf("%s: %v: %s", query, err, p)
	}
	if len(answer.Data.Result) != 1 {
		return 0, false
	}
	n, err := strconv.ParseFloat(answer.Data.Result[0].Value[1].(string), 64)
	return n, err == nil && n == n
}

// replaceProxy has the server replace the proxy.
func (in *installation) replaceProxy() {
	in.t.Helper()
	old := in.proxyPID()
	if err := syscall.Kill(in.serverPID(), syscall.SIGHUP); err != nil {
		in.t.Fatal(err)
	}
	await(in.t, 20*time.Second, "another proxy", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
}

// A real Prometheus scrapes the proxy, across a replacement of it; promtool finds nothing to say about the form.
func TestMetrics_OfTheProxy(t *testing.T) {
	need(t, "promtool")
	address := freeAddress(t)
	store := newMetricStore(t, "proxy "+address)
	in := installOn(t, shortDir(t))
	in.flags = []string{"--metrics", address}
	in.start()
	a := newApp(t, "counted")
	in.deploy(a).want(t, 0)
	users := in.send(a.Host(), keepAlive("GET", 100))
	users.answered(200)
	const requests = `spillway_proxy_requests_total{app="counted", service="web", release="1", track="stable", code="2xx"}`
	for query, holds := range map[string]func(float64) bool{
		requests: func(n float64) bool { return n >= 200 },
		`sum(rate(spillway_proxy_requests_total{app="counted"}[5s]))`:                                                     func(n float64) bool { return n > 50 && n < 150 },
		`histogram_quantile(0.95, sum by (le) (rate(spillway_proxy_request_duration_seconds_bucket{app="counted"}[5s])))`: func(n float64) bool { return n > 0 && n < 5 },
		`spillway_proxy_weight_ratio{app="counted"}`:                                                                      func(n float64) bool { return n == 1 },
		`process_resident_memory_bytes{job="proxy"}`:                                                                      func(n float64) bool { return n > 1e6 && n < 1e9 },
	} {
		await(t, 30*time.Second, query, func() bool { n, ok := store.number(query); return ok && holds(n) })
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(open(http.DefaultClient, "http://"+address+"/metrics", nil).Body)
	if out, err := check.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool: %v: %s", err, out)
	}
	in.spillway("doctor").tells(t, "metrics at http://"+address+"/metrics")

	scraped := time.Now()
	in.replaceProxy()
	// The counts begin again at 0, which to rate and increase is no loss.
	await(t, 30*time.Second, "a scrape of the new proxy", func() bool {
		n, ok := store.number("resets(" + requests + "[1m])")
		return ok && n == 1
	})
	since := strconv.Itoa(int(time.Since(scraped).Seconds()) + 1)
	if n, ok := store.number(`min_over_time(up{job="proxy"}[` + since + `s])`); !ok || n != 1 {
		t.Errorf("a scrape failed: %v, %v", n, ok)
	}
	users.flawless(80)
}

// The log is complete across a replacement and a rotation, and other flags of the server reach the proxy.
func TestAccessLog_OfTheProxy(t *testing.T) {
	in := installOn(t, shortDir(t))
	log := filepath.Join(t.TempDir(), "access.log")
	in.flags = []string{"--access-log", log}
	in.start()
	a := newApp(t, "logged")
	in.deploy(a).want(t, 0)
	const each = 20
	ask := func(path string) {
		for range each {
			if status, body := in.get(a.Host(), path); status != 200 {
				t.Fatalf("%s: %d %s", path, status, body)
			}
		}
	}
	ask("/?n=before")
	in.replaceProxy()
	ask("/?n=replaced")
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "a new file", func() bool { in.get(a.Host(), "/?n=between"); _, err := os.Stat(log); return err == nil })
	ask("/?n=rotated")
	count := func(word string) int {
		n := 0
		for _, name := range []string{log + ".1", log} {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				var l struct{ App, Query string }
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				if l.App == a.Name && l.Query == "n="+word {
					n++
				}
			}
		}
		return n
	}
	for _, word := range []string{"before", "replaced", "rotated"} {
		await(t, 10*time.Second, "the lines of "+word, func() bool { return count(word) >= each })
		if n := count(word); n != each {
			t.Errorf("%d lines of %d requests %s", n, each, word)
		}
	}

	in.kill(syscall.SIGTERM)
	in.flags = nil
	old := in.proxyPID()
	in.start()
	await(t, 20*time.Second, "a proxy without a log", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
	ask("/?n=silent")
	in.kill(syscall.SIGTERM)
	in.start() // the same proxy goes on
	if n := count("silent"); n != 0 {
		t.Errorf("%d lines although nobody asks for a log", n)
	}
}

// Wrong flags are told at once, by up too, and nothing is started.
func TestSeen_WrongFlags(t *testing.T) {
	in := installOn(t, shortDir(t))
	for _, flags := range [][]string{
		{"--access-log-sample", "1", "--access-log", "-"}, {"--metrics", "7301"}, {"--otlp", "127.0.0.1:4318"}, {"--otlp-sample", "half", "--otlp", "http://127.0.0.1:4318"},
	} {
		for _, verb := range []string{"server", "up"} {
			in.spillway(append([]string{verb}, flags...)...).want(t, 2).tells(t, flags[0], "write")
		}
	}
	in.spillway("server", "--access-log", in.dir+"/no/such/dir/log", "--http", freeAddress(t), "--listen", freeAddress(t)).want(t, 2).tells(t, "access log", "no such file")
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw") // short, because a unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
