//go:build kube

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/kube"
)

// told waits until a command tells all of these, whatever its exit code is, and fails the test when it does not.
func (in *installation) told(most time.Duration, args []string, texts ...string) {
	in.t.Helper()
	var r result
	missing := func() (all []string) {
		r = in.run("/", args...)
		for _, text := range texts {
			if !strings.Contains(r.stdout+r.stderr, text) {
				all = append(all, text)
			}
		}
		return all
	}
	if !within(most, func() bool { return len(missing()) == 0 }) {
		in.t.Errorf("want %q in the output of %v", missing(), r)
	}
}

// TestBadDeploys has deploys that cannot work, one after the other, under load: each says what is wrong, where, why
// and what to do next, and users notice nothing.
func TestBadDeploys(t *testing.T) {
	t.Parallel()
	in := install(t)
	c := newCastle(in)
	c.deploy().want(t, 0)
	in.healthy("castle", 1, time.Minute)
	users := c.send(40)
	status := []string{"status", "--app", "castle"}
	giveUp := func() {
		t.Helper()
		in.spillway("abort", "--app", "castle").want(t, 0)
		in.healthy("castle", 1, time.Minute)
	}

	t.Log("an object of the same name that is not ours")
	foreign := &core.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "castle-www-2", Namespace: in.namespace},
		Spec:       core.ServiceSpec{Ports: []core.ServicePort{{Port: 80}}},
	}
	if err := cluster.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	c.change().deploy("--detach").want(t, 0)
	in.told(90*time.Second, status, "Service/castle-www-2", "does not belong to app castle", "kubectl label")
	giveUp()
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign); err != nil || len(foreign.OwnerReferences) > 0 || foreign.Labels[kube.ManagedBy] != "" {
		t.Errorf("the Service of somebody else was touched: %v %v", err, foreign.ObjectMeta)
	}

	t.Log("a Deployment of the same name that is not ours")
	labels := map[string]string{"app": "somebody-elses"}
	theirs := &apps.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "castle-www-3", Namespace: in.namespace},
		Spec: apps.DeploymentSpec{
			Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: core.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: core.PodSpec{Containers: []core.Container{{Name: "x", Image: "x"}}}},
		},
	}
	if err := cluster.Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	c.change().deploy("--detach").want(t, 0)
	in.told(90*time.Second, status, "Deployment/castle-www-3", "does not belong to app castle", "kubectl delete Deployment castle-www-3")
	giveUp()
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(theirs), theirs); err != nil || len(theirs.OwnerReferences) > 0 || *theirs.Spec.Replicas != 0 {
		t.Errorf("the Deployment of somebody else was touched: %v %v", err, theirs.ObjectMeta)
	}

	t.Log("a quota")
	quota := &core.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "full", Namespace: in.namespace},
		Spec:       core.ResourceQuotaSpec{Hard: core.ResourceList{core.ResourcePods: resource.MustParse("1")}},
	}
	if err := cluster.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	c.change().deploy("--detach").want(t, 0)
	in.told(90*time.Second, status, "exceeded quota", "raise the quota of the namespace")
	giveUp()
	t.Log("a release command that the quota does not let begin, and one that no node takes")
	c.edit("    build: ./backend\n", "    build: ./backend\n    release: ./backend -once\n    limits: {cpu: 100}\n")
	c.change().deploy("--detach").want(t, 0)
	in.told(90*time.Second, status, "waiting: the release command of backend", "exceeded quota", "raise the quota of the namespace")
	giveUp()
	if err := cluster.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	c.change().deploy("--detach").want(t, 0)
	in.told(90*time.Second, status, "waiting: the release command of backend", "no node takes it", "no node has 100 CPU left", "lower limits.cpu of backend")
	giveUp()
	c.edit("    release: ./backend -once\n    limits: {cpu: 100}\n", "")

	t.Log("a release command that fails, and what it wrote")
	c.edit("    build: ./backend\n    env: {", "    build: ./backend\n    release: ./backend\n    env: {CRASH: 1s, ")
	c.change().deploy().want(t, 1).tells(t, "the release command of backend failed", "crashing on purpose")
	in.spillway("logs", "--app", "castle", "--release", fmt.Sprint(in.newest("castle"))).want(t, 0).tells(t, "listens on", "crashing on purpose")
	c.edit("    release: ./backend\n    env: {CRASH: 1s, ", "    env: {")
	in.healthy("castle", 1, time.Minute)

	t.Log("pods that no node takes")
	c.edit("    build: ./www  ", "    limits: {cpu: 100}\n    build: ./www  ")
	c.change().deploy("--detach").want(t, 0)
	in.told(90*time.Second, status, "no node takes it", "Insufficient cpu", "no node has 100 CPU left", "lower limits.cpu of www")
	giveUp()
	c.edit("    limits: {cpu: 100}\n", "")

	t.Log("an image that is not there")
	before := in.newest("castle")
	c.edit("    build: ./backend\n    env: ", "    image: "+registry()+"/"+in.namespace+"/nothing:1\n    port: 8080\n    env: ")
	c.edit("    run: ./backend\n", "")
	c.deploy().want(t, 1).tells(t, "backend", "nothing:1", "has no such image", "check the name and the tag")
	if n := in.newest("castle"); n != before {
		t.Errorf("a deploy of an image that is not there made release %d", n)
	}
	users.answered(50)
	users.flawless(30)
}

