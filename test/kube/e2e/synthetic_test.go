//go:build kube

package e2e

import (
	"testing"
	"time"
)

// Nobody visits the castle. Requests of Spillway's own, which the gateway deals like those of users, let a good release go
// on and have a dead one taken back.
func TestSyntheticRequests_JudgeAQuietService(t *testing.T) {
	t.Parallel()
	in := install(t)
	c := newCastle(in)
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [25% 2s, 50% 2s]\n    synthetic: {path: /, rate: 20}")
	c.deploy().want(t, 0)
	in.healthy("castle", 1, time.Minute)
	c.change().deploy().want(t, 0)
	o := in.healthy("castle", 2, time.Minute)
	if e := o.Last.Evidence; e == nil || e.Requests == 0 || e.Baseline == 0 {
		t.Errorf("it went on without evidence: %+v", e)
	}
	c.change().with(dead).deploy().want(t, 3).tells(t, "rolled back")
	if o := in.healthy("castle", 2, time.Minute); o.Last.Evidence == nil || o.Last.Evidence.Failures == 0 {
		t.Errorf("taken back without evidence: %+v", o.Last)
	}
}
