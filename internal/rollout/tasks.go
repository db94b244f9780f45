package rollout

import (
	"fmt"
	"slices"

	"github.com/spillway-dev/spillway"
)

// tasks are the release commands of the rollout, in the order in which they run: those of services that
// others need first. There are none for a release whose commands have succeeded, or that has served, before: not on
// the way back either.
func (t *turn) tasks() []Task {
	r := t.st.Rollout
	if t.hadUsers(r.Release) || slices.Contains(t.st.Prepared, r.Release) {
		return nil
	}
	var tasks []Task
	for _, s := range byNeeds(t.candidate()) {
		g, _ := t.candidate().Group(s.Name)
		if !s.Release.Zero() && slices.Contains(t.candidateGroups(), g) {
			tasks = append(tasks, Task{Rollout: r.ID, Service: s.Name, Release: r.Release, Limit: t.deadline()})
		}
	}
	return tasks
}

// hadUsers reports whether a release has had users of some track, as far as is remembered.
func (t *turn) hadUsers(release int) bool {
	if release == t.st.Stable || slices.Contains(t.st.Good, release) {
		return true
	}
	for _, lane := range t.st.Lanes {
		if lane.Release == release || slices.Contains(lane.Good, release) {
			return true
		}
	}
	return false
}

// keepPrepared is how many releases are remembered to have run their release commands.
const keepPrepared = 100

// prepared reports whether replicas of the candidate may start: every release command has succeeded.
func (t *turn) prepared() bool {
	r := t.st.Rollout
	return r == nil || r.Prepared || r.Exposed
}

// prepare runs the release commands one after the other. It reports whether all have succeeded.
func (t *turn) prepare() bool {
	r := t.st.Rollout
	if t.prepared() {
		return true
	}
	tasks := t.tasks()
	for r.Task < len(tasks) {
		state := t.task(tasks[r.Task])
		if state == nil || !state.Done || state.Failed != "" {
			return false
		}
		t.event(spillway.EventTask, r.Release, "the release command of %s has succeeded", tasks[r.Task].Service).Service = tasks[r.Task].Service
		r.Task++
		r.Elapsed = 0
	}
	r.Prepared = true
	if len(tasks) > 0 {
		done := append([]int{r.Release}, t.st.Prepared...)
		t.st.Prepared = done[:min(len(done), keepPrepared)]
	}
	return true
}

// task is how a task is; nil when the platform does not know it yet.
func (t *turn) task(want Task) *TaskState {
	i := slices.IndexFunc(t.obs.Tasks, func(s TaskState) bool { return s.Task == want })
	if i < 0 {
		return nil
	}
	return &t.obs.Tasks[i]
}

// wantedTasks is the release command that should run now.
func (t *turn) wantedTasks() []Task {
	if t.st.Rollout == nil || t.st.Destroy || t.prepared() || t.st.Phase == spillway.RollingBack {
		return nil
	}
	if tasks := t.tasks(); t.st.Rollout.Task < len(tasks) {
		return tasks[t.st.Rollout.Task : t.st.Rollout.Task+1]
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
		if ok && slices.Contains(t.candidateGroups(), g) && t.group(g).Ready < t.candidateCapacity(n) {
			return false
		}
	}
	return true
}
