package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestStory4Phases goes through the three phases of story 4 while everybody goes on using the site: nobody
// loses a request, and each meets whom the phase says. The legacy servers are real nginx that close their
// connections often, as they do in the wild: after 50 requests, or a second without one.
func TestStory4Phases(t *testing.T) {
	t.Parallel()
	a := newAgendorWith(t, "keepalive_timeout 1s; keepalive_requests 50;")
	title := func(file, title string) { a.edit(file, "TITLE: Agendor}", "TITLE: "+title+"}") }
	a.deploy("phase1.yaml").want(t, 0)
	a.rest(1)
	title("phase1.yaml", "Canary")
	a.deploy("phase1.yaml", "--track", "canary").want(t, 0)
	canary := a.in.newest("agendor")
	a.lane(canary)
	everybody := a.in.send("web.agendor.localhost", keepAlive("GET", 60), newConnections("GET", 30), keepAlive("POST", 60), newConnections("POST", 30))
	testers := a.in.send("web.agendor.localhost", loadWith(http.Header{"Cookie": {canaryUser}}, 30))
	guests := a.in.send("web-canary.agendor.localhost", keepAlive("GET", 20))
	met := phaseMeter(a, everybody, testers, guests)

	met("phase 1", []string{"legacy-1", "legacy-2"}, fmt.Sprint(canary))
	a.deploy("phase2.yaml").want(t, 0)
	second := a.in.newest("agendor")
	a.rest(second)
	met("phase 2", []string{fmt.Sprint(second), "legacy-1", "legacy-2"}, fmt.Sprint(canary))
	a.deploy("phase3.yaml").want(t, 0)
	third := a.in.newest("agendor")
	a.rest(third)
	met("phase 3", []string{fmt.Sprint(third)}, fmt.Sprint(canary))
	title("phase3.yaml", "Canary 3")
	a.deploy("phase3.yaml", "--track", "canary").want(t, 0)
	fourth := a.in.newest("agendor")
	a.lane(fourth)
	met("phase 3 with a canary of its own", []string{fmt.Sprint(third)}, fmt.Sprint(fourth))

	everybody.flawless(170)
	testers.flawless(25)
	guests.flawless(15)
}

// phaseMeter gives a function that looks at the next answers of a phase: everybody meets these, and the
// testers and the guests of the canary's own host meet the canary.
func phaseMeter(a *agendor, everybody, testers, guests *traffic) func(phase string, all []string, canary string) {
	return func(phase string, all []string, canary string) {
		a.Helper()
		everybody.answered(60) // what was on its way
		testers.answered(10)
		guests.answered(10)
		for _, c := range []struct {
			who  string
			tr   *traffic
			n    int64
			want []string
		}{{"everybody", everybody, 500, all}, {"testers", testers, 60, []string{canary}}, {"guests", guests, 40, []string{canary}}} {
			before := c.tr.counts().Releases
			c.tr.answered(c.n)
			now := map[string]int64{}
			for release, r := range c.tr.counts().Releases {
				if n := r.Requests - before[release].Requests; n > 0 {
					now[release] = n
				}
			}
			if have := slices.Sorted(maps.Keys(now)); !slices.Equal(have, slices.Sorted(slices.Values(c.want))) {
				a.Errorf("%s: %s met %v, want %v", phase, c.who, now, c.want)
			}
			a.Logf("%s: %s met %v", phase, c.who, now)
		}
	}
}

// TestLegacyServersThatHangUp: a POST that comes when nginx is just closing the idle connection is done, once.
func TestLegacyServersThatHangUp(t *testing.T) {
	t.Parallel()
	a := newAgendorWith(t, "keepalive_timeout 1s;")
	a.deploy("phase1.yaml").want(t, 0)
	a.rest(1)
	for i := range 12 {
		request, err := http.NewRequest(http.MethodPost, agendorURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := a.browser.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("POST %d: %s: %s", i, response.Status, response.Header.Get("X-Spillway-Reason"))
		}
		<-time.After(time.Second - 5*time.Millisecond + time.Duration(i)*time.Millisecond)
	}
}
