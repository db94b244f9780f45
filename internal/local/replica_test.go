package local_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestApply_StartsReplicasAndRoutesToTheReadyOnes(t *testing.T) {
	for name, path := range map[string]string{"tcp": "", "http": "/healthz"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			releases := shop("serve", func(s *spillway.Service) { s.Health.Path = path })
			b.apply(releases, www(2, 1))
			b.eventually("two ready", func() bool { return b.group("www.1").Ready == 2 })
			b.eventually("both in the table", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
			if o := b.observe(); o.Served.Generation != 1 || o.NoData || len(o.Served.Edges) != 1 {
				t.Errorf("served: %+v", o)
			}
			r := b.replica("www.1-1")
			if r.State != spillway.Ready || r.PID == 0 || r.Memory == 0 || r.Enforced != (os.Getuid() == 0 && enforces(b)) {
				t.Errorf("replica: %+v", r)
			}
			// It is told once it is so, which is a moment after it can be seen.
			b.eventually("an event that tells that www.1-2 is ready", func() bool { return b.said("www.1-2 is ready after") })
		})
	}
}

// enforces reports what doctor says about limits on this machine.
func enforces(b *bench) bool {
	checks := b.Doctor(b.t.Context())
	return checks[0].Name == "cgroups" && checks[0].State == "ok"
}

func TestApply_GivesReplicasTheirEnvironment(t *testing.T) {
	t.Setenv("TEST_LEAK", "must not be seen") // not parallel
	b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
	b.open(func(c local.Config) local.Config { return c })
	releases := shop("serve", func(s *spillway.Service) {
		s.Needs = []string{"back-end"}
		s.Env["LEVEL"] = "debug"
		s.Run.Exec = append(s.Run.Exec, "at=$HOST:${PORT}")
	})
	d := www(1, 1)
	group := d.Groups[0].Group
	b.apply(releases, d)
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	var env []string
	if err := json.Unmarshal([]byte(b.ask("www.1-1", "/env")), &env); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.replica("www.1-1").Address)
	b.router.mu.Lock()
	listeners := b.router.tables["shop"].Listeners
	b.router.mu.Unlock()
	if len(listeners) != 1 || listeners[0].From != group || listeners[0].Service != "back-end" {
		t.Fatalf("listeners: %+v", listeners)
	}
	_, edge, _ := net.SplitHostPort(listeners[0].Address)
	for _, want := range []string{
		"PORT=" + port, "HOST=127.0.0.1", "LEVEL=debug", "SPILLWAY_APP=shop", "SPILLWAY_SERVICE=www", "SPILLWAY_ENVIRONMENT=production",
		"SPILLWAY_TRACK=stable", "SPILLWAY_RELEASE=1", "SPILLWAY_REPLICA=www.1-1",
		"BACK_END_HOST=127.0.0.1", "BACK_END_PORT=" + edge, "BACK_END_URL=http://127.0.0.1:" + edge,
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %q", want, env)
		}
	}
	if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "TEST_LEAK") }) {
		t.Error("the server's environment leaks")
	}
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(b.replica("www.1-1").PID) + "/cmdline")
	if err != nil || !strings.Contains(string(cmdline), "at=127.0.0.1:"+port) {
		t.Errorf("command line %q %v", cmdline, err)
	}
}

