//go:build kube

package e2e

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// TestTakenHost has a host that an HTTPRoute of another namespace leads at the same gateway.
func TestTakenHost(t *testing.T) {
	t.Parallel()
	in, other := install(t), namespace(t)
	c := newCastle(in)
	edge := gateway.Namespace("gateway")
	taken := func() *gateway.HTTPRoute {
		return &gateway.HTTPRoute{
			ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "site"},
			Spec: gateway.HTTPRouteSpec{
				CommonRouteSpec: gateway.CommonRouteSpec{ParentRefs: []gateway.ParentReference{{Namespace: &edge, Name: "public"}}},
				Hostnames:       []gateway.Hostname{gateway.Hostname(c.host)}, Rules: []gateway.HTTPRouteRule{{}},
			},
		}
	}
	first := taken()
	if err := cluster.Create(in.ctx(10*time.Second), first); err != nil {
		t.Fatal(err)
	}
	c.deploy().want(t, 1).tells(t, "host "+c.host+" is led elsewhere by HTTPRoute "+other+"/site", "give this app another host")
	in.told(10*time.Second, []string{"status", "--app", "castle"}, "there is no app castle")
	if err := cluster.Delete(in.ctx(10*time.Second), first); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "the host to be free", func() bool { return c.deploy("--detach").code == 0 })
	in.healthy("castle", 1, time.Minute)
	if err := cluster.Create(in.ctx(10*time.Second), taken()); err != nil {
		t.Fatal(err)
	}
	in.told(20*time.Second, []string{"doctor"}, "host "+c.host+" of app castle belongs to HTTPRoute "+other+"/site too")
	c.change().deploy("--detach").want(t, 0) // users of an app do not wait for others to settle it
	in.told(time.Minute, []string{"status", "--app", "castle"}, c.host+": HTTPRoute "+other+"/site has this host at the same gateway too")
}
