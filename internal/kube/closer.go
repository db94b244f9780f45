package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/rollout"
)

// silent is a pod whose program runs, or has run, and that is not ready, or a Job without a pod: why, only its Events tell.
type silent struct {
	name   string
	since  time.Time
	asked  time.Time // for its Events; zero = never
	answer string    // to its last probe that failed, or why a Job's program has not begun, in words; "" = not known
	job    bool
	told   bool // Events have nothing to add
}

const (
	closerEvery = 5 * time.Second // between two looks at Events, and how long a pod may be silent before
	closerMost  = 10              // pods a look: two questions a second at most, however many pods are silent
	closerAgain = 15 * time.Second
)

// silentPods are those of an app that Events have to be asked about, with what is known of them already.
func silentPods(known map[types.UID]silent, pods []corev1.Pod) map[types.UID]silent {
	var all map[types.UID]silent
	for i := range pods {
		pod := &pods[i]
		if _, ok := groupOf(pod.Labels); !ok || !ran(pod) || ready(pod) || over(pod) || pod.DeletionTimestamp != nil || pod.Status.StartTime == nil {
			continue
		}
		s, ok := known[pod.UID]
		if !ok {
			s = silent{name: pod.Name, since: pod.Status.StartTime.Time}
		}
		if all == nil {
			all = map[types.UID]silent{}
		}
		all[pod.UID] = s
	}
	return all
}

// explained adds to what is wrong with a pod how its last probe was answered.
func (s silent) explained(pod *corev1.Pod, problem string) string {
	switch {
	case s.answer == "" || problem == "":
		return problem
	case strings.HasPrefix(problem, unanswered):
		return s.answer
	case strings.Contains(problem, "limits.memory"):
		return problem // a program that is gone answers nothing
	case strings.HasPrefix(s.answer, startupFails) && endedEarly(pod):
		return problem
	}
	return problem + "; before that " + s.answer
}

// startupFails begins the answer to a probe that a program had to pass to be started.
const startupFails = "its startup probe fails: "

// endedEarly reports whether the program of a pod ended before the kubelet could have had enough of its startup probe: the
// probe failed because the program was gone, and not the other way round.
func endedEarly(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		t := cmp.Or(c.State.Terminated, c.LastTerminationState.Terminated)
		i := slices.IndexFunc(pod.Spec.Containers, func(of corev1.Container) bool { return of.Name == c.Name })
		if t == nil || i < 0 || pod.Spec.Containers[i].StartupProbe == nil {
			continue
		}
		p := pod.Spec.Containers[i].StartupProbe
		patience := time.Duration(p.PeriodSeconds*(p.FailureThreshold-1)) * time.Second
		if t.FinishedAt.Sub(t.StartedAt.Time) < patience-time.Second { // both times are whole seconds
			return true
		}
	}
	return false
}

// explain adds to the problems of groups, as far as they are those of silent pods, how probes were answered. a.mu is held.
func (a *app) explain(groups []rollout.Group, pods []corev1.Pod) {
	for i := range pods {
		s, ok := a.silent[pods[i].UID]
		if !ok || s.answer == "" {
			continue
		}
		g, _ := groupOf(pods[i].Labels)
		problem, _ := podProblem(&pods[i])
		for j := range groups {
			if groups[j].Group == g && groups[j].Problem == problem {
				groups[j].Problem = s.explained(&pods[i], problem)
			}
		}
	}
}

// lookCloser asks for the Events of silent pods until ctx ends. It asks nothing while there are none.
func (p *Platform) lookCloser(ctx context.Context) {
	repeat(ctx, closerEvery, func() {
		for _, q := range p.questions(time.Now()) {
			if !p.stillSilent(ctx, q) {
				continue
			}
			answer, err := p.lastAnswer(ctx, q.uid, q.silent)
			if err != nil {
				p.log.Debug("events cannot be read", "app", q.app.ref, "of", q.silent.name, "error", err)
			}
			q.app.mu.Lock()
			s, still := q.app.silent[q.uid]
			news := still && answer != "" && s.answer != answer
			if still {
				s.asked, s.answer = time.Now(), cmp.Or(answer, s.answer)
				q.app.silent[q.uid] = s
			}
			q.app.mu.Unlock()
			if news {
				p.watchers.Changed(q.app.ref)
			}
		}
	})
}

