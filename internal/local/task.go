package local

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// task is a release command that runs: the command of a service, in the artefact and with the limits and
// the environment of a replica of the same release, except that it has no PORT and that SPILLWAY_TASK is
// "release". It runs once. Its record is on disk before it begins, its result before anybody is told; only
// one that certainly never began is begun again. What it leaves running is ended with it.
//
// At the time of a release command what its service needs runs, and the command reaches it at the address that
// replicas of its release will be given. A need that does not answer there (it has a release command of its own that
// has yet to run) is reached in the stable release, at the address that a caller there was given.
type task struct {
	task   rollout.Task
	rec    record
	proc   *process
	told   chan struct{} // closed when its output is not needed any more
	killed string        // why it was killed; "" = it was not
}

// taskEnd is the result of a task. It is kept for as long as the task is wanted, so that nothing runs twice.
type taskEnd struct {
	Task   rollout.Task `json:"task"`
	Failed string       `json:"failed,omitempty"` // why, in one line; "" = it succeeded
}

// advanceTasks takes the steps that can be taken now: it ends what is not wanted or takes too long,
// forgets results that nobody wants any more, and begins what has not begun.
func (a *app) advanceTasks(ctx context.Context, crew *sync.WaitGroup, now time.Time) {
	for _, t := range slices.Clone(a.tasks) {
		a.advanceTask(now, t)
	}
	leftover := slices.ContainsFunc(a.tasks, func(t *task) bool { return t.killed != "" })
	kept := len(a.state.Tasks)
	a.state.Tasks = slices.DeleteFunc(a.state.Tasks, func(e taskEnd) bool { return !a.wantsTask(e.Task) })
	if len(a.state.Tasks) < kept {
		a.saveStateOrWarn()
	}
	for i, g := range a.taskGroups() {
		want := a.want.Desired.Tasks[i]
		if leftover || a.taskEnd(want) != nil || a.runningTask(want) != nil || !a.needsListen(g, want) {
			continue // whatever it waits for wakes the loop
		}
		if err := a.startTask(ctx, crew, g, want); err != nil {
			a.keepTaskEnd(now, taskEnd{Task: want, Failed: a.p.cannotStart(err)})
		}
	}
}

// advanceTask takes the steps of one task that runs.
func (a *app) advanceTask(now time.Time, t *task) {
	limit := t.rec.Started.Add(time.Duration(t.task.Limit))
	switch {
	case closed(t.proc.gone):
		a.taskEnded(now, t)
	case t.killed != "": // it is about to end
	case !a.wantsTask(t.task):
		a.killTask(t, "was killed: it is not wanted any more")
	case t.task.Limit > 0 && !now.Before(limit):
		a.killTask(t, fmt.Sprintf("was killed: it took longer than %s", t.task.Limit))
	case t.task.Limit > 0:
		a.at(limit)
	}
}

func (a *app) killTask(t *task, why string) {
	t.killed = why
	t.proc.kill()
}

func (a *app) wantsTask(t rollout.Task) bool { return slices.Contains(a.want.Desired.Tasks, t) }

// taskEnd gives the stored result of a task, or nil.
func (a *app) taskEnd(t rollout.Task) *taskEnd {
	i := slices.IndexFunc(a.state.Tasks, func(e taskEnd) bool { return e.Task == t })
	if i < 0 {
		return nil
	}
	return &a.state.Tasks[i]
}

// runningTask gives a task whose process has not been accounted for, or nil.
func (a *app) runningTask(want rollout.Task) *task {
	i := slices.IndexFunc(a.tasks, func(t *task) bool { return t.task == want })
	if i < 0 {
		return nil
	}
	return a.tasks[i]
}

// taskGroups gives the groups to which the wanted tasks belong, in their order.
func (a *app) taskGroups() []spillway.Group {
	var groups []spillway.Group
	for _, t := range a.want.Desired.Tasks {
		g, _ := a.want.Releases[t.Release].Group(t.Service)
		groups = append(groups, g)
	}
	return groups
}

