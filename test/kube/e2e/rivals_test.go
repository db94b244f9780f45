//go:build kube

package e2e

import (
	"strings"
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

// TestTakenHost_ThatMayNotBeRead has two servers that may read their own namespaces alone, and apps with the same host:
// the gateway obeys one of them, and the other hears of it by the gateway's answers.
func TestTakenHost_ThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	narrow := func() *installation {
		in := installIn(t, namespace(t))
		in.kubeconfig = lesser(t, in, "")
		in.start()
		return in
	}
	one, two := narrow(), narrow()
	first, second := newCastle(one), newCastle(two)
	second.edit("host: "+second.host, "host: "+first.host)
	first.deploy().want(t, 0)
	one.healthy("castle", 1, time.Minute)
	second.deploy("--detach").want(t, 0)
	says := func(in *installation) bool {
		r := in.run("/", "status", "--app", "castle")
		return strings.Contains(r.stdout, "for another app, of another namespace") && strings.Contains(r.stdout, "give one another host")
	}
	await(t, time.Minute, "one of them to say that the host is another's", func() bool { return says(one) || says(two) })
	t.Logf("the first says so: %v, the second: %v\n%v", says(one), says(two), two.run("/", "status", "--app", "castle"))
}
