package kube

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/spillway-dev/spillway"
)

// An edit by hand is told once when it is set back: not when the cache still has it, nor when we change what we want.
func TestEnsure_TellsOfAnEditByHandOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := 10
		applies := func(_ context.Context, _ client.WithWatch, what runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
			version++
			u, ok := what.(interface{ SetResourceVersion(string) })
			if !ok {
				t.Fatalf("%T is applied", what)
			}
			u.SetResourceVersion(strconv.Itoa(version))
			return nil
		}
		var told []string
		p := &Platform{client: interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{Apply: applies})}
		p.conf.Events = func(e spillway.Event) { told = append(told, e.Text) }
		a := &app{ref: "castle", applied: map[string]applied{}}
		service := func(to string) *corev1.Service {
			return &corev1.Service{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "castle-www-1"},
				Spec: corev1.ServiceSpec{Selector: map[string]string{"a": to}},
			}
		}
		// there is the Service as it was applied, edited to lead elsewhere.
		there := func(wanted, is string) *corev1.Service {
			_, print, err := bare(service(wanted))
			if err != nil {
				t.Fatal(err)
			}
			s := service(is)
			s.ResourceVersion, s.Annotations = strconv.Itoa(version), map[string]string{printAnnotation: print}
			return s
		}
		ensure := func(wanted string, is *corev1.Service, tells int, what string) {
			t.Helper()
			told = nil
			if err := p.ensure(t.Context(), a, service(wanted), is); err != nil || len(told) != tells {
				t.Errorf("%s: told %q, %v", what, told, err)
			}
		}
		const once = 1
		ensure("1", there("1", "1"), 0, "it is as it should be")
		ensure("2", there("1", "1"), 0, "something else is wanted")
		edited := there("2", "9")
		ensure("2", edited, once, "somebody edits it")
		ensure("2", edited, 0, "the cache has it still")
		<-time.After(lag + time.Second)
		ensure("2", edited, 0, "the cache has it for long")
		ensure("2", there("2", "8"), 0, "two write against each other")
		<-time.After(editsAgain)
		ensure("2", there("2", "8"), once, "it is edited again")
	})
}

func TestResize_TellsOfANumberThatWasEditedByHand(t *testing.T) {
	version := 10
	applies := func(_ context.Context, _ client.WithWatch, what runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
		version++
		what.(interface{ SetResourceVersion(string) }).SetResourceVersion(strconv.Itoa(version))
		return nil
	}
	var told []string
	p := &Platform{client: interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{Apply: applies})}
	p.conf.Events = func(e spillway.Event) { told = append(told, e.Text) }
	const scaled = 0 // wanted: what its autoscaler chooses
	for _, c := range []struct {
		rows []struct{ is, want int32 }
		told []int
	}{
		{[]struct{ is, want int32 }{{1, 3}, {3, 3}, {3, 5}, {9, 5}, {5, 5}}, []int{0, 0, 0, 1, 1}},
		{[]struct{ is, want int32 }{{1, 3}, {3, scaled}, {7, 3}, {3, 3}}, []int{0, 0, 0, 0}},
	} {
		a := &app{ref: "castle", applied: map[string]applied{}}
		var events []int
		told = nil
		for _, row := range c.rows {
			d := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "castle-www-1", UID: "seen", ResourceVersion: strconv.Itoa(version)}, Spec: appsv1.DeploymentSpec{Replicas: new(row.is)}}
			want := new(row.want)
			if row.want == scaled {
				want = nil
			}
			if err := p.resize(t.Context(), a, d, d, want); err != nil {
				t.Fatal(err)
			}
			events = append(events, len(told))
		}
		if !slices.Equal(events, c.told) {
			t.Errorf("told %v, want %v: %q", events, c.told, told)
		}
	}
}

func TestLacking_NamesTheField(t *testing.T) {
	there := map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"port": int64(80)}, map[string]any{"port": int64(9)}}, "x": "y"}}
	want := map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"port": int64(80)}, map[string]any{"port": int64(81)}}}}
	if got := lacking(there, want); got != "spec.ports.1.port" {
		t.Errorf("it is %q", got)
	}
	want["spec"].(map[string]any)["ports"] = []any{}
	if got := lacking(there, want); got != "spec.ports" {
		t.Errorf("one too many: %q", got)
	}
}
