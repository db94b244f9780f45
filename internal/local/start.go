package local

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// inherited are the variables of the server that replicas see; no other one reaches them.
var inherited = [...]string{"HOME", "LANG", "PATH", "TMPDIR", "TZ"}

// start runs a waiting replica.
func (a *app) start(now time.Time, r *replica, w rollout.Want) error {
	rel := a.want.Releases[w.Release]
	svc, ok := rel.Config.Service(w.Group.Service)
	if !ok {
		return fmt.Errorf("release %d has no service %s: %w", w.Release, w.Group.Service, spillway.ErrNotFound)
	}
	port, err := a.p.ports.take(now)
	if err != nil {
		return err
	}
	a.state.Runs++
	if err := a.saveState(); err != nil { // a run number is never used twice
		a.p.ports.release(port, now)
		return err
	}
	rec := record{
		Version: format, App: a.ref, Name: r.name, Group: r.group, Release: w.Release, Restart: w.Restart, Run: a.state.Runs,
		Port: port, Health: cmp.Or(svc.Health, spillway.DefaultProbe()), Protocol: svc.Protocol, Stop: cmp.Or(svc.Stop, spillway.DefaultStop()), Mark: a.p.mark(string(a.ref), a.state.Runs), Boot: a.p.boot, Restarts: r.restarts,
	}
	rec.Cgroup, rec.Enforced = a.p.groups.create(cgroupName(rec.Mark), svc.Limits)
	env := a.environment(rec, svc)
	proc, err := command{
		self: a.p.conf.Self, record: a.runPath(rec, ".json"), argv: argv(svc.Run, env), env: env, dir: rel.Artefacts[svc.Name].Dir,
		out: a.runPath(rec, ".out"), err: a.runPath(rec, ".err"),
	}.start(rec)
	if err != nil {
		a.p.ports.release(port, now)
		a.unmake(rec)
		return err
	}
	r.proc, r.rec, r.told, r.state = proc, proc.rec, make(chan struct{}), spillway.Starting
	a.log.Info("replica started", "replica", r.name, "pid", proc.rec.PID, "port", port)
	return nil
}

// unmake removes what was made for a process that could not be started.
func (a *app) unmake(rec record) {
	rec.Cgroup.remove()
	for _, ext := range []string{".json", ".out", ".err"} {
		_ = os.Remove(a.runPath(rec, ext)) // one that stays is removed by the next start of the server
	}
}

// argv gives the program and its arguments; variables in an exec form are replaced here, those in a shell
// form by the shell.
func argv(c spillway.Command, env []string) []string {
	if len(c.Exec) == 0 {
		return []string{"/bin/sh", "-c", c.Shell}
	}
	value := func(name string) string {
		if name == "$" {
			return "$"
		}
		for _, kv := range slices.Backward(env) {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v
			}
		}
		return ""
	}
	args := make([]string, len(c.Exec))
	for i, arg := range c.Exec {
		args[i] = os.Expand(arg, value)
	}
	return args
}

