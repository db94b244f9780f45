//go:build kube

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	authorization "k8s.io/api/authorization/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/test/kube/image"
)

// TestInstalled has a person move an app from one machine to a cluster with what kube install makes: a server in the
// cluster, of the program itself, with no more rights than it needs.
func TestInstalled(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	began := time.Now()
	install := []string{"kube", "install", "--namespace", p.namespace, "--gateway", "gateway/public", "--gateway-metrics", gatewayMetrics(),
		"--registry", registry() + "/" + p.namespace, "--insecure-registry", registry(), "--server-base", toolchain(t), "--wait", "3m"}
	p.spillway(0, install...).tells(t, "the server runs in namespace "+p.namespace, "spillway context add")
	t.Logf("installed in %.1fs", time.Since(began).Seconds())
	p.spillway(0, "context", "add", "shop", "--kubernetes", "--namespace", p.namespace)
	p.spillway(0, p.at("doctor")...).tells(t, "the server may do all that it has to", "https://")
	p.mayNot("get", "", "secrets", p.namespace)
	p.mayNot("list", "", "pods", "default")
	p.mayNot("patch", "gateway.networking.k8s.io", "gateways", "gateway")

	echo := p.anImage()
	castle := p.aCastle()
	p.upgrade(castle, echo)

	p.spillway(1, "kube", "uninstall", "--namespace", p.namespace).tells(t, "castle", "nothing was changed")
	p.spillway(0, p.at("status", "--app", "castle")...)
	for _, app := range []string{"echo", "castle"} {
		p.spillway(0, p.at("destroy", "-y", "--app", app)...)
	}
	await(t, time.Minute, "the apps to be gone", func() bool {
		status, _ := p.installation().get(echo.host, "/", nil)
		return status == 404
	})
	p.spillway(0, "kube", "uninstall", "--namespace", p.namespace)
	p.nothingLeft()
}

// mayNot fails the test when the server in the cluster may do something.
func (p *person) mayNot(verb, group, resource, in string) {
	p.t.Helper()
	review := &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + p.namespace + ":spillway",
		ResourceAttributes: &authorization.ResourceAttributes{Namespace: in, Verb: verb, Group: group, Resource: resource},
	}}
	if err := cluster.Create(p.t.Context(), review); err != nil {
		p.t.Fatal(err)
	}
	if review.Status.Allowed {
		p.t.Errorf("the server may %s %s in %s", verb, resource, in)
	}
}

// echo is an app that is an image of others.
type echo struct {
	*person
	image, host, file string
}

