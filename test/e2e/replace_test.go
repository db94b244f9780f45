package e2e

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// replicas gives the replicas of an app, sorted by name as ps lists them.
func (in *installation) replicas(name string) []spillway.Replica {
	in.t.Helper()
	list, err := in.client.Replicas(in.ctx(10*time.Second), spillway.Ref(name))
	if err != nil {
		in.t.Fatal(err)
	}
	return list
}

// pids are the processes of replicas.
func pids(list []spillway.Replica) (pids []int) {
	for _, r := range list {
		pids = append(pids, r.PID)
	}
	slices.Sort(pids)
	return pids
}

// proxyPID is the process of the proxy that serves; 0 = none does.
func (in *installation) proxyPID() int {
	info, err := in.client.Info(in.ctx(5 * time.Second))
	if err != nil {
		return 0
	}
	return info.Proxy
}

// The kill of a replica is no user's business: what it had not answered goes to another one.
func TestKillReplica(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "killed")
	a.Tiers = true
	in.deploy(a).want(t, 0)
	in.healthy("killed", 1, 30*time.Second)
	users := in.send(a.Host(), keepAlive("GET", 120), newConnections("GET", 100))
	for round := range 8 {
		users.answered(50)
		service := []string{"web", "peer"}[round%2]
		before := in.replicas("killed")
		victim := before[slices.IndexFunc(before, func(r spillway.Replica) bool { return r.Group.Service == service })]
		if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
			t.Fatalf("%s, pid %d: %v", victim.Name, victim.PID, err)
		}
		await(t, 30*time.Second, victim.Name+" to be back", func() bool {
			list := in.replicas("killed")
			return len(list) == 4 && !slices.Contains(pids(list), victim.PID) &&
				!slices.ContainsFunc(list, func(r spillway.Replica) bool { return r.State != spillway.Ready })
		})
	}
	users.answered(50)
	users.flawless(200)
	in.exactly("killed", 4)
	in.healthy("killed", 1, 10*time.Second)
}

// A new proxy takes over the listeners of the old one: nobody is refused, nobody is cut off, whatever the
// method and however old the connection, and the replicas notice nothing.
func TestReplaceProxy(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "handed")
	in.deploy(a).want(t, 0)
	before := pids(in.replicas("handed"))
	users := in.send(a.Host(), keepAlive("GET", 60), newConnections("GET", 50), keepAlive("POST", 60), newConnections("POST", 50))
	for round := range 10 {
		users.answered(150)
		old := in.proxyPID()
		if err := syscall.Kill(in.serverPID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		await(t, 20*time.Second, "another proxy", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
		if got := pids(in.replicas("handed")); !slices.Equal(got, before) {
			t.Errorf("round %d: the replicas were %v and are %v", round, before, got)
		}
	}
	users.answered(50)
	users.flawless(200)
	in.exactly("handed", 2)
}

// A proxy that is killed takes its open connections with it. Its successor is there within 2 s, and serves
// what it served: in the middle of a rollout the same weights.
func TestKillProxy(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "reborn")
	a.Strategy, a.Steps = "canary", "50% 1h"
	in.deploy(a).want(t, 0)
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	half := func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Percent(50) && !o.NoData
	}
	in.status("reborn", 30*time.Second, "half of the users on release 2", half)
	replicas := pids(in.replicas("reborn"))
	var cost int64
	for range 3 {
		old := in.proxyPID()
		users := in.send(a.Host(), newConnections("GET", 100))
		users.answered(50)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		died := time.Now()
		await(t, 10*time.Second, "the proxy to be back", func() bool { status, _ := in.get(a.Host(), "/"); return status == 200 })
		if took := time.Since(died); took > 2*time.Second {
			t.Errorf("the proxy was back after %v, want at most 2 s", took)
		} else {
			t.Logf("the proxy was back after %v", took)
		}
		in.status("reborn", 10*time.Second, "the same weights", half)
		after := in.send(a.Host(), newConnections("GET", 100))
		after.answered(100)
		s := after.flawless(50)
		if one, two := s.Releases["1"].Requests, s.Releases["2"].Requests; one == 0 || two == 0 {
			t.Errorf("after the proxy came back, %d requests met release 1 and %d release 2, want half each", one, two)
		}
		cost += users.end().Failures
	}
	if got := pids(in.replicas("reborn")); !slices.Equal(got, replicas) {
		t.Errorf("the replicas were %v and are %v", replicas, got)
	}
	t.Logf("%d requests failed in 3 deaths of the proxy", cost)
}
