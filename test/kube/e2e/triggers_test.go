//go:build kube

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

// triggers is examples/triggers in a git repository, behind the gateway, by HTTP and by HTTPS. Its file is the one that
// runs on one machine; what changes are the hosts, because all tests share a gateway, the values of the environment,
// and how long it waits. Its tls stays as it is: on a cluster the certificate is the gateway's.
type triggers struct {
	*testing.T
	*e2etest.Triggers
	in      *installation
	browser *http.Client
	host    string
	dark    string // the host of the dark colour
}

// newTriggers deploys the example as release 1 of version "1", at rest.
func newTriggers(t *testing.T) *triggers {
	in := installIn(t, namespace(t))
	in.flags = []string{"--gateway-url", ""} // the gateway's own addresses: of both listeners
	in.start()
	tr := &triggers{T: t, in: in, Triggers: e2etest.NewTriggers(t, root()), browser: browser(t)}
	tr.host, tr.dark = "triggers-"+in.namespace+".localhost", "off-"+in.namespace+".localhost"
	tr.Edit("host: triggers.localhost", "host: "+tr.host)
	tr.Edit("host: off.triggers.localhost", "host: "+tr.dark)
	tr.Edit("interval: 30s", "interval: 1s")
	tr.Edit("watch: 1m", "watch: 1s")
	tr.Commit()
	tr.deploy().want(t, 0).tells(t, "TLS ends at gateway gateway/public")
	tr.rest(1)
	await(t, 20*time.Second, "the first page", func() bool {
		return open(tr.browser, tr.plain()).Err == nil && open(tr.browser, tr.secure()).Err == nil
	})
	return tr
}

func (tr *triggers) plain() string  { return "http://" + tr.host + "/" }
func (tr *triggers) secure() string { return "https://" + tr.host + "/" }

func (tr *triggers) deploy(flags ...string) result {
	tr.Helper()
	return tr.in.spillway(append([]string{"deploy", tr.Dir}, flags...)...)
}

// oops runs an oops command for the app.
func (tr *triggers) oops(args ...string) result {
	tr.Helper()
	return tr.in.run(tr.Dir, append([]string{"oops"}, args...)...)
}

// rest waits until a release serves and nothing is going on.
func (tr *triggers) rest(release int) spillway.Overview {
	tr.Helper()
	return tr.in.healthy("triggers", release, time.Minute)
}

// watch lets users come by both listeners.
func (tr *triggers) watch() *e2etest.Watchers {
	tr.Helper()
	w := watch(tr.T, tr.browser, tr.plain(), tr.secure())
	w.Asked(100)
	return w
}

// pods are the replicas of a release that are ready.
func (tr *triggers) pods(release int) []string {
	tr.Helper()
	all, err := tr.in.client.Replicas(tr.in.ctx(10*time.Second), "triggers")
	if err != nil {
		tr.Fatal(err)
	}
	return e2etest.Ready(all, release, func(r spillway.Replica) string { return r.Name })
}

// Story 2 as far as it needs no web hook and no feature flag, row by row.
func TestStory2_TriggersOnACluster(t *testing.T) {
	for _, row := range []struct {
		name string
		test func(*triggers)
	}{
		{"never let users see two versions at once, and have no gap", triggersOneSwitch},
		{"read the live colour from the router", triggersColorFromRouter},
		{"give up cleanly when the dark colour does not become ready in time", triggersGiveUp},
		{"redeploy any earlier version, and list all deployments", triggersRedeploy},
		{"stay sane when someone mends a bad deploy with another deploy", triggersMend},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(newTriggers(t))
		})
	}
}

