//go:build kube

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// compact ends the API server, makes its store forget all history and starts it again: who watched has missed what
// happened meanwhile and is told that it cannot be had any more.
const compact = `. ./cluster.sh
stop apiserver
ask() { inside curl -sf "http://127.0.0.1:2379/v3/kv/$1" -d "$2"; }
revision=$(ask range '{"key":"AA==","limit":1}' | grep -o '"revision":"[0-9]*"' | grep -o '[0-9]*')
ask compaction "{\"revision\":\"$revision\",\"physical\":true}" >/dev/null
start apiserver
await 60 request /readyz
echo compacted up to "$revision"`

// TestCompactedStore starts the API server anew in a rollout, on a store without history. It runs before the tests that
// run beside each other, because all of them need the API server.
func TestCompactedStore(t *testing.T) {
	script, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(kubeconfig()), "pid", "apiserver")); err != nil {
		t.Skip("the API server of this cluster is not ours to end: it was not started by make kube-up")
	}
	in := install(t)
	c := newCastle(in)
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [25% 5s, 50% 1s]")
	users, visitors := c.begin()
	c.change().deploy("--detach").want(t, 0)
	in.divided(25)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-c", compact)
	shell.Dir, shell.Env = script, append(os.Environ(), "SPILLWAY_KUBE_DIR="+filepath.Dir(kubeconfig()))
	began := time.Now()
	said, err := shell.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "compacted") {
		t.Fatalf("compact: %v: %s", err, said)
	}
	t.Logf("the API server was away for %.1f s, %s", time.Since(began).Seconds(), strings.TrimSpace(string(said)))
	in.healthy("castle", 2, 2*time.Minute)
	c.change().deploy().want(t, 0) // it sees what is new: watches go on
	in.healthy("castle", 3, time.Minute)
	await(t, time.Minute, "the pods of old releases to go", func() bool {
		var pods core.PodList
		err := cluster.List(in.ctx(10*time.Second), &pods, client.InNamespace(in.namespace), client.MatchingLabels{"spillway.dev/release": "1"})
		return err == nil && len(pods.Items) == 0
	})
	once(t, in.events("castle"))
	visitors.together(t)
	users.flawless(70)
}
