package kube

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
