package e2e

import (
	"encoding/json"
	"fmt"
	"math"
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
)

// agendor is examples/agendor, on a server of its own, with its legacy servers.
type agendor struct {
	*testing.T
	in      *installation
	dir     string
	browser *http.Client
	legacy  *exec.Cmd // both servers
	urls    [2]string // of the legacy servers
}

const (
	agendorURL  = "http://web.agendor.localhost/"
	canaryURL   = "http://web-canary.agendor.localhost/"
	stagingURL  = "http://stg.agendor.localhost/"
	canaryUser  = "_AUSER_TYPE=canary"
	anotherUser = "_AUSER_TYPE=paying"
)

func newAgendor(t *testing.T) *agendor { return newAgendorWith(t, "") }

// newAgendorWith has legacy servers with more lines in their configuration.
func newAgendorWith(t *testing.T, nginx string) *agendor {
	need(t, "nginx")
	a := &agendor{T: t, in: install(t), dir: example(t, "agendor")}
	a.browser = a.in.browser()
	a.edit("legacy.sh", "http { access_log off;", "http { access_log off; "+nginx)
	a.startLegacy()
	for _, file := range []string{"phase1.yaml", "phase2.yaml", "phase3.yaml"} {
		a.edit(file, "watch: 1m", "watch: 1s")
	}
	for _, file := range []string{"phase1.yaml", "phase2.yaml"} {
		a.edit(file, "http://127.0.0.1:9101", a.urls[0])
		a.edit(file, "http://127.0.0.1:9102", a.urls[1])
	}
	return a
}