// One switch for both listeners, there and back, under load; open requests on the old colour finish, and the way back
// to the warm colour starts nothing.
func triggersOneSwitch(tr *triggers) {
	for url, scheme := range map[string]string{tr.plain(): "http", tr.secure(): "https"} {
		if p := open(tr.browser, url); p.Err != nil || p.Said.Scheme != scheme {
			tr.Fatalf("%s: want a page that says scheme %s, got %v", url, scheme, p)
		}
	}
	open := e2etest.Slow(tr.T, tr.browser, tr.plain()+"slow?for=45s")
	w := tr.watch()
	tr.Version("1", "2")
	began := time.Now()
	tr.deploy().want(tr.T, 0).tells(tr.T, tr.secure())
	tr.Logf("deployed in %.1fs", time.Since(began).Seconds())
	w.Asked(200)
	select {
	case text := <-open:
		tr.Fatalf("the open request has ended before the switch, which proves nothing: %q", text)
	default:
	}
	e2etest.Switched(tr.T, w.Flawless(), "1", "2")
	if text := <-open; !strings.HasSuffix(text, "done\n") || strings.Contains(text, "release 2") || strings.Count(text, "release 1\n") < 100 {
		tr.Errorf("the request that was open on the old colour was not finished by it:\n%s", text)
	}
	tr.rest(2)
	warm, live := tr.pods(1), tr.pods(2)
	if len(warm) != 2 || len(live) != 2 {
		tr.Errorf("want 2 live and 2 warm replicas after the watch, there are %v and %v", live, warm)
	}
	w = tr.watch()
	r := tr.in.run(tr.Dir, "rollback").want(tr.T, 0)
	effective := e2etest.Acknowledged(tr.T, r.String())
	if effective > 4*time.Second {
		tr.Errorf("the rollback took %v by its own words: a switch, or a start-up?", effective)
	}
	tr.Logf("rolled back: effective after %v", effective)
	w.Asked(100)
	e2etest.Switched(tr.T, w.Flawless(), "2", "1")
	tr.rest(1)
	if after := tr.pods(1); !slices.Equal(after, warm) {
		tr.Errorf("a rollback to the warm colour started something: pods %v, then %v", warm, after)
	}
}

// No second record that can disagree with the router: what is told as live is what answers, after a deploy, after a
// rollback, and to a server that knows only what the cluster tells it. The dark colour has a host of its own.
func triggersColorFromRouter(tr *triggers) {
	type side struct {
		Color   string
		Release int
	}
	check := func(after string, active, off int) (c struct{ Active, Off side }) {
		tr.Helper()
		r := tr.oops("status").want(tr.T, 0)
		if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
			tr.Fatalf("oops status: %v\n%s", err, r.stdout)
		}
		p := open(tr.browser, tr.secure())
		if c.Active.Release != active || p.Release != fmt.Sprint(active) || c.Off.Release != off || c.Active.Color == c.Off.Color {
			tr.Errorf("after %s: want release %d active and %d off; oops status says %+v, users meet %v", after, active, off, c, p)
		}
		for _, url := range []string{"http://" + tr.dark + "/", "https://" + tr.dark + "/"} {
			if !within(5*time.Second, func() bool { p = open(tr.browser, url); return p.Release == fmt.Sprint(off) }) {
				tr.Errorf("after %s: %s gives %v, want release %d", after, url, p, off)
			}
		}
		return c
	}
	tr.Version("1", "2")
	tr.deploy().want(tr.T, 0)
	tr.rest(2)
	before := check("a deploy", 2, 1)
	tr.oops("rollback").want(tr.T, 0)
	tr.rest(1)
	after := check("a rollback", 1, 2)
	if before.Active.Color != after.Off.Color || before.Off.Color != after.Active.Color {
		tr.Errorf("a rollback swaps the colours; before %+v, after %+v", before, after)
	}
	tr.in.kill(9)
	tr.in.start()
	await(tr.T, 20*time.Second, "the gateway to have been asked again", func() bool { return tr.in.overview("triggers").Color != "" })
	if again := check("a kill of the server", 1, 2); again.Active.Color != after.Active.Color {
		tr.Errorf("the colours changed with the server: %+v, then %+v", after, again)
	}
	tr.oops("off").want(tr.T, 0).tells(tr.T, tr.dark, after.Off.Color)
}

