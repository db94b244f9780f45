package local_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// job is the task of the tests.
var job = rollout.Task{Rollout: 5, Service: "www", Release: 1, Limit: ms(20_000)}

// onlyJob wants nothing but the job, as in a first deploy.
func onlyJob() rollout.Desired {
	return rollout.Desired{Route: spillway.Route{Generation: 1}, Tasks: []rollout.Task{job}}
}

// release is release 1 of the shop with a release command.
func release(line string) map[int]spillway.Release {
	return shop("serve", func(s *spillway.Service) { s.Release = spillway.Command{Shell: line} })
}

// task observes a task; ok is false when it is not known.
func (b *bench) task(t rollout.Task) (state rollout.TaskState, ok bool) {
	b.t.Helper()
	states := b.observe().Tasks
	i := slices.IndexFunc(states, func(s rollout.TaskState) bool { return s.Task == t })
	if i < 0 {
		return state, false
	}
	return states[i], true
}

// finished waits for the end of the job and gives the reason of its failure.
func (b *bench) finished(t rollout.Task) string {
	b.t.Helper()
	var state rollout.TaskState
	b.eventually("the release command has ended", func() bool {
		state, _ = b.task(t)
		return state.Done
	})
	return state.Failed
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestTask_RunsOnceInTheEnvironmentOfItsRelease(t *testing.T) {
	b := newBench(t)
	runs := filepath.Join(b.dir, "runs")
	releases := release("echo run >>" + runs + "; env; pwd; echo oops >&2")
	svc := &releases[1].Config.Services[0]
	svc.Env["LEVEL"], svc.Needs = "debug", []string{"db"}
	b.apply(releases, onlyJob())
	if failed := b.finished(job); failed != "" {
		t.Fatalf("failed: %s", failed)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	b.eventually("its last words on both streams", func() bool { // which are copied side by side
		said = b.logs(spillway.LogQuery{Replica: "www.1-release", Lines: 1000})
		return slices.Contains(said, "oops") && slices.Contains(said, dir)
	})
	for _, want := range []string{
		"SPILLWAY_TASK=release", "SPILLWAY_APP=shop", "SPILLWAY_SERVICE=www", "SPILLWAY_RELEASE=1", "SPILLWAY_REPLICA=www.1-release",
		"SPILLWAY_TRACK=stable", "LEVEL=debug", "DB_HOST=127.0.0.1", dir,
	} {
		if !slices.Contains(said, want) {
			t.Errorf("%q is missing in %q", want, said)
		}
	}
	if slices.ContainsFunc(said, func(l string) bool { return strings.HasPrefix(l, "PORT=") }) {
		t.Error("a release command has a port")
	}
	for range 2 { // asked for again by this server and by the next one
		b.apply(releases, onlyJob())
		b.cancel()
		<-b.done
		b.open(same)
		if state, _ := b.task(job); !state.Done || state.Failed != "" {
			t.Errorf("after a restart: %+v", state)
		}
	}
	b.apply(releases, www(1, 2))
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	if state, ok := b.task(job); ok {
		t.Errorf("the result of a task that nobody wants is kept: %+v", state)
	}
	if got := lines(t, runs); len(got) != 1 {
		t.Errorf("it ran %d times", len(got))
	}
	b.apply(releases, onlyJob()) // it is forgotten, so this is a new one
	b.eventually("run again", func() bool { return len(lines(t, runs)) == 2 })
}

func TestTask_ThatFailsSaysWhy(t *testing.T) {
	tests := []struct {
		name, line string
		change     func(map[int]spillway.Release)
		want       string
	}{
		{"exit code and last line", "echo before; echo no such table >&2; exit 3", nil, "exited with code 3 after * last line: no such table"},
		{"signal", "kill -USR1 $$", nil, "was ended by SIGUSR1 after "},
		{"not found", "", func(r map[int]spillway.Release) {
			r[1].Config.Services[0].Release = spillway.Command{Exec: []string{"no-such-program"}}
		}, "exited with code 127, command not found; last line: spillway: command not found: no-such-program"},
		{"no directory", "true", func(r map[int]spillway.Release) {
			r[1].Artefacts["www"] = spillway.Artefact{Dir: "/nowhere"}
		}, "cannot start: *no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			releases := release(tt.line)
			if tt.change != nil {
				tt.change(releases)
			}
			b.apply(releases, onlyJob())
			failed := b.finished(job)
			head, tail, _ := strings.Cut(tt.want, "*")
			if !strings.HasPrefix(failed, head) || !strings.HasSuffix(failed, tail) && tail != "" || strings.Contains(failed, "\n") {
				t.Errorf("failed: %q, want %q", failed, tt.want)
			}
		})
	}
}

func TestTask_IsKilledWithItsChildrenWhenItTakesTooLong(t *testing.T) {
	b := newBench(t)
	pids := filepath.Join(b.dir, "pids")
	d := onlyJob()
	d.Tasks[0].Limit = ms(1500)
	b.apply(release("setsid sleep 1000 & echo $! $$ >"+pids+"; echo working; wait"), d)
	if failed := b.finished(d.Tasks[0]); failed != "was killed: it took longer than 1.5s; last line: working" {
		t.Errorf("failed: %q", failed)
	}
	started := lines(t, pids)
	if len(started) != 2 {
		t.Fatalf("started: %q", started)
	}
	for _, pid := range started {
		n, _ := strconv.Atoi(pid)
		b.eventuallyEnds(n)
	}
}

func TestTask_ThatIsNotWantedIsKilledBeforeTheNextBegins(t *testing.T) {
	b := newBench(t)
	log := filepath.Join(b.dir, "log")
	releases := release("echo begin >>" + log + "; test -e " + log + ".go || sleep 1000; echo end >>" + log)
	b.apply(releases, onlyJob())
	b.eventually("begun", func() bool { return len(lines(t, log)) == 1 })
	if err := os.WriteFile(log+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next := onlyJob()
	next.Tasks[0].Rollout++
	b.apply(releases, next)
	if failed := b.finished(next.Tasks[0]); failed != "" {
		t.Errorf("failed: %s", failed)
	}
	if got := strings.Join(lines(t, log), " "); got != "begin begin end" {
		t.Errorf("the commands said %q", got)
	}
	if _, ok := b.task(job); ok {
		t.Error("the first one is still known")
	}
}

func TestTask_GoesOnWithoutAServer(t *testing.T) {
	tests := []struct {
		name  string
		code  int
		alone bool // it ends while no server runs
		want  string
	}{
		{"and is taken up", 0, false, ""},
		{"and fails under the next one", 4, false, "exited with code 4 after "},
		{"and ends", 0, true, ""},
		{"and fails", 4, true, "exited with code 4 after "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
			log := filepath.Join(b.dir, "log")
			releases := release(fmt.Sprintf("echo $$ >>%s; echo hello; until test -e %s.go; do sleep 0.02; done; echo bye; exit %d", log, log, tt.code))
			b.killServerWithTask(releases, log)
			finish := func() {
				if err := os.WriteFile(log+".go", nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.alone {
				finish()
				pid, _ := strconv.Atoi(lines(t, log)[0])
				b.eventuallyEnds(pid)
			}
			b.open(same)
			if !tt.alone {
				if state, ok := b.task(job); !ok || state.Done {
					t.Errorf("taken up as %+v", state)
				}
				finish()
			}
			if failed := b.finished(job); !strings.HasPrefix(failed, tt.want) || tt.want == "" && failed != "" {
				t.Errorf("failed: %q, want %q", failed, tt.want)
			}
			if got := lines(t, log); len(got) != 1 {
				t.Errorf("it ran %d times", len(got))
			}
			b.eventually("all of its output", func() bool { return slices.Equal(b.logs(spillway.LogQuery{}), []string{"hello", "bye"}) })
		})
	}
}

// killServerWithTask runs a server until the job has written its pid to the log, and kills the server.
func (b *bench) killServerWithTask(releases map[int]spillway.Release, log string) {
	b.t.Helper()
	s := b.startServerWith(releases, onlyJob())
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); len(lines(b.t, log)) == 0; <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatal("the release command does not begin")
		}
	}
	s.kill()
}