// observeTasks says how the tasks are that are wanted, and those that are about to end.
func (a *app) observeTasks() []rollout.TaskState {
	var list []rollout.TaskState
	for _, t := range a.want.Desired.Tasks {
		state := rollout.TaskState{Task: t}
		if e := a.taskEnd(t); e != nil {
			state.Done, state.Failed = true, e.Failed
		}
		list = append(list, state)
	}
	for _, t := range a.tasks {
		if !a.wantsTask(t.task) {
			list = append(list, rollout.TaskState{Task: t.task})
		}
	}
	return list
}

// startTask runs a release command.
func (a *app) startTask(ctx context.Context, crew *sync.WaitGroup, g spillway.Group, want rollout.Task) error {
	rel := a.want.Releases[want.Release]
	svc, _ := rel.Config.Service(want.Service) // Apply has seen it
	a.state.Runs++
	if err := a.saveState(); err != nil { // a run number is never used twice
		return err
	}
	rec := record{
		Version: format, App: a.ref, Name: g.String() + "-release", Group: g, Release: want.Release, Run: a.state.Runs,
		Mark: a.p.mark(string(a.ref), a.state.Runs), Boot: a.p.boot, Task: &want,
	}
	rec.Cgroup, rec.Enforced = a.p.groups.create(cgroupName(rec.Mark), svc.Limits)
	env := a.environment(rec, svc)
	proc, err := command{
		self: a.p.conf.Self, record: a.runPath(rec, ".json"), argv: argv(svc.Release, env), env: env, dir: rel.Artefacts[svc.Name].Dir,
		out: a.runPath(rec, ".out"), err: a.runPath(rec, ".err"),
	}.start(rec)
	if err != nil {
		a.unmake(rec)
		return err
	}
	t := &task{task: want, rec: proc.rec, proc: proc, told: make(chan struct{})}
	a.tasks = append(a.tasks, t)
	a.attendTask(ctx, crew, t)
	if want.Limit > 0 {
		a.at(t.rec.Started.Add(time.Duration(want.Limit)))
	}
	a.log.Info("release command started", "task", t.rec.Name, "pid", t.rec.PID)
	return nil
}

// attendTask starts what watches over the process of a task: its end and its output.
func (a *app) attendTask(ctx context.Context, crew *sync.WaitGroup, t *task) {
	// The loop owns these goroutines. They end with the process or with ctx; crew waits for them.
	crew.Go(func() {
		a.p.await(ctx, t.proc)
		a.nudge(a.wake)
	})
	for _, ext := range []string{".out", ".err"} {
		crew.Go(func() { a.keepOutput(ctx, a.runPath(t.rec, ext), t.rec.Name, t.rec.Group, t.told) })
	}
}

// taskEnded accounts for a task whose process is gone. Until its result is on disk nobody is told.
func (a *app) taskEnded(now time.Time, t *task) {
	path := a.runPath(t.rec, ".json")
	rec := t.rec
	if err := loadJSON(path, &rec); err != nil { // the end is in it
		a.log.Error("end of a release command cannot be read", "task", rec.Name, "error", err)
	}
	failed := a.whyFailed(rec, t.proc.exit, t.killed)
	began := rec.Began || rec.Server == os.Getpid() // else its shim gave up, because its server had gone
	if began && a.wantsTask(t.task) && !a.keepTaskEnd(now, taskEnd{Task: t.task, Failed: failed}) {
		return
	}
	if err := os.Remove(path); err != nil {
		a.log.Warn("record is not removed", "task", rec.Name, "error", err)
	}
	close(t.told)
	a.tasks = slices.DeleteFunc(a.tasks, func(x *task) bool { return x == t })
	a.log.Info("release command ended", "task", rec.Name, "failed", failed)
}

// keepTaskEnd stores a result. False: that failed, and has to be tried again.
func (a *app) keepTaskEnd(now time.Time, e taskEnd) bool {
	kept := len(a.state.Tasks)
	a.state.Tasks = append(a.state.Tasks, e)
	if err := a.saveState(); err != nil {
		a.state.Tasks = a.state.Tasks[:kept]
		a.log.Error("result of a release command is not saved", "service", e.Task.Service, "error", err)
		a.at(now.Add(time.Second))
		return false
	}
	return true
}