// 20 tries of 10 s, scaled down: the live colour is untouched, the exit code is not 0, the reason is printed.
func triggersGiveUp(tr *triggers) {
	tr.Edit("deadline: 200s", "deadline: 15s")
	live := tr.pods(1)
	w := tr.watch()
	tr.Edit(`VERSION: "1"`, `VERSION: "2", NEVER_READY: "1"`)
	began := time.Now()
	r := tr.deploy().want(tr.T, 1)
	r.tells(tr.T, "0 of 2 replicas of triggers ready", "503", "release 1 serves everybody", "next:")
	if took := time.Since(began); took < 15*time.Second || took > 45*time.Second {
		tr.Errorf("it gave up after %v, want about 15 s", took)
	}
	tr.Logf("%s%s", r.stdout, r.stderr)
	if all := e2etest.Met(w.Flawless()); len(all) != 1 || all["1"] == 0 {
		tr.Errorf("users met %v, want release 1 only", all)
	}
	tr.rest(1)
	if now := tr.pods(1); !slices.Equal(now, live) {
		tr.Errorf("the live colour was %v and is %v", live, now)
	}
}

// From the release history, without a rebuild; and the list says number, commit, who, when, state, and which is live.
func triggersRedeploy(tr *triggers) {
	first := tr.Git("rev-parse", "HEAD")
	for _, v := range []string{"2", "3"} {
		tr.Version(fmt.Sprint(v[0]-'1'), v)
		tr.deploy().want(tr.T, 0)
		tr.rest(int(v[0] - '0'))
	}
	w := tr.watch()
	r := tr.oops("deploy", first[:7]).want(tr.T, 0)
	w.Asked(100)
	e2etest.Switched(tr.T, w.Flawless(), "3", "1")
	if strings.Contains(r.stdout+r.stderr, "is in the registry") || strings.Contains(r.stdout+r.stderr, "go build") {
		tr.Errorf("something was built: %v", r)
	}
	if p := open(tr.browser, tr.secure()); p.Said.Version != "1" {
		tr.Errorf("after oops deploy %s users meet %v, want version 1", first[:7], p)
	}
	tr.rest(1)
	if n := tr.in.newest("triggers"); n != 3 {
		tr.Errorf("deploying a stored commit made release %d", n)
	}
	if r := tr.oops("deploy", "0123abc"); r.code != 1 && r.code != 2 || !strings.Contains(r.stderr, "0123abc") {
		tr.Errorf("want exit code 1 or 2 for an unknown commit: %v", r)
	}
	lines := map[string]string{} // by release
	for line := range strings.Lines(tr.oops("list").want(tr.T, 0).stdout) {
		if f := strings.Fields(strings.TrimPrefix(line, "*")); len(f) > 0 && strings.Trim(f[0], "0123456789") == "" {
			lines[f[0]] = line
		}
	}
	if got := slices.Sorted(maps.Keys(lines)); !slices.Equal(got, []string{"1", "2", "3"}) || !strings.Contains(lines["1"], first[:7]) {
		tr.Errorf("oops list: %q", lines)
	}
	for n, line := range lines {
		if strings.Contains(line, "live") != (n == "1") {
			tr.Errorf("release 1 is live, and no other: %q", lines)
		}
	}
}

// A deploy during a rollout first returns users to the last good release. Here release 2 has everybody and fails often
// enough to look bad, too seldom to be proved so; release 3 takes its time to start.
func triggersMend(tr *triggers) {
	tr.Edit("watch: 1s", "watch: 1m")
	tr.Edit(`VERSION: "1"`, `VERSION: "2", FAIL: POST`)
	tr.Commit()
	w := tr.watch()
	tr.deploy().want(tr.T, 0)
	w.Asked(100)
	for range 6 {
		response, err := tr.browser.Post(tr.secure(), "text/plain", strings.NewReader("x"))
		if err != nil {
			tr.Fatal(err)
		}
		response.Body.Close()
	}
	tr.in.status("triggers", 20*time.Second, "the failures to be seen by the judge", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Evidence != nil && o.Rollout.Evidence.Failures >= 6
	})
	tr.Edit(`VERSION: "2", FAIL: POST`, `VERSION: "3", START: 3s`)
	tr.Commit()
	tr.deploy().want(tr.T, 0)
	w.Asked(100)
	seen := w.Flawless()
	good := e2etest.Met(e2etest.Between(seen, "2", "3"))
	if len(good) != 1 || good["1"] < 50 {
		tr.Errorf("between release 2 and release 3 users met %v, want release 1 for as long as release 3 starts", good)
	}
	tr.Logf("users met %v, and between release 2 and 3 %v", e2etest.Met(seen), good)
	tr.in.spillway("promote", "--app", "triggers").want(tr.T, 0)
	tr.rest(3)
}