// question is a pod to be asked about.
type question struct {
	app    *app
	uid    types.UID
	silent silent
}

// stillSilent looks at a pod again, and forgets it if it is not silent any more: an app that nobody observes, as in a server
// that does not lead, would have it asked about for ever.
func (p *Platform) stillSilent(ctx context.Context, q question) bool {
	var pod corev1.Pod
	var job batchv1.Job
	var of client.Object = &pod
	if q.silent.job {
		of = &job
	}
	err := p.client.Get(ctx, client.ObjectKey{Namespace: p.conf.Namespace, Name: q.silent.name}, of, client.UnsafeDisableDeepCopy)
	if err != nil && !apierrors.IsNotFound(err) {
		return true
	}
	if _, silent := silentPods(nil, []corev1.Pod{pod})[q.uid]; silent || err == nil && job.UID == q.uid && job.Status.Active == 0 && jobEnd(&job) == nil {
		return true
	}
	q.app.mu.Lock()
	defer q.app.mu.Unlock()
	delete(q.app.silent, q.uid)
	return false
}

// questions are the pods to be asked about now, those that waited longest first.
func (p *Platform) questions(now time.Time) []question {
	var all []question
	for _, a := range p.allApps() {
		a.mu.Lock()
		for uid, s := range a.silent {
			if !s.told && now.Sub(s.since) >= closerEvery && now.Sub(s.asked) >= closerAgain {
				all = append(all, question{a, uid, s})
			}
		}
		a.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b question) int {
		return cmp.Or(a.silent.asked.Compare(b.silent.asked), a.silent.since.Compare(b.silent.since), cmp.Compare(a.uid, b.uid))
	})
	return all[:min(len(all), closerMost)]
}

// lastAnswer is how the last probe of a pod failed, or why a Job has no pod, in words; "" when no Event tells.
func (p *Platform) lastAnswer(ctx context.Context, uid types.UID, s silent) (string, error) {
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reason, words := "Unhealthy", probeAnswer
	if s.job {
		reason, words = failedCreate, notMade
	}
	var list corev1.EventList
	err := p.live.List(asking, &list, client.InNamespace(p.conf.Namespace), client.MatchingFields{"involvedObject.uid": string(uid), "involvedObject.name": s.name, "reason": reason})
	return words(list.Items), explain("read the events of "+s.name, err)
}

// lastOf is the newest of the Events that are wanted; nil = there is none.
func lastOf(events []corev1.Event, wanted func(corev1.Event) bool) *corev1.Event {
	at := func(e *corev1.Event) time.Time {
		if e.Series != nil {
			return e.Series.LastObservedTime.Time
		}
		if e.LastTimestamp.IsZero() {
			return e.EventTime.Time
		}
		return e.LastTimestamp.Time
	}
	var last *corev1.Event
	for i := range events {
		if e := &events[i]; wanted(*e) && (last == nil || !at(e).Before(at(last))) {
			last = e
		}
	}
	return last
}

// probeAnswer puts the newest of the kubelet's Events about probes into words: "its startup probe fails: HTTP probe
// failed with statuscode: 500".
func probeAnswer(events []corev1.Event) string {
	e := lastOf(events, func(e corev1.Event) bool { return strings.Contains(e.Message, failing) })
	if e == nil {
		return ""
	}
	kind, answer, _ := strings.Cut(e.Message, failing)
	return fmt.Sprintf("its %s probe fails: %s", strings.ToLower(kind), probeWords(oneLine(answer)))
}

// failing divides what the kubelet says about a probe.
const failing = " probe failed: "

// probeWords adds to what the kubelet says what it means.
func probeWords(answer string) string {
	switch {
	case strings.Contains(answer, "statuscode: 404"):
		return answer + "; is the path of health right?"
	case strings.Contains(answer, "connection refused"):
		return answer + "; does the program listen at that port, and not only at 127.0.0.1?"
	case strings.Contains(answer, "deadline exceeded"):
		return answer + "; it is slower than the timeout of health"
	}
	return answer
}
