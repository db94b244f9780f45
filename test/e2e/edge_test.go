package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// waited is what a request of behindGet came to.
type waited struct {
	status int
	body   string
	took   time.Duration
}

// behindGet asks while the test goes on.
func (in *installation) behindGet(host, path string) <-chan waited {
	done := make(chan waited, 1)
	go func() { // ends with the request, which has a deadline
		began := time.Now()
		status, body := in.get(host, path)
		done <- waited{status, body, time.Since(began)}
	}()
	return done
}

// TestHold_LastsUntilItIsOver: requests wait at the proxy, also over a proxy that is replaced and a proxy and server
// that are killed, and none is lost when they may go on.
func TestHold_LastsUntilItIsOver(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "quiet")
	in.deploy(a).want(t, 0)
	held := func(n int) {
		t.Helper()
		in.status("quiet", 10*time.Second, fmt.Sprint(n, " requests held"), func(o spillway.Overview) bool { return o.Hold != nil && o.Hold.Waiting == n })
	}
	in.spillway("hold", "--app", "quiet").want(t, 0)
	first := in.behindGet(a.Host(), "/")
	held(1)
	in.replaceProxy()
	second := in.behindGet(a.Host(), "/")
	held(2)
	in.spillway("hold", "--off", "--app", "quiet").want(t, 0)
	for _, c := range []<-chan waited{first, second} {
		if r := <-c; r.status != 200 {
			t.Errorf("held, and then %d %s", r.status, r.body)
		}
	}

	in.spillway("hold", "--for", "2s", "--app", "quiet").want(t, 0)
	old := in.proxyPID()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "another proxy", func() bool { pid := in.proxyPID(); return pid != 0 && pid != old })
	if r := <-in.behindGet(a.Host(), "/"); r.status != http.StatusServiceUnavailable || r.took < 1900*time.Millisecond || !strings.Contains(r.body, "quiet is held, and the request has waited for 2s") {
		t.Errorf("after a proxy that was killed: %d after %v: %s", r.status, r.took, r.body)
	}
	in.spillway("hold", "--off", "--app", "quiet").want(t, 0)
	if status, body := in.get(a.Host(), "/"); status != 200 {
		t.Errorf("after the hold: %d %s", status, body)
	}
	in.spillway("hold", "--app", "nobody").want(t, 1)
}

// TestRoutes_AreServedToldAndRolledBack: the rules of the file, what the commands say of them, and a change of rules
// alone, which is a release and restarts nothing.
func TestRoutes_AreServedToldAndRolledBack(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "ruled")
	rules := func(to string) {
		a.Top = []string{"routes:",
			"  - {path: /old/*, redirect: " + to + "}",
			"  - {path: /staff/*, to: web, allow: [192.0.2.0/24]}",
			"  - {host: api.ruled.localhost, path: /v1/*, method: GET, to: web, rewrite: /}",
		}
	}
	rules("/new/*")
	in.deploy(a).want(t, 0)
	before := in.replicas("ruled")
	location := func() string {
		response := in.plain(a.Host(), "/old/x?y=1")
		return fmt.Sprint(response.StatusCode, " ", response.Header.Get("Location"))
	}
	if got := location(); !strings.HasSuffix(got, "/new/x?y=1") || !strings.HasPrefix(got, "30") {
		t.Errorf("redirect: %s", got)
	}
	if status, body := in.get(a.Host(), "/staff/x"); status != http.StatusForbidden || !strings.Contains(body, "may not come in here") {
		t.Errorf("allow-list: %d %s", status, body)
	}
	if status, _ := in.get("api.ruled.localhost", "/v1/healthz"); status != 200 {
		t.Errorf("a host that only a rule has: %d", status)
	}
	if status, _ := in.get("api.ruled.localhost", "/v2"); status != http.StatusNotFound {
		t.Errorf("no rule: %d", status)
	}
	if r := in.spillway("routes", "--app", "ruled").want(t, 0); !strings.Contains(r.stdout, "/old/*") || !strings.Contains(r.stdout, "api.ruled.localhost") {
		t.Errorf("routes says\n%s", r.stdout)
	}
	if r := in.spillway("routes", "test", "http://"+a.Host()+"/staff/x", "--client", "198.51.100.1", "--app", "ruled"); r.code != 0 || !strings.Contains(r.stdout, "403") || !strings.Contains(r.stdout, "/staff/*") {
		t.Errorf("routes test says\n%s", r)
	}
	rules("/newest/*")
	in.deploy(a).want(t, 0)
	if got := location(); !strings.HasSuffix(got, "/newest/x?y=1") {
		t.Errorf("after the change: %s", got)
	}
	in.spillway("rollback", "--app", "ruled").want(t, 0)
	if got := location(); !strings.HasSuffix(got, "/new/x?y=1") {
		t.Errorf("after the rollback: %s", got)
	}
	for i, r := range in.replicas("ruled") {
		if r.PID != before[i].PID {
			t.Errorf("%s was restarted for rules", r.Name)
		}
	}
}
