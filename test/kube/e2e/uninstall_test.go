//go:build kube

package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// TestUninstall_AppsServeOn takes the server away: users are served, also when the App is deleted afterwards, which
// waits for nobody. A server that comes in between takes up what it finds.
func TestUninstall_AppsServeOn(t *testing.T) {
	t.Parallel()
	in := install(t)
	c := newCastle(in)
	c.deploy().want(t, 0)
	in.healthy("castle", 1, time.Minute)
	users := c.send(20)
	uninstall := func(flags ...string) result {
		return in.run("/", append([]string{"kube", "uninstall", "--kubeconfig", in.kubeconfig, "--namespace", in.namespace}, flags...)...)
	}
	in.kill(syscall.SIGTERM)
	uninstall().want(t, 1).tells(t, "--destroy", "-y")
	uninstall("-y").want(t, 0).tells(t, "users are served on", "kubectl delete -n "+in.namespace)
	if held, owned := in.held("castle"); held || owned {
		t.Errorf("after an uninstall: held by a finalizer %v, owned by the App %v", held, owned)
	}

	in.start()
	await(t, 20*time.Second, "the next server to take the app up", func() bool { held, owned := in.held("castle"); return held && owned })
	for _, e := range in.events("castle") {
		if strings.Contains(e.Text, "edited by hand") {
			t.Errorf("what an uninstall took off is told as an edit: %s", e.Text)
		}
	}
	in.kill(syscall.SIGTERM)
	uninstall("-y").want(t, 0)

	app := &v1alpha1.App{}
	app.Namespace, app.Name = in.namespace, "castle"
	if err := cluster.Delete(in.ctx(10*time.Second), app); err != nil {
		t.Fatal(err)
	}
	await(t, 10*time.Second, "the App to be gone", func() bool {
		return apierrors.IsNotFound(cluster.Get(in.ctx(time.Second), client.ObjectKeyFromObject(app), app))
	})
	<-time.After(3 * time.Second) // what owners take along goes within a second
	if status, _ := in.get(c.host, "/", http.Header{}); status != http.StatusOK {
		t.Errorf("without an App the gateway answers %d", status)
	}
	users.flawless(15)
}

// held reports whether an App waits for a server when it is deleted, and whether what it runs is owned by it.
func (in *installation) held(name string) (held, owned bool) {
	app := &v1alpha1.App{}
	app.Namespace, app.Name = in.namespace, name
	if err := cluster.Get(in.ctx(5*time.Second), client.ObjectKeyFromObject(app), app); err != nil {
		in.t.Fatal(err)
	}
	for _, d := range list(in, &apps.DeploymentList{}).Items {
		owned = owned || len(d.OwnerReferences) > 0
	}
	return len(app.Finalizers) > 0, owned
}
