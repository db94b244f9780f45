//go:build !kube

package state_test

import (
	"context"
	"testing"

	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// seeds is how many random stories are told.
const seeds = 6

// cluster gives a namespace of its own. Without a cluster it is in memory: with the build tag kube the same tests run
// on a real API server.
func cluster(t *testing.T) (client.Client, string) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return trials{fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.App{}).Build()}, "castles"
}

// trials leaves out what is only tried: the client in memory would do it.
type trials struct{ client.Client }

func (c trials) Apply(ctx context.Context, what runtime.ApplyConfiguration, options ...client.ApplyOption) error {
	all := client.ApplyOptions{}
	if len(all.ApplyOptions(options).DryRun) > 0 {
		return nil
	}
	return c.Client.Apply(ctx, what, options...)
}
