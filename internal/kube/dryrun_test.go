//go:build kube

package kube

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
)

// dryRun has a cluster read the objects of a namespace: all that it checks before it stores.
func dryRun(t *testing.T) (namespace string, check func(name string, objects []client.Object)) {
	t.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", cmp.Or(os.Getenv("SPILLWAY_TEST_KUBECONFIG"), "/tmp/spillway-kube/admin.conf"))
	if err != nil {
		t.Fatalf("no cluster to test with: %v; start one: make kube-up, or name one: SPILLWAY_TEST_KUBECONFIG", err)
	}
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := client.New(c, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "export-"}}
	if err := cluster.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cluster.Delete(context.Background(), ns) // nothing is in it
	})
	return ns.Name, func(name string, objects []client.Object) {
		t.Helper()
		for _, o := range objects {
			u, err := plain(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := cluster.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(Manager), client.DryRunAll); err != nil {
				t.Errorf("%s: %s: %v", name, key(o), err)
			}
		}
	}
}

// TestExport_PassesTheDryRunOfTheAPIServer has a cluster read every example.
func TestExport_PassesTheDryRunOfTheAPIServer(t *testing.T) {
	namespace, check := dryRun(t)
	for name, e := range examples(t) {
		e.Namespace = namespace
		objects, err := e.objects()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(name, objects)
	}
}

// What Fits lets through an API server takes, with everything that a rule may have and all the room that there is.
func TestRules_PassTheDryRunOfTheAPIServer(t *testing.T) {
	prefix := under("/v1", []spillway.Target{{Service: "www", Weight: 1_000_000}, {Service: "api", Weight: 1}}, "a.test", "*.api.test")
	prefix.Methods, prefix.Rewrite = []string{"GET", "POST"}, &spillway.Rewrite{Prefix: "/"}
	prefix.Headers, prefix.Query = []spillway.FieldMatch{{Name: "X-A", Kind: "pattern", Text: "^a|b$"}}, []spillway.FieldMatch{{Name: "q", Kind: "present"}}
	prefix.Cookies = []spillway.FieldMatch{{Name: "c", Kind: "pattern", Text: "^a.*z$"}}
	prefix.Timeout = spillway.Duration(1500 * time.Millisecond)
	image := under("", toAPI, "a.test")
	image.Path = spillway.PathMatch{Kind: spillway.PathPattern, Text: `^/img/.*\.png$`}
	away := under("/old", nil, "b.test")
	away.Redirect = &spillway.Redirect{Prefix: "/new", Status: 308}
	rules := []spillway.HTTPRule{prefix, image, away, under("/a%20b/c.d", toAPI, "alone.test")}
	for i := range mostRules - ownRules - 3 {
		rules = append(rules, under(fmt.Sprintf("/%d", i), toAPI, "a.test"))
	}
	hosts := []string{"a.test", "b.test"}
	for i := range 2 * mostHosts {
		hosts = append(hosts, fmt.Sprintf("h%d.test", i))
	}
	r := shop(hosts, rules...)
	if err := Fits(r.releases[1].Config, r.gateway); err != nil {
		t.Fatal(err)
	}
	namespace, check := dryRun(t)
	r.namespace = namespace
	objects, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	check("rules", objects)
}
