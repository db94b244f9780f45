//go:build kube

package e2e

import (
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
)

// foreign makes a Service of somebody else that has the name of a group's. Programs answer there, so that a gateway
// would have no reason not to lead users to it: those of the castle's backend, which know no page but the first, and
// tell no greeting there.
func (c *castle) foreign(name string) *core.Service {
	c.Helper()
	var backend apps.Deployment
	if err := cluster.Get(c.Context(), client.ObjectKey{Namespace: c.in.namespace, Name: "castle-backend-1"}, &backend); err != nil {
		c.Fatal(err)
	}
	service := &core.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.in.namespace},
		Spec:       core.ServiceSpec{Selector: backend.Spec.Selector.MatchLabels, Ports: []core.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("main")}}},
	}
	if err := cluster.Create(c.Context(), service); err != nil {
		c.Fatal(err)
	}
	return service
}

// untouched fails the test when a Service of somebody else was changed or taken away.
func (c *castle) untouched(service *core.Service) {
	c.Helper()
	now := &core.Service{}
	err := cluster.Get(c.Context(), client.ObjectKeyFromObject(service), now)
	if err != nil || now.UID != service.UID || len(now.OwnerReferences) > 0 || now.Labels[kube.ManagedBy] != "" {
		c.Errorf("the Service of somebody else was touched: %v %v", err, now.ObjectMeta)
	}
}

// A Service of somebody else has the name that the candidate's would have. Whatever is asked for, nobody is led to it;
// status tells why nothing goes on, and when it is gone the rollout goes on.
func TestForeignService_LeadsNobodyAstray(t *testing.T) {
	t.Parallel()
	in := install(t)
	c := newCastle(in)
	users, visitors := c.begin()
	stranger := c.foreign("castle-www-2")
	c.change().deploy("--detach").want(t, 0)
	status := []string{"status", "--app", "castle"}
	in.told(30*time.Second, status, "Service/castle-www-2", "does not belong to app castle", "rename it or the service")
	in.told(30*time.Second, status, "HTTPRoute castle-www", "is as it was", "it would lead users to Service castle-www-2, which is refused")
	in.spillway("promote", "--app", "castle").want(t, 0)
	for until := time.Now().Add(6 * time.Second); time.Now().Before(until); <-time.After(200 * time.Millisecond) {
		if o := in.overview("castle"); o.Rollout == nil || o.Rollout.Served != 0 || o.Stable != 1 {
			t.Fatalf("with a Service of somebody else in its place, release 2 is let out: %s", describe(o))
		}
	}
	in.told(10*time.Second, status, "does not belong to app castle")
	c.untouched(stranger)

	if err := cluster.Delete(in.ctx(10*time.Second), stranger); err != nil {
		t.Fatal(err)
	}
	in.healthy("castle", 2, time.Minute)
	visitors.together(t)
	if visitors.met["2"] == 0 {
		t.Errorf("nobody met release 2 after the Service of somebody else was gone: %v", visitors.met)
	}
	users.flawless(70)
}

// An abort takes the candidate away though the Service of somebody else holds up what leads to it: at once, and when that
// was told.
func TestForeignService_Abort(t *testing.T) {
	t.Parallel()
	in := install(t)
	c := newCastle(in)
	users := c.beginWith(everybody(80)...)
	for _, name := range []string{"castle-www-2", "castle-www-3"} {
		stranger := c.foreign(name)
		c.change().deploy("--detach").want(t, 0)
		if name == "castle-www-3" {
			in.told(30*time.Second, []string{"status", "--app", "castle"}, "Service/"+name, "does not belong to app castle")
		}
		began := time.Now()
		in.spillway("abort", "--app", "castle").want(t, 0)
		t.Logf("beside %s, abort took %.1f s", name, time.Since(began).Seconds())
		o := in.status("castle", 30*time.Second, "the end of the abort", func(o spillway.Overview) bool { return o.Rollout == nil && o.Phase == spillway.Healthy })
		if o.Stable != 1 || o.Last == nil || o.Last.Outcome != spillway.Aborted {
			t.Errorf("after an abort beside %s: %s", name, describe(o))
		}
		c.untouched(stranger)
	}
	users.flawless(70)
}
