package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

// triggers is examples/triggers in a git repository and on a server with TLS, one for each test.
type triggers struct {
	*testing.T
	*e2etest.Triggers
	in      *installation
	browser *http.Client
	tls     string // directory of the certificate
}

const (
	triggersHTTP  = "http://triggers.localhost/"
	triggersHTTPS = "https://triggers.localhost/"
)

// newTriggers deploys the example as release 1 of version "1", at rest, with a short watch.
func newTriggers(t *testing.T) *triggers {
	need(t, "openssl")
	need(t, "git")
	tr := &triggers{T: t, Triggers: e2etest.NewTriggers(t, root())}
	tr.tls = t.TempDir()
	tr.certify()
	tr.Edit("cert: /tmp/triggers-tls/cert.pem, key: /tmp/triggers-tls/key.pem", fmt.Sprintf("cert: %q, key: %q", tr.tls+"/cert.pem", tr.tls+"/key.pem"))
	tr.Edit("watch: 1m", "watch: 1s")
	tr.in = installTLS(t)
	tr.browser = tr.in.browser(filepath.Join(tr.tls, "cert.pem"))
	tr.Commit()
	tr.in.spillway("deploy", tr.Dir).want(t, 0)
	tr.rest(1)
	return tr
}

// certify makes a certificate, or another one.
func (tr *triggers) certify() {
	tr.Helper()
	if out, err := exec.Command(filepath.Join(tr.Dir, "certificate.sh"), tr.tls).CombinedOutput(); err != nil {
		tr.Fatalf("certificate.sh: %v\n%s", err, out)
	}
}

// oops runs an oops command for the app.
func (tr *triggers) oops(args ...string) result {
	tr.Helper()
	return tr.in.spillwayIn(tr.Dir, append([]string{"oops"}, args...)...)
}

// rest waits until a release serves and nothing is going on.
func (tr *triggers) rest(release int) spillway.Overview {
	tr.Helper()
	return tr.in.healthy("triggers", release, 30*time.Second)
}

// serving waits until a release has all traffic, watched or not.
func (tr *triggers) serving(release int) spillway.Overview {
	tr.Helper()
	return tr.in.status("triggers", 30*time.Second, fmt.Sprintf("release %d to have all traffic", release), func(o spillway.Overview) bool {
		return o.Rollout == nil && o.Stable == release || o.Rollout != nil && o.Rollout.Release == release && o.Rollout.Served == spillway.Whole
	})
}

// colors is what oops status prints.
type colors struct{ Active, Off color }

type color struct {
	Color    string   `json:"color"`
	Release  int      `json:"release"`
	Replicas []string `json:"replicas"`
}

func (tr *triggers) colors() (c colors) {
	tr.Helper()
	r := tr.oops("status").want(tr.T, 0)
	if lines := strings.Count(strings.TrimSpace(r.stdout), "\n"); lines > 0 {
		tr.Errorf("oops status prints %d lines, want one:\n%s", lines+1, r.stdout)
	}
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
		tr.Fatalf("oops status: %v\n%s", err, r.stdout)
	}
	return c
}

// addresses are those of the ready replicas of a release.
func (tr *triggers) addresses(release int) []string {
	return e2etest.Ready(tr.in.replicas("triggers"), release, func(r spillway.Replica) string { return r.Address })
}

// Story 2, row by row.
func TestTriggers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		test func(*triggers)
	}{
		{"never let users see two versions at once, and have no gap", triggersOneSwitch},
		{"read the live colour from the router", triggersColorFromRouter},
		{"give up cleanly when the dark colour does not become ready in time", triggersGiveUp},
		{"switch both the HTTP and the HTTPS listener", triggersBothListeners},
		{"roll back at once", triggersRollback},
		{"redeploy any earlier version", triggersRedeploy},
		{"list all deployments", triggersList},
		{"stay sane when someone mends a bad deploy with another deploy", triggersMend},
	} {
		t.Run(row.name, func(t *testing.T) { row.test(newTriggers(t)) })
	}
}

