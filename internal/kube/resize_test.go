package kube

import (
	"context"
	"errors"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/spillway-dev/spillway"
)

// TestResize_MakesNoDeploymentOfANumber has the Deployment deleted, or replaced, after it was seen. The client answers
// as an API server does: an apply that names a UID changes that object and makes none.
func TestResize_MakesNoDeploymentOfANumber(t *testing.T) {
	for name, uid := range map[string]types.UID{"it is there": "seen", "it is gone": "", "another one is there": "other"} {
		wrote := false
		applies := func(_ context.Context, _ client.WithWatch, what runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
			u := &unstructured.Unstructured{}
			var err error
			if u.Object, err = runtime.DefaultUnstructuredConverter.ToUnstructured(what); err != nil {
				return err
			}
			switch named := u.GetUID(); {
			case named == "" && uid == "":
				return apierrors.NewInvalid(schema.GroupKind{Group: "apps", Kind: "Deployment"}, u.GetName(), nil) // spec.selector: Required value
			case named != "" && named != uid:
				return apierrors.NewConflict(schema.GroupResource{Group: "apps", Resource: "deployments"}, u.GetName(), nil)
			}
			wrote = true
			return nil
		}
		p := &Platform{client: interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{Apply: applies})}
		seen := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "castle-www-1", UID: "seen"}, Spec: appsv1.DeploymentSpec{Replicas: new(int32(1))}}
		if err := p.resize(t.Context(), &app{applied: map[string]applied{}}, seen, seen, new(int32(3))); (err != nil) != (uid != "seen") || err != nil && !errors.Is(err, spillway.ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
		if wrote != (uid == "seen") {
			t.Errorf("%s: written %v", name, wrote)
		}
	}
}