// whyFailed says in one line how a task failed, or "". All that it wrote is in the log.
func (a *app) whyFailed(rec record, exit status, killed string) string {
	lines := a.lastLines(rec)
	switch {
	case rec.End != nil && rec.End.Code == 0 && rec.End.Signal == 0:
		return ""
	case rec.End != nil:
		s := status{code: rec.End.Code, signal: rec.End.Signal, known: true, outOfMemory: exit.outOfMemory}
		return oneLine(s.describe(rec.End.Ran, lines))
	case exit.known && killed == "" && (exit.code != 0 || exit.signal != 0):
		return oneLine(exit.describe(time.Since(rec.Started), lines))
	case killed == "" && rec.Boot != a.p.boot:
		killed = "was interrupted: the machine was started anew while it ran"
	case killed == "":
		killed = "was interrupted: it was killed, and nobody knows by whom"
	}
	if len(lines) > 0 {
		killed += lastWords + strings.Join(lines, "\n")
	}
	return oneLine(killed)
}

// takeOverTask goes on with a task of an earlier server, or keeps how it ended. One that never began is begun
// again if it is still wanted.
func (a *app) takeOverTask(path string, rec record) error {
	if a.p.runs(rec) {
		if proc, err := attach(rec); err == nil {
			a.tasks = append(a.tasks, &task{task: *rec.Task, rec: rec, proc: proc, told: make(chan struct{})})
			return nil
		}
	}
	if err := loadJSON(path, &rec); err != nil { // it may have ended since it was read
		return err
	}
	rec.killStrays()
	rec.Cgroup.remove()
	if rec.Began && a.taskEnd(*rec.Task) == nil {
		a.state.Tasks = append(a.state.Tasks, taskEnd{Task: *rec.Task, Failed: a.whyFailed(rec, status{}, "")})
		if err := a.saveState(); err != nil {
			return err
		}
	}
	return os.Remove(path)
}

// haltTask ends a task that nobody attends, for good: a command that was cut off is not simply run again.
func (a *app) haltTask(ctx context.Context, t *task) error {
	a.killTask(t, "was interrupted: Spillway was stopped while it ran")
	if !closed(t.proc.gone) {
		if err := t.proc.watch(ctx); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taskEnded(time.Now(), t)
	return nil
}

// needsListen reports whether the data plane serves the route at the addresses that the task will be given.
func (a *app) needsListen(g spillway.Group, want rollout.Task) bool {
	svc, _ := a.want.Releases[want.Release].Config.Service(want.Service)
	acked := a.courier.acked
	for _, need := range svc.Needs {
		address := loopback(a.taskPort(need, g))
		if acked == nil || acked.Route.Generation != a.want.Desired.Route.Generation ||
			!slices.ContainsFunc(acked.Listeners, func(l spillway.EdgeListener) bool { return l.Address == address }) {
			return false
		}
	}
	return true
}

// taskPort gives the port at which a task of the group reaches a service that it needs: see task.
func (a *app) taskPort(need string, g spillway.Group) int {
	route, from := a.want.Desired.Route, g
	answers := func(b spillway.Backend) bool {
		return b.Weight > 0 && slices.ContainsFunc(a.replicas, func(r *replica) bool { return r.group == b.Group && r.up() })
	}
	for _, e := range route.Edges {
		if e.Service == need && e.From == g && slices.ContainsFunc(e.Backends, answers) {
			return a.state.Listeners[listenerName(need, g)]
		}
	}
	for _, e := range route.Edges {
		if route.Trial != nil && e.Service == need && e.From != (spillway.Group{}) && slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool {
			return b.Weight > 0 && b.Release == route.Trial.Stable
		}) {
			from = e.From
			break
		}
	}
	return a.state.Listeners[listenerName(need, from)]
}
