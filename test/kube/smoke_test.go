//go:build kube

package kube

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway/test/kube/image"
)

// longest is how long anything may take that the cluster does.
const longest = time.Minute

func TestCluster_ServesAnImageFromTheRegistryThroughTheGateway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := connect(t)
	address := gatewayAddress(ctx, t, c)
	pinned := push(ctx, t, "echo")

	namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{GenerateName: "smoke-"}}
	create(ctx, t, c, namespace)
	host := namespace.Name + ".test"
	deployment, service, route := echoObjects(namespace.Name, host, pinned)
	create(ctx, t, c, deployment, service, route)

	await(ctx, t, "two available pods", func() bool {
		return c.Get(ctx, client.ObjectKeyFromObject(deployment), deployment) == nil && deployment.Status.AvailableReplicas == 2
	})
	pods := map[string]bool{}
	await(ctx, t, "answers of both pods through the gateway", func() bool {
		if status, body := get(ctx, address, host, "/"); status == http.StatusOK {
			pods[body] = true
		}
		return len(pods) == 2
	})
	for _, name := range []string{"echo", "echo." + namespace.Name + ".svc.cluster.local"} {
		status, body := get(ctx, address, host, "/fetch?url="+url.QueryEscape("http://"+name+"/"))
		if status != http.StatusOK || !strings.HasPrefix(body, "echo-") {
			t.Errorf("a pod that asks http://%s/ gets %d %q, want 200 and a pod's name", name, status, body)
		}
	}
}

// config is how the cluster is reached that SPILLWAY_TEST_KUBECONFIG names, or that of make kube-up.
func config(t *testing.T) *rest.Config {
	t.Helper()
	file := cmp.Or(os.Getenv("SPILLWAY_TEST_KUBECONFIG"), filepath.Join(cmp.Or(os.Getenv("SPILLWAY_KUBE_DIR"), "/tmp/spillway-kube"), "admin.conf"))
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatalf("there is no cluster; make kube-up starts one, SPILLWAY_TEST_KUBECONFIG names another: %v", err)
	}
	return config
}

// connect gives a client of the cluster that SPILLWAY_TEST_KUBECONFIG names, or of the one of make kube-up.
func connect(t *testing.T) client.Client {
	t.Helper()
	if err := gateway.Install(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config(t), client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// gatewayAddress waits for the Gateway to be programmed and gives the first of its addresses.
func gatewayAddress(ctx context.Context, t *testing.T, c client.Client) string {
	t.Helper()
	var g gateway.Gateway
	await(ctx, t, "an address of the Gateway public in the namespace gateway", func() bool {
		return c.Get(ctx, client.ObjectKey{Namespace: "gateway", Name: "public"}, &g) == nil && len(g.Status.Addresses) > 0
	})
	return g.Status.Addresses[0].Value
}

// push builds a program of this module and pushes its image to the registry that the nodes pull from, by
// default that of make kube-up; SPILLWAY_TEST_REGISTRY names another. It returns the name with the digest.
func push(ctx context.Context, t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	pinned, err := image.Push(ctx, cmp.Or(os.Getenv("SPILLWAY_TEST_REGISTRY"), cmp.Or(os.Getenv("SPILLWAY_KUBE_NET"), "10.99")+".0.1:5000")+"/"+name+":test", program)
	if err != nil {
		t.Fatal(err)
	}
	return pinned
}

// create creates the objects, and deletes them when the test is over.
func create(ctx context.Context, t *testing.T, c client.Client, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := c.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), longest)
			defer cancel()
			if err := client.IgnoreNotFound(c.Delete(ctx, o)); err != nil {
				t.Error(err)
			}
		})
	}
}

// await waits until the condition holds.
func await(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	timeout := time.After(longest)
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, ctx.Err())
		case <-timeout:
			t.Fatalf("waited %s in vain for %s", longest, what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// get asks the gateway for a path of a host; the status is 0 where there is no answer.
func get(ctx context.Context, address, host, path string) (status int, body string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}