// deploy makes another release of it.
func (e echo) deploy(n int) {
	e.t.Helper()
	text := fmt.Sprintf("app: echo\nservices:\n  echo: {image: %q, port: 8080, host: %s, env: {N: \"%d\"}}\nwatch: 1s\n", e.image, e.host, n)
	if err := os.WriteFile(e.file, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
	e.spillway(0, e.at("deploy", "-f", e.file, filepath.Dir(e.file))...)
}

// anEcho puts the image of others into the registry.
func (p *person) anEcho() echo {
	p.t.Helper()
	name, err := image.Push(p.t.Context(), registry()+"/"+p.namespace+"/echo:1", program(p.t, "./echo"))
	if err != nil {
		p.t.Fatal(err)
	}
	return echo{p, name, "echo-" + p.namespace + ".localhost", filepath.Join(p.t.TempDir(), "spillway.yaml")}
}

// anImage deploys an app that is an image of others, looks at it, deploys it again and goes back.
func (p *person) anImage() echo {
	p.t.Helper()
	e := p.anEcho()
	e.deploy(1)
	if status, body := p.installation().get(e.host, "/", nil); status != 200 || !strings.HasPrefix(body, "echo-echo-1-") {
		p.t.Errorf("users are answered %d: %s", status, body)
	}
	e.deploy(2)
	p.settled("echo", 2)
	p.spillway(0, p.at("rollback", "--app", "echo")...)
	p.settled("echo", 1)
	return e
}

// settled waits until a release serves and nothing goes on.
func (p *person) settled(app string, release int) {
	p.t.Helper()
	var r result
	if !within(90*time.Second, func() bool {
		r = p.run(p.at("status", "--json", "--app", app)...)
		text := strings.Join(strings.Fields(r.stdout), "")
		return strings.Contains(text, fmt.Sprintf(`"stable":%d,`, release)) && strings.Contains(text, `"phase":"Healthy"`)
	}) {
		p.t.Fatalf("%s does not come to rest on release %d: %v", app, release, r)
	}
}

// aCastle deploys what is built from source, under load: a good release, one that fails, and the way back.
func (p *person) aCastle() *castle {
	p.t.Helper()
	c := newCastle(p.installation())
	deploy := func(code int, flags ...string) result {
		p.t.Helper()
		return p.spillway(code, p.at(append([]string{"deploy", c.dir}, flags...)...)...)
	}
	began := time.Now()
	deploy(0)
	p.t.Logf("the first deploy, with its build, took %.1fs", time.Since(began).Seconds())
	p.settled("castle", 1)
	await(p.t, 20*time.Second, "the first page", func() bool { status, _ := c.in.get(c.host, "/", nil); return status == 200 })
	users := c.send(80)
	users.answered(50)
	c.change()
	deploy(0)
	p.settled("castle", 2)
	c.change()
	if r := deploy(0, "--detach", "--strategy", "blue-green"); strings.Contains(r.stdout+r.stderr, "serves everybody") {
		p.t.Errorf("a detached deploy waited: %v", r)
	}
	p.settled("castle", 3)
	c.edit("health: /healthz              # a replica", "health: /nowhere              # a replica")
	c.edit("watch: 4s", "watch: 4s\ndeadline: 8s")
	deploy(1).tells(p.t, "probe", "release 3 serves everybody", "next:")
	p.spillway(0, p.at("rollback", "--app", "castle")...)
	p.settled("castle", 2)
	p.spillway(0, p.at("logs", "--app", "castle", "--service", "www")...).tells(p.t, "listens on")
	p.spillway(0, p.at("status", "--app", "castle")...).tells(p.t, "castle", "Healthy", "release 2")
	p.spillway(0, p.at("events", "--app", "castle")...).tells(p.t, "release 3")
	p.spillway(1, p.at("status", "--app", "nothing")...).tells(p.t, "there is no app nothing")
	users.flawless(20)
	return c
}

// upgrade replaces the server by another program while users are served, and deploys by the new one.
func (p *person) upgrade(c *castle, e echo) {
	p.t.Helper()
	before := p.serverImage()
	newer := filepath.Join(p.t.TempDir(), "spillway")
	text, err := os.ReadFile(binary)
	if err == nil {
		err = os.WriteFile(newer, append(text, "newer"...), 0o700)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	users := c.send(40)
	p.spillway(0, "kube", "upgrade", "--namespace", p.namespace, "--program", newer, "--replicas", "1", "--wait", "3m")
	if now := p.serverImage(); now == before || !strings.Contains(now, "/spillway-server@sha256:") {
		p.t.Errorf("the server was %s and is %s", before, now)
	}
	p.spillway(0, p.at("doctor")...)
	e.deploy(3)
	users.flawless(20)
	p.spillway(0, "kube", "upgrade", "--namespace", p.namespace, "--wait", "3m")
	if now := p.serverImage(); now != before {
		p.t.Errorf("the same program was %s and is %s", before, now)
	}
	p.wrongImage(before)
}

// wrongImage gives the server an image that is not there, while users are served by the old one, and has upgrade mend it.
func (p *person) wrongImage(right string) {
	p.t.Helper()
	none := registry() + "/" + p.namespace + "/none:1"
	p.spillway(1, "kube", "upgrade", "--namespace", p.namespace, "--image", none, "--wait", "20s").tells(p.t, "its image is not there")
	p.spillway(0, "kube", "upgrade", "--namespace", p.namespace, "--wait", "3m").tells(p.t, "does not run with the image "+none, "the image of the server is "+right)
	if now := p.serverImage(); now != right {
		p.t.Errorf("the server was to be mended to %s and is %s", right, now)
	}
}

func (p *person) serverImage() string {
	p.t.Helper()
	var d apps.Deployment
	if err := cluster.Get(p.t.Context(), client.ObjectKey{Namespace: p.namespace, Name: "spillway"}, &d); err != nil {
		p.t.Fatal(err)
	}
	return d.Spec.Template.Spec.Containers[0].Image
}

// nothingLeft fails the test when something of the server or of its apps is left in the cluster.
func (p *person) nothingLeft() {
	p.t.Helper()
	for _, kind := range []client.ObjectList{&apps.DeploymentList{}, &core.ServiceList{}, &rbac.RoleList{}, &rbac.RoleBindingList{}} {
		gone := within(time.Minute, func() bool {
			in := client.InNamespace(p.namespace)
			err := cluster.List(p.t.Context(), kind, in)
			return err == nil && meta.LenList(kind) == 0
		})
		if !gone {
			p.t.Errorf("there are %d left of %T", meta.LenList(kind), kind)
		}
	}
	var roles rbac.RoleList
	if err := cluster.List(p.t.Context(), &roles, client.InNamespace("gateway"), client.MatchingLabels{"spillway.dev/server": p.namespace}); err != nil || len(roles.Items) > 0 {
		p.t.Errorf("rights at the gateway are left: %v %d", err, len(roles.Items))
	}
}
