//go:build kube

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/load"
)

// burner is an app whose requests cost processor time, so that an autoscaler has something to do.
const burner = `app: burner
services:
  www:
    build: {dir: ., command: CGO_ENABLED=0 go build -o bin/burn .}
    run: bin/burn
    host: HOST
    env: {COST: "10", NUMBER: "1"}
    scale: {min: 1, max: 8, cpu: 50%, tolerance: 5%}
    limits: {cpu: 100m}
    stop: {drain: 2s, grace: 2s}
    strategy: canary
    steps: [50% 5s]
watch: 10s
`

// Story 4: a deploy while the autoscaler is scaling up never resets the number that it chose, and costs nobody an answer.
// The canary gets what its share of that number needs, and does not drive stable to its maximum.
func TestStory4_ADeployDuringAScaleUpKeepsTheCount(t *testing.T) {
	if _, err := cluster.RESTMapper().RESTMapping(schema.GroupKind{Group: "metrics.k8s.io", Kind: "PodMetrics"}); err != nil {
		t.Fatalf("there is no metrics-server, which autoscalers ask; KUBE_WITH=metrics test/kube/up.sh adds it to the cluster of make kube-up: %v", err)
	}
	in := install(t)
	dir, host := t.TempDir(), "burner."+in.namespace+".localhost"
	for name, text := range map[string]string{"spillway.yaml": strings.Replace(burner, "HOST", host, 1), "go.mod": "module burner\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(filepath.Join(root(), "test", "kube", "burn", "main.go"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "main.go"), program, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	in.spillway("deploy", dir).want(t, 0)
	in.healthy("burner", 1, time.Minute)
	await(t, 20*time.Second, "the first page", func() bool { status, _ := in.get(host, "/", nil); return status == 200 })

	users := in.send(host, load.Plan{Method: "GET", Rate: 30, Workers: 30}) // 300m, so 6 replicas of 100m at 50 %
	await(t, 2*time.Minute, "a scale-up", func() bool { return in.asked("burner-www-1") >= 2 })
	replace(t, filepath.Join(dir, "spillway.yaml"), `NUMBER: "1"`, `NUMBER: "2"`)
	done, most := in.behind("deploy", dir), 0
	for followed := false; !followed; {
		select {
		case r := <-done:
			r.want(t, 0)
			followed = true
		case <-time.After(100 * time.Millisecond):
		}
		n := in.asked("burner-www-1")
		if n < most {
			t.Errorf("stable had %d replicas, and %d in the rollout", most, n)
		}
		most = max(most, n)
	}
	if most < 3 || most >= 8 {
		t.Errorf("stable had %d replicas: half of the load needs 3 and all of it 6, the most are 8", most)
	}
	if n := in.asked("burner-www-2"); n < most {
		t.Errorf("release 2 has all traffic and %d replicas; stable had %d", n, most)
	}
	o := in.healthy("burner", 2, time.Minute)
	if n := o.Services[0].Size; n < most {
		t.Errorf("after the watch its size is %d, and was %d", n, most)
	}
	in.spillway("scale", "www=7", "--app", "burner").want(t, 0)
	await(t, time.Minute, "the smallest number that scale asked for", func() bool { return in.asked("burner-www-2") >= 7 })
	seen := users.flawless(10)
	t.Logf("stable had %d replicas when release 2 got its users: %v", most, seen)
	in.spillway("scale", "www=auto", "--app", "burner").want(t, 0)
	await(t, 3*time.Minute, "the smallest size without load", func() bool { return in.asked("burner-www-2") == 1 })
	if o := in.overview("burner"); o.Phase != spillway.Healthy || len(o.Problems) > 0 {
		t.Errorf("after the scale-down: %s, %q", o.Phase, o.Problems)
	}
}

// asked is the number of replicas that a Deployment asks for; 0 = there is none.
func (in *installation) asked(name string) int {
	in.t.Helper()
	for _, d := range list(in, new(apps.DeploymentList)).Items {
		if d.Name == name && d.Spec.Replicas != nil {
			return int(*d.Spec.Replicas)
		}
	}
	return 0
}
