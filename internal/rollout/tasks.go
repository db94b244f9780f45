package rollout

import (
	"fmt"
	"slices"

	"github.com/spillway-dev/spillway"
)

// tasks are the release commands of the rollout, in the order in which they run: those of services that
// others need first. A command that has succeeded once is not run again for the same group, and there is none for
// a release that has been stable before: not on the way back either.
func (t *turn) tasks() []Task {
	r := t.st.Rollout
	if r.Release == t.st.Stable || slices.Contains(t.st.Good, r.Release) {
		return nil
	}
	var tasks []Task
	for _, s := range byNeeds(t.candidate()) {
		g, _ := t.candidate().Group(s.Name)
		if !s.Release.Zero() && slices.Contains(t.candidateGroups(), g) && !slices.Contains(t.st.Prepared, g) {
			tasks = append(tasks, Task{Rollout: r.ID, Service: s.Name, Release: r.Release, Limit: t.deadline()})
		}
	}
	return tasks
}

// keepPrepared is how many groups are remembered to have run their release commands.
const keepPrepared = 200

// prepared reports whether every release command has succeeded.
func (t *turn) prepared() bool {
	r := t.st.Rollout
	return r == nil || r.Prepared || r.Exposed || r.Cleared
}

// mayStart reports whether replicas of a service of the candidate may start: all release commands have
// succeeded, or one of those that have not needs the service, which has none itself.
func (t *turn) mayStart(s spillway.Service) bool {
	if t.prepared() {
		return true
	}
	if _, old := t.stable().Group(s.Name); old && (s.Strategy == spillway.Recreate || t.st.Rollout.Strategy == spillway.Recreate) {
		return false // the one that serves goes on until then
	}
	tasks := t.tasks()
	if slices.ContainsFunc(tasks, func(task Task) bool { return task.Service == s.Name }) {
		return false
	}
	return slices.ContainsFunc(tasks, func(task Task) bool { return t.needs(task.Service, s.Name) })
}

// needs reports whether a service of the candidate needs another one, itself or through others.
func (t *turn) needs(service, other string) bool {
	s, _ := t.candidate().Config.Service(service)
	return slices.ContainsFunc(s.Needs, func(need string) bool { return need == other || t.needs(need, other) })
}

// noteTask remembers that a release command has succeeded, whatever becomes of the rollout.
func (t *turn) noteTask() {
	r := t.st.Rollout
	if r == nil || !r.Begun {
		return
	}
	tasks := t.tasks()
	if len(tasks) == 0 {
		return
	}
	state := t.task(tasks[0])
	if state == nil || !state.Done || state.Failed != "" {
		return
	}
	t.event(spillway.EventTask, r.Release, "the release command of %s has succeeded", tasks[0].Service).Service = tasks[0].Service
	g, _ := t.candidate().Group(tasks[0].Service)
	done := append([]spillway.Group{g}, t.st.Prepared...)
	t.st.Prepared = done[:min(len(done), keepPrepared)]
	r.Begun, r.Prepared, r.Elapsed = false, len(t.tasks()) == 0, 0
}

// prepare has the release commands run one after the other. It reports whether all have succeeded.
func (t *turn) prepare() bool {
	r := t.st.Rollout
	if t.prepared() {
		return true
	}
	tasks := t.tasks()
	if len(tasks) == 0 {
		r.Prepared = true
		return true
	}
	r.Begun = r.Begun || t.needsOfTask(tasks[0])
	return false
}

// task is how a task is; nil when the platform does not know it yet.
func (t *turn) task(want Task) *TaskState {
	i := slices.IndexFunc(t.obs.Tasks, func(s TaskState) bool { return s.Task == want })
	if i < 0 {
		return nil
	}
	return &t.obs.Tasks[i]
}

// needsOfTask reports whether what a release command needs, as far as it may start before it, is ready.
func (t *turn) needsOfTask(task Task) bool {
	s, _ := t.candidate().Config.Service(task.Service)
	return !slices.ContainsFunc(s.Needs, func(need string) bool {
		n, _ := t.candidate().Config.Service(need)
		g, _ := t.candidate().Group(need)
		return slices.Contains(t.candidateGroups(), g) && t.mayStart(n) && t.ready(g) < t.candidateCapacity(n)
	})
}

// wantedTasks is the release command that should run now. Once begun it is wanted until it ends, whatever happens
// to what it needs: nothing may run it twice.
func (t *turn) wantedTasks() []Task {
	r := t.st.Rollout
	if r == nil || t.st.Destroy || !r.Begun || t.prepared() || t.st.Phase == spillway.RollingBack {
		return nil
	}
	if tasks := t.tasks(); len(tasks) > 0 {
		return tasks[:1]
	}
	return nil
}

// taskFailed: a release command did not succeed. Nothing has been started, so nothing has to be undone.
func taskFailed(t *turn) (spillway.Outcome, string) {
	for _, task := range t.wantedTasks() {
		if state := t.task(task); state != nil && state.Done && state.Failed != "" {
			return t.failure(), fmt.Sprintf("the release command of %s failed: %s", task.Service, state.Failed)
		}
	}
	return "", ""
}

// commandText names a release command that has not ended, with what keeps it from beginning; has says that it has not.
func (t *turn) commandText(task Task, has string) string {
	text := "the release command of " + task.Service
	if state := t.task(task); state != nil && state.Problem != "" {
		return text + " does not begin: " + state.Problem
	}
	return text + has
}

// byNeeds are the services of a release, each behind those that it needs, otherwise by name.
func byNeeds(release spillway.Release) []spillway.Service {
	var list []spillway.Service
	done := map[string]bool{}
	var visit func(spillway.Service)
	visit = func(s spillway.Service) {
		if done[s.Name] {
			return
		}
		done[s.Name] = true
		for _, need := range s.Needs {
			if n, ok := release.Config.Service(need); ok {
				visit(n)
			}
		}
		list = append(list, s)
	}
	for _, s := range release.Config.Services {
		visit(s)
	}
	return list
}

// needsReady reports whether what a service of the candidate needs has the capacity of the present step, as
// far as it is the candidate's own.
func (t *turn) needsReady(s spillway.Service) bool {
	for _, need := range s.Needs {
		n, ok := t.candidate().Config.Service(need)
		g, _ := t.candidate().Group(need)
		if ok && slices.Contains(t.candidateGroups(), g) && t.ready(g) < t.candidateCapacity(n) {
			return false
		}
	}
	return true
}
