package e2e

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

// Per-environment values; production by a manual promotion of what was tried in staging.
func agendorEnvironments(a *agendor) {
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(1)
	a.deploy("phase3.yaml", "--env", "test").want(a.T, 0)
	a.edit("phase3.yaml", "CURRENCY: BRL", "CURRENCY: EUR")
	a.edit("api/main.go", `"currency"`, `"changed": "yes", "currency"`)
	a.deploy("phase3.yaml", "--env", "staging").want(a.T, 0)
	a.in.healthy("agendor@staging", 1, 30*time.Second)
	a.all(5, stagingURL, "", "Agendor (staging)")
	a.all(5, "http://test.agendor.localhost/", "", "Agendor (test)")
	a.all(5, agendorURL, "", "Agendor")
	if p := open(a.browser, agendorURL, nil); strings.Contains(p.Body, "changed") {
		a.Errorf("production has what was deployed to staging only: %v", p)
	}
	if n := len(a.in.replicas("agendor@staging")); n != 2 {
		a.Errorf("staging has %d replicas, want one of each service, as its environment says", n)
	}
	r := a.in.spillwayIn(a.dir, "deploy", "--from", "staging", "-f", "phase3.yaml").want(a.T, 0)
	a.rest(2)
	a.all(20, agendorURL, "", "Agendor")
	if p := open(a.browser, agendorURL, nil); !strings.Contains(p.Body, `"changed":"yes"`) || !strings.Contains(p.Body, "EUR") {
		a.Errorf("production does not have what was tried in staging: %v\n%v", p, r)
	}
	await(a.T, 20*time.Second, "two replicas of web and one of api, as production says", func() bool {
		return len(a.in.replicas("agendor")) == 3
	})
	digests := func(app spillway.Ref) map[string]string {
		list, err := a.in.client.Releases(a.in.ctx(10*time.Second), app)
		if err != nil {
			a.Fatal(err)
		}
		have := map[string]string{}
		for service, artefact := range list[0].Artefacts {
			have[service] = artefact.Digest
		}
		return have
	}
	if tried, serves := digests("agendor@staging"), digests("agendor"); !maps.Equal(tried, serves) || len(tried) != 2 {
		a.Errorf("staging tried the artefacts %v, production serves %v", tried, serves)
	}
	nowhere := a.deploy("phase3.yaml", "--env", "qa")
	if nowhere.code != 2 {
		a.Errorf("want exit code 2 for an environment that the file does not have: %v", nowhere)
	}
	nowhere.tells(a.T, "qa", "staging", "test")
}

// A replica that does not start, a scale-up that hit its maximum, a route to a dead back end: each named on
// the same screen, with the reason and the next step.
func agendorOneScreen(a *agendor) {
	a.edit("phase2.yaml", "    scale: 1\n", "    scale: {min: 1, max: 2}\n")
	a.deploy("phase2.yaml").want(a.T, 0)
	a.rest(1)
	a.spillway("scale", "web=2").want(a.T, 0)
	a.edit("phase2.yaml", "TITLE: Agendor}", `TITLE: Agendor 2, NEVER_READY: "1"}`)
	a.edit("phase2.yaml", "watch: 1s", "watch: 1s\ndeadline: 5m")
	a.deploy("phase2.yaml", "--detach").want(a.T, 0)
	if err := syscall.Kill(-a.legacy.Process.Pid, syscall.SIGKILL); err != nil { // both servers
		a.Fatal(err)
	}
	await(a.T, 10*time.Second, "the legacy servers to be gone", func() bool {
		return !slices.ContainsFunc(a.urls[:], func(url string) bool { return !errors.Is(open(http.DefaultClient, url, nil).Err, syscall.ECONNREFUSED) })
	})
	var visits sync.WaitGroup // so that the proxy notices
	for _, p := range accounts("cookie _ACCOUNT", 20) {
		visits.Go(func() { open(a.browser, agendorURL, p.header) })
	}
	visits.Wait()
	screen := [][]string{
		{a.urls[0], "refused", "or the file names another"},
		{a.urls[1], "refused", "or the file names another"},
		{"web.2", "answered 503", "spillway logs"},
		{"web", "maximum of 2", "max size reached", "raise max"},
	}
	var r result
	told := func(texts []string) bool {
		return slices.ContainsFunc(strings.Split(r.stdout, "\n"), func(line string) bool {
			return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
		})
	}
	within(20*time.Second, func() bool {
		r = a.spillway("status").want(a.T, 0)
		return !slices.ContainsFunc(screen, func(texts []string) bool { return !told(texts) })
	})
	for _, texts := range screen {
		if !told(texts) {
			a.Errorf("want one line with %q: %v", texts, r)
		}
	}
	if n := strings.Count(r.stdout, "\n"); n > 45 {
		a.Errorf("status takes %d lines, which is no screen:\n%s", n, r.stdout)
	}
	a.Log(r.stdout)
	a.spillway("abort").want(a.T, 0)
	a.rest(1)
}

// One word.
func agendorRollback(a *agendor) {
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(1)
	a.edit("phase3.yaml", "TITLE: Agendor}", "TITLE: Agendor 2}")
	a.deploy("phase3.yaml").want(a.T, 0)
	a.rest(2)
	a.all(20, agendorURL, "", "Agendor 2")
	users := a.in.send("web.agendor.localhost", everybody()...)
	users.answered(100)
	r := a.in.spillway("rollback", "--app", "agendor").want(a.T, 0)
	a.all(20, agendorURL, "", "Agendor")
	users.flawless(150)
	a.Logf("effective after %v", e2etest.Acknowledged(a.T, r.String()))
	a.rest(1)
}
