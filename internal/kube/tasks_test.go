package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/spillway-dev/spillway"
)

// releaseJob is the Job of a release command of www.
func releaseJob() *batchv1.Job {
	return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Name: "castle-www-2-task-5", Namespace: "shop", UID: "job", CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Minute)),
		Annotations: map[string]string{taskAnnotation: `{"rollout":5,"service":"www","release":2,"limit":"1m0s"}`},
	}}
}

// jobPod is a pod as a cluster had it, as that of a release command of www.
func jobPod(t *testing.T, name string, job *batchv1.Job) corev1.Pod {
	pod := stored[corev1.Pod](t, name)
	pod.Labels = map[string]string{batchv1.JobNameLabel: job.Name, "spillway.dev/task": "www"}
	return pod
}

// What keeps a release command from beginning is told while it waits, and when its time is over, though its pod is gone then.
func TestObserveTasks_TellWhyACommandDoesNotBegin(t *testing.T) {
	const room = "no node takes it: 0/1 nodes are available: 1 Insufficient cpu; no node has 64 CPU left: add nodes, or lower limits.cpu of www"
	job := releaseJob()
	there := map[string]client.Object{"Job/" + job.Name: job}
	a := &app{}
	look := func(pods ...corev1.Pod) (problem, failed string) {
		t.Helper()
		a.silent = silentJobs(a.silent, silentPods(a.silent, pods), there, pods)
		tasks := observeTasks(there, pods, a.silent)
		if len(tasks) != 1 || tasks[0].Task.Service != "www" || tasks[0].Done != (tasks[0].Failed != "") {
			t.Fatalf("tasks are %+v", tasks)
		}
		return tasks[0].Problem, tasks[0].Failed
	}
	if problem, failed := look(); problem+failed != "" {
		t.Errorf("before it has a pod: %q, %q", problem, failed)
	}
	if problem, failed := look(jobPod(t, "pending", job)); problem != room || failed != "" {
		t.Errorf("pending: %q, %q; want %q", problem, failed, room)
	}
	if problem, failed := look(jobPod(t, "image", job)); problem != "" || !strings.HasPrefix(failed, "its image is not there: ") {
		t.Errorf("no image: %q, %q", problem, failed)
	}
	look(jobPod(t, "pending", job))
	job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded", Message: "Job was active longer than specified deadline"}}
	if _, failed := look(); failed != "it did not start: "+room {
		t.Errorf("its time is over: %q", failed)
	}
	job.Status.Conditions = nil
	look(jobPod(t, "unready", job)) // it runs
	job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded", Message: "Job was active longer than specified deadline"}}
	if _, failed := look(); failed != "Job was active longer than specified deadline" {
		t.Errorf("its time is over, and it ran: %q", failed)
	}
}

// A Job whose pod the API server does not take says nothing of it; its Events do.
func TestLookCloser_AsksWhyAJobHasNoPod(t *testing.T) {
	job := releaseJob()
	event := func(name, reason, message string, at time.Time) *corev1.Event {
		return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Reason: reason, Message: message, LastTimestamp: metav1.NewTime(at), InvolvedObject: corev1.ObjectReference{Name: job.Name, UID: job.UID}}
	}
	field := func(get func(*corev1.Event) string) client.IndexerFunc {
		return func(o client.Object) []string { return []string{get(o.(*corev1.Event))} }
	}
	live := fake.NewClientBuilder().WithStatusSubresource(&batchv1.Job{}).WithObjects(job,
		event("b", "FailedCreate", `Error creating: pods "x" is forbidden: exceeded quota: tight, requested: pods=1, used: pods=1, limited: pods=1`, time.Now()),
		event("a", "FailedCreate", "Error creating: an old reason", time.Now().Add(-time.Minute)),
		event("c", "Suspended", "Job suspended", time.Now())).
		WithIndex(&corev1.Event{}, "reason", field(func(e *corev1.Event) string { return e.Reason })).
		WithIndex(&corev1.Event{}, "involvedObject.name", field(func(e *corev1.Event) string { return e.InvolvedObject.Name })).
		WithIndex(&corev1.Event{}, "involvedObject.uid", field(func(e *corev1.Event) string { return string(e.InvolvedObject.UID) })).Build()
	p := &Platform{client: live, live: live, conf: Config{Namespace: "shop"}}
	there := map[string]client.Object{"Job/" + job.Name: job}
	a := &app{silent: silentJobs(nil, nil, there, nil)}
	p.apps = map[spillway.Ref]*app{"castle": a}
	asked := p.questions(time.Now())
	if len(asked) != 1 || !p.stillSilent(t.Context(), asked[0]) {
		t.Fatalf("questions are %+v", asked)
	}
	answer, err := p.lastAnswer(t.Context(), asked[0].uid, asked[0].silent)
	const want = `pods "x" is forbidden: exceeded quota: tight, requested: pods=1, used: pods=1, limited: pods=1; raise the quota of the namespace (kubectl get resourcequota) or lower the service's limits`
	if err != nil || answer != want {
		t.Errorf("%q, %v; want %q", answer, err, want)
	}
	s := a.silent[types.UID("job")]
	s.answer = answer
	a.silent["job"] = s
	if tasks := observeTasks(there, nil, a.silent); tasks[0].Problem != want {
		t.Errorf("told is %+v", tasks)
	}
	a.silent = silentJobs(a.silent, nil, there, []corev1.Pod{jobPod(t, "pending", job)})
	if asked := p.questions(time.Now()); len(asked) != 0 {
		t.Errorf("it has a pod, and is asked about: %+v", asked)
	}
	a.silent = silentJobs(a.silent, nil, there, nil)
	if again := p.questions(time.Now()); len(again) != 0 {
		t.Errorf("its pod is gone, which says nothing of how it began, and it is asked about: %+v", again)
	}
	running := job.DeepCopy()
	if running.Status.Active = 1; live.Status().Update(t.Context(), running) != nil || p.stillSilent(t.Context(), asked[0]) {
		t.Error("a Job that nobody observes has its pod, and is asked about")
	}
	a.silent = silentJobs(nil, nil, there, nil)
	if err := live.Delete(t.Context(), running); err != nil {
		t.Fatal(err)
	}
	if p.stillSilent(t.Context(), asked[0]) || len(a.silent) > 0 {
		t.Error("a Job that is gone is asked about")
	}
}

