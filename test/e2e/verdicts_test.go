package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// judged deploys an app with a canary of one step, and then release 2 of it without waiting for the end.
func judged(t *testing.T, in *installation, name string, change func(*app)) *app {
	t.Helper()
	a := newApp(t, name)
	a.Strategy, a.Steps, a.Watch, a.Deadline = "canary", "50%", "0s", "2s"
	change(a)
	in.deploy(a).want(t, 0)
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	in.status(name, 30*time.Second, "half of the users on release 2", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Percent(50) || o.Rollout == nil && o.Stable == 2
	})
	return a
}

// stays checks that a rollout stays where it is, at half of the users.
func (in *installation) stays(name string, d time.Duration) {
	in.t.Helper()
	if within(d, func() bool {
		o := in.overview(name)
		return o.Rollout == nil || o.Rollout.Served != spillway.Percent(50)
	}) {
		in.t.Fatalf("the rollout did not stay: %s", describe(in.overview(name)))
	}
}

// paused waits until a rollout rests until somebody decides.
func (in *installation) paused(name string) spillway.Overview {
	in.t.Helper()
	return in.status(name, 30*time.Second, "the rollout to pause", func(o spillway.Overview) bool { return o.Phase == spillway.Paused })
}

// Undecided at the deadline is the app's choice: wait for a person, or go on.
func TestVerdict_Undecided(t *testing.T) {
	t.Parallel()
	t.Run("thin: pause", func(t *testing.T) {
		in := install(t)
		a := judged(t, in, "thin", func(a *app) { a.Pause = true })
		for range 12 {
			in.get(a.Host(), "/")
		}
		o := in.paused(a.Name)
		if e := o.Rollout.Evidence; e == nil || e.Verdict != spillway.Undecided || e.Needs == 0 {
			t.Errorf("want the verdict undecided, and how many more requests it takes; evidence %+v", e)
		}
		in.spillway("status", "--app", a.Name).want(t, 0).tells(t, "more", "promote or abort")
		in.stays(a.Name, 2*time.Second)
		in.spillway("promote", "--app", a.Name).want(t, 0)
		in.healthy(a.Name, 2, 30*time.Second)
	})
	t.Run("thin: promote", func(t *testing.T) {
		in := install(t)
		a := judged(t, in, "thin", func(*app) {})
		for range 12 {
			in.get(a.Host(), "/")
		}
		in.healthy(a.Name, 2, 30*time.Second)
	})
}

// Without traffic a rollout holds and says so. Requests of Spillway's own let it go on.
func TestVerdict_NoTraffic(t *testing.T) {
	t.Parallel()
	t.Run("holds", func(t *testing.T) {
		in := install(t)
		a := judged(t, in, "quiet", func(a *app) { a.Pause = true })
		o := in.paused(a.Name)
		if e := o.Rollout.Evidence; e != nil && e.Verdict != spillway.NoTraffic {
			t.Errorf("want the verdict no-traffic, have %+v", e)
		}
		in.spillway("status", "--app", a.Name).want(t, 0).tells(t, "no-traffic", "promote or abort")
		in.stays(a.Name, 2*time.Second)
	})
	t.Run("synthetic requests let it go on", func(t *testing.T) {
		in := install(t)
		a := judged(t, in, "quiet", func(a *app) {
			a.Pause, a.Deadline = true, "1m"
			a.Lines = []string{"synthetic: {path: /, rate: 50}"}
		})
		in.healthy(a.Name, 2, 40*time.Second)
		if e := in.overview(a.Name).Last.Evidence; e == nil || e.Requests == 0 {
			t.Errorf("it went on without evidence: %+v", e)
		}
	})
}

// A gate that nobody can answer holds the rollout. It never passes it and never turns it back.
func TestVerdict_NoData(t *testing.T) {
	t.Parallel()
	in := install(t)
	nobody := freeAddress(t)
	a := judged(t, in, "blind", func(a *app) {
		a.Pause, a.Deadline = true, "3s"
		a.Top = []string{"prometheus: http://" + nobody, `gates: ["query: up > 0"]`}
	})
	users := in.send(a.Host(), keepAlive("GET", 100))
	users.answered(400)
	o := in.paused(a.Name)
	gate := gateOf(o, "query: up > 0")
	if gate.Verdict != spillway.NoData || !strings.Contains(gate.Reason, "refused") {
		t.Errorf("want the gate to have no data, as the connection is refused; it is %+v", gate)
	}
	in.spillway("status", "--app", a.Name).want(t, 0).tells(t, "query: up > 0", "no-data", "refused")
	in.stays(a.Name, 2*time.Second)
	in.spillway("promote", "--app", a.Name).want(t, 0)
	in.status(a.Name, 30*time.Second, "everybody on release 2", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Whole && o.Phase == spillway.Promoting
	})
	in.spillway("promote", "--app", a.Name).want(t, 0) // the gate holds the watch too, until somebody ends it
	in.healthy(a.Name, 2, 30*time.Second)
	users.flawless(80)
}

func gateOf(o spillway.Overview, text string) spillway.GateOverview {
	if o.Rollout == nil {
		return spillway.GateOverview{}
	}
	i := slices.IndexFunc(o.Rollout.Gates, func(g spillway.GateOverview) bool { return g.Text == text })
	if i < 0 {
		return spillway.GateOverview{}
	}
	return o.Rollout.Gates[i]
}

// metricStore is a real Prometheus that scrapes itself, as the job itself, and others.
type metricStore struct {
	t       *testing.T
	dir     string
	address string
	cmd     *exec.Cmd
	ended   chan struct{}
}