// startLegacy starts the legacy servers on ports of their own. They end with the test.
func (a *agendor) startLegacy() {
	a.Helper()
	one, two := freeAddress(a.T), freeAddress(a.T)
	a.urls = [2]string{"http://" + one, "http://" + two}
	port := func(address string) string { return address[strings.LastIndex(address, ":")+1:] }
	a.legacy = exec.Command(filepath.Join(a.dir, "legacy.sh"), port(one), port(two))
	a.legacy.Env = append(os.Environ(), "TMPDIR="+a.TempDir())
	a.legacy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output := new(lockedText)
	a.legacy.Stdout, a.legacy.Stderr = output, output
	if err := a.legacy.Start(); err != nil {
		a.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { a.legacy.Wait(); close(ended) }() // ends with the process, which the cleanup ends and waits for
	a.Cleanup(func() {
		a.legacy.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	await(a.T, 10*time.Second, "the legacy servers to answer: "+output.String(), func() bool {
		return open(http.DefaultClient, a.urls[0], nil).Status == 200 && open(http.DefaultClient, a.urls[1], nil).Status == 200
	})
}

func (a *agendor) edit(file, old, new string) {
	a.Helper()
	replace(a.T, filepath.Join(a.dir, file), old, new)
}

// deploy deploys one of the files.
func (a *agendor) deploy(file string, flags ...string) result {
	a.Helper()
	return a.in.spillway(append([]string{"deploy", a.dir, "-f", file}, flags...)...)
}

func (a *agendor) spillway(args ...string) result {
	a.Helper()
	return a.in.spillway(append(args, "--app", "agendor")...)
}

// rest waits until a release serves and nothing goes on, in production.
func (a *agendor) rest(release int) spillway.Overview {
	a.Helper()
	return a.in.healthy("agendor", release, 30*time.Second)
}

// lane waits until nothing goes on and the canary holds a release.
func (a *agendor) lane(release int) spillway.Overview {
	a.Helper()
	return a.in.status("agendor", 30*time.Second, fmt.Sprintf("the canary to hold release %d", release), func(o spillway.Overview) bool {
		return o.Rollout == nil && o.Queue == 0 && canaryOf(o).Release == release
	})
}

func canaryOf(o spillway.Overview) spillway.TrackOverview {
	i := slices.IndexFunc(o.Tracks, func(t spillway.TrackOverview) bool { return t.Name == "canary" })
	if i < 0 {
		return spillway.TrackOverview{}
	}
	return o.Tracks[i]
}

// meets is who answers: "legacy-1", "legacy-2", or of the new stack its title.
func (a *agendor) meets(url, cookie string) string {
	a.Helper()
	header := http.Header{}
	if cookie != "" {
		header.Set("Cookie", cookie)
	}
	p := open(a.browser, url, header)
	var s struct{ Stack, Title string }
	if p.Status != 200 || json.Unmarshal([]byte(p.Body), &s) != nil {
		a.Fatalf("%s with cookie %q: %v", url, cookie, p)
	}
	if s.Stack == "new" {
		return s.Title
	}
	return s.Stack
}

// all asks n times, without keeping cookies, and fails the test when somebody else answers than allowed.
func (a *agendor) all(n int, url, cookie string, allowed ...string) {
	a.Helper()
	met := map[string]int{}
	for range n {
		met[a.meets(url, cookie)]++
	}
	for who := range met {
		if !slices.Contains(allowed, who) {
			a.Errorf("%s with cookie %q: met %v, want %v only", url, cookie, met, allowed)
			return
		}
	}
	for _, who := range allowed {
		if met[who] == 0 {
			a.Errorf("%s with cookie %q: met %v, want each of %v", url, cookie, met, allowed)
		}
	}
}

// Story 4, row by row.
func TestAgendor(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		test func(*agendor)
	}{
		{"phase 1: visitors with the cookie to the new stack, all others to the legacy servers", agendorPhase1},
		{"phase 2: a share of everybody", agendorPhase2},
		{"phase 3: all on the new stack; canary by cookie again", agendorPhase3},
		{"also offer the canary on its own host", agendorOwnHost},
		{"keep each customer on one side", agendorOneSide},
		{"compare canary with stable", agendorCompare},
		{"scale and deploy at the same time without a fight", agendorScale},
		{"roll out a change of configuration alone", agendorConfiguration},
		{"run staging, test, canary and production from one file", agendorEnvironments},
		{"show what is wrong on one screen", agendorOneScreen},
		{"roll back very easily", agendorRollback},
	} {
		t.Run(row.name, func(t *testing.T) { row.test(newAgendor(t)) })
	}
}

// Routes by host and cookie, back ends given as plain URLs.
func agendorPhase1(a *agendor) {
	a.deploy("phase1.yaml").want(a.T, 0)
	a.rest(1)
	a.all(100, agendorURL, "", "legacy-1", "legacy-2")
	a.deploy("phase1.yaml", "--track", "canary").want(a.T, 0).tells(a.T, "canary")
	a.lane(a.in.newest("agendor"))
	a.all(100, agendorURL, "", "legacy-1", "legacy-2")
	a.all(100, agendorURL, anotherUser, "legacy-1", "legacy-2")
	a.all(100, agendorURL, canaryUser, "Agendor")
	a.all(20, agendorURL, "theme=dark; "+canaryUser, "Agendor")
	a.edit("phase1.yaml", "TITLE: Agendor}", "TITLE: Agendor 2}")
	a.deploy("phase1.yaml", "--track", "canary").want(a.T, 0)
	a.all(20, agendorURL, canaryUser, "Agendor 2")
	a.all(100, agendorURL, "", "legacy-1", "legacy-2")
}

// Weights 5, 5 and 1, over 11,000 accounts.
func agendorPhase2(a *agendor) {
	a.deploy("phase2.yaml").want(a.T, 0)
	a.rest(1)
	people := accounts("header X-Account-Id", 11_000)
	met := meet(a.T, a.browser, agendorURL, people)
	have := tally(met)
	for who, parts := range map[string]int{"legacy-1": 5, "legacy-2": 5, "1": 1} {
		if want := parts * 1000; math.Abs(float64(have[who]-want)) > 3*sigma(11_000, float64(parts)/11) {
			a.Errorf("%d of 11,000 accounts met %s, want %d give or take %.0f", have[who], who, want, 3*sigma(11_000, float64(parts)/11))
		}
	}
	a.Logf("11,000 accounts met %v", have)
	if again := meet(a.T, a.browser, agendorURL, people[:3000]); !slices.Equal(again, met[:3000]) {
		a.Error("accounts changed sides between two visits")
	}
}

// The canary is reached by its cookie and by nobody else; and it becomes stable as it is.
func agendorPhase3(a *agendor) {
	a.deploy("phase2.yaml").want(a.T, 0)
	a.rest(1)
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(2)
	a.all(100, agendorURL, "", "Agendor")
	a.all(20, agendorURL, canaryUser, "Agendor") // an empty track's users are stable's
	a.edit("phase3.yaml", "TITLE: Agendor}", "TITLE: Agendor 2}")
	a.deploy("phase3.yaml", "--track", "canary").want(a.T, 0)
	a.lane(3)
	a.all(100, agendorURL, "", "Agendor")
	a.all(20, agendorURL, anotherUser, "Agendor")
	a.all(100, agendorURL, canaryUser, "Agendor 2")
	a.spillway("promote", "--track", "canary").want(a.T, 0)
	a.rest(3)
	a.all(100, agendorURL, "", "Agendor 2")
	if n := a.in.newest("agendor"); n != 3 {
		a.Errorf("promote of the canary made release %d", n)
	}
}

// web-canary.… always reaches the canary, whoever asks and in every phase; what is stable's while it is empty.
func agendorOwnHost(a *agendor) {
	a.deploy("phase2.yaml").want(a.T, 0)
	a.rest(1)
	a.all(20, canaryURL, "", "Agendor")
	for i, file := range []string{"phase2.yaml", "phase3.yaml"} {
		a.deploy(file).want(a.T, 0)
		title := fmt.Sprint("Canary ", i)
		a.edit(file, "TITLE: Agendor}", "TITLE: "+title+"}")
		a.deploy(file, "--track", "canary").want(a.T, 0)
		a.all(50, canaryURL, "", title)
		a.all(20, canaryURL, canaryUser, title)
		a.all(20, canaryURL, anotherUser, title)
		a.lane(a.in.newest("agendor"))
	}
	before := a.spillway("rollback", "--track", "canary").want(a.T, 0)
	if who := a.meets(canaryURL, ""); who == "Canary 1" {
		a.Errorf("after a rollback of the track its host still gives %s: %v", who, before)
	}
}

// Chosen by account; and "which version did this customer see on Tuesday?" is one command.
func agendorOneSide(a *agendor) {
	a.deploy("phase2.yaml").want(a.T, 0)
	a.rest(1)
	people := accounts("cookie _ACCOUNT", 300)
	before := meet(a.T, a.browser, agendorURL, people)
	a.in.kill(syscall.SIGKILL)
	a.in.start()
	if again := meet(a.T, a.browser, agendorURL, people); !slices.Equal(again, before) {
		a.Error("accounts changed sides without a deploy")
	}
	tuesday := time.Now()
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(2)
	after := meet(a.T, a.browser, agendorURL, people)
	for i := range 12 {
		account := fmt.Sprint("customer-", i)
		then := a.spillway("who", account, "--at", tuesday.UTC().Format(time.RFC3339Nano)).want(a.T, 0)
		want := before[i]
		if want == "1" {
			want = "release 1"
		}
		then.tells(a.T, account, want)
		if now := a.spillway("who", account).want(a.T, 0); after[i] != "2" || !strings.Contains(now.stdout, "release 2") {
			a.Errorf("%s meets release %s now: %v", account, after[i], now)
		}
	}
}

// Error rate and latency side by side.
func agendorCompare(a *agendor) {
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(1)
	a.edit("phase3.yaml", "TITLE: Agendor}", `TITLE: Agendor 2, SLOW: 60ms, FAIL: "0.2"}`)
	a.deploy("phase3.yaml", "--track", "canary").want(a.T, 0)
	a.lane(2)
	for range 60 {
		open(a.browser, agendorURL, nil)
		open(a.browser, canaryURL, nil)
	}
	o := a.in.overview("agendor")
	web := o.Services[slices.IndexFunc(o.Services, func(s spillway.ServiceOverview) bool { return s.Name == "web" })]
	i := slices.IndexFunc(web.Groups, func(g spillway.GroupOverview) bool { return g.Group.Release == 1 })
	if i < 0 {
		a.Fatalf("no group of release 1 in %+v", web)
	}
	stable, canary := web.Groups[i].Traffic, canaryOf(o).Traffic
	if canary.P95 < 60_000 || stable.P95 == 0 || stable.P95 > canary.P95 || canary.Failures == 0 || stable.Failures > 0 {
		a.Errorf("want a canary with failures and at least 60 ms, beside a stable without; canary %+v, stable %+v", canary, stable)
	}
	r := a.spillway("status").want(a.T, 0)
	line := func(name string) string {
		for _, l := range strings.Split(r.stdout, "\n") {
			if f := strings.Fields(l); len(f) > 3 && f[0] == name {
				return l
			}
		}
		a.Fatalf("status has no line of %s: %v", name, r)
		return ""
	}
	if l := line("canary"); !strings.Contains(l, "%") || !strings.Contains(l, "ms") {
		a.Errorf("want the error rate and the latency of the canary in %q", l)
	}
	if l := line("stable"); !strings.Contains(l, "%") || !strings.Contains(l, "ms") {
		a.Errorf("want the error rate and the latency of stable in %q", l)
	}
	a.Log(r.stdout)
}

// A deploy never resets the replica count that was chosen, not even in the middle of it; max surge 3, max
// unavailable 0. Until something scales by itself, a person stands in for it.
func agendorScale(a *agendor) {
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(1)
	a.spillway("scale", "web=3").want(a.T, 0)
	a.sized(1, 3)
	users := a.in.send("web.agendor.localhost", everybody()...)
	users.answered(100)
	a.edit("phase3.yaml", "TITLE: Agendor}", "TITLE: Agendor 2}")
	scaled := false
	least, _ := a.climb(2, func(o spillway.Overview) {
		if !scaled { // the autoscaler wakes up
			scaled = true
			a.spillway("scale", "web=4").want(a.T, 0)
		}
	})
	if least < 3 || !scaled {
		a.Errorf("there were %d replicas ready at some moment of the deploy, want at least 3 (scaled meanwhile: %v)", least, scaled)
	}
	a.sized(2, 4)
	a.edit("phase3.yaml", "TITLE: Agendor 2}", "TITLE: Agendor 3}")
	least, most := a.climb(3, func(spillway.Overview) {})
	if least < 4 || most > 4+3 {
		a.Errorf("there were %d to %d replicas of web during the deploy, want at least 4 ready (none unavailable) and at most 7 (surge 3)", least, most)
	}
	a.sized(3, 4)
	a.spillway("rollback").want(a.T, 0)
	a.sized(2, 4)
	users.flawless(200)
	a.spillway("scale", "web=5").tells(a.T, "2 to 4")
	a.sized(2, 4)
}

// climb deploys phase3.yaml, calls meanwhile while the rollout climbs, and gives the fewest replicas of web
// that were ready, and the most that there were before the new release had everybody. (From then on, the old
// release stays warm for the watch.)
func (a *agendor) climb(release int, meanwhile func(spillway.Overview)) (least, most int) {
	a.Helper()
	done := a.in.behind("deploy", a.dir, "-f", "phase3.yaml")
	least = math.MaxInt
	await(a.T, 60*time.Second, "the deploy to end", func() bool {
		o := a.in.overview("agendor")
		ready, running := webReplicas(o)
		least = min(least, ready)
		if o.Rollout != nil && o.Phase == spillway.Progressing && o.Rollout.Asked < spillway.Whole {
			most = max(most, running)
			meanwhile(o)
		}
		return o.Rollout == nil && o.Stable == release
	})
	(<-done).want(a.T, 0)
	return least, most
}

// webReplicas counts the replicas of web, of all releases.
func webReplicas(o spillway.Overview) (ready, running int) {
	for _, s := range o.Services {
		for _, g := range s.Groups {
			if s.Name == "web" {
				ready += g.Ready
				running += g.Running
			}
		}
	}
	return ready, running
}

// sized waits until a release serves with so many replicas of web, and no others are left.
func (a *agendor) sized(release, size int) {
	a.Helper()
	a.in.status("agendor", 30*time.Second, fmt.Sprintf("%d replicas of release %d", size, release), func(o spillway.Overview) bool {
		ready, running := webReplicas(o)
		return o.Rollout == nil && o.Stable == release && ready == size && running == size
	})
}

// Changed settings restart replicas by the same strategy; unchanged services are left alone.
func agendorConfiguration(a *agendor) {
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(1)
	of := func(service string) (list []int) {
		return pids(slices.DeleteFunc(a.in.replicas("agendor"), func(r spillway.Replica) bool { return r.Group.Service != service }))
	}
	web, api := of("web"), of("api")
	a.edit("phase3.yaml", "CURRENCY: BRL", "CURRENCY: EUR")
	a.in.spillway("plan", a.dir, "-f", "phase3.yaml").want(a.T, 10).tells(a.T, "env CURRENCY", "api")
	users := a.in.send("web.agendor.localhost", everybody()...)
	users.answered(100)
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(2)
	users.flawless(150)
	if now := of("web"); !slices.Equal(now, web) {
		a.Errorf("web was restarted, though nothing about it changed: processes %v, then %v", web, now)
	}
	if now := of("api"); slices.Equal(now, api) {
		a.Errorf("api was not restarted: processes %v", now)
	}
	if p := open(a.browser, agendorURL, nil); !strings.Contains(p.Body, "EUR") {
		a.Errorf("the changed setting is not used: %v", p)
	}
	a.spillway("rollback").want(a.T, 0) // and comes back with the release
	a.rest(1)
	if p := open(a.browser, agendorURL, nil); !strings.Contains(p.Body, "BRL") {
		a.Errorf("the setting did not come back: %v", p)
	}
}