func TestReplica_ThatDiesLeavesTheTableAndComesBack(t *testing.T) {
	b := newBench(t)
	b.apply(shop("serve", nil), www(2, 1))
	b.eventually("two in the table", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
	before := b.replica("www.1-1").PID
	b.ask("www.1-1", "/exit?code=4")
	b.eventually("restarted", func() bool {
		r := b.replica("www.1-1")
		return r.State == spillway.Ready && r.PID != before && r.Restarts == 1
	})
	b.eventually("both in the table again", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
	b.router.mu.Lock()
	left := slices.ContainsFunc(b.router.history, func(t spillway.Table) bool { return endpoints(t) == "www.1-2" })
	b.router.mu.Unlock()
	if !left {
		t.Error("no table without the dead replica was pushed")
	}
	if g := b.group("www.1"); g.Restarts != 1 || g.Crashes != 0 {
		t.Errorf("group: %+v", g)
	}
	if !b.said("www.1-1 exited with code 4 after") {
		t.Errorf("events: %q", b.events)
	}
}

func TestReplica_ThatNeverIsReadyBacksOff(t *testing.T) {
	b := newBench(t)
	b.apply(shop("crash", nil), www(1, 1))
	b.eventually("three crashes", func() bool { return b.group("www.1").Crashes >= 3 })
	g := b.group("www.1")
	if !strings.Contains(g.Problem, "exited with code 3 after") || !strings.Contains(g.Problem, "boom: no database") || g.Fatal || g.Restarts != 0 {
		t.Errorf("group: %+v", g)
	}
	if table := b.router.endpoints(); table != "" {
		t.Errorf("a replica that never was ready is in the table: %s", table)
	}
}

func TestObserve_TellsTheProblemOfAGroupInOneLine(t *testing.T) {
	b := newBench(t)
	b.apply(shop("serve", func(s *spillway.Service) { s.Run = spillway.Command{Shell: "echo one; echo two; exit 3"} }), www(1, 1))
	b.eventually("a crash that was read", func() bool { return strings.Contains(b.group("www.1").Problem, "two") })
	if got := b.group("www.1").Problem; strings.Contains(got, "\n") || !strings.HasSuffix(got, "; last line: two") {
		t.Errorf("problem of the group: %q", got)
	}
	list, err := b.Replicas(t.Context(), "shop")
	if err != nil || len(list) != 1 || !strings.HasSuffix(list[0].Problem, "; last lines:\none\ntwo") {
		t.Errorf("replicas: %+v, %v; want all lines", list, err)
	}
}

func TestDelay_GrowsToItsCap(t *testing.T) {
	c := local.Quick(local.Config{}) // 40 ms, at most 300 ms
	for n, want := range []time.Duration{0, 40, 80, 160, 300, 300} {
		want *= time.Millisecond
		for range 100 {
			if d := local.Delay(c, n); d < want*3/4 || d > want*5/4 {
				t.Errorf("delay after %d failures is %s, want %s ±25 %%", n, d, want)
			}
		}
	}
	if d := local.Delay(c, 1000); d > 375*time.Millisecond {
		t.Errorf("delay after 1000 failures is %s", d)
	}
}

func TestReplica_WhoseCommandCannotWorkIsFatal(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*spillway.Service)
		problem string
	}{
		{"exec not found", func(s *spillway.Service) { s.Run.Exec = []string{"no-such-program"} }, "command not found: no-such-program"},
		{"shell not found", func(s *spillway.Service) { s.Run = spillway.Command{Shell: "no-such-program --port $PORT"} }, "no-such-program"},
		{"not executable", func(s *spillway.Service) { s.Run.Exec = []string{"./doc.go"} }, "command cannot be executed"},
		{"wrong port", func(s *spillway.Service) { s.Env["TEST_PROGRAM"] = "elsewhere" }, "instead of $PORT ("},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.apply(shop("serve", tt.change), www(1, 1))
			b.eventually("fatal", func() bool { return b.group("www.1").Fatal })
			if g := b.group("www.1"); !strings.Contains(g.Problem, tt.problem) {
				t.Errorf("problem is %q, want %q in it", g.Problem, tt.problem)
			}
		})
	}
}

func TestReplica_NotReadyInTimeIsStartedAgain(t *testing.T) {
	b := newBench(t)
	b.apply(shop("silent", func(s *spillway.Service) { s.Health.Start = ms(150) }), www(1, 1))
	b.eventually("a crash", func() bool { return b.group("www.1").Crashes >= 1 })
	if g := b.group("www.1"); !strings.Contains(g.Problem, "was not ready within 150ms: does not answer on 127.0.0.1:") {
		t.Errorf("problem: %q", g.Problem)
	}
}

func TestReplica_ThatFailsItsProbeIsReplaced(t *testing.T) {
	b := newBench(t)
	b.apply(shop("serve", func(s *spillway.Service) { s.Health.Path = "/healthz" }), www(1, 1))
	b.eventually("in the table", func() bool { return b.router.endpoints() == "www.1-1" })
	b.ask("www.1-1", "/sick")
	b.eventually("replaced", func() bool { return b.router.endpoints() == "www.1-2" })
	if !b.said("www.1-1 is replaced: GET /healthz answered 503 Service Unavailable") {
		t.Errorf("events: %q", b.events)
	}
	if g := b.group("www.1"); g.Restarts != 1 || g.Ready != 1 {
		t.Errorf("group: %+v", g)
	}
}

