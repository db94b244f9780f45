//go:build kube

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgo "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// The cluster of the tests: by default that of make kube-up.
//
//	SPILLWAY_TEST_KUBECONFIG   how it is reached, as an administrator
//	SPILLWAY_TEST_REGISTRY     a registry by plain HTTP that its nodes pull from
//	SPILLWAY_TEST_GATEWAY      where users reach its Gateway, public in the namespace gateway: HOST:PORT
//	SPILLWAY_TEST_METRICS      URL of the metrics of that gateway, a Traefik
func kubeconfig() string {
	return cmp.Or(os.Getenv("SPILLWAY_TEST_KUBECONFIG"), filepath.Join(cmp.Or(os.Getenv("SPILLWAY_KUBE_DIR"), "/tmp/spillway-kube"), "admin.conf"))
}

func node() string           { return cmp.Or(os.Getenv("SPILLWAY_KUBE_NET"), "10.99") + ".0.1" }
func registry() string       { return cmp.Or(os.Getenv("SPILLWAY_TEST_REGISTRY"), node()+":5000") }
func gatewayAddress() string { return cmp.Or(os.Getenv("SPILLWAY_TEST_GATEWAY"), node()+":80") }
func gatewayMetrics() string {
	return cmp.Or(os.Getenv("SPILLWAY_TEST_METRICS"), "http://"+node()+":9100/metrics")
}

// many is how often a test does something: what a variable says, or else as often as make test has the time for.
func many(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return n
	}
	return otherwise
}

func access() (*rest.Config, error) { return clientcmd.BuildConfigFromFlags("", kubeconfig()) }

func connect() (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(clientgo.AddToScheme(scheme), gateway.Install(scheme), v1alpha1.AddToScheme(scheme), apiextensions.AddToScheme(scheme))
	if err != nil {
		return nil, err
	}
	config, err := access()
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 500, 1000
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// The label of the namespaces of this run of the tests, by which those that are left are found.
const ours = "spillway.dev/tests"

var run = fmt.Sprint("pid-", os.Getpid(), "-", time.Now().Unix())

// namespace makes a namespace that goes with the test.
func namespace(t *testing.T) string {
	t.Helper()
	n := &core.Namespace{ObjectMeta: meta.ObjectMeta{GenerateName: "e2e-", Labels: map[string]string{ours: run}}}
	if err := cluster.Create(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := release(ctx, n.Name); err != nil {
			t.Error(err)
		}
	})
	return n.Name
}

// list reads all objects of a kind in the namespace of an installation.
func list[L client.ObjectList](in *installation, into L) L {
	in.t.Helper()
	if err := cluster.List(in.ctx(10*time.Second), into, client.InNamespace(in.namespace)); err != nil {
		in.t.Fatal(err)
	}
	return into
}

// await ends the test when a condition does not come to hold in time, within reports it.
var await, within = e2etest.Await, e2etest.Within
