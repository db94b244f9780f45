//go:build kube

package e2e

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// installBehindSeveral starts a server whose gateway has several instances behind a Service, by which users come.
func installBehindSeveral(t *testing.T) *installation {
	t.Helper()
	in := installIn(t, namespace(t))
	in.gateway, in.metrics = severalInstances(t)+":80", "http://traefik.gateway:9100/metrics"
	in.start()
	return in
}

// severalInstances gives the address of the Service.
func severalInstances(t *testing.T) string {
	t.Helper()
	var s core.Service
	at := client.ObjectKey{Namespace: "gateway", Name: "traefik"}
	if err := cluster.Get(t.Context(), at, &s); err != nil {
		t.Fatal(err)
	}
	if n := len(instances(t.Context(), t).Endpoints); n < 3 {
		t.Fatalf("the gateway has %d instances behind Service traefik, the test needs 3: KUBE_WITH=gateways make kube-up", n)
	}
	return s.Spec.ClusterIP
}

// instances are those of the gateway.
func instances(ctx context.Context, t *testing.T) *discovery.EndpointSlice {
	t.Helper()
	var slice discovery.EndpointSlice
	if err := cluster.Get(ctx, client.ObjectKey{Namespace: "gateway", Name: "traefik"}, &slice); err != nil {
		t.Fatal(err)
	}
	return &slice
}

// ready says of the second instance whether it is, as its readiness probe would if it were a pod.
func ready(t *testing.T, is bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // also when the test has ended
	defer cancel()
	slice := instances(ctx, t)
	slice.Endpoints[1].Conditions.Ready = &is
	if err := cluster.Update(ctx, slice); err != nil {
		t.Fatal(err)
	}
}

// component runs a line with the functions of cluster.sh.
func component(t *testing.T, line string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", ". ./cluster.sh; "+line)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// Each instance learns of a route by itself, and users come by all of them over old and new connections: whatever is
// deployed, aborted and rolled back, no request fails.
func TestSeveralInstances_LoseNoRequest(t *testing.T) {
	t.Parallel()
	in := installBehindSeveral(t)
	in.told(20*time.Second, []string{"doctor"}, "3 of the gateway, and each is asked")
	seed := uint64(time.Now().UnixNano())
	t.Logf("random moments from seed %d", seed)
	s := &season{castle: newCastle(in), random: rand.New(rand.NewPCG(seed, 0))}
	s.deploy().want(t, 0)
	s.in.healthy("castle", 1, time.Minute)
	s.everyInstance()
	users, visitors := s.send(80), s.visit()
	users.answered(100)
	s.let("canary")
	s.let("rolling")
	s.let("blue-green")
	s.abort("canary")
	s.rollback()
	for i := range many("SPILLWAY_KUBE_MOVES", 0) {
		[]func(){func() { s.let("canary") }, func() { s.abort("rolling") }, s.rollback}[i%3]()
	}
	users.answered(100)
	visitors.together(t)
	seen := users.flawless(70)
	t.Logf("%d deploys, %d aborts, %d rollbacks: %v", s.deploys, s.aborts, s.rollbacks, seen)
}

// everyInstance waits until each serves the first page: the Service leads to any.
func (s *season) everyInstance() {
	s.Helper()
	good := 0
	await(s.T, 20*time.Second, "20 pages in a row", func() bool {
		for ; good < 20; good++ {
			if status, _ := s.in.get(s.host, "/", nil); status != 200 {
				good = 0
				return false
			}
		}
		return true
	})
}

// What a dead release fails is counted by three instances, and found as soon as if one had counted it.
func TestSeveralInstances_DeadCanary(t *testing.T) { findDead(t, installBehindSeveral(t)) }

// An instance is killed in a rollout and starts again: what it refused is nobody's failure, its counters begin anew, and
// the rollout goes on.
func TestSeveralInstances_OneIsKilled(t *testing.T) {
	in := installBehindSeveral(t)
	t.Cleanup(func() {
		component(t, "curl -sf http://$net.0.2:9100/ping >/dev/null || start traefik2")
		ready(t, true)
	})
	c := newCastle(in)
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [25% 12s, 50% 1s]")
	users := c.beginWith(readers(80))
	done := in.behind("deploy", c.change().dir)
	in.divided(25)
	component(t, `pkill -KILL -P "$(cat "$dir/pid/traefik2")"`)
	<-time.After(2 * time.Second) // until a probe would have found it
	ready(t, false)
	<-time.After(3 * time.Second)
	component(t, "start traefik2; await 20 curl -sf http://$net.0.2:9100/ping")
	ready(t, true)
	(<-done).want(t, 0)
	o := in.healthy("castle", 2, time.Minute)
	users.answered(200)
	t.Logf("%s; %v", o.Last.Outcome, users.end())
	in.told(10*time.Second, []string{"doctor"}, "3 of the gateway, and each is asked")
}

// A server with the rights of an installation, and no more, reads and asks every instance of its gateway. Without those
// about the Service it says what it lacks.
func TestSeveralInstances_NeedFewRights(t *testing.T) {
	t.Parallel()
	behind := severalInstances(t) + ":80"
	for name, test := range map[string]struct {
		lacks string
		tells []string
	}{
		"all":     {"nothing", []string{"the server may do all that it has to", "3 of the gateway, and each is asked"}},
		"without": {"services", []string{"watch services in gateway", "Service gateway/traefik cannot be read", "spillway kube upgrade"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := installIn(t, namespace(t))
			in.gateway, in.metrics = behind, "http://traefik.gateway:9100/metrics"
			in.kubeconfig = lesser(t, in, test.lacks, "get", "list", "watch")
			in.start()
			in.told(20*time.Second, []string{"doctor"}, test.tells...)
		})
	}
}
