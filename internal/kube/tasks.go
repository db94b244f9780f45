package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// observeTasks tells how release commands are. known has what keeps their Jobs from starting.
func observeTasks(there map[string]client.Object, pods []corev1.Pod, known map[types.UID]silent) []rollout.TaskState {
	var tasks []rollout.TaskState
	for _, name := range sortedKeys(there) {
		job, ok := there[name].(*batchv1.Job)
		var t rollout.TaskState
		if !ok || json.Unmarshal([]byte(job.Annotations[taskAnnotation]), &t.Task) != nil {
			continue
		}
		end, pod, problem := jobEnd(job), podOf(job, pods), known[job.UID].answer
		switch {
		case end != nil && end.Type == batchv1.JobComplete:
			t.Done = true
		case end != nil:
			t.Done, t.Failed = true, lastWords(pod, end.Message, problem)
		default:
			t.Problem = problem
			if pod != nil {
				if why, fatal := podProblem(pod); fatal {
					t.Done, t.Failed, t.Problem = true, why, ""
				}
			}
		}
		tasks = append(tasks, t)
	}
	return tasks
}

// readable is for how many seconds after its end what a release command wrote can be read.
const readable = int32(3600)

// pastAnnotation is the rollout.Task of a Job that is left for its log.
const pastAnnotation = "spillway.dev/past-task"

// leaveToRead forgets a release command that has ended, if it still is as it was seen, and leaves its Job for its log: until the
// app has another one, or the cluster deletes it. One that is deleted takes what was written with it.
func (p *Platform) leaveToRead(ctx context.Context, job *batchv1.Job) error {
	left := job.DeepCopy()
	left.Annotations[pastAnnotation] = left.Annotations[taskAnnotation]
	delete(left.Annotations, taskAnnotation)
	after := readable
	left.Spec.TTLSecondsAfterFinished = &after
	err := p.client.Patch(ctx, left, client.MergeFromWithOptions(job, client.MergeFromWithOptimisticLock{}), client.FieldOwner(Manager))
	return explain("leave the log of "+key(job), client.IgnoreNotFound(err))
}

// leftToRead reports whether an object is a Job that is left for its log.
func leftToRead(o client.Object) bool {
	job, ok := o.(*batchv1.Job)
	return ok && job.Annotations[pastAnnotation] != "" && job.Annotations[taskAnnotation] == "" && jobEnd(job) != nil
}

// clear deletes a Job that is in the place of one that is to be made: left by an app of the same name, whose numbers begin at
// 1 again. Its end is not that of the new command. ErrStale until it is gone.
func (p *Platform) clear(ctx context.Context, a *app, job *batchv1.Job, there map[string]client.Object) error {
	old, ok := there[key(job)].(*batchv1.Job)
	if !ok {
		return nil
	}
	mine, theirs := job.OwnerReferences, old.OwnerReferences
	others := len(mine) > 0 && len(theirs) > 0 && mine[0].UID != theirs[0].UID
	if !others && !leftToRead(old) && old.DeletionTimestamp == nil {
		return nil
	}
	if old.DeletionTimestamp == nil {
		if err := p.delete(ctx, a, old); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s of an app of this name before has to go first: %w", key(old), spillway.ErrStale)
}

// jobEnd is the condition by which a Job has ended; nil = it has not.
func jobEnd(job *batchv1.Job) *batchv1.JobCondition {
	for i, c := range job.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return &job.Status.Conditions[i]
		}
	}
	return nil
}

// podOf is the pod of a Job of ours, which has one at most; nil = it has none, or none any more.
func podOf(job *batchv1.Job, pods []corev1.Pod) *corev1.Pod {
	for i := range pods {
		if pods[i].Labels[batchv1.JobNameLabel] == job.Name {
			return &pods[i]
		}
	}
	return nil
}

// lastWords are how the program of a job ended, with its last lines; or what the cluster says of the job, and why the
// program never began, where that is known.
func lastWords(pod *corev1.Pod, otherwise, problem string) string {
	if pod != nil {
		for _, c := range pod.Status.ContainerStatuses {
			if t := c.State.Terminated; t != nil {
				return ending(t)
			}
		}
	}
	if problem != "" {
		return "it did not start: " + problem
	}
	return strings.TrimSpace(otherwise)
}

// silentJobs adds to those that Events have to be asked about the Jobs of release commands. Why the program of one has not
// begun is kept as long as the Job is there: its pod is deleted when its time is over.
func silentJobs(known, all map[types.UID]silent, there map[string]client.Object, pods []corev1.Pod) map[types.UID]silent {
	for _, o := range there {
		job, ok := o.(*batchv1.Job)
		if !ok || job.Annotations[taskAnnotation] == "" {
			continue
		}
		s, ok := known[job.UID]
		if !ok {
			s = silent{name: job.Name, since: job.CreationTimestamp.Time, job: true}
		}
		pod := podOf(job, pods)
		s.told = s.told || pod != nil || jobEnd(job) != nil // it has one pod at most: once that was made, nothing keeps it from being made
		switch {
		case pod != nil && (ran(pod) || ready(pod)):
			s.answer = ""
		case pod != nil && pod.DeletionTimestamp == nil:
			s.answer, _ = podProblem(pod)
		}
		if all == nil {
			all = map[types.UID]silent{}
		}
		all[job.UID] = s
	}
	return all
}

// notMade puts the newest of the Events that tell why no pod of a Job is made into words; "" = none tells.
func notMade(events []corev1.Event) string {
	e := lastOf(events, func(e corev1.Event) bool { return e.Reason == failedCreate })
	if e == nil {
		return ""
	}
	return madeWords(strings.TrimPrefix(e.Message, "Error creating: "))
}

// failedCreate is the reason of an Event that tells that a pod was not made.
const failedCreate = "FailedCreate"