// TestNoGateway has a server whose gateway does not exist.
func TestNoGateway(t *testing.T) {
	t.Parallel()
	in := installIn(t, namespace(t))
	in.flags = []string{"--gateway", "gateway/absent"}
	in.start()
	in.told(10*time.Second, []string{"doctor"}, "gateway/absent", "not found", "kubectl get gateways -A")
	c := newCastle(in)
	c.deploy("--detach").want(t, 0)
	in.told(90*time.Second, []string{"status", "--app", "castle"}, "absent", "is there such a Gateway")
}

// TestNoRight has a server that may do everything but create Deployments.
func TestNoRight(t *testing.T) {
	t.Parallel()
	in := installIn(t, namespace(t))
	in.kubeconfig = lesser(t, in, "deployments", "create", "patch")
	in.start()
	in.told(10*time.Second, []string{"doctor"}, "the server may not create deployments in "+in.namespace, "spillway kube install")
	c := newCastle(in)
	c.deploy("--detach").want(t, 0)
	in.told(90*time.Second, []string{"status", "--app", "castle"}, "deployments", "forbidden", "spillway kube install")
}

// lesser makes a ServiceAccount with the rights that a server needs, but for these verbs of a kind of thing, and gives
// the kubeconfig with which a server is it.
func lesser(t *testing.T, in *installation, kind string, verbs ...string) string {
	t.Helper()
	rules := map[string][]rbac.PolicyRule{} // by namespace
	for _, r := range kube.Rights(kube.Gateway{Namespace: "gateway", Name: "public"}, kube.ServiceName{Namespace: "gateway", Name: "traefik"}) {
		rule := rbac.PolicyRule{APIGroups: []string{r.Group}, Resources: []string{r.Resource}}
		if r.Name != "" {
			rule.ResourceNames = []string{r.Name}
		}
		for _, v := range r.Verbs {
			if r.Resource != kind || !strings.Contains(strings.Join(verbs, " "), v) {
				rule.Verbs = append(rule.Verbs, v)
			}
		}
		if len(rule.Verbs) == 0 {
			continue
		}
		where := r.Namespace
		if where == "" {
			where = in.namespace
		}
		rules[where] = append(rules[where], rule)
	}
	account := &core.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "lesser", Namespace: in.namespace}}
	objects := []client.Object{account}
	for where, list := range rules {
		named := metav1.ObjectMeta{Name: in.namespace, Namespace: where}
		objects = append(objects, &rbac.Role{ObjectMeta: named, Rules: list}, &rbac.RoleBinding{
			ObjectMeta: named, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: named.Name},
			Subjects: []rbac.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}},
		})
	}
	for _, o := range objects {
		if err := cluster.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if o.GetNamespace() != in.namespace {
			t.Cleanup(func() {
				if err := cluster.Delete(in.ctx(10*time.Second), o); err != nil {
					t.Error(err)
				}
			})
		}
	}
	token := &authentication.TokenRequest{}
	if err := cluster.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	config, err := access()
	if err != nil {
		t.Fatal(err)
	}
	return writeConfig(t, clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData, CertificateAuthority: config.CAFile}, clientcmdapi.AuthInfo{Token: token.Status.Token})
}

// TestNoDefinitions has a server on a cluster that does not know App and Release: every command says so, and how to
// change it. When the cluster knows them, the server works, without being started again.
func TestNoDefinitions(t *testing.T) {
	t.Parallel()
	door, config := apiDoor(t)
	door.hide("spillway.dev")
	in := installIn(t, namespace(t))
	in.kubeconfig = config
	in.start()
	in.told(20*time.Second, []string{"status", "--app", "castle"}, "the cluster does not know spillway.dev/v1alpha1 App", "run spillway kube install")
	in.told(20*time.Second, []string{"doctor"}, "does not know App and Release", "spillway kube install")
	door.hide("")
	in.told(20*time.Second, []string{"status", "--app", "castle"}, "there is no app castle")
	newCastle(in).deploy("--detach").want(t, 0)
	in.healthy("castle", 1, 2*time.Minute)
}

// TestUnreachableCluster has a server whose cluster is not there.
func TestUnreachableCluster(t *testing.T) {
	t.Parallel()
	in := installIn(t, namespace(t))
	in.kubeconfig = writeConfig(t, clientcmdapi.Cluster{Server: "http://" + freeAddress(t)}, clientcmdapi.AuthInfo{})
	in.launch()
	await(t, startWithin, "the end of the server", in.ended)
	if log := in.logged(); !strings.Contains(log, "connection refused") || !strings.Contains(log, "API server") {
		t.Errorf("the server says: %s", log)
	}
}

// notFound answers as an API server that does not know a path.
func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"the server could not find the requested resource"}`)
}