// One atomic switch; open requests on the old colour finish.
func triggersOneSwitch(tr *triggers) {
	open := e2etest.Slow(tr.T, tr.browser, triggersHTTP+"slow?for=4s")
	w := watch(tr.T, tr.browser, triggersHTTP, triggersHTTP)
	w.Asked(100)
	tr.Version("1", "2")
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	w.Asked(200)
	select {
	case text := <-open:
		tr.Fatalf("the open request has ended before the switch, which proves nothing: %q", text)
	default:
	}
	e2etest.Switched(tr.T, w.Flawless(), "1", "2")
	text := <-open
	if !strings.HasSuffix(text, "done\n") || strings.Contains(text, "release 2") || strings.Count(text, "release 1\n") < 20 {
		tr.Errorf("the request that was open on the old colour was not finished by it:\n%s", text)
	}
	tr.rest(2)
}

// No second record that can disagree with the router: what is told as live is what answers, after a switch,
// after a rollback, and when the server has forgotten all that it knew in memory.
func triggersColorFromRouter(tr *triggers) {
	check := func(after string, active, off int) colors {
		tr.Helper()
		c := tr.colors()
		p := open(tr.browser, triggersHTTP, nil)
		if c.Active.Release != active || p.Release != fmt.Sprint(active) || c.Off.Release != off {
			tr.Errorf("after %s: want release %d active and %d off; oops status says %+v, users meet %v", after, active, off, c, p)
		}
		slices.Sort(c.Active.Replicas)
		if want := tr.addresses(active); !slices.Equal(c.Active.Replicas, want) {
			tr.Errorf("after %s: oops status names replicas %v, ps %v", after, c.Active.Replicas, want)
		}
		if c.Active.Color == c.Off.Color || c.Active.Color != "blue" && c.Active.Color != "green" {
			tr.Errorf("after %s: colours %q and %q", after, c.Active.Color, c.Off.Color)
		}
		if o := tr.in.overview("triggers"); o.Color != c.Active.Color {
			tr.Errorf("after %s: status says %s, oops status %s", after, o.Color, c.Active.Color)
		}
		return c
	}
	tr.Version("1", "2")
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	tr.oops("off").want(tr.T, 0).tells(tr.T, "off.triggers.localhost") // while it is watched too
	tr.rest(2)
	before := check("a deploy", 2, 1)
	tr.oops("rollback").want(tr.T, 0)
	tr.rest(1)
	after := check("a rollback", 1, 2)
	if before.Active.Color != after.Off.Color || before.Off.Color != after.Active.Color {
		tr.Errorf("a rollback swaps the colours; before %+v, after %+v", before, after)
	}
	tr.in.kill(syscall.SIGKILL)
	tr.in.start()
	await(tr.T, 10*time.Second, "the replicas to be known again", func() bool { return len(tr.addresses(1)) == 2 })
	if again := check("a kill of the server", 1, 2); again.Active.Color != after.Active.Color {
		tr.Errorf("the colours changed with the server: %+v, then %+v", after, again)
	}
	tr.oops("off").want(tr.T, 0).tells(tr.T, "off.triggers.localhost", after.Off.Color)
	if p := open(tr.browser, "http://off.triggers.localhost/", nil); p.Release != "2" {
		tr.Errorf("the preview host gives %v, want release 2", p)
	}
}

// 20 tries of 10 s, scaled down: the live colour is untouched, the exit code is not 0, the reason is printed.
func triggersGiveUp(tr *triggers) {
	tr.Edit("deadline: 200s", "deadline: 2s")
	live := tr.addresses(1)
	w := watch(tr.T, tr.browser, triggersHTTP, triggersHTTPS)
	tr.Edit(`VERSION: "1"`, `VERSION: "2", NEVER_READY: "1"`)
	began := time.Now()
	r := tr.in.spillway("deploy", tr.Dir).want(tr.T, 1)
	r.tells(tr.T, "0 of 2 replicas of triggers ready", "GET /healthcheck answered 503", "release 1 serves everybody", "next:")
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second {
		tr.Errorf("it gave up after %v, want about 2 s", took)
	}
	if met := e2etest.Met(w.Flawless()); met["1"] == 0 || len(met) != 1 {
		tr.Errorf("users met %v, want release 1 only", met)
	}
	tr.rest(1)
	if now := tr.addresses(1); !slices.Equal(now, live) {
		tr.Errorf("the live replicas were %v and are %v", live, now)
	}
	tr.in.exactly("triggers", 2)
}

