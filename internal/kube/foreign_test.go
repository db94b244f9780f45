package kube

import (
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/spillway-dev/spillway"
)

// TestFree_NamesWhatIsSomebodyElses says of each kind how to get on: an API server lets nobody change the selector of a
// Deployment, so one of other pods cannot be taken over.
func TestFree_NamesWhatIsSomebodyElses(t *testing.T) {
	g := spillway.Group{Service: "www", Release: 2}
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "castle-www-2"}
	deployment := func(pods map[string]string) *appsv1.Deployment {
		return &appsv1.Deployment{
			TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta,
			Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: pods}},
		}
	}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta}
	ours := deployment(selector("castle", g))
	for name, c := range map[string]struct {
		there, wanted client.Object
		says          string
	}{
		"a Service":                  {service, service, "or let it be taken over: kubectl label --overwrite Service castle-www-2 -n shop app.kubernetes.io/managed-by=spillway spillway.dev/app=castle"},
		"a Deployment of our pods":   {ours, ours, "or let it be taken over: kubectl label --overwrite Deployment castle-www-2 -n shop app.kubernetes.io/managed-by=spillway spillway.dev/app=castle"},
		"a Deployment of other pods": {deployment(map[string]string{"app": "x"}), ours, "or delete it if nobody needs it, since a Deployment of other pods cannot be taken over: kubectl delete Deployment castle-www-2 -n shop"},
	} {
		p := &Platform{live: fake.NewClientBuilder().WithObjects(c.there).Build()}
		err := p.free(t.Context(), "castle", c.wanted)
		want := "there is a " + key(c.wanted) + " in namespace shop that does not belong to app castle and is left alone; rename it or the service, " + c.says
		if !errors.Is(err, spillway.ErrConflict) || !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, want)
		}
	}
}
