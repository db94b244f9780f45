package kube

import (
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/spillway-dev/spillway"
)

func TestNoForward_SaysThatTheServerIsNotThere(t *testing.T) {
	const absent = "the Spillway server in pod spillway-5d-a is starting, or is gone; try again"
	for text, want := range map[string]string{
		`error forwarding port 7300 to pod 0a1b, uid : failed to execute portforward in network namespace "/var/run/netns/cni-1": failed to connect to localhost:7300 inside namespace "0a1b", IPv4: dial tcp4 127.0.0.1:7300: connect: connection refused`: absent,
		`error forwarding port 7300 to pod 0a1b, uid : failed to find sandbox "0a1b" in store: not found`: absent,
		"unable to do port forwarding: socat not found":                                                   "pod spillway-5d-a: unable to do port forwarding: socat not found",
	} {
		if err := error(noForward{"spillway-5d-a", text}); err.Error() != want || !errors.Is(err, spillway.ErrUnavailable) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Nobody is told to install a server where there is one that cannot be reached so.
func TestMissing_SaysWhatThereIs(t *testing.T) {
	none, who, now := int32(0), "vm-12-345", metav1.NowMicro()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	stopped := &appsv1.Deployment{ObjectMeta: meta(serverName), Spec: appsv1.DeploymentSpec{Replicas: &none}}
	outside := &coordinationv1.Lease{ObjectMeta: meta(leaseName), Spec: coordinationv1.LeaseSpec{HolderIdentity: &who, RenewTime: &now}}
	for want, there := range map[string][]runtime.Object{
		"install one: spillway kube install --namespace shop":                   nil,
		"has 0 replicas; have it run: spillway kube upgrade --namespace shop":   {stopped, outside},
		"the Spillway server of namespace shop runs outside the cluster, on vm": {outside},
	} {
		r := &Remote{clients: fake.NewClientset(there...), conf: &rest.Config{Host: "https://cluster.test"}, namespace: "shop"}
		if _, err := r.dial(t.Context()); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