func TestStop_WaitsForOpenRequests(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", nil)
	b.apply(releases, www(2, 1))
	b.eventually("two ready", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
	b.router.set(func(r *router) { r.inFlight["www.1-2"] = 1 })
	pid := b.replica("www.1-2").PID
	b.apply(releases, www(1, 2))
	b.eventually("draining", func() bool { return b.router.endpoints() == "www.1-1 www.1-2/draining" })
	b.eventually("several reports", func() bool { return b.group("www.1").InFlight == 1 && b.replica("www.1-2").State == spillway.Draining })
	if !running(pid) {
		t.Fatal("a replica with an open request was stopped")
	}
	b.router.set(func(r *router) { delete(r.inFlight, "www.1-2") })
	b.eventually("gone", func() bool { return b.group("www.1").Running == 1 && !running(pid) })
	b.eventually("gone from the table", func() bool { return b.router.endpoints() == "www.1-1" })
}

func TestStop_WaitsNoLongerThanTheDrainLimit(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) { s.Stop.Drain = ms(100) })
	b.apply(releases, www(1, 1))
	b.eventually("ready", func() bool { return b.router.endpoints() == "www.1-1" })
	b.router.set(func(r *router) { r.inFlight["www.1-1"] = 1 })
	b.apply(releases, www(0, 2))
	b.eventually("stopped", func() bool { return b.group("www.1").Running == 0 })
}

func TestStop_WaitsWhileTheDataPlaneDoesNotAnswer(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) { s.Stop.Drain = ms(10) })
	b.apply(releases, www(1, 1))
	b.eventually("ready", func() bool { return b.router.endpoints() == "www.1-1" })
	pid := b.replica("www.1-1").PID
	b.router.set(func(r *router) { r.down = true })
	if err := b.Apply(t.Context(), "shop", releases, www(0, 2)); err == nil {
		t.Error("Apply says that a route is served that nobody acknowledged")
	}
	b.eventually("draining", func() bool { return b.replica("www.1-1").State == spillway.Draining })
	o := b.observe()
	if !o.NoData || o.Served.Generation != 1 {
		t.Errorf("observation without an answer: %+v", o)
	}
	// Something else happens meanwhile, so that the loop has had many turns.
	two := www(0, 2)
	two.Groups = append(two.Groups, rollout.Want{Group: spillway.Group{Service: "www", Release: 2}, Replicas: 1, Release: 1})
	_ = b.Apply(t.Context(), "shop", releases, two)
	b.eventually("the other group is ready", func() bool { return b.group("www.2").Ready == 1 })
	if !running(pid) {
		t.Fatal("a replica was stopped although nobody knows whether it serves")
	}
	b.router.set(func(r *router) { r.down = false })
	b.eventually("stopped", func() bool { return b.group("www.1").Running == 0 && !running(pid) })
}

func TestStop_KillsWhatDoesNotEndWithItsChildren(t *testing.T) {
	b := newBench(t)
	releases := shop("stubborn", func(s *spillway.Service) { s.Stop.Grace = ms(100) })
	b.apply(releases, www(1, 1))
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	var child int
	b.eventually("child", func() bool {
		for _, line := range b.logs(spillway.LogQuery{}) {
			if pid, ok := strings.CutPrefix(line, "child "); ok {
				child, _ = strconv.Atoi(pid)
			}
		}
		return child != 0
	})
	pid := b.replica("www.1-1").PID
	b.apply(releases, www(0, 2))
	b.eventually("gone", func() bool { return b.group("www.1").Running == 0 })
	if running(pid) || running(child) {
		t.Error("a process of the replica still runs")
	}
	if !b.said("www.1-1 was killed: it did not end within 100ms of SIGTERM") {
		t.Errorf("events: %q", b.events)
	}
}

func TestStop_LetsTheChildOfAShellFinish(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) {
		s.Run = spillway.Command{Shell: "trap 'exit 0' TERM; (trap 'echo finishing; sleep 0.3; echo finished; exit 0' TERM; " + os.Args[0] + " & wait) & wait"}
	})
	b.apply(releases, www(1, 1))
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	b.apply(releases, www(0, 2))
	b.eventually("gone", func() bool { return b.group("www.1").Running == 0 })
	b.eventually("last words", func() bool { return slices.Contains(b.logs(spillway.LogQuery{}), "finished") })
}

