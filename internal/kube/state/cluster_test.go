//go:build kube

package state_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// seeds is how many random stories are told: each takes some thousand requests.
const seeds = 1

// cluster gives a namespace of its own in the cluster of KUBECONFIG, with the resources installed.
func cluster(t *testing.T) (client.Client, string) {
	t.Helper()
	c := connect(t, access(t))
	install(t, c)
	namespace := &core.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spillway-state-"}}
	if err := c.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s := state.New(state.Config{Client: c, Namespace: namespace.Name})
		if err := errors.Join(s.Free(context.Background()), c.Delete(context.Background(), namespace)); err != nil {
			t.Error(err)
		}
	})
	return c, namespace.Name
}

func access(t *testing.T) *rest.Config {
	t.Helper()
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		t.Fatal("KUBECONFIG is not set: these tests need a cluster; make kube-up starts one")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 500, 1000
	return config
}

func connect(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, core.AddToScheme, rbac.AddToScheme, apiextensions.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func install(t *testing.T, c client.Client) {
	t.Helper()
	definitions, err := v1alpha1.Definitions(appfile.Schema())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range definitions {
		err := c.Create(t.Context(), d.DeepCopy())
		if apierrors.IsAlreadyExists(err) { // perhaps an older one
			old := &apiextensions.CustomResourceDefinition{}
			if err = c.Get(t.Context(), client.ObjectKeyFromObject(d), old); err == nil {
				old.Spec.Versions = d.Spec.Versions
				err = c.Update(t.Context(), old)
			}
		}
		if err != nil && !apierrors.IsConflict(err) { // another test was faster
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; <-time.After(50 * time.Millisecond) {
			var there apiextensions.CustomResourceDefinition
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(d), &there); err != nil {
				t.Fatal(err)
			}
			established := false
			for _, condition := range there.Status.Conditions {
				established = established || condition.Type == apiextensions.Established && condition.Status == apiextensions.ConditionTrue
			}
			if established {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not established: %+v", d.Name, there.Status.Conditions)
			}
		}
	}
}