// What a release command wrote goes with its pod, so one that has ended is left for a while; one that runs is ended.
func TestRemove_LeavesTheLogOfACommandThatHasEnded(t *testing.T) {
	for name, c := range map[string]struct {
		end  []batchv1.JobCondition
		left bool
	}{
		"failed":    {[]batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}, true},
		"succeeded": {[]batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}, true},
		"runs":      {nil, false},
	} {
		job := releaseJob()
		job.Status.Conditions = c.end
		live := fake.NewClientBuilder().WithObjects(job).Build()
		p, stays := &Platform{client: live, conf: Config{Namespace: "shop"}}, &batchv1.Job{}
		if err := live.Get(t.Context(), client.ObjectKeyFromObject(job), stays); err != nil {
			t.Fatal(err)
		}
		if err := p.remove(t.Context(), &app{}, stays); err != nil {
			t.Fatal(err)
		}
		after := &batchv1.Job{}
		err := live.Get(t.Context(), client.ObjectKeyFromObject(job), after)
		if left := err == nil; left != c.left || left && (!leftToRead(after) || after.Spec.TTLSecondsAfterFinished == nil) {
			t.Errorf("%s: it is %+v, %v", name, after, err)
		}
		if !c.left {
			continue
		}
		there := map[string]client.Object{"Job/" + job.Name: after}
		if tasks := observeTasks(there, nil, nil); len(tasks) != 0 {
			t.Errorf("%s: it is not forgotten: %+v", name, tasks)
		}
		if pod := jobPod(t, "unready", job); releaseIn(&pod, there) != 2 {
			t.Errorf("%s: its log is of release %d, want 2", name, releaseIn(&pod, there))
		}
	}
}

// An app of the same name begins its numbers at 1 again: the Job that another one left is not the new command's.
func TestPlace_AJobOfAnAppBeforeGoesFirst(t *testing.T) {
	owned := func(job *batchv1.Job, uid types.UID) *batchv1.Job {
		job.OwnerReferences = []metav1.OwnerReference{{UID: uid}}
		return job
	}
	left := releaseJob()
	left.Annotations = map[string]string{pastAnnotation: left.Annotations[taskAnnotation]}
	left.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	now := metav1.Now()
	going := owned(releaseJob(), "new")
	going.DeletionTimestamp, going.Finalizers = &now, []string{"held"}
	for name, c := range map[string]struct {
		there         *batchv1.Job
		clears, stays bool
	}{
		"left without an owner":      {left, true, false},
		"of an App before":           {owned(releaseJob(), "old"), true, false},
		"on its way out":             {going, true, true},
		"this App's own":             {owned(releaseJob(), "new"), false, true},
		"left alone by an uninstall": {releaseJob(), false, true},
	} {
		job := owned(releaseJob(), "new")
		job.TypeMeta = metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}
		c.there.TypeMeta = job.TypeMeta
		live := fake.NewClientBuilder().WithObjects(c.there).Build()
		p, was := &Platform{client: live, conf: Config{Namespace: "shop"}}, &batchv1.Job{}
		if err := live.Get(t.Context(), client.ObjectKeyFromObject(job), was); err != nil {
			t.Fatal(err)
		}
		was.TypeMeta = job.TypeMeta
		err := p.clear(t.Context(), &app{}, job, map[string]client.Object{key(job): was})
		stays := live.Get(t.Context(), client.ObjectKeyFromObject(job), &batchv1.Job{}) == nil
		if errors.Is(err, spillway.ErrStale) != c.clears || !c.clears && err != nil || stays != c.stays {
			t.Errorf("%s: %v, it stays: %v", name, err, stays)
		}
	}
}
