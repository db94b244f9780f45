package local_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// server is a server in a process of its own.
type server struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

// startServer starts one that runs n replicas of www.1 in the bench's directory.
func (b *bench) startServer(n int, program string) server {
	b.t.Helper()
	return b.startServerWith(shop(program, nil), www(n, 3))
}

// startServerWith starts one that runs the desired state in the bench's directory.
func (b *bench) startServerWith(releases map[int]spillway.Release, d rollout.Desired) server {
	b.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_PROGRAM=server", "TEST_DIR="+b.dir)
	cmd.Stderr = b.t.Output()
	in, err := json.Marshal(map[string]any{"Releases": releases, "Desired": d})
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return server{t: b.t, cmd: cmd, out: bufio.NewReader(out)}
}

// kill ends the server with SIGKILL.
func (s server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	_ = s.cmd.Wait() // it says that it was killed
}

// killedServer starts a server, waits until its replicas are ready and a daemon runs, and kills it. The
// second result is the pid of the daemon.
func killedServer(t *testing.T, n int, program string) (b *bench, daemon int) {
	t.Helper()
	t.Parallel()
	b = &bench{t: t, dir: t.TempDir(), router: newRouter()}
	s := b.startServer(n, program)
	line, err := s.out.ReadString('\n')
	s.kill()
	if _, scanErr := fmt.Sscanf(line, "ready %d", &daemon); scanErr != nil {
		t.Fatalf("server said %q: %v", line, err)
	}
	return b, daemon
}

// runs lists the records of replicas: name → pid and port.
func (b *bench) runs() map[string]struct{ PID, Port int } {
	b.t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.dir, "local/apps/shop/runs/*.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	found := map[string]struct{ PID, Port int }{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			b.t.Fatal(err)
		}
		var rec struct {
			Name      string
			PID, Port int
		}
		if err := json.Unmarshal(text, &rec); err != nil {
			b.t.Fatal(err)
		}
		found[rec.Name] = struct{ PID, Port int }{rec.PID, rec.Port}
	}
	return found
}

func same(c local.Config) local.Config { return c }

