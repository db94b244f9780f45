package sim

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// legacy is the server of the track that Spillway does not run.
const legacy = "http://127.0.0.1:9"

// outside is what a platform does beside replicas and routes: release commands, gates that are asked
// elsewhere, servers that it does not run.
type outside struct {
	tasks    map[rollout.Task]*task
	begun    map[rollout.Task]int    // how often each was begun, for ever
	prepared map[spillway.Group]bool // groups whose release command has succeeded
	watch    []rollout.Watch
	readings []rollout.Reading
	says     string // what gates are answered: "" = ok, "broken", "nodata", "flips"; "silent" = nobody asks
	dead     bool   // the servers of tracks do not answer
}

// task is one release command that runs or ran.
type task struct {
	due   int           // tick at which it ends
	began time.Duration // real time
	state rollout.TaskState
}

func newOutside() outside {
	return outside{tasks: map[rollout.Task]*task{}, begun: map[rollout.Task]int{}, prepared: map[spillway.Group]bool{}}
}

// take takes over the release commands and gates that are wanted.
func (w *World) take(d rollout.Desired) {
	o := &w.outside
	o.watch = slices.Clone(d.Watch)
	maps.DeleteFunc(o.tasks, func(t rollout.Task, _ *task) bool { return !slices.Contains(d.Tasks, t) })
	for _, t := range d.Tasks {
		if o.tasks[t] != nil {
			continue
		}
		if o.begun[t]++; o.begun[t] > 1 {
			w.fail("a release command is run once: %s of release %d in rollout %d", t.Service, t.Release, t.Rollout)
		}
		ticks := map[string]int{"slow": 8, "hangs": 1 << 30, "stuck": 1 << 30}[w.behave[t.Release].Task]
		o.tasks[t] = &task{due: w.tickNo + 1 + ticks, began: w.real, state: rollout.TaskState{Task: t}}
		if w.behave[t.Release].Task == "stuck" {
			o.tasks[t].state.Problem = "no node takes it"
		}
	}
}

// others reports whether other release commands are wanted than there are.
func (o *outside) others(wanted []rollout.Task) bool {
	return len(o.tasks) != len(wanted) || slices.ContainsFunc(wanted, func(t rollout.Task) bool { return o.tasks[t] == nil })
}

// tick lets release commands end and asks the gates.
func (o *outside) tick(w *World) {
	for _, t := range o.tasks {
		switch late := w.real-t.began >= time.Duration(t.state.Task.Limit); {
		case t.state.Done:
		case w.tickNo >= t.due && w.behave[t.state.Task.Release].Task == "fails":
			t.state.Done, t.state.Failed = true, "exited with code 1"
		case w.tickNo >= t.due:
			t.state.Done = true
			g, _ := w.releases[t.state.Task.Release].Group(t.state.Task.Service)
			o.prepared[g] = true
		case late:
			t.state.Done, t.state.Failed = true, cmp.Or(t.state.Problem, "it took too long and was killed")
		}
	}
	if o.says == "silent" {
		return
	}
	o.readings = nil
	for _, watch := range o.watch {
		r := rollout.Reading{Rollout: watch.Rollout, Gate: watch.Gate.Text, OK: true, Text: "0", At: w.Now}
		switch says := o.says; {
		case says == "broken", says == "flips" && w.rng.IntN(2) == 0:
			r.OK, r.Text = false, "1"
		case says == "nodata":
			r.OK, r.NoData, r.Text = false, true, "connection refused"
		}
		o.readings = append(o.readings, r)
	}
}

// observe adds what is known of all this to an observation.
func (o *outside) observe(obs *rollout.Observation) {
	for _, t := range slices.SortedFunc(maps.Keys(o.tasks), func(a, b rollout.Task) int {
		return cmp.Or(cmp.Compare(a.Rollout, b.Rollout), cmp.Compare(a.Service, b.Service))
	}) {
		obs.Tasks = append(obs.Tasks, o.tasks[t].state)
	}
	obs.Readings = slices.Clone(o.readings)
	if o.dead {
		obs.Dead = map[string]string{legacy: "connection refused"}
	}
}

// starts is called for each replica that starts: the release command of its service has succeeded by then.
func (w *World) starts(g spillway.Group) {
	release := w.releases[g.Release] // the one that made the group
	s, ok := release.Config.Service(g.Service)
	if ok && !s.Release.Zero() && !w.outside.prepared[g] {
		w.fail("nothing starts before its release command has succeeded: %s", g)
	}
}