func TestApply_ScalesUpAndDown(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", nil)
	for i, n := range []int{1, 3, 2} {
		b.apply(releases, www(n, int64(i)+1))
		b.eventually(strconv.Itoa(n)+" replicas", func() bool {
			g := b.group("www.1")
			return g.Ready == n && g.Running == n
		})
	}
	b.eventually("highest index gone", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
}

func TestApply_ReplacesOneByOneOnRestart(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", nil)
	b.apply(releases, www(2, 1))
	b.eventually("two ready", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
	old := []int{b.replica("www.1-1").PID, b.replica("www.1-2").PID}
	d := www(2, 1)
	d.Groups[0].Restart = 1
	b.apply(releases, d)
	b.eventually("both replaced", func() bool {
		g := b.group("www.1")
		return !running(old[0]) && !running(old[1]) && g.Ready == 2 && g.Running == 2
	})
	if g := b.group("www.1"); g.Restarts != 0 || g.Crashes != 0 {
		t.Errorf("a wanted restart counts as a failure: %+v", g)
	}
	b.router.mu.Lock()
	defer b.router.mu.Unlock()
	two := false
	for _, table := range b.router.history {
		serving := slices.DeleteFunc(slices.Clone(table.Endpoints), func(e spillway.Endpoint) bool { return e.Draining })
		if two = two || len(serving) == 2; two && len(serving) < 2 {
			t.Errorf("capacity fell to %d: %s", len(serving), endpoints(table))
		}
	}
}

func TestApply_DestroysWithoutATrace(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) { s.Needs = []string{"db"} })
	b.apply(releases, www(1, 1))
	b.eventually("ready", func() bool { return b.router.endpoints() == "www.1-1" })
	pid := b.replica("www.1-1").PID
	if err := b.Forget(t.Context(), "shop"); !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("an app that runs is forgotten: %v", err)
	}
	b.apply(nil, rollout.Desired{Route: spillway.Route{Generation: 2}})
	b.eventually("removed from the data plane", func() bool {
		b.router.mu.Lock()
		defer b.router.mu.Unlock()
		return len(b.router.removed) > 0
	})
	b.eventually("its last words", func() bool { return len(b.logs(spillway.LogQuery{})) > 0 })
	if err := b.Forget(t.Context(), "shop"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(b.dir + "/local/apps"); err != nil || len(entries) > 0 {
		t.Errorf("left over: %v %v", entries, err)
	}
	if running(pid) || !slices.Contains(b.router.removed, "shop") {
		t.Errorf("runs: %v, removed: %v", running(pid), b.router.removed)
	}
	b.apply(releases, www(1, 1)) // the same name again
	b.eventually("ready again", func() bool { return b.router.endpoints() == "www.1-1" })
}

func TestPush_TellsADataPlaneThatLostTheTable(t *testing.T) {
	b := newBench(t)
	b.apply(shop("serve", nil), www(1, 7))
	b.eventually("ready", func() bool { return b.router.endpoints() == "www.1-1" })
	b.router.set(func(r *router) { clear(r.tables) })
	if o := b.observe(); o.Served.Generation != 7 {
		t.Errorf("a lost table is taken for the truth: %+v", o)
	}
	b.eventually("told again", func() bool { return b.router.endpoints() == "www.1-1" })
	b.router.set(func(r *router) { // another server had been here
		table := r.tables["shop"]
		table.Revision += 1000
		r.tables["shop"] = table
	})
	b.apply(shop("serve", nil), www(1, 8))
	if o := b.observe(); o.Served.Generation != 8 {
		t.Errorf("served: %+v", o.Served)
	}
}

func TestReplica_LimitsAreEnforced(t *testing.T) {
	b := newBench(t)
	releases := shop("", func(s *spillway.Service) {
		s.Run = spillway.Command{Shell: "tail /dev/zero"} // keeps everything up to the first line break: for ever
		s.Limits = spillway.Limits{Memory: 16 << 20, CPU: 1000}
	})
	if !enforces(b) {
		b.apply(shop("serve", func(s *spillway.Service) { s.Limits = spillway.Limits{Memory: 64 << 20} }), www(1, 1))
		b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
		if b.replica("www.1-1").Enforced {
			t.Error("limits that cannot be enforced are said to be")
		}
		return
	}
	b.apply(releases, www(1, 1))
	b.eventually("out of memory", func() bool { return strings.Contains(b.group("www.1").Problem, "ran out of memory") })
}

func TestParseSocketAddress(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:4E21":                         "127.0.0.1:20001",
		"00000000000000000000000001000000:1F90": "[::1]:8080",
		"0000000000000000FFFF00000100007F:0050": "127.0.0.1:80",
		"nonsense":                              "invalid",
	} {
		if got := local.ParseSocketAddress(in); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}
