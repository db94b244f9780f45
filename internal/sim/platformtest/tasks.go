package platformtest

import (
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// task is the release command of www in release 1, which has a service counter beside it that serves already.
func (s *stage) task(does string, limit time.Duration) rollout.Task {
	s.t.Helper()
	www := service("www", Well, "counter")
	www.Env[TaskVariable] = does
	s.release(1, www, service("counter", Well))
	s.wants(want("counter", 1, 1))
	s.edges(s.public("counter", to("counter", 1, spillway.Whole)), private("counter", group("www", 1), to("counter", 1, spillway.Whole)))
	s.settle()
	t := rollout.Task{Rollout: 1, Service: "www", Release: 1, Limit: spillway.Duration(limit)}
	s.d.Tasks = []rollout.Task{t}
	s.apply()
	return t
}

// state gives what is known of a task; false when nothing is.
func state(o rollout.Observation, t rollout.Task) (rollout.TaskState, bool) {
	i := slices.IndexFunc(o.Tasks, func(x rollout.TaskState) bool { return x.Task == t })
	if i < 0 {
		return rollout.TaskState{}, false
	}
	return o.Tasks[i], true
}

// ended waits for the end of a task.
func (s *stage) ended(t rollout.Task) rollout.TaskState {
	s.t.Helper()
	var end rollout.TaskState
	s.eventually("the task ends", func(o rollout.Observation) bool {
		end, _ = state(o, t)
		return end.Done
	})
	return end
}

// times says how often the task was run, as far as that can be known.
func (s *stage) times(want string) {
	s.t.Helper()
	if s.Client == nil {
		return
	}
	if got := s.ask(s.host("counter"), "/count").Value; got != want {
		s.t.Errorf("the release command was run %s times, want %s", got, want)
	}
}

func tasks(s *stage) {
	t := s.task(TaskCounts, time.Minute)
	if end := s.ended(t); end.Failed != "" {
		s.t.Fatalf("it failed: %s", end.Failed)
	}
	for range 3 {
		s.apply()
	}
	s.stays("the end stays known", func(o rollout.Observation) bool {
		end, known := state(o, t)
		return known && end.Done && end.Failed == ""
	})
	s.times("1")
	if g := find(s.observe(), group("www", 1)); g.Running != 0 {
		s.t.Errorf("a release command is no replica: %+v", g)
	}
	s.wants(want("counter", 1, 1), want("www", 1, 1)) // the replicas start beside a task that has ended
	s.settle()
	s.d.Tasks = nil
	s.apply()
	s.eventually("the task is forgotten", func(o rollout.Observation) bool { return len(o.Tasks) == 0 })
	s.times("1")
	next := t // of another rollout, so another task
	next.Rollout = 2
	s.d.Tasks = []rollout.Task{next}
	s.apply()
	if end := s.ended(next); end.Failed != "" {
		s.t.Fatalf("it failed: %s", end.Failed)
	}
	s.times("2")
}

func taskFails(s *stage) {
	t := s.task(TaskFails, time.Minute)
	end := s.ended(t)
	if end.Failed == "" || strings.Contains(end.Failed, "\n") {
		s.t.Errorf("it ended with %q, want one line", end.Failed)
	}
	if s.Client != nil && (!strings.Contains(end.Failed, "code 5") || !strings.Contains(end.Failed, taskWords)) {
		s.t.Errorf("it ended with %q, which should say code 5 and %q", end.Failed, taskWords)
	}
	s.apply()
	s.stays("it is not tried again", func(o rollout.Observation) bool {
		again, known := state(o, t)
		return known && again == end
	})
}

func taskForgotten(s *stage) {
	t := s.task(TaskHangs, time.Hour)
	runs := func(o rollout.Observation) bool {
		is, known := state(o, t)
		return known && !is.Done
	}
	s.eventually("it is known", runs)
	s.stays("it runs", runs)
	s.d.Tasks = nil
	s.apply()
	s.eventually("nothing is known of it", func(o rollout.Observation) bool { return len(o.Tasks) == 0 })
	s.stays("the service that it asked for runs on", s.settled)
}

func taskLimit(s *stage) {
	if s.Lacks.Limits {
		s.t.Skip("tasks have no limit")
	}
	t := s.task(TaskHangs, time.Second)
	if end := s.ended(t); end.Failed == "" {
		s.t.Error("it took longer than its limit, and did not fail")
	}
}
