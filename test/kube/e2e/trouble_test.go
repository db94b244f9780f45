//go:build kube

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// TestAppInTrouble has an App of which the first spec cannot be accepted, then one whose Release somebody deletes, and
// then destroys it: each time status and doctor say what is wrong and what to do.
func TestAppInTrouble(t *testing.T) {
	t.Parallel()
	in := install(t)
	images := echoes(t, in, "1", "2")
	apply := func(change func(web map[string]any)) {
		t.Helper()
		spec := echoSpec(in, images[0])
		change(spec["services"].(map[string]any)["web"].(map[string]any))
		if err := applyApp(in, spec); err != nil {
			t.Fatal(err)
		}
	}
	status, drained := []string{"status", "--app", "echo"}, map[string]any{"drain": "10s"} // long enough to see the end

	apply(func(web map[string]any) { web["needs"] = []any{"nobody"} })
	in.told(30*time.Second, status, "has no release yet", "nobody", "correct it and apply it again")
	in.told(10*time.Second, []string{"doctor"}, "app echo", "nobody", "correct it and apply it again")

	apply(func(web map[string]any) { web["image"] = "127.0.0.1:1/some/thing:1" })
	in.told(30*time.Second, status, "has no release yet", "registry 127.0.0.1:1", "looked at again every minute")
	in.told(10*time.Second, []string{"doctor"}, "app echo", "registry 127.0.0.1:1")

	apply(func(web map[string]any) { web["stop"] = drained })
	await(t, time.Minute, "the corrected spec to be taken up", func() bool { return in.run("/", status...).code == 0 })
	in.healthy("echo", 1, time.Minute)
	if r := in.run("/", status...); r.code != 0 || strings.Contains(r.stdout, "nobody") {
		t.Errorf("after it was corrected: %v", r)
	}

	apply(func(web map[string]any) { web["stop"], web["needs"] = drained, []any{"nobody"} })
	in.told(30*time.Second, status, "release 1 serves", "nobody", "correct it and apply it again")
	apply(func(web map[string]any) { web["stop"] = drained })
	await(t, 30*time.Second, "the mistake to be forgotten", func() bool { return !strings.Contains(in.run("/", status...).stdout, "nobody") })

	remove := func() {
		t.Helper()
		release := &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: in.namespace, Name: "echo-1"}}
		if err := cluster.Delete(in.ctx(10*time.Second), release); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	in.told(10*time.Second, []string{"events", "--app", "echo"}, "somebody deleted the resource Release echo-1", "it was put back")
	back := &v1alpha1.Release{}
	if err := cluster.Get(in.ctx(10*time.Second), client.ObjectKey{Namespace: in.namespace, Name: "echo-1"}, back); err != nil {
		t.Errorf("the Release that serves was not put back: %v", err)
	}

	apply(func(web map[string]any) { web["stop"], web["image"] = drained, images[1] })
	await(t, 30*time.Second, "release 2", func() bool { return in.newest("echo") == 2 })
	in.healthy("echo", 2, time.Minute)
	remove()
	in.spillway("rollback", "--app", "echo", "1").want(t, 1).tells(t, "somebody deleted the resource Release echo-1", "choose another: spillway releases")

	done := in.behind("destroy", "--app", "echo", "--yes")
	in.status("echo", 20*time.Second, "the end of the app", func(o spillway.Overview) bool { return o.Phase == spillway.Destroying })
	in.told(5*time.Second, status, "Destroying", "what runs of it is stopped, then it is forgotten")
	var app v1alpha1.App
	if err := cluster.Get(in.ctx(5*time.Second), client.ObjectKey{Namespace: in.namespace, Name: "echo"}, &app); err != nil || app.Status.Phase != spillway.Destroying {
		t.Errorf("while it is destroyed the App says %q (%v)", app.Status.Phase, err)
	}
	(<-done).want(t, 0)
	in.told(5*time.Second, status, "there is no app echo")
}

// TestServerElsewhere looks for a server in the cluster where one runs beside it, and where one has no replica.
func TestServerElsewhere(t *testing.T) {
	t.Parallel()
	in := install(t)
	says := func(text string) {
		t.Helper()
		await(t, 20*time.Second, "context add to say "+text, func() bool { // a server leads a moment after it answers
			env := append(os.Environ(), "KUBECONFIG="+kubeconfig(), "XDG_CONFIG_HOME="+t.TempDir())
			code, _, stderr := e2etest.Run(commandWithin, "/", env, binary, "context", "add", "shop", "--kubernetes", "--namespace", in.namespace)
			return code == 0 && strings.Contains(stderr, text)
		})
	}
	says("the Spillway server of namespace " + in.namespace + " runs outside the cluster, on ")
	none, labels := int32(0), map[string]string{"app": "spillway"}
	stopped := &apps.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: in.namespace, Name: "spillway"},
		Spec: apps.DeploymentSpec{Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: core.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: core.PodSpec{Containers: []core.Container{{Name: "server", Image: "registry.test/none:1"}}},
		}},
	}
	if err := cluster.Create(in.ctx(10*time.Second), stopped); err != nil {
		t.Fatal(err)
	}
	says("has 0 replicas; have it run: spillway kube upgrade --namespace " + in.namespace + " --replicas 1")
}

// TestWithdrawnRoute has a gateway that takes the route of an app and later, when its listener is changed, does not take
// it any more: the app says so, no deploy is let out meanwhile, and all goes on when the listener takes it again.
func TestWithdrawnRoute(t *testing.T) {
	t.Parallel()
	in := installIn(t, namespace(t))
	port := &gateway.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: in.namespace, Name: "own"},
		Spec: gateway.GatewaySpec{GatewayClassName: "traefik", Listeners: []gateway.Listener{{
			Name: "web", Port: 80, Protocol: gateway.HTTPProtocolType,
		}}},
	}
	if err := cluster.Create(in.ctx(10*time.Second), port); err != nil {
		t.Fatal(err)
	}
	takes := func(from gateway.FromNamespaces) {
		t.Helper()
		now := port.DeepCopy()
		now.ResourceVersion = ""
		now.Spec.Listeners[0].AllowedRoutes = &gateway.AllowedRoutes{Namespaces: &gateway.RouteNamespaces{From: &from}}
		if from == gateway.NamespacesFromSelector {
			now.Spec.Listeners[0].AllowedRoutes.Namespaces.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"nobody": "has-this"}}
		}
		if err := cluster.Patch(in.ctx(10*time.Second), now, client.Merge); err != nil {
			t.Fatal(err)
		}
	}
	takes(gateway.NamespacesFromSame)
	in.flags = []string{"--gateway", in.namespace + "/own"}
	in.start()
	c := newCastle(in)
	c.deploy().want(t, 0)
	in.healthy("castle", 1, time.Minute)
	status := []string{"status", "--app", "castle"}

	takes(gateway.NamespacesFromSelector)
	in.told(30*time.Second, status, "gateway own does not take HTTPRoute castle-www")
	c.change().deploy("--detach", "--strategy", "rolling").want(t, 0)
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); <-time.After(200 * time.Millisecond) {
		if o := in.overview("castle"); o.Stable != 1 {
			t.Fatalf("while the gateway takes no route: %s", describe(o))
		}
	}
	takes(gateway.NamespacesFromSame)
	in.healthy("castle", 2, 2*time.Minute)
	await(t, 20*time.Second, "the trouble to be forgotten", func() bool { return !strings.Contains(in.run("/", status...).stdout, "does not take") })
	await(t, 20*time.Second, "an answer", func() bool { code, _ := in.get(c.host, "/", nil); return code == 200 })
}
