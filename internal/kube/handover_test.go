package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
)

func TestMayLead_UntilTheGatewayServesWhatWasAskedForLast(t *testing.T) {
	servers := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-legacy-servers"}}
	private := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-1-backend", Annotations: map[string]string{edgeAnnotation: "{}"}}}
	a := &app{known: true, served: spillway.Route{Generation: 6}}
	if !a.mayLead(servers, 7) || a.acts != 1 {
		t.Errorf("the servers go while the gateway leads there (acts %d)", a.acts)
	}
	if a.mayLead(private, 7) {
		t.Error("a private edge waits for the gateway: nothing would ever be acknowledged")
	}
	a.served.Generation = 7
	if a.mayLead(servers, 7) {
		t.Error("the servers stay for ever")
	}
}

func TestTrust_IsForGroupsThatHadUsersAtTheFirstLook(t *testing.T) {
	one, two := spillway.Group{Service: "www", Release: 1}, spillway.Group{Service: "www", Release: 2}
	parts := []part{{edge: spillway.Edge{Service: "www", Backends: []spillway.Backend{{Group: one, Weight: spillway.Whole}, {Group: two}}}}}
	a := &app{reached: map[spillway.Group]bool{}}
	a.trust(parts)
	if !a.reached[one] || a.reached[two] {
		t.Errorf("reached: %v", a.reached)
	}
	a = &app{reached: map[spillway.Group]bool{}, asked: spillway.Route{Generation: 1}}
	if a.trust(parts); len(a.reached) != 0 {
		t.Errorf("later looks trust too: %v", a.reached)
	}
}
