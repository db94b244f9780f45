package kube

import (
	"context"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// theApp is an App that a server holds, and what it owns: a Deployment, which somebody else owns too.
func theApp(name string) (*v1alpha1.App, *appsv1.Deployment) {
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Finalizers: []string{v1alpha1.Finalizer}}, Spec: apiextensions.JSON{Raw: []byte(`{}`)}}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name + "-www-1", Labels: map[string]string{ManagedBy: Manager, AppLabel: name},
		OwnerReferences: []metav1.OwnerReference{*ownedBy(app), {APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "other"}},
	}}
	return app, d
}

func TestUninstall_LeavesWhatServesToNobody(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	app, deployment := theApp("castle")
	service := &corev1.Service{ObjectMeta: *deployment.ObjectMeta.DeepCopy()}
	going, goes := theApp("old")
	c := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.App{}).WithObjects(app, deployment, service, going, goes).Build()
	if err := c.Delete(t.Context(), going); err != nil { // it waits for its finalizer
		t.Fatal(err)
	}
	i := &Installer{client: c, tell: t.Logf}
	if err := i.Uninstall(t.Context(), "shop", definedWithin); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(app), app); err != nil || len(app.Finalizers) > 0 {
		t.Errorf("the App has finalizers %q (%v): it and its namespace cannot be deleted", app.Finalizers, err)
	}
	for _, o := range []client.Object{deployment, service} {
		if got := ownersOf(t, c, o); !slices.Equal(got, []string{"other"}) {
			t.Errorf("%T is owned by %q: it ends with its App", o, got)
		}
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(going), going); !apierrors.IsNotFound(err) {
		t.Errorf("the App that was deleted is still there: %v", err)
	}
	if got := ownersOf(t, c, goes); !slices.Contains(got, "old") {
		t.Errorf("what the App that was deleted had is owned by %q, so it stays", got)
	}
}

func ownersOf(t *testing.T, c client.Client, o client.Object) (names []string) {
	t.Helper()
	if err := c.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	for _, owner := range o.GetOwnerReferences() {
		names = append(names, owner.Name)
	}
	return names
}

// An uninstall that was broken off when the Deployment was gone leaves no rights behind when it is done again.
func TestUninstall_FindsTheRightsThatAreLeft(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	b := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.App{})
	var elsewhere []client.Object
	for _, namespace := range []string{"shop", "other"} {
		s := Server{Namespace: namespace, Image: "i:1", Gateway: Gateway{Namespace: "edge", Name: "public"}}
		objects := s.objects()
		b.WithObjects(objects[:len(objects)-1]...) // the Deployment is the last
		elsewhere = append(elsewhere, s.gatewayRights()...)
	}
	c := b.Build()
	if err := (&Installer{client: c, tell: t.Logf}).Uninstall(t.Context(), "shop", definedWithin); err != nil {
		t.Fatal(err)
	}
	if len(elsewhere) != 4 {
		t.Fatalf("%d rights", len(elsewhere))
	}
	for n, o := range elsewhere {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); apierrors.IsNotFound(err) != (n < 2) {
			t.Errorf("%s: %v", called(o), err)
		}
	}
}
