//go:build kube

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/test/kube/image"
)

// manager is the field manager of a tool that keeps the cluster as a repository says.
const manager = "gitops-tool"

// echoes are images of a program that answers with its name, one for each variable given to it.
func echoes(t *testing.T, in *installation, values ...string) (images []string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "echo")
	build := exec.Command("go", "build", "-o", program, "../echo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	for _, v := range values {
		name := registry() + "/" + in.namespace + "/echo:" + v
		if _, err := image.Push(in.ctx(time.Minute), name, program, "N="+v); err != nil {
			t.Fatal(err)
		}
		images = append(images, name)
	}
	return images
}

// echoSpec is an app of one image, as the spec of an App.
func echoSpec(in *installation, image string) map[string]any {
	return map[string]any{
		"app": "echo", "watch": "1s", "thin": "promote",
		"services": map[string]any{"web": map[string]any{
			"image": image, "port": int64(8080), "host": "echo." + in.namespace + ".localhost", "health": "/", "scale": int64(2),
		}},
	}
}

// applyApp applies an App as the tool does: server-side, and by force.
func applyApp(in *installation, spec map[string]any) error {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("App"))
	u.SetNamespace(in.namespace)
	u.SetName("echo")
	return cluster.Apply(in.ctx(10*time.Second), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(manager), client.ForceOwnership)
}

// accepted waits for the condition Accepted of the newest generation, and gives the App.
func accepted(in *installation, status metav1.ConditionStatus) v1alpha1.App {
	in.t.Helper()
	var app v1alpha1.App
	await(in.t, 30*time.Second, "Accepted="+string(status), func() bool {
		if cluster.Get(in.ctx(5*time.Second), client.ObjectKey{Namespace: in.namespace, Name: "echo"}, &app) != nil {
			return false
		}
		c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.Accepted)
		return c != nil && c.Status == status && app.Status.ObservedGeneration == app.Generation
	})
	return app
}

// told waits for Events of the App that begin so, and takes none twice.
func told(in *installation, wanted ...string) {
	in.t.Helper()
	times := map[string]int{}
	await(in.t, 20*time.Second, "Events of the App", func() bool {
		clear(times)
		for _, e := range list(in, &core.EventList{}).Items {
			if e.InvolvedObject.Kind == "App" {
				times[e.Type+" "+e.Reason+" "+e.Message]++
			}
		}
		return !slices.ContainsFunc(wanted, func(begin string) bool {
			return !slices.ContainsFunc(slices.Collect(maps.Keys(times)), func(text string) bool { return strings.HasPrefix(text, begin) })
		})
	})
	for text, n := range times {
		if n != 1 {
			in.t.Errorf("told %d times: %s", n, text)
		}
	}
}

// TestGitOps has another manager apply an App, again, changed, with a mistake and mended, and delete it: each time the
// cluster becomes what it says, and users notice nothing. What is applied again is no release and no write.
func TestGitOps(t *testing.T) {
	t.Parallel()
	door, config := apiDoor(t)
	in := installIn(t, namespace(t))
	in.kubeconfig = config
	in.start()
	images, host := echoes(t, in, "1", "2"), "echo."+in.namespace+".localhost"
	apply := func(spec map[string]any) {
		t.Helper()
		if err := applyApp(in, spec); err != nil {
			t.Fatal(err)
		}
	}
	apply(echoSpec(in, images[0]))
	await(t, time.Minute, "the App to be taken up", func() bool { return in.run("/", "status", "--app", "echo").code == 0 })
	in.healthy("echo", 1, time.Minute)
	await(t, 20*time.Second, "the first answer", func() bool { status, _ := in.get(host, "/", nil); return status == 200 })
	users := in.send(host, readers(30))

	quiet(t, door, func() { apply(echoSpec(in, images[0])) })
	if n := in.newest("echo"); n != 1 {
		t.Errorf("the same spec applied again made %d releases", n)
	}

	apply(echoSpec(in, images[1]))
	await(t, 30*time.Second, "release 2", func() bool { return in.newest("echo") == 2 })
	in.healthy("echo", 2, time.Minute)

	apply(echoSpec(in, registry()+"/"+in.namespace+"/nothing:1"))
	app := accepted(in, metav1.ConditionFalse)
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.Accepted)
	if !strings.Contains(c.Message, "nothing:1") || app.Status.Stable != 2 {
		t.Errorf("an image that is not there: %s %q, release %d serves", c.Reason, c.Message, app.Status.Stable)
	}
	t.Logf("an image that is not there: %s: %s", c.Reason, c.Message)
	for _, d := range list(in, &apps.DeploymentList{}).Items {
		if d.Labels[kube.ReleaseLabel] == "2" {
			scaled := d.DeepCopy()
			scaled.Spec.Replicas = new(int32(3))
			if err := cluster.Patch(in.ctx(10*time.Second), scaled, client.MergeFrom(&d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	told(in, "Normal Started release 2", "Normal Step release 2", "Normal Succeeded release 2", "Warning "+c.Reason+" ", "Warning Problem Deployment/echo-web-2 was edited by hand (spec.replicas)")
	apply(echoSpec(in, images[1]))
	accepted(in, metav1.ConditionTrue)

	file := strings.NewReplacer("{IMAGE}", images[0], "{HOST}", host).Replace("app: echo\nservices:\n  web: {image: \"{IMAGE}\", port: 8080, host: \"{HOST}\", health: /}\n")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "spillway.yaml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	in.spillway("deploy", dir).want(t, 1).tells(t, "is kept by "+manager)
	users.flawless(20)
	gone(in)
}

// quiet fails the test when Spillway writes anything to the cluster for a while in which nothing happens but act. A
// lease that is renewed is the one exception.
func quiet(t *testing.T, d *door, act func()) {
	t.Helper()
	for last := d.wrote(); ; { // what still has to be written of what happened before
		<-time.After(5 * time.Second)
		now := d.wrote()
		if maps.Equal(now, last) {
			break
		}
		last = now
	}
	before, reads, long := d.wrote(), d.read(), time.Duration(many("SPILLWAY_KUBE_QUIET", 15))*time.Second
	act()
	<-time.After(long)
	for what, n := range d.wrote() {
		if n -= before[what]; n > 0 {
			t.Errorf("%d times %s in %v of a quiet cluster", n, what, long)
		}
	}
	t.Logf("no write in %v, %d reads; since the start %v", long, d.read()-reads, d.wrote())
}

// gone deletes the App, and waits until nothing of it is left.
func gone(in *installation) {
	in.t.Helper()
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Name: "echo", Namespace: in.namespace}}
	if err := cluster.Delete(in.ctx(10*time.Second), app); err != nil {
		in.t.Fatal(err)
	}
	left := func() error {
		var found []string
		for _, kind := range []client.ObjectList{&apps.DeploymentList{}, &core.ServiceList{}, &gateway.HTTPRouteList{}, &v1alpha1.ReleaseList{}} {
			if n := meta.LenList(list(in, kind)); n > 0 {
				found = append(found, fmt.Sprintf("%d of %T", n, kind))
			}
		}
		err := cluster.Get(in.ctx(5*time.Second), client.ObjectKeyFromObject(app), app)
		if len(found) == 0 && apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New(strings.Join(found, ", ")))
	}
	if !within(90*time.Second, func() bool { return left() == nil }) {
		in.t.Errorf("after the App was deleted there are left: %v", left())
	}
}