// TLS ends at the router, with a certificate from a file, and one switch is one switch for both listeners.
func triggersBothListeners(tr *triggers) {
	for url, scheme := range map[string]string{triggersHTTP: "http", triggersHTTPS: "https"} {
		var a struct{ Scheme string }
		if p := open(tr.browser, url, nil); p.Status != 200 || json.Unmarshal([]byte(p.Body), &a) != nil || a.Scheme != scheme {
			tr.Fatalf("%s: want a page that says scheme %s, got %v", url, scheme, p)
		}
	}
	w := watch(tr.T, tr.browser, triggersHTTP, triggersHTTPS)
	load := tr.in.send("triggers.localhost", keepAlive("GET", 100), newConnections("POST", 100))
	w.Asked(100)
	tr.Version("1", "2")
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	w.Asked(200)
	e2etest.Switched(tr.T, w.Flawless(), "1", "2")
	load.flawless(150)
	w = watch(tr.T, tr.browser, triggersHTTP, triggersHTTPS)
	w.Asked(50)
	tr.in.spillwayIn(tr.Dir, "rollback").want(tr.T, 0)
	w.Asked(100)
	e2etest.Switched(tr.T, w.Flawless(), "2", "1")
	tr.certify() // a certificate that is renewed is used without a word
	renewed := tr.in.browser(filepath.Join(tr.tls, "cert.pem"))
	await(tr.T, 10*time.Second, "the renewed certificate", func() bool { return open(renewed, triggersHTTPS, nil).Status == 200 })
}

// The dark colour is still warm: one switch, no start-up; after the watch, and with every replica the same.
func triggersRollback(tr *triggers) {
	old := tr.addresses(1)
	tr.Version("1", "2")
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	tr.rest(2)
	before := pids(tr.in.replicas("triggers"))
	if len(before) != 4 {
		tr.Errorf("want 2 live and 2 warm replicas after the watch, there are %d", len(before))
	}
	w := watch(tr.T, tr.browser, triggersHTTP, triggersHTTPS)
	w.Asked(50)
	r := tr.oops("rollback").want(tr.T, 0)
	effective := e2etest.Acknowledged(tr.T, r.String())
	if effective > 2*time.Second {
		tr.Errorf("the rollback took %v by its own words: a switch, or a start-up?", effective)
	}
	w.Asked(100)
	e2etest.Switched(tr.T, w.Flawless(), "2", "1")
	tr.rest(1)
	if now := tr.addresses(1); !slices.Equal(now, old) {
		tr.Errorf("release 1 was served by %v and is by %v", old, now)
	}
	if after := pids(tr.in.replicas("triggers")); !slices.Equal(after, before) {
		tr.Errorf("a rollback to the warm colour started or stopped something: processes %v, then %v", before, after)
	}
	tr.Logf("effective after %v", effective)
}

// From the release history, without a rebuild.
func triggersRedeploy(tr *triggers) {
	first := tr.Git("rev-parse", "HEAD")
	for _, v := range []string{"2", "3"} {
		tr.Version(fmt.Sprint(v[0]-'1'), v)
		tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	}
	tr.rest(3)
	builds := tr.builds()
	r := tr.oops("deploy", first[:7]).want(tr.T, 0)
	if p := open(tr.browser, triggersHTTP, nil); !strings.Contains(p.Body, `"version":"1"`) {
		tr.Errorf("after oops deploy %s users meet %v, want version 1: %v", first[:7], p, r)
	}
	if now := tr.builds(); !slices.Equal(now, builds) {
		tr.Errorf("something was built: %v, before %v", now, builds)
	}
	if n := tr.in.newest("triggers"); n != 3 {
		tr.Errorf("deploying a stored commit made release %d", n)
	}
	tr.rest(1)
	tr.in.spillwayIn(tr.Dir, "deploy", tr.Git("rev-parse", "HEAD")).want(tr.T, 0)
	tr.rest(3)
	unknown := tr.oops("deploy", "0123abc")
	if unknown.code != 1 && unknown.code != 2 {
		tr.Errorf("want exit code 1 or 2 for an unknown commit: %v", unknown)
	}
	unknown.tells(tr.T, "0123abc", first[:7])
	tr.rest(3)
}

