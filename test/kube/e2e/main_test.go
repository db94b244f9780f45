//go:build kube

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// binary is the program under test, and cluster what it is tested on. Both are set once, before any test.
var (
	binary  string
	cluster client.WithWatch
)

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

// buildAndRun builds the program as it is released, without cgo, and prepares the cluster.
func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "spillway-kube-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "spillway")
	if err := e2etest.Build(root(), "./cmd/spillway", binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if cluster, err = connect(); err == nil {
		err = define(ctx, cluster)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "there is no cluster to test on; make kube-up starts one, SPILLWAY_TEST_KUBECONFIG names another: %v\n", err)
		return 1
	}
	code := m.Run()
	if err := allGone(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// define installs the resources App and Release, and waits until the API server serves them.
func define(ctx context.Context, c client.Client) error {
	definitions, err := v1alpha1.Definitions(appfile.Schema())
	if err != nil {
		return err
	}
	for _, d := range definitions {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d)
		if err != nil {
			return err
		}
		delete(fields, "status")
		applied := client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: fields})
		if err := c.Apply(ctx, applied, client.FieldOwner(v1alpha1.Manager), client.ForceOwnership); err != nil {
			return err
		}
		for there := new(apiextensions.CustomResourceDefinition); !established(there); <-time.After(50 * time.Millisecond) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(d), there); err != nil {
				return err
			}
		}
	}
	return nil
}

func established(d *apiextensions.CustomResourceDefinition) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == apiextensions.Established {
			return c.Status == apiextensions.ConditionTrue
		}
	}
	return false
}

// allGone waits until the namespaces of the tests are gone.
func allGone() error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	for ; ; <-time.After(500 * time.Millisecond) {
		var left core.NamespaceList
		err := cluster.List(ctx, &left, client.MatchingLabels{ours: run})
		switch {
		case err == nil && len(left.Items) == 0:
			return nil
		case ctx.Err() != nil:
			return errors.Join(fmt.Errorf("namespaces of the tests do not go: %v", names(left)), err)
		}
	}
}

func names(list core.NamespaceList) (all []string) {
	for _, n := range list.Items {
		all = append(all, n.Name)
	}
	return all
}

// release takes the finalizers off the apps of a namespace: no server is left that would.
func release(ctx context.Context, namespace string) error {
	var apps v1alpha1.AppList
	if err := cluster.List(ctx, &apps, client.InNamespace(namespace)); err != nil {
		return err
	}
	for i := range apps.Items {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
		if err := cluster.Patch(ctx, &apps.Items[i], patch); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return client.IgnoreNotFound(cluster.Delete(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: namespace}}))
}

// root is the directory of the product's module.
func root() string {
	dir, err := filepath.Abs("../../..")
	if err != nil {
		panic(err) // the working directory is gone
	}
	return dir
}
