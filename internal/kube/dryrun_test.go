//go:build kube

package kube

import (
	"cmp"
	"context"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestExport_PassesTheDryRunOfTheAPIServer has a cluster read every example: all that it checks before it stores.
func TestExport_PassesTheDryRunOfTheAPIServer(t *testing.T) {
	c, err := clientcmd.BuildConfigFromFlags("", cmp.Or(os.Getenv("SPILLWAY_TEST_KUBECONFIG"), "/tmp/spillway-kube/admin.conf"))
	if err != nil {
		t.Fatalf("no cluster to test with: %v; start one: make kube-up, or name one: SPILLWAY_TEST_KUBECONFIG", err)
	}
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := client.New(c, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "export-"}}
	if err := cluster.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cluster.Delete(context.Background(), ns) // nothing is in it
	})
	for name, e := range examples(t) {
		e.Namespace = ns.Name
		objects, err := e.objects()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, o := range objects {
			u, err := plain(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := cluster.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(Manager), client.DryRunAll); err != nil {
				t.Errorf("%s: %s: %v", name, key(o), err)
			}
		}
	}
}
