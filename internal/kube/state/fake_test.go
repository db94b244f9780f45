//go:build !kube

package state_test

import (
	"testing"

	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// cluster gives a namespace of its own. Without a cluster it is in memory: with the build tag kube the same tests run
// on a real API server.
func cluster(t *testing.T) (client.Client, string) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.App{}).Build(), "castles"
}
