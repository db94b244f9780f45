//go:build prometheus

package metrics_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// TestQuery_OfARealPrometheus needs the program prometheus: apt-get install prometheus.
func TestQuery_OfARealPrometheus(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v: apt-get install prometheus", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("scrape_configs: [{job_name: self, scrape_interval: 1s, static_configs: [{targets: [%q]}]}]", address)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	store := exec.Command(program, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+address)
	store.Stderr = t.Output()
	if err := store.Start(); err != nil {
		t.Fatal(err)
	}
	over := false
	end := func() {
		if !over {
			over = true
			_ = store.Process.Kill()
			_ = store.Wait() // it says that it was killed
		}
	}
	defer end()

	gate := func(query, op string, value float64) rollout.Watch {
		return watch(spillway.Gate{Metric: "query", Source: query, Op: op, Value: value}, "http://"+address)
	}
	b := newBench(t, 50*time.Millisecond, 10*time.Second)
	b.Set("castle", []rollout.Watch{gate(`up{job="self"}`, "==", 1)}, nil)
	eventually(t, "it has scraped itself", func() bool {
		r := b.Readings("castle")
		return len(r) == 1 && r[0].OK && r[0].Text == "1"
	})
	for query, want := range map[string]string{
		`up{job="self"} + 1`:               `broken: 2 for {instance="` + address + `", job="self"}`,
		`scalar(up{job="self"})`:           "holds: 1",
		`no_such_metric`:                   "no data: no series: nothing fits no_such_metric",
		`up{job="self"} * NaN`:             `no data: not a number for {instance="` + address + `", job="self"}`,
		`up{job="self"}[1m]`:               "no data: the query gives a matrix; it has to give one number a series",
		`up{`:                              `no data: the query failed: *unexpected end of input inside braces`,
		`vector({{release}}) - {{stable}}`: "holds: 1",
		`label_replace(vector(1),"r","{{release}}","","")`: "holds: 1",
	} {
		t.Run(query, func(t *testing.T) { check(t, once(t, gate(query, "==", 1), nil), want) })
	}
	end()
	eventually(t, "it is down", func() bool { return b.Readings("castle")[0].NoData })
	check(t, b.Readings("castle")[0], "no data: no answer: *connection refused")
}
