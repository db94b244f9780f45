package e2e

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// At weight w at most w of the users meet the candidate, those of a smaller weight are among those of a
// larger one, and abort leaves none of them: with a header, with a cookie of the app's own, and with the
// cookie that the proxy gives to those who bring neither.
func TestSticky_TenThousandKeys(t *testing.T) {
	const n = 10_000
	in := install(t)
	a := newApp(t, "sticky")
	a.Strategy, a.Steps = "canary", "1%, pause, 10%, pause, 50%, pause"
	a.Top = []string{"cohort: {key: [header X-Account-Id, cookie _ACCOUNT]}"}
	in.deploy(a).want(t, 0)
	url, client := "http://"+a.Host()+"/", in.browser()
	kinds := []string{"header X-Account-Id", "cookie _ACCOUNT", ""}
	crowds := make([][]person, len(kinds))
	before := make([][]string, len(kinds))
	for k, kind := range kinds {
		crowds[k] = accounts(kind, n)
	}
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	for _, percent := range []int{1, 10, 50} {
		weight := spillway.Percent(percent)
		in.status(a.Name, 60*time.Second, fmt.Sprintf("a pause at %v", weight), func(o spillway.Overview) bool {
			return o.Rollout != nil && o.Rollout.Served == weight && o.Phase == spillway.Paused
		})
		for k, kind := range kinds {
			met := meet(t, client, url, crowds[k])
			slack := 3 * sigma(n, float64(percent)/100)
			if kind == "" {
				slack *= 1.5 // its keys are other ones in each run, so three sigmas would fail one run in a hundred
			}
			have := tally(met)["2"]
			if math.Abs(float64(have-n*percent/100)) > slack {
				t.Errorf("%q: %d of %d people met release 2 at %v, want %d give or take %.0f", kind, have, n, weight, n*percent/100, slack)
			}
			t.Logf("%q: %d of %d people met release 2 at %v", kind, have, n, weight)
			for i, release := range before[k] {
				if release == "2" && met[i] != "2" {
					t.Fatalf("%q: person %d moved from release 2 back to release %s when the weight rose to %v", kind, i, met[i], weight)
				}
			}
			before[k] = met
		}
		if percent < 50 {
			in.spillway("resume", "--app", a.Name).want(t, 0)
		}
	}
	in.spillway("abort", "--app", a.Name).want(t, 0)
	for k, kind := range kinds {
		if met := tally(meet(t, client, url, crowds[k][:n/2])); met["1"] != n/2 {
			t.Errorf("%q: after abort people met %v, want release 1 only", kind, met)
		}
	}
	in.healthy(a.Name, 1, 30*time.Second)
}