func TestTask_ThatWasLostIsNotRunAgain(t *testing.T) {
	tests := []struct {
		name string
		edit func(record map[string]any)
		want string
	}{
		{"killed", func(map[string]any) {}, "was interrupted: it was killed, and nobody knows by whom"},
		{"machine", func(r map[string]any) { r["boot"] = "another" }, "was interrupted: the machine was started anew while it ran"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
			log := filepath.Join(b.dir, "log")
			b.killServerWithTask(release("echo $$ >>"+log+"; exec sleep 1000"), log)
			shim := b.runs()["www.1-release"].PID
			pid, _ := strconv.Atoi(lines(t, log)[0])
			for _, p := range []int{shim, pid} {
				if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			b.eventuallyEnds(shim)
			b.editRecord(tt.edit)
			b.open(same)
			if failed := b.finished(job); failed != tt.want {
				t.Errorf("failed: %q, want %q", failed, tt.want)
			}
			if got := lines(t, log); len(got) != 1 {
				t.Errorf("it ran %d times", len(got))
			}
		})
	}
}

// editRecord changes the only record of the app on disk.
func (b *bench) editRecord(edit func(record map[string]any)) {
	b.t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.dir, "local/apps/shop/runs/*.json"))
	if err != nil || len(paths) != 1 {
		b.t.Fatal(paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		b.t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		b.t.Fatal(err)
	}
	edit(record)
	if text, err = json.Marshal(record); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(paths[0], text, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func TestTask_RunsExactlyOnceWheneverTheServerIsKilled(t *testing.T) {
	for _, moment := range []time.Duration{0, 5, 10, 15, 20, 25, 30, 40, 60} {
		t.Run(fmt.Sprintf("after %d ms", moment), func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
			log := filepath.Join(b.dir, "log")
			releases := release("echo begin >>" + log + "; sleep 0.02; echo end >>" + log)
			s := b.startServerWith(releases, onlyJob())
			timer := time.NewTimer(moment * time.Millisecond)
			<-timer.C
			s.kill()
			b.open(same)
			defer b.stopDaemon()
			b.apply(releases, onlyJob())
			if failed := b.finished(job); failed != "" {
				t.Errorf("failed: %q", failed)
			}
			if got := strings.Join(lines(t, log), " "); got != "begin end" {
				t.Errorf("the command said %q", got)
			}
		})
	}
}

func TestTask_ThatAHaltCutsOffHasFailed(t *testing.T) {
	b := newBench(t)
	log := filepath.Join(b.dir, "log")
	b.apply(release("echo $$ >>"+log+"; exec sleep 1000"), onlyJob())
	b.eventually("begun", func() bool { return len(lines(t, log)) == 1 })
	b.cancel()
	<-b.done
	if err := b.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(lines(t, log)[0])
	b.eventuallyEnds(pid)
	b.open(same)
	if failed := b.finished(job); failed != "was interrupted: Spillway was stopped while it ran" {
		t.Errorf("failed: %q", failed)
	}
}

// TestTask_ReachesWhatRuns: release 2 changes www and db and leaves mail alone; its replicas do not run.
func TestTask_ReachesWhatRuns(t *testing.T) {
	b := newBench(t)
	one := shop("serve", func(s *spillway.Service) {
		s.Needs, s.Release = []string{"db", "mail"}, spillway.Command{Shell: "echo $DB_URL $MAIL_URL"}
	})[1]
	for _, name := range []string{"db", "mail"} {
		svc, _ := shop("serve", nil)[1].Config.Service("www")
		svc.Name = name
		one.Config.Services = append(one.Config.Services, svc)
		one.Artefacts[name] = one.Artefacts["www"]
	}
	one.Groups = map[string]int{"www": 1, "db": 1, "mail": 1}
	two := one
	two.Number, two.Groups = 2, map[string]int{"www": 2, "db": 2, "mail": 1}
	releases := map[int]spillway.Release{1: one, 2: two}

	d := rollout.Desired{Route: spillway.Route{Generation: 1, Trial: &spillway.Trial{ID: 5, Release: 2, Stable: 1}}}
	edge := func(need string, from, group, release int) {
		d.Route.Edges = append(d.Route.Edges, spillway.Edge{
			Service: need, From: spillway.Group{Service: "www", Release: from},
			Backends: []spillway.Backend{{Group: spillway.Group{Service: need, Release: group}, Release: release, Weight: spillway.Whole}},
		})
	}
	edge("db", 1, 1, 1)
	edge("db", 2, 2, 2)
	edge("mail", 1, 1, 1)
	edge("mail", 2, 1, 2)
	for _, name := range []string{"db", "mail", "www"} {
		d.Groups = append(d.Groups, rollout.Want{Group: spillway.Group{Service: name, Release: 1}, Replicas: 1, Release: 1})
	}
	b.apply(releases, d)
	b.eventually("release 1 is ready", func() bool { return len(strings.Fields(b.router.endpoints())) == 3 })

	b.router.set(func(r *router) { r.down = true })
	d.Route.Generation++
	d.Tasks = []rollout.Task{{Rollout: 5, Service: "www", Release: 2, Limit: ms(20_000)}}
	if err := b.Apply(t.Context(), "shop", releases, d); err == nil {
		t.Error("Apply says that a route is served that nobody acknowledged")
	}
	b.eventually("several turns", func() bool { return len(b.observe().Tasks) == 1 })
	if len(b.runs()) != 3 {
		t.Errorf("it runs although nobody knows whether its addresses are served: %v", b.runs())
	}
	b.router.set(func(r *router) { r.down = false })
	if failed := b.finished(d.Tasks[0]); failed != "" {
		t.Fatalf("failed: %s", failed)
	}

	b.router.mu.Lock()
	listeners := b.router.tables["shop"].Listeners
	b.router.mu.Unlock()
	url := func(need string, from int) string {
		i := slices.IndexFunc(listeners, func(l spillway.EdgeListener) bool {
			return l.Service == need && l.From == spillway.Group{Service: "www", Release: from}
		})
		return "http://" + listeners[i].Address
	}
	want := url("db", 1) + " " + url("mail", 2)
	b.eventually("its output", func() bool { return len(b.logs(spillway.LogQuery{Replica: "www.2-release"})) == 1 })
	if got := b.logs(spillway.LogQuery{Replica: "www.2-release"})[0]; got != want {
		t.Errorf("it was given %q, want %q: db of stable, mail as its own replicas will reach it", got, want)
	}
}

func TestApply_RefusesATaskWithoutACommand(t *testing.T) {
	b := newBench(t)
	if err := b.Apply(t.Context(), "shop", shop("serve", nil), onlyJob()); err == nil || !strings.Contains(err.Error(), "release command of www") {
		t.Errorf("error: %v", err)
	}
}

func TestObserve_TellsWhatGroupsUseAndGet(t *testing.T) {
	b := newBench(t)
	releases := shop("", func(s *spillway.Service) {
		s.Run = spillway.Command{Shell: "(while :; do :; done) & TEST_PROGRAM=serve exec " + os.Args[0]} // busy, and serves
	})
	b.router.set(func(r *router) {
		r.counts = map[string]spillway.Traffic{"www.1": {Requests: 7, Rate: 3.5}, "www@legacy": {Requests: 1}}
		r.dead = map[string]string{"http://10.0.0.1": "connection refused"}
	})
	d := www(1, 1)
	d.Route.Edges = append(d.Route.Edges, spillway.Edge{
		Service: "www", Hosts: []string{"legacy.test"}, Only: "legacy",
		Backends: []spillway.Backend{{Track: "legacy", Weight: spillway.Whole, URLs: []string{"http://10.0.0.1"}}},
	})
	b.apply(releases, d)
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	told := make(chan struct{}, 1<<16)
	go func() { // ends with the test
		_ = b.Watch(t.Context(), func(spillway.Ref) { told <- struct{}{} })
	}()
	b.eventually("used CPU", func() bool { return b.group("www.1").CPU > 0.01 })
	g := b.group("www.1")
	if g.Memory < 1<<20 || g.CPU > 64 || g.Traffic.Requests != 7 || g.Traffic.Rate != 3.5 {
		t.Errorf("group: %+v", g)
	}
	if dead := b.observe().Dead; dead["http://10.0.0.1"] != "connection refused" {
		t.Errorf("dead: %v", dead)
	}
	reports := func() (n int) {
		b.router.set(func(r *router) {
			n = r.reports
			r.counts["www.1"] = spillway.Traffic{Requests: int64(n)}
		})
		return n
	}
	already := len(told)
	for before := reports(); reports() < before+50; {
		b.observe()
	}
	if n := len(told) - already; n > 3 {
		t.Errorf("figures that move woke the watchers %d times", n)
	}
	already = len(told)
	b.router.set(func(r *router) { r.dead = nil })
	b.eventually("a server that answers again is news", func() bool { return len(told) > already && len(b.observe().Dead) == 0 })
}

func TestReplica_KnowsItsTrack(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", nil)
	rel := releases[1]
	rel.Track = "canary"
	releases[1] = rel
	b.apply(releases, www(1, 1))
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	if env := b.ask("www.1-1", "/env"); !strings.Contains(env, `"SPILLWAY_TRACK=canary"`) {
		t.Errorf("environment: %s", env)
	}
}