// builds lists the stored artefacts, with the times at which they were made.
func (tr *triggers) builds() (list []string) {
	entries, err := os.ReadDir(filepath.Join(tr.in.dir, "builds"))
	if err != nil {
		tr.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			list = append(list, e.Name()+info.ModTime().String())
		}
	}
	return list
}

// Number, commit, who, when, state, and which is live.
func triggersList(tr *triggers) {
	first := tr.Git("rev-parse", "HEAD")
	tr.Version("1", "2")
	second := tr.Git("rev-parse", "HEAD")
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	tr.rest(2)
	tr.Edit(`VERSION: "2"`, `VERSION: "3", NEVER_READY: "1"`)
	tr.Edit("deadline: 200s", "deadline: 1s")
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 1)
	r := tr.oops("list").want(tr.T, 0)
	var lines []string // of releases
	for _, line := range strings.Split(r.stdout, "\n") {
		if f := strings.Fields(strings.TrimPrefix(line, "*")); len(f) > 0 && strings.Trim(f[0], "0123456789") == "" {
			lines = append(lines, line)
		}
	}
	if len(lines) != 3 {
		tr.Fatalf("want 3 releases: %v", r)
	}
	who := releaseBy(tr.T, tr.in, 2)
	for i, want := range [][]string{{"3", "failed"}, {"2", second[:7], who, "live"}, {"1", first[:7], who}} {
		for _, text := range want {
			if !strings.Contains(lines[i], text) {
				tr.Errorf("line %d of oops list does not say %q: %v", i+1, text, r)
			}
		}
	}
	for i, line := range lines {
		if live := strings.Contains(line, "live"); live != (i == 1) {
			tr.Errorf("release 2 is live, and no other: %v", r)
		}
	}
}

// releaseBy is who made a release.
func releaseBy(t *testing.T, in *installation, number int) string {
	t.Helper()
	list, err := in.client.Releases(in.ctx(10*time.Second), "triggers")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(r spillway.Release) bool { return r.Number == number })
	if i < 0 || list[i].By == "" {
		t.Fatalf("nobody made release %d: %+v", number, list)
	}
	return list[i].By
}

// A deploy during a roll-out first returns users to the last good release. Here release 2 has everybody and
// fails often enough to look bad, too seldom to be proved so; release 3 takes its time to start.
func triggersMend(tr *triggers) {
	tr.Edit("watch: 1s", "watch: 1m")
	tr.Edit(`VERSION: "1"`, `VERSION: "2", FAIL: POST`)
	tr.Commit()
	w := watch(tr.T, tr.browser, triggersHTTP, triggersHTTPS)
	w.Asked(50)
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	w.Asked(100)
	for range 6 { // six failed requests of a method that nobody repeats
		tr.post()
	}
	tr.Edit(`VERSION: "2", FAIL: POST`, `VERSION: "3", START: 2s`)
	tr.Commit()
	tr.in.spillway("deploy", tr.Dir).want(tr.T, 0)
	w.Asked(100)
	o := tr.serving(3)
	if o.Rollout != nil && o.Rollout.Stable != 1 {
		tr.Errorf("release 3 returns to release %d, want the last good one, 1", o.Rollout.Stable)
	}
	met := e2etest.Met(e2etest.Between(w.Flawless(), "2", "3"))
	if len(met) != 1 || met["1"] < 50 {
		tr.Errorf("between release 2 and release 3 users met %v, want release 1 for as long as release 3 starts", met)
	}
	tr.in.spillway("promote", "--app", "triggers").want(tr.T, 0)
	tr.rest(3)
}

// post sends a request that is not repeated elsewhere when it fails.
func (tr *triggers) post() {
	response, err := tr.browser.Post(triggersHTTP, "text/plain", strings.NewReader("x"))
	if err != nil {
		tr.Fatal(err)
	}
	response.Body.Close()
}