func TestOpen_TakesOverTheReplicasOfAKilledServer(t *testing.T) {
	b, daemon := killedServer(t, 2, "serve")
	runs := b.runs()
	if len(runs) != 2 {
		t.Fatalf("records: %v", runs)
	}
	for name, r := range runs { // they serve, and what they say now has to reach the log
		resp, err := exec.Command("curl", "-sf", fmt.Sprintf("http://127.0.0.1:%d/say?text=alone-%s", r.Port, name)).CombinedOutput()
		if err != nil {
			t.Fatalf("%s does not answer without a server: %v %s", name, err, resp)
		}
	}
	b.open(same)
	if g := b.group("www.1"); g.Ready != 2 || g.Running != 2 || g.Restarts != 0 {
		t.Errorf("right after the start: %+v", g)
	}
	b.eventually("both in the table", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
	for name, r := range runs {
		if now := b.replica(name).PID; now != r.PID {
			t.Errorf("%s was started again: pid %d became %d", name, r.PID, now)
		}
	}
	b.eventually("all lines", func() bool { return len(b.logs(spillway.LogQuery{})) >= 4 })
	lines := b.logs(spillway.LogQuery{})
	slices.Sort(lines)
	if want := []string{"alone-www.1-1", "alone-www.1-2", "starting www.1-1", "starting www.1-2"}; !slices.Equal(lines, want) {
		t.Errorf("log is %q, want %q", lines, want)
	}
	d, err := b.Daemon("clock", []string{os.Args[0]}, []string{"TEST_PROGRAM=silent"})
	if err != nil || d.PID() != daemon {
		t.Errorf("daemon: pid %d, want %d; %v", d.PID(), daemon, err)
	}
	if err := d.Stop(t.Context()); err != nil || running(daemon) {
		t.Errorf("daemon after Stop: runs %v, %v", running(daemon), err)
	}
	b.ask("www.1-1", "/exit?code=9") // not our child
	b.eventually("noticed and restarted", func() bool {
		r := b.replica("www.1-1")
		return r.State == spillway.Ready && r.PID != runs["www.1-1"].PID
	})
	if !b.said("www.1-1 exited with code 9") && !b.said("www.1-1 ended, nobody knows how") {
		t.Errorf("events: %q", b.events)
	}
}

func TestOpen_KillsWhatNoRecordClaims(t *testing.T) {
	b, daemon := killedServer(t, 2, "serve")
	runs := b.runs()
	lost, err := filepath.Glob(filepath.Join(b.dir, "local/apps/shop/runs/www.1-1.*.json"))
	if err != nil || len(lost) != 1 {
		t.Fatal(lost, err)
	}
	for _, path := range []string{lost[0], filepath.Join(b.dir, "local/daemons/clock/clock.1.json")} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	b.open(same)
	b.eventually("orphans gone", func() bool { return !running(runs["www.1-1"].PID) && !running(daemon) })
	b.eventually("started anew", func() bool { return b.group("www.1").Ready == 2 })
	if b.replica("www.1-2").PID != runs["www.1-2"].PID {
		t.Error("a claimed replica was killed")
	}
}

func TestOpen_LeavesNoOrphanWheneverTheServerIsKilled(t *testing.T) {
	for _, moment := range []time.Duration{0, 5, 10, 15, 20, 25, 30, 40, 50, 70} {
		t.Run(fmt.Sprintf("after %d ms", moment), func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
			out := b.startServer(3, "serve")
			timer := time.NewTimer(moment * time.Millisecond) // from here on replicas are being started
			<-timer.C
			out.kill()
			b.open(same)
			defer b.stopDaemon()
			b.apply(shop("serve", nil), www(3, 3))
			b.eventually("all ready", func() bool { return b.router.endpoints() == "www.1-1 www.1-2 www.1-3" })
			b.eventually("nothing else runs", func() bool { return len(local.Processes(b.Platform, "shop")) == 3 })
			for name, r := range b.runs() {
				if b.replica(name).PID != r.PID {
					t.Errorf("%s: pid %d runs, %d is recorded", name, b.replica(name).PID, r.PID)
				}
			}
		})
	}
}

func TestOpen_AccountsForReplicasThatEndedMeanwhile(t *testing.T) {
	b, _ := killedServer(t, 1, "serve")
	run := b.runs()["www.1-1"]
	_ = exec.Command("curl", "-s", fmt.Sprintf("http://127.0.0.1:%d/exit?code=1", run.Port)).Run() // no answer
	b.eventuallyEnds(run.PID)
	b.open(same)
	b.eventually("started again", func() bool { return b.group("www.1").Ready == 1 })
	if g := b.group("www.1"); g.Restarts != 1 {
		t.Errorf("group: %+v", g)
	}
	if !b.said("www.1-1 ended while no server watched") {
		t.Errorf("events: %q", b.events)
	}
	b.stopDaemon()
}

// eventuallyEnds waits for the end of a process without a platform.
func (b *bench) eventuallyEnds(pid int) {
	b.t.Helper()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); running(pid); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("pid %d does not end", pid)
		}
	}
}

func (b *bench) stopDaemon() {
	b.t.Helper()
	d, err := b.Daemon("clock", []string{os.Args[0]}, []string{"TEST_PROGRAM=silent"})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := d.Stop(b.t.Context()); err != nil {
		b.t.Error(err)
	}
}

