package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"github.com/spillway-dev/spillway"
)

// stored reads an object as a cluster had it.
func stored[T any](t *testing.T, name string) (o T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "diagnosis", name+".yaml"))
	if err == nil {
		err = yaml.UnmarshalStrict(text, &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestObserveGroups_NamesWhatIsWrongAndTheNextStep(t *testing.T) {
	for _, c := range []struct {
		pod, want   string
		fatal, told bool
	}{
		{"image", "its image is not there: registry.test/shop@sha256:95dcdcf4efc0d19d9aef6c4bbff2f96f54db9068bb5fbc3e461836b579937804: the registry does not have it (any more); deploy again", true, true},
		{"pending", "no node takes it: 0/1 nodes are available: 1 Insufficient cpu; no node has 64 CPU left: add nodes, or lower limits.cpu of www", false, true},
		{"memory", "it used more memory than its limit and was killed; raise limits.memory; it is started again with growing pauses", false, false},
		{"unready", unanswered + "; see why: kubectl describe pod sick-www-1-75bf5ff5-6bgbj", false, false},
	} {
		g := observeGroups(nil, []corev1.Pod{stored[corev1.Pod](t, c.pod)})
		if len(g) != 1 || g[0].Problem != c.want || g[0].Fatal != c.fatal || g[0].Told != c.told {
			t.Errorf("%s: %+v; want %q", c.pod, g, c.want)
		}
	}
	d := stored[appsv1.Deployment](t, "quota")
	g := observeGroups(map[string]client.Object{"Deployment/" + d.Name: &d}, nil)
	if len(g) != 1 || !strings.Contains(g[0].Problem, "exceeded quota: tight") || !strings.Contains(g[0].Problem, "; raise the quota of the namespace") || g[0].Fatal || !g[0].Told {
		t.Errorf("quota: %+v", g)
	}
}

func TestMadeWords_SayWhatWouldHelp(t *testing.T) {
	for message, want := range map[string]string{
		`pods "a" is forbidden: exceeded quota: tight, requested: pods=1`:          "; raise the quota of the namespace (kubectl get resourcequota) or lower the service's limits",
		`pods "a" is forbidden: failed quota: q: must specify limits.cpu for: www`: "; the namespace has a quota for what each pod has to say: give the service limits (cpu, memory)",
		`pods "a" is forbidden: violates PodSecurity "restricted:latest"`:          "; the namespace's pod security level refuses it",
		`admission webhook "a" denied the request`:                                 "",
	} {
		if got := madeWords(message); got != message+want {
			t.Errorf("%q; want %q", got, message+want)
		}
	}
}

func TestImageProblem_IsThatOfThePodsWithTheImageAlone(t *testing.T) {
	bad, slow := stored[corev1.Pod](t, "image"), stored[corev1.Pod](t, "unready")
	for _, pod := range []*corev1.Pod{&bad, &slow} {
		pod.Namespace, pod.Labels = "shop", serverSelector("shop")
	}
	slow.Spec.Containers[0].Image = "registry.test/slow:1"
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	i := &Installer{client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(&bad, &slow).Build(), tell: t.Logf}
	for image, want := range map[string]string{bad.Spec.Containers[0].Image: "the registry does not have it (any more)", slow.Spec.Containers[0].Image: "", "registry.test/other": ""} {
		got := i.ImageProblem(t.Context(), Server{Namespace: "shop", Image: image})
		if !strings.Contains(got, want) || (got == "") != (want == "") || strings.Contains(got, "deploy again") {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestProbeAnswer_TellsTheLastOne(t *testing.T) {
	for events, want := range map[string]string{
		"events-sick":    "its startup probe fails: HTTP probe failed with statuscode: 500",
		"events-oom":     `its startup probe fails: Get "http://10.0.0.7:8080/healthz": dial tcp 10.0.0.7:8080: connect: connection refused; does the program listen at that port, and not only at 127.0.0.1?`,
		"events-several": `its readiness probe fails: Get "http://10.0.0.7:8080/healthz": read tcp 10.0.0.7:48916->10.0.0.7:8080: read: connection reset by peer`,
	} {
		if got := probeAnswer(stored[corev1.EventList](t, events).Items); got != want {
			t.Errorf("%s: %q; want %q", events, got, want)
		}
	}
	if got := probeAnswer(nil); got != "" {
		t.Errorf("no events: %q", got)
	}
}

func TestExplained_AProgramThatEndsAtItsStartIsNotAskedWhetherItListens(t *testing.T) {
	const ended, refused = "ended with exit code 3", startupFails + "connection refused; does the program listen at that port, and not only at 127.0.0.1?"
	began := metav1.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		lived  time.Duration // with 30 failures of a probe, one a second
		answer string
		want   string
	}{
		{0, refused, ended},
		{27 * time.Second, refused, ended},
		{28 * time.Second, refused, ended + "; before that " + refused}, // the kubelet may have ended it
		{0, "its liveness probe fails: connection refused", ended + "; before that its liveness probe fails: connection refused"},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "www", StartupProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30}}}}}
		last := &corev1.ContainerStateTerminated{ExitCode: 3, StartedAt: began, FinishedAt: metav1.NewTime(began.Add(c.lived))}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "www", RestartCount: 1, LastTerminationState: corev1.ContainerState{Terminated: last}}}
		if _, err := slim(pod); err != nil { // as it is kept
			t.Fatal(err)
		}
		problem, _ := podProblem(pod)
		if got := (silent{answer: c.answer}).explained(pod, problem); got != c.want {
			t.Errorf("after %s: %q; want %q", c.lived, got, c.want)
		}
	}
}