// environment gives all variables of a replica or a release command: a few of the server's, the addresses
// of what it needs, the service's own, and those that only the platform can know. Later ones win.
func (a *app) environment(rec record, svc spillway.Service) []string {
	env := map[string]string{}
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			env[name] = v
		}
	}
	env["PATH"] = cmp.Or(env["PATH"], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	for _, need := range svc.Needs {
		port := a.state.Listeners[listenerName(need, rec.Group)]
		if rec.Task != nil {
			port = a.taskPort(need, rec.Group)
		}
		name := strings.ToUpper(strings.ReplaceAll(need, "-", "_"))
		env[name+"_HOST"] = "127.0.0.1"
		env[name+"_PORT"] = strconv.Itoa(port)
		scheme := "http"
		if peer, _ := a.want.Releases[rec.Release].Config.Service(need); peer.Protocol == spillway.TCP {
			scheme = "tcp"
		}
		env[name+"_URL"] = scheme + "://" + loopback(port)
	}
	maps.Copy(env, svc.Env)
	name, environment, _ := strings.Cut(string(a.ref), "@")
	maps.Copy(env, map[string]string{
		"HOST":                 "127.0.0.1",
		"SPILLWAY_APP":         name,
		"SPILLWAY_ENVIRONMENT": cmp.Or(environment, "production"),
		"SPILLWAY_SERVICE":     svc.Name,
		"SPILLWAY_TRACK":       a.track(rec),
		"SPILLWAY_RELEASE":     strconv.Itoa(rec.Group.Release),
		"SPILLWAY_REPLICA":     rec.Name,
		markName:               rec.Mark,
	})
	if rec.Task != nil {
		env["SPILLWAY_TASK"] = "release"
	} else {
		env["PORT"] = strconv.Itoa(rec.Port)
	}
	list := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// track names the track that the group of a process was made for. A group that a lane shares with stable
// was made for stable, whichever release starts its replicas.
func (a *app) track(rec record) string {
	if rel := a.want.Releases[rec.Release]; rel.Number == rec.Group.Release {
		return cmp.Or(rel.Track, "stable")
	}
	return "stable"
}

// attend starts what watches over a process: its end, its output and its probes.
func (a *app) attend(ctx context.Context, crew *sync.WaitGroup, r *replica) {
	proc, rec := r.proc, r.rec
	// The loop owns these goroutines. They end with the process or with ctx; crew waits for them.
	crew.Go(func() { a.p.await(ctx, proc) })
	crew.Go(func() {
		for _, event := range []chan struct{}{proc.ended, proc.gone} {
			select {
			case <-ctx.Done():
				return
			case <-event:
				a.nudge(a.wake)
			}
		}
	})
	crew.Go(func() { a.probe(ctx, r, proc, rec) })
	told := r.told
	for _, ext := range []string{".out", ".err"} {
		crew.Go(func() { a.keepOutput(ctx, a.runPath(rec, ext), r.name, r.group, told) })
	}
}

// keepOutput copies one spool to the log of its group until told is closed and everything is copied, or
// ctx ends.
func (a *app) keepOutput(ctx context.Context, path, name string, g spillway.Group, told <-chan struct{}) {
	book, err := a.logs.book(g)
	if err != nil {
		a.log.Error("log cannot be written; output waits in the spool", "replica", name, "error", err)
		return
	}
	s := &spool{path: path, replica: name, book: book, notify: a.logs.added}
	s.follow(ctx, told, a.p.conf.tune.logs, a.log)
	if err := a.logs.done(g); err != nil {
		a.log.Warn("log is not closed", "group", g, "error", err)
	}
}

// saveSpools copies what processes that are gone have left in their spools.
func (a *app) saveSpools(ctx context.Context) {
	entries, err := os.ReadDir(a.runs())
	if err != nil {
		a.log.Error("spools cannot be read", "error", err)
		return
	}
	var written []string // that a process may still write to
	write := func(rec record) {
		written = append(written, filepath.Base(a.runPath(rec, ".out")), filepath.Base(a.runPath(rec, ".err")))
	}
	for _, r := range a.replicas {
		if r.proc != nil {
			write(r.rec)
		}
	}
	for _, t := range a.tasks {
		write(t.rec)
	}
	over := make(chan struct{})
	close(over)
	for _, e := range entries {
		name, group, ok := parseSpool(e.Name())
		if !ok || slices.Contains(written, e.Name()) {
			continue
		}
		a.keepOutput(ctx, filepath.Join(a.runs(), e.Name()), name, group, over)
	}
}

// parseSpool reads "www.4-1.17.out": the replica and its group.
func parseSpool(file string) (replica string, g spillway.Group, ok bool) {
	ext := filepath.Ext(file)
	replica = strings.TrimSuffix(file, ext)
	replica = strings.TrimSuffix(replica, filepath.Ext(replica))
	i := strings.LastIndexByte(replica, '-')
	if i < 0 || (ext != ".out" && ext != ".err") {
		return "", spillway.Group{}, false
	}
	g, ok = parseGroup(replica[:i])
	return replica, g, ok
}

// halt stops one replica that nobody attends.
func (a *app) halt(ctx context.Context, r *replica) error {
	if r.proc == nil || closed(r.proc.gone) {
		return nil
	}
	grace, cancel := context.WithTimeout(ctx, time.Duration(r.rec.Stop.Grace))
	defer cancel()
	defer context.AfterFunc(grace, r.proc.kill)() // not after the process is gone
	r.proc.stop(stopSignal(r.rec.Stop))
	if err := r.proc.watch(ctx); err != nil {
		return err
	}
	err := os.Remove(a.runPath(r.rec, ".json")) // else it would count as an end that nobody asked for
	if missing(err) {
		return nil
	}
	return err
}
