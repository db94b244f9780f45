package kube

import (
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/spillway-dev/spillway"
)

func TestPullSecret_IsMissed(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	named := metav1.ObjectMeta{Namespace: "shop", Name: "pull"}
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	s := Server{Namespace: "shop", Image: "i:1", Flags: []string{"--registry=registry.test:5000/shop", "--registry-secret=pull"}}
	const makes = "kubectl create secret docker-registry pull -n shop --docker-server registry.test:5000"
	for _, c := range []struct {
		secret *corev1.Secret
		says   []string
	}{
		{nil, []string{"there is no Secret pull in namespace shop", makes}},
		{&corev1.Secret{ObjectMeta: named, Type: corev1.SecretTypeOpaque}, []string{"its type is Opaque", "kubectl delete secret pull -n shop", makes}},
		{&corev1.Secret{ObjectMeta: named, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("{}")}}, nil},
	} {
		b := fake.NewClientBuilder().WithScheme(scheme).WithObjects(shop)
		if c.secret != nil {
			b.WithObjects(c.secret)
		}
		live := b.Build()
		err := (&Installer{client: live, tell: t.Logf}).CheckPlace(t.Context(), s)
		check := (&Platform{live: live, conf: Config{Namespace: "shop", PullSecret: "pull", Registry: "registry.test:5000/shop"}}).checkPullSecret(t.Context())
		if len(c.says) == 0 {
			if err != nil || check.State != "ok" {
				t.Errorf("%v: %v; %+v", c.secret, err, check)
			}
			continue
		}
		if !errors.Is(err, spillway.ErrInvalid) || check.State != "fail" {
			t.Errorf("%v: %v; %+v", c.secret, err, check)
			continue
		}
		for _, text := range c.says {
			if !strings.Contains(err.Error(), text) || !strings.Contains(check.Text+check.Remedy, text) {
				t.Errorf("%q is not in %v, or not in %+v", text, err, check)
			}
		}
	}
}

func TestRights_HaveTheOneSecretAlone(t *testing.T) {
	for flag, want := range map[string]int{"--registry=r": 0, "--registry-secret=pull": 1} {
		s, got := Server{Namespace: "shop", Image: "i:1", Flags: []string{flag}, Gateway: Gateway{Namespace: "edge", Name: "public"}}, 0
		for _, o := range s.objects() {
			role, ok := o.(*rbacv1.Role)
			if !ok {
				continue
			}
			for _, rule := range role.Rules {
				if rule.Resources[0] == "secrets" {
					if got++; role.Namespace != "shop" || len(rule.ResourceNames) != 1 || rule.ResourceNames[0] != "pull" || len(rule.Verbs) != 1 {
						t.Errorf("it may %+v in %s", rule, role.Namespace)
					}
				}
			}
		}
		if got != want {
			t.Errorf("%s: %d rules about Secrets", flag, got)
		}
	}
}

func TestPullHelp_NamesTheSecret(t *testing.T) {
	pod := stored[corev1.Pod](t, "image")
	state := pod.Status.ContainerStatuses[0].State.Waiting
	state.Message = "failed to authorize: 401 Unauthorized"
	if problem, _ := podProblem(&pod); !strings.Contains(problem, "--registry-secret") {
		t.Errorf("without a Secret: %s", problem)
	}
	pod.Spec.ImagePullSecrets = pullSecrets("pull")
	if problem, _ := podProblem(&pod); !strings.Contains(problem, "kubectl get secret pull -n ") {
		t.Errorf("with one: %s", problem)
	}
}

// A Secret that the server is given later is for what is made from then on: what runs keeps its own, until it is restarted or
// a node is denied its image. A Job cannot be changed.
func TestPullSecret_RestartsNothing(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		restart int64
		said    string // to a node about the image
		want    string
	}{
		"it runs":                          {},
		"it is restarted":                  {restart: 7, want: "pull"},
		"a node is denied its image":       {said: "failed to authorize: 401 Unauthorized", want: "pull"},
		"a node cannot reach the registry": {said: "dial tcp: i/o timeout"},
	} {
		r := canary()
		r.pullSecret = "pull"
		for i := range r.desired.Groups {
			r.desired.Groups[i].Restart = c.restart
		}
		before := canary()
		objects, err := before.objects()
		if err != nil {
			t.Fatal(err)
		}
		group := spillway.Group{Service: "www", Release: 1}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x", Labels: labels("castle", group)}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: c.said}}}}
		b := fake.NewClientBuilder().WithScheme(scheme).WithObjects(pod)
		p := &Platform{conf: Config{Namespace: "shop", PullSecret: "pull"}}
		p.client = b.WithIndex(&corev1.Pod{}, appIndex, func(o client.Object) []string { return []string{o.GetLabels()[AppLabel]} }).Build()
		all := there(objects...)
		delete(all, "Deployment/castle-www-2") // which is made now
		if r.otherPulls, err = p.otherPulls(t.Context(), "castle", all); err != nil {
			t.Fatal(err)
		}
		after, err := r.objects()
		if err != nil {
			t.Fatal(err)
		}
		got := there(after...)
		by := func(spec corev1.PodSpec) string {
			if len(spec.ImagePullSecrets) == 0 {
				return ""
			}
			return spec.ImagePullSecrets[0].Name
		}
		for deployment, want := range map[string]string{"castle-www-1": c.want, "castle-www-2": "pull"} {
			if by := by(got["Deployment/"+deployment].(*appsv1.Deployment).Spec.Template.Spec); by != want {
				t.Errorf("when %s: nodes pull %s by %q, want %q", name, deployment, by, want)
			}
		}
		if by := by(got["Job/castle-backend-2-task-2"].(*batchv1.Job).Spec.Template.Spec); by != "" {
			t.Errorf("when %s: the Job would be refused, with Secret %s", name, by)
		}
	}
}