func TestExplain_TellsTheAnswerOfAPodThatIsNotReady(t *testing.T) {
	const answer = "its startup probe fails: HTTP probe failed with statuscode: 500"
	for name, want := range map[string]string{
		"unready": answer,
		"memory":  "it used more memory than its limit and was killed; raise limits.memory; it is started again with growing pauses",
	} {
		pods := []corev1.Pod{stored[corev1.Pod](t, name)}
		a := &app{silent: silentPods(nil, pods)}
		if len(a.silent) != 1 {
			t.Fatalf("%s is not asked about", name)
		}
		a.silent[pods[0].UID] = silent{name: pods[0].Name, answer: answer}
		a.silent = silentPods(a.silent, pods)
		groups := observeGroups(nil, pods)
		a.explain(groups, pods)
		if groups[0].Problem != want {
			t.Errorf("%s: %q; want %q", name, groups[0].Problem, want)
		}
	}
	for _, name := range []string{"pending", "image"} {
		if asked := silentPods(nil, []corev1.Pod{stored[corev1.Pod](t, name)}); len(asked) > 0 {
			t.Errorf("%s is asked about, and has not run", name)
		}
	}
}

// A server that does not lead asks about no pod that is gone, whoever observes its app.
func TestStillSilent_ForgetsWhatIsGone(t *testing.T) {
	pod := stored[corev1.Pod](t, "unready")
	other := pod
	other.UID = "another of its name"
	for name, c := range map[string]struct {
		there []client.Object
		asks  bool
	}{
		"it is as it was":    {[]client.Object{&pod}, true},
		"it is gone":         {nil, false},
		"another is in turn": {[]client.Object{&other}, false},
	} {
		p := &Platform{client: fake.NewClientBuilder().WithObjects(c.there...).Build(), conf: Config{Namespace: pod.Namespace}}
		a := &app{silent: silentPods(nil, []corev1.Pod{pod})}
		if asks := p.stillSilent(t.Context(), question{a, pod.UID, a.silent[pod.UID]}); asks != c.asks || (len(a.silent) == 1) != c.asks {
			t.Errorf("%s: asked about %v, remembered %d", name, asks, len(a.silent))
		}
	}
}

func TestQuestions_AreFewAndAboutThoseThatWaited(t *testing.T) {
	now := time.Now()
	a := &app{ref: "castle", silent: map[types.UID]silent{}}
	for i := range 5000 {
		a.silent[types.UID(strings.Repeat("x", i+1))] = silent{since: now.Add(-time.Duration(i+1) * time.Second), asked: now.Add(-time.Minute)}
	}
	a.silent["never"] = silent{since: now.Add(-time.Minute)}
	a.silent["just"] = silent{since: now.Add(-time.Minute), asked: now.Add(-time.Second)}
	a.silent["young"] = silent{since: now.Add(-time.Second)}
	p := &Platform{apps: map[spillway.Ref]*app{"castle": a}}
	all := p.questions(now)
	if len(all) != closerMost || all[0].uid != "never" {
		t.Fatalf("%d questions, the first about %s", len(all), all[0].uid)
	}
	for _, q := range all {
		if q.uid == "just" || q.uid == "young" {
			t.Errorf("%s is asked about", q.uid)
		}
	}
}

func TestStuck_SaysWhatIsRefusedAndWhatIsSlow(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name string
		a    *app
		want string
	}{
		{"all is well", &app{}, ""},
		{"on its way", &app{asking: true, problem: "not yet", begun: now.Add(-time.Second)}, ""},
		{"slow", &app{asking: true, problem: "gateway gw does not take HTTPRoute castle-www", begun: now.Add(-5 * time.Second)}, "gateway gw does not take HTTPRoute castle-www"},
		{"served", &app{problem: "not yet", begun: now.Add(-5 * time.Second)}, ""},
		{"refused", &app{failed: spillway.ErrConflict, failedAt: now, begun: now}, spillway.ErrConflict.Error()},
		{"refused when this server led", &app{failed: spillway.ErrConflict, failedAt: now.Add(-stale), begun: now}, ""},
	} {
		if got := c.a.stuck(now); got != c.want {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
}

// A release command has limits in the file too, and the server of an installation has none.
func TestPending_NamesWhoseLimitsMayBeLower(t *testing.T) {
	const says = "0/1 nodes are available: 1 Insufficient memory"
	for label, want := range map[string]string{ServiceLabel: "add nodes, or lower limits.memory of www", "spillway.dev/task": "add nodes, or lower limits.memory of www", serverLabel: "add nodes"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{label: "www"}}}
		if got := pending(pod, says); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want %q at its end", label, got, want)
		}
	}
}
