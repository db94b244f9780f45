package kube

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// writes is a cluster that takes every write but deletions of some kinds, and remembers them in order: "Service/www",
// "delete Service/www".
type writes struct {
	list  []string
	sizes []string // the Deployments whose number was written
	spare []string // kinds that a policy keeps from being deleted
	deny  string   // what it keeps from being written
}

func (w *writes) platform(t *testing.T) *Platform {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	funcs := interceptor.Funcs{
		Apply: func(_ context.Context, _ client.WithWatch, what runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(what)
			if err != nil {
				return err
			}
			u := &unstructured.Unstructured{Object: fields}
			if u.GetKind()+"/"+u.GetName() == w.deny {
				return apierrors.NewForbidden(schema.GroupResource{Resource: u.GetKind()}, u.GetName(), errors.New("a policy says no"))
			}
			w.list = append(w.list, u.GetKind()+"/"+u.GetName())
			if _, has, _ := unstructured.NestedFieldNoCopy(fields, "spec", "replicas"); has {
				w.sizes = append(w.sizes, u.GetName())
			}
			return nil
		},
		Delete: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.DeleteOption) error {
			kind := o.GetObjectKind().GroupVersionKind().Kind
			if slices.Contains(w.spare, kind) {
				return apierrors.NewForbidden(schema.GroupResource{Resource: kind}, o.GetName(), errors.New("a policy keeps it"))
			}
			w.list = append(w.list, "delete "+kind+"/"+o.GetName())
			return nil
		},
	}
	c := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), funcs)
	return &Platform{client: c, live: c, conf: Config{Gateway: Gateway{Namespace: "edge", Name: "gw"}}}
}

func there(objects ...client.Object) map[string]client.Object {
	all := map[string]client.Object{}
	for _, o := range objects {
		all[key(o)] = o
	}
	return all
}

func routeOf(name string, hosts ...gatewayv1.Hostname) *gatewayv1.HTTPRoute {
	return &gatewayv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: "gateway.networking.k8s.io/v1", Kind: "HTTPRoute"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Annotations: map[string]string{edgeAnnotation: "{}"}},
		Spec:       gatewayv1.HTTPRouteSpec{Hostnames: hosts},
	}
}

// An autoscaler that may not be deleted holds up no route, and goes on to be the one who writes the number.
func TestPlaceAll_AnAutoscalerThatStaysHoldsUpNoRoute(t *testing.T) {
	w := &writes{spare: []string{"HorizontalPodAutoscaler"}}
	deployment := func() *appsv1.Deployment {
		return &appsv1.Deployment{
			TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: "castle-www-2", Namespace: "shop", UID: "1"},
			Spec: appsv1.DeploymentSpec{Replicas: new(int32(1))},
		}
	}
	wanted := deployment()
	wanted.Spec.Replicas = new(int32(3))
	stays := &autoscalingv2.HorizontalPodAutoscaler{TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}, ObjectMeta: metav1.ObjectMeta{Name: "castle-www-2", Namespace: "shop"}}
	_, refused, held := w.platform(t).placeAll(t.Context(), &app{applied: map[string]applied{}}, &rendering{ref: "castle"}, []client.Object{wanted, routeOf("castle-www")}, there(stays, deployment()))
	if held || !slices.Contains(w.list, "HTTPRoute/castle-www") || refused[key(stays)] == nil {
		t.Errorf("written %v, refused %v, held %v", w.list, refused, held)
	}
	if len(w.sizes) > 0 {
		t.Errorf("the number of %v was written beside its autoscaler", w.sizes)
	}
}

// A host goes from one route to another: it is the other's before the first gives it up.
func TestPlaceAll_NoHostIsNobodysMeanwhile(t *testing.T) {
	w := &writes{}
	_, refused, _ := w.platform(t).placeAll(t.Context(), &app{applied: map[string]applied{}}, &rendering{ref: "castle"},
		[]client.Object{routeOf("castle-www", "a.test"), routeOf("castle-www-at-b", "b.test")}, there(routeOf("castle-www", "a.test", "b.test")))
	if want := []string{"HTTPRoute/castle-www-at-b", "HTTPRoute/castle-www"}; !slices.Equal(w.list, want) || len(refused) > 0 {
		t.Errorf("written %v, refused %v", w.list, refused)
	}
	w = &writes{deny: "HTTPRoute/castle-www-at-b"}
	_, refused, held := w.platform(t).placeAll(t.Context(), &app{applied: map[string]applied{}}, &rendering{ref: "castle"},
		[]client.Object{routeOf("castle-www", "a.test"), routeOf("castle-www-at-b", "b.test")}, there(routeOf("castle-www", "a.test", "b.test")))
	if len(w.list) > 0 || len(refused) != 1 || !held {
		t.Errorf("written %v, refused %v, held %v: the host is nobody's", w.list, refused, held)
	}
}

// What may not be deleted keeps nothing else: an old private Service would keep a route from being whole.
func TestRemoveAll_WhatStaysKeepsNothingElse(t *testing.T) {
	w := &writes{spare: []string{"PodDisruptionBudget"}}
	budget := &policyv1.PodDisruptionBudget{TypeMeta: metav1.TypeMeta{Kind: "PodDisruptionBudget"}, ObjectMeta: metav1.ObjectMeta{Name: "castle-www-1"}}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: "castle-www-1-backend"}}
	refused := map[string]error{}
	w.platform(t).removeAll(t.Context(), &app{}, there(budget, service), refused, func(client.Object) bool { return true })
	if len(w.list) != 1 || refused[key(budget)] == nil || len(refused) != 1 {
		t.Errorf("written %v, refused %v", w.list, refused)
	}
}

// A long-lived server remembers nothing of what is gone.
func TestSettled_ForgetsWhatIsGone(t *testing.T) {
	a := &app{applied: map[string]applied{"Service/old": {}, "Service/new": {}, "Service/there": {}}, leads: map[string]leading{"old": {}, "new": {}}}
	a.settled("sum", map[string]bool{"Service/new": true}, map[string]client.Object{"Service/there": nil, "Service/new": &corev1.Service{}})
	if len(a.applied) != 1 || len(a.leads) != 1 || !a.did("sum") {
		t.Errorf("%v, %v", a.applied, a.leads)
	}
}

// What somebody deletes before the cache has seen it made is looked at again.
func TestLookAgain_HasARoundWhenTheCacheMustHaveSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, a := &Platform{}, &app{ref: "castle"}
		due := func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.looks
		}
		p.lookAgain(a)
		p.lookAgain(a)
		<-time.After(lag - time.Millisecond)
		synctest.Wait()
		if !due() {
			t.Error("it is looked at too early")
		}
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		if due() {
			t.Error("nobody looks again")
		}
	})
}

// Who looked before a group was seen that is not reached does not go home.
func TestReachesAll_MissesNoGroup(t *testing.T) {
	a := &app{reaching: true, missed: true}
	if a.reachesAll(false, false) || !a.reaching {
		t.Error("a group that was seen meanwhile is never asked for")
	}
	a.missed = false
	if a.reachesAll(true, false) || !a.reachesAll(false, false) || a.reaching {
		t.Error("it does not end as it should")
	}
	if a = (&app{reaching: true, missed: true}); !a.reachesAll(true, true) {
		t.Error("it outlives its context")
	}
}