func TestOpen_GoesOnDrainingWhatWasDraining(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", nil)
	b.apply(releases, www(2, 1))
	b.eventually("two ready", func() bool { return b.router.endpoints() == "www.1-1 www.1-2" })
	b.router.set(func(r *router) { r.inFlight["www.1-2"] = 1 })
	b.apply(releases, www(1, 2))
	b.eventually("draining", func() bool { return b.router.endpoints() == "www.1-1 www.1-2/draining" })
	pid := b.replica("www.1-2").PID
	b.cancel()
	<-b.done
	b.router.set(func(r *router) { clear(r.tables); r.history = nil })
	b.open(same)
	b.eventually("draining again", func() bool { return b.router.endpoints() == "www.1-1 www.1-2/draining" })
	if !running(pid) {
		t.Error("stopped with an open request")
	}
	b.router.set(func(r *router) {
		delete(r.inFlight, "www.1-2")
		for _, table := range r.history {
			if strings.HasSuffix(endpoints(table), "www.1-2") {
				t.Errorf("a leaving replica was given requests again: %s", endpoints(table))
			}
		}
	})
	b.eventually("gone", func() bool { return b.group("www.1").Running == 1 && !running(pid) })
}

func TestOpen_RefusesStateThatItCannotRead(t *testing.T) {
	for name, text := range map[string]string{"damaged": `{"version":1,"desired":`, "newer": `{"version":2}`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "local/apps/shop/desired.json")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := local.Open(t.Context(), config(dir, newRouter(), slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("Open says %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != text {
				t.Errorf("the file became %q, %v", after, err)
			}
		})
	}
}

func TestDaemon_IsStartedAgainUntilStopped(t *testing.T) {
	b := newBench(t)
	d, err := b.Daemon("clock", []string{os.Args[0]}, append(os.Environ(), "TEST_PROGRAM=silent"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(t.Context()) }() // Stop ends it; the test waits
	b.eventually("running", func() bool { return d.PID() != 0 })
	first := d.PID()
	process, err := os.FindProcess(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	b.eventually("running again", func() bool { return d.PID() != 0 && d.PID() != first })
	second := d.PID()
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil || running(second) {
		t.Errorf("after Stop: runs %v, %v", running(second), err)
	}
}

func TestDaemon_IsReplacedByAnotherProcess(t *testing.T) {
	b := newBench(t)
	d, err := b.Daemon("clock", []string{os.Args[0]}, append(os.Environ(), "TEST_PROGRAM=silent"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(t.Context()) }() // Stop ends it; the test waits
	b.eventually("running", func() bool { return d.PID() != 0 })
	kill := func(pid int) {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	first := d.PID()
	refused := errors.New("not ready")
	if err := d.Replace(t.Context(), func(context.Context, int) error { return refused }); !errors.Is(err, refused) || d.PID() != first {
		t.Fatalf("Replace by one that is not ready: %v, pid %d, want %d", err, d.PID(), first)
	}
	var second int
	err = d.Replace(t.Context(), func(_ context.Context, pid int) error {
		second = pid
		kill(first) // it handed over and ended before anybody knows
		b.eventuallyEnds(first)
		return nil
	})
	if err != nil || d.PID() != second {
		t.Fatalf("Replace: %v, pid %d, want %d", err, d.PID(), second)
	}
	err = d.Replace(t.Context(), func(context.Context, int) error { return nil }) // the old one goes on draining
	third := d.PID()
	if err != nil || third == second || !running(second) {
		t.Fatalf("Replace: %v, pid %d after %d", err, third, second)
	}
	kill(third) // although the old one still runs
	b.eventually("started again", func() bool { return d.PID() != 0 && d.PID() != third })
	kill(second)
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDoctor_NamesEveryCheck(t *testing.T) {
	b := newBench(t)
	var names []string
	for _, c := range b.Doctor(t.Context()) {
		names = append(names, c.Name)
		if c.Text == "" || (c.State != "ok" && c.State != "warn") {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{"cgroups", "ports", "orphans", "disk", "spools"}; !slices.Equal(names, want) {
		t.Errorf("checks are %q, want %q", names, want)
	}
}

func TestApply_RefusesAGroupWithoutItsRelease(t *testing.T) {
	b := newBench(t)
	err := b.Apply(t.Context(), "shop", nil, rollout.Desired{Groups: www(1, 1).Groups})
	if err == nil || !strings.Contains(err.Error(), "www.1 is wanted as of release 1") {
		t.Errorf("Apply says %v", err)
	}
}
