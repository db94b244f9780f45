//go:build kube

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/load"
)

// TestWithoutAGateway has a cluster that can divide users by replicas alone. That is said before a deploy and while it
// lasts: with one replica beside one, 5 % are 50 %. A person looks and goes on.
func TestWithoutAGateway(t *testing.T) {
	t.Parallel()
	in := installIn(t, namespace(t))
	in.flags = []string{"--gateway", "", "--gateway-url", "", "--gateway-metrics", ""}
	in.start()
	in.told(20*time.Second, []string{"doctor"}, "users are divided by replicas, and nobody judges")
	c := newCastle(in)
	c.edit("    scale: 2                      # replicas", "    scale: 1")
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [5% 1s, 50% 1s]")
	c.deploy().want(t, 0)
	in.healthy("castle", 1, time.Minute)
	at := "http://" + in.serviceAddress("castle-www") + "/"
	users := in.send("", load.Plan{Method: http.MethodGet, URL: at, Rate: 40, Workers: 4, Header: http.Header{"Connection": {"close"}}}, load.Plan{Method: http.MethodGet, URL: at, Rate: 20, Workers: 4})
	share := func() float64 {
		t.Helper()
		met := map[string]int{}
		for range 200 {
			met[releaseAt(t, at+"api/hello")]++
		}
		t.Logf("of 200 users, releases met %v", met)
		return float64(met["2"]) / 200
	}
	c.change()
	in.spillway("plan", c.dir).want(t, 10).tells(t, "50%", "asked 5%", "divided by replicas")
	r := c.deploy("--detach").want(t, 0)
	if strings.Contains(r.stdout+r.stderr, "serves everybody") {
		t.Errorf("a detached deploy waited: %v", r)
	}
	in.status("castle", time.Minute, "the first step to be served", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Whole/2
	})
	in.told(10*time.Second, []string{"status", "--app", "castle"}, "asked 5%, served 50%", "more replicas make smaller shares")
	// Status tells what the Service selects; its node learns it up to two seconds later.
	await(t, 5*time.Second, "half of the users to meet the candidate, as status says", func() bool { got := share(); return 0.35 <= got && got <= 0.65 })
	for step := range 2 { // at each a person looks
		in.status("castle", time.Minute, fmt.Sprintf("the rest at step %d", step+1), func(o spillway.Overview) bool {
			return o.Phase == spillway.Paused && o.Rollout.Step == step+1
		})
		in.spillway("resume", "--app", "castle").want(t, 0)
	}
	in.healthy("castle", 2, time.Minute)
	await(t, 5*time.Second, "all users to meet release 2", func() bool { return share() == 1 })
	in.spillway("rollback", "--app", "castle").want(t, 0)
	in.healthy("castle", 1, time.Minute)
	c.change().deploy("--detach").want(t, 0)
	in.status("castle", time.Minute, "the first step to be served", func(o spillway.Overview) bool { return o.Rollout != nil && o.Rollout.Served == spillway.Whole/2 })
	in.spillway("abort", "--app", "castle").want(t, 0)
	in.healthy("castle", 1, time.Minute)
	// Nobody tells when a node's kube-proxy has stopped to lead to a replica, so that no more can be promised than this.
	if s := users.end(); s.Failures*1000 > s.Requests || s.Rate < 20 {
		t.Errorf("want at most one of a thousand requests to fail, and 20 a second: %v", s)
		users.tellFailures()
	} else {
		t.Logf("load: %v", s)
	}
}

// serviceAddress is where a Service answers, as it does to pods and to who leads users to it.
func (in *installation) serviceAddress(name string) string {
	in.t.Helper()
	var s core.Service
	if err := cluster.Get(in.ctx(10*time.Second), client.ObjectKey{Namespace: in.namespace, Name: name}, &s); err != nil {
		in.t.Fatal(err)
	}
	return s.Spec.ClusterIP
}

// releaseAt is the release that a user with a new connection meets.
func releaseAt(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var s says
	if err := json.NewDecoder(response.Body).Decode(&s); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", url, response.StatusCode, err)
	}
	return s.Release
}
