//go:build kube

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// outside is this machine as the gateway of the cluster reaches it; SPILLWAY_TEST_OUTSIDE names another address of it.
func outside() string {
	return cmp.Or(os.Getenv("SPILLWAY_TEST_OUTSIDE"), cmp.Or(os.Getenv("SPILLWAY_KUBE_NET"), "10.99")+".0.254")
}

// legacy starts a server of the old stack, which Spillway does not run, and gives its URL.
func legacy(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(outside(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"stack": %q}`, name)
	})}
	ended := make(chan struct{})
	// Owned by the test; ends with the server, which the cleanup closes; the cleanup waits for it.
	go func() { server.Serve(l); close(ended) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return "http://" + l.Addr().String()
}

// Story 4 as far as a gateway that is not Spillway's can tell it: the legacy site outside of the cluster and the new stack
// inside, in three phases of one host, with a canary by cookie and by a host of its own. No request fails.
func TestStory4_MovesTheSiteOver(t *testing.T) {
	t.Parallel()
	in := install(t)
	dir, urls := example(t, "agendor"), []string{legacy(t, "legacy-1"), legacy(t, "legacy-2")}
	host, own := "web."+in.namespace+".localhost", "web-canary."+in.namespace+".localhost"
	phases := []string{"phase1.yaml", "phase2.yaml", "phase3.yaml"}
	for i, file := range phases {
		file = filepath.Join(dir, file)
		replace(t, file, "host: web.agendor.localhost", "host: "+host)
		replace(t, file, "host: web-canary.agendor.localhost", "host: "+own)
		replace(t, file, "watch: 1m", "watch: 1s")
		if i < 2 {
			replace(t, file, "http://127.0.0.1:9101", urls[0])
			replace(t, file, "http://127.0.0.1:9102", urls[1])
		}
	}
	deploy := func(file string, flags ...string) string {
		t.Helper()
		in.spillway(append([]string{"deploy", dir, "-f", filepath.Join(dir, file)}, flags...)...).want(t, 0)
		n := in.newest("agendor")
		in.status("agendor", 90*time.Second, "rest", func(o spillway.Overview) bool { return o.Rollout == nil && o.Queue == 0 })
		return fmt.Sprint(n)
	}
	// met asks until everybody of a kind met exactly these, and gives up after some time.
	met := func(what, host, cookie string, want ...string) {
		t.Helper()
		have := map[string]int{}
		all := within(20*time.Second, func() bool {
			clear(have)
			for range 60 {
				have[stack(in, host, cookie)]++
			}
			return slices.Equal(slices.Sorted(maps.Keys(have)), want)
		})
		if !all {
			t.Errorf("%s met %v, want %v", what, have, want)
		}
		t.Logf("%s met %v", what, have)
	}
	const tester = "_AUSER_TYPE=canary"
	deploy("phase1.yaml")
	met("phase 1: everybody", host, "", "legacy-1", "legacy-2")
	users := in.send(host, readers(40))
	replace(t, filepath.Join(dir, "phase1.yaml"), "TITLE: Agendor}", "TITLE: Canary}")
	canary := deploy("phase1.yaml", "--track", "canary")
	met("phase 1: everybody", host, "", "legacy-1", "legacy-2")
	met("phase 1: testers", host, tester, canary)
	met("phase 1: guests of the canary's host", own, "", canary)
	deploy("phase2.yaml") // its web is that of release 1, so it keeps the replicas
	met("phase 2: everybody", host, "", "1", "legacy-1", "legacy-2")
	met("phase 2: testers", host, tester, canary)
	deploy("phase3.yaml")
	met("phase 3: everybody", host, "", "1")
	met("phase 3: testers", host, tester, canary)
	users.answered(50)
	users.flawless(30)
}

// stack is who answers: a legacy server by its name, or the new stack by its release.
func stack(in *installation, host, cookie string) string {
	header := http.Header{}
	if cookie != "" {
		header.Set("Cookie", cookie)
	}
	status, body := in.get(host, "/", header)
	var a struct {
		Stack   string `json:"stack"`
		Release string `json:"release"`
	}
	if err := json.Unmarshal([]byte(body), &a); status != http.StatusOK || err != nil {
		return fmt.Sprintf("%d %.60s", status, body)
	}
	return cmp.Or(a.Release, a.Stack)
}