func newMetricStore(t *testing.T, jobs ...string) *metricStore {
	need(t, "prometheus")
	m := &metricStore{t: t, dir: t.TempDir(), address: freeAddress(t)}
	config := fmt.Sprintf(`global: {scrape_interval: 1s}
scrape_configs:
  - {job_name: itself, static_configs: [{targets: ["%s"]}]}
`, m.address)
	for _, job := range jobs { // "proxy 127.0.0.1:7301"
		name, target, _ := strings.Cut(job, " ")
		config += fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: [%q]}]}\n", name, target)
	}
	writeFile(t, filepath.Join(m.dir, "prometheus.yml"), config)
	m.start()
	t.Cleanup(m.stop)
	return m
}

// start starts it and waits until it knows that it is up.
func (m *metricStore) start() {
	m.t.Helper()
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command("prometheus", "--config.file="+filepath.Join(m.dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(m.dir, "data"), "--web.listen-address="+m.address)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	cmd, ended := m.cmd, make(chan struct{})
	m.ended = ended
	go func() { cmd.Wait(); close(ended) }() // ends with the process, which stop ends and waits for
	await(m.t, 30*time.Second, "the metric store to know that it is up", func() bool {
		return strings.Contains(open(http.DefaultClient, "http://"+m.address+"/api/v1/query?query=up", nil).Body, `"1"`)
	})
}

func (m *metricStore) stop() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		m.t.Error("the metric store does not end")
		m.cmd.Process.Kill()
		<-m.ended
	}
}

// The metric store is away for a minute in mid-rollout: the rollout holds, says so, and goes on when it is back.
func TestVerdict_MetricStoreAwayForAMinute(t *testing.T) {
	t.Parallel()
	const gate = `query: up{job="itself"} > 0`
	store := newMetricStore(t)
	in := install(t)
	a := newApp(t, "measured")
	a.Strategy, a.Steps, a.Watch, a.Deadline, a.Pause = "canary", "50% 8s", "0s", "5m", true
	a.Top = []string{"prometheus: http://" + store.address, "gates: ['" + gate + "']"}
	in.deploy(a).want(t, 0)
	users := in.send(a.Host(), keepAlive("GET", 100))
	users.answered(50)
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	in.status(a.Name, 30*time.Second, "the gate to hold", func(o spillway.Overview) bool { return gateOf(o, gate).Verdict == spillway.Certified })
	store.stop()
	away := time.Now()
	in.status(a.Name, 15*time.Second, "the gate to have no data", func(o spillway.Overview) bool { return gateOf(o, gate).Verdict == spillway.NoData })
	in.spillway("status", "--app", a.Name).want(t, 0).tells(t, gate, "no-data", "refused")
	in.stays(a.Name, time.Minute-time.Since(away))
	o := in.overview(a.Name)
	if e := o.Rollout.Evidence; e == nil || e.Verdict != spillway.Certified {
		t.Errorf("requests alone would have let it go on by now, or this proves nothing: %s", describe(o))
	}
	store.start()
	in.healthy(a.Name, 2, 40*time.Second)
	users.flawless(80)
}

// watchdog is what a gate asks over HTTP.
type watchdog struct {
	url     string
	healthy atomic.Bool
	asked   atomic.Int64
}

func newWatchdog(t *testing.T) *watchdog {
	w := new(watchdog)
	w.healthy.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		if !w.healthy.Load() {
			http.Error(out, "orders are down by half", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

// A URL that stops to answer 2xx turns the rollout back. The same gate as a dry run is told and does nothing.
func TestGate_HTTP(t *testing.T) {
	t.Parallel()
	w := newWatchdog(t)
	in := install(t)
	a := newApp(t, "orders")
	a.Strategy, a.Steps, a.Deadline, a.Watch = "canary", "50% 1h", "5m", "0s"
	a.Top = []string{`gates: ["http: ` + w.url + `"]`}
	in.deploy(a).want(t, 0)
	in.send(a.Host(), keepAlive("GET", 50))
	done := in.behind("deploy", a.bump().write())
	in.status(a.Name, 30*time.Second, "the gate to hold", func(o spillway.Overview) bool {
		return gateOf(o, "http: "+w.url).Verdict == spillway.Certified
	})
	w.healthy.Store(false)
	(<-done).want(t, 3).tells(t, "rolled back", w.url, "503", "orders are down by half")
	in.healthy(a.Name, 1, 30*time.Second)
	if w.asked.Load() < 2 {
		t.Errorf("the gate was asked %d times", w.asked.Load())
	}

	a.Top = []string{`gates: [{gate: "http: ` + w.url + `", dry-run: true}]`}
	a.Steps = "50% 7s"
	in.deploy(a.bump()).want(t, 0)
	in.healthy(a.Name, 3, 30*time.Second)
	in.spillway("events", "--app", a.Name).want(t, 0).tells(t, "dry run", "orders are down by half")
}

// A command that does not end with 0 turns the rollout back.
func TestGate_Run(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "checked")
	a.Strategy, a.Steps, a.Deadline = "canary", "50% 1h", "5m"
	a.Top = []string{`gates: ["run: sh check.sh"]`}
	writeFile(t, filepath.Join(a.dir, "check.sh"), "echo comparing\n"+`test $SPILLWAY_RELEASE != 3 || { echo "checkout of release $SPILLWAY_RELEASE is broken, that of $SPILLWAY_STABLE is not"; exit 1; }`+"\n")
	in.deploy(a).want(t, 0)
	in.send(a.Host(), keepAlive("GET", 50))
	a.Steps = "50% 2s"
	in.deploy(a.bump()).want(t, 0) // check.sh is content with release 2
	a.Steps = "50% 1h"
	in.deploy(a.bump()).want(t, 3).tells(t, "rolled back", "run: sh check.sh", "checkout of release 3 is broken, that of 2 is not")
	in.healthy(a.Name, 2, 30*time.Second)
}
