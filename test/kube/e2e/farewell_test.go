//go:build kube

package e2e

import (
	"net/http"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// An installed server goes in two ways. With -y its app serves on, nobody notices, and the next server takes it up; with
// --destroy there is no app any more, nor anything else that one of the two made. Both at once is no answer.
func TestUninstall_LeavesTheAppsOrDestroysThem(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	install := []string{"kube", "install", "--namespace", p.namespace, "--gateway", "gateway/public", "--gateway-metrics", gatewayMetrics(),
		"--registry", registry() + "/" + p.namespace, "--insecure-registry", registry(), "--replicas", "1", "--wait", "3m"}
	uninstall := func(code int, flags ...string) result {
		t.Helper()
		return p.spillway(code, append([]string{"kube", "uninstall", "--namespace", p.namespace}, flags...)...)
	}
	p.spillway(0, install...)
	p.spillway(0, "context", "add", "shop", "--kubernetes", "--namespace", p.namespace)
	app := p.anEcho()
	app.deploy(1)
	p.settled("echo", 1)
	users := p.installation().send(app.host, readers(40))
	users.answered(50)
	uninstall(2, "--destroy", "-y").tells(t, "-y leaves the apps behind and --destroy does not; say one of them")
	uninstall(1).tells(t, "there are apps in namespace "+p.namespace, "nothing was changed")
	p.settled("echo", 1)

	uninstall(0, "-y").tells(t, "users are served on, without a server", "spillway kube install --namespace "+p.namespace)
	uninstall(1, "--destroy").tells(t, "only a server destroys apps in good order")
	users.answered(200)
	p.spillway(0, install...)
	app.deploy(2)
	users.flawless(30)

	uninstall(0, "--destroy").tells(t, "destroying "+p.namespace+"/echo", "the app of namespace "+p.namespace+" destroyed")
	await(t, 10*time.Second, "the gateway to know the host no more", func() bool {
		status, _ := p.installation().get(app.host, "/", nil)
		return status == http.StatusNotFound
	})
	var left v1alpha1.AppList
	if err := cluster.List(t.Context(), &left, client.InNamespace(p.namespace)); err != nil || len(left.Items) > 0 {
		t.Errorf("apps are left: %v %d", err, len(left.Items))
	}
	p.nothingLeft()
}
