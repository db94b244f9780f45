//go:build kube

package e2e

import (
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
)

// dead is what www is given to answer 500 to everything but the probe.
const dead = `FAIL: "1"`

// newDead gives a castle that serves, under 83 requests a second, and whose next deploy is a dead release that gets 5 %
// of the users.
func newDead(t *testing.T, in *installation) (*castle, *traffic) {
	t.Helper()
	c := newCastle(in)
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [5% 5s, 50% 1s]")
	users := c.beginWith(readers(83))
	if n := users.counts().Failures; n > 0 {
		t.Fatalf("%d requests failed before anything was changed", n)
	}
	return c, users
}

// ledAway reports whether users are led away from a release that is taken back: that it has no share is acknowledged.
// Before its first share was, that is 0 too.
func ledAway(o spillway.Overview) bool {
	return o.Rollout == nil || o.Rollout.Back && o.Rollout.Served == 0
}

// found waits until the candidate of a deploy is found harmful and taken back. It measures from the first request that a
// user saw fail to weight 0 at the gateway; the delays of the metrics are in it.
func (c *castle) found(users *traffic, done <-chan result) {
	c.Helper()
	await(c.T, time.Minute, "the first failure", func() bool { return !users.first().IsZero() })
	c.in.status("castle", time.Minute, "weight 0", ledAway)
	took := time.Since(users.first())
	if took > 15*time.Second {
		c.Errorf("the candidate had traffic for %v after its first failure, want at most 15 s", took)
	}
	(<-done).want(c.T, 3).tells(c.T, "rolled back")
	o := c.in.healthy("castle", 1, time.Minute)
	c.Logf("weight 0 after %.1f s and %v: %s", took.Seconds(), users.counts(), o.Last.Reason)
}

// findDead has a dead release found, after which no request fails.
func findDead(t *testing.T, in *installation) {
	t.Helper()
	c, users := newDead(t, in)
	c.found(users, in.behind("deploy", c.change().with(dead).dir))
	before := users.counts().Failures
	users.answered(300)
	if s := users.end(); s.Failures != before {
		t.Errorf("%d requests failed after the rollback", s.Failures-before)
	}
}

func TestDeadCanary(t *testing.T) { findDead(t, install(t)) }

// While the metrics cannot be read nobody is judged: a good release waits where it is and so does a bad one. Status says
// so. When they are there again, the one is promoted and the other is rolled back.
func TestSilentMetrics_HoldTheRollout(t *testing.T) {
	t.Parallel()
	door, url := metricsDoor(t)
	in := installIn(t, namespace(t))
	in.metrics = url
	in.start()
	c, users := newDead(t, in)
	held := func(release int) {
		t.Helper()
		in.status("castle", time.Minute, "5 %", func(o spillway.Overview) bool {
			return o.Rollout != nil && o.Rollout.Release == release && o.Rollout.Served == spillway.Percent(5)
		})
		<-time.After(10 * time.Second) // more than the step and all delays of a rollout that is judged
		o := in.overview("castle")
		if r := o.Rollout; r == nil || r.Release != release || r.Back || r.Served != spillway.Percent(5) {
			t.Errorf("release %d does not hold at 5 %% without metrics: %s", release, describe(o))
		}
		in.spillway("status", "--app", "castle").want(t, 0).tells(t, "no-data", "the counters of the gateway cannot be read", door.address)
	}
	door.shut()
	done := in.behind("deploy", c.change().dir)
	held(2)
	door.open()
	(<-done).want(t, 0)
	in.healthy("castle", 2, time.Minute)
	if n := users.counts().Failures; n > 0 {
		t.Errorf("%d requests failed for a good release", n)
	}

	door.shut()
	done = in.behind("deploy", c.change().with(dead).dir)
	held(3)
	opened := time.Now()
	door.open()
	(<-done).want(t, 3)
	o := in.healthy("castle", 2, time.Minute)
	t.Logf("rolled back %.1f s after the metrics came back: %s", o.Last.At.Sub(opened).Seconds(), o.Last.Reason)
}

// A candidate whose pods are gone has no series that shows it: what it fails, the gateway answers itself. That is not
// the silence of a release without visitors.
func TestCanaryWithoutEndpoints_IsHarmful(t *testing.T) {
	t.Parallel()
	in := install(t)
	c, users := newDead(t, in)
	c.edit("steps: [5% 5s, 50% 1s]", "steps: [25% 1h]")
	done := in.behind("deploy", c.change().dir)
	in.divided(25)
	users.answered(100)
	full := &core.ResourceQuota{
		ObjectMeta: meta.ObjectMeta{Name: "full", Namespace: in.namespace},
		Spec:       core.ResourceQuotaSpec{Hard: core.ResourceList{core.ResourcePods: resource.MustParse("1")}},
	}
	if err := cluster.Create(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "the quota to be in force", func() bool {
		return cluster.Get(t.Context(), client.ObjectKeyFromObject(full), full) == nil && !full.Status.Used.Pods().IsZero()
	})
	err := cluster.DeleteAllOf(t.Context(), &core.Pod{}, client.InNamespace(in.namespace),
		client.MatchingLabels{"spillway.dev/service": "www", "spillway.dev/release": "2"}, client.GracePeriodSeconds(0))
	if err != nil {
		t.Fatal(err)
	}
	c.found(users, done)
}
