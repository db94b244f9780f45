package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// What is said of a request is what becomes of it when it is made: for every user, while a candidate is tried.
func TestExplain_SaysWhatRequestsGet(t *testing.T) {
	r := start(t, tempDir(t), false)
	stable, candidate := replica(t, text("stable")), replica(t, text("candidate"))
	table := divided(1, spillway.Percent(50), stable, candidate)
	table.Route.Edges[0].Target = "www"
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{
		Service: "elsewhere", Target: "http://" + stable, Backends: []spillway.Backend{{Track: "external", URLs: []string{"http://" + stable}, Weight: spillway.Whole}},
	})
	hosts := []string{"shop.test"}
	table.Route.Rules = []spillway.HTTPRule{
		{Hosts: hosts, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: "/both"}, To: []spillway.Target{{Service: "www", Weight: 1}, {URLs: []string{"http://" + stable}, Weight: 1}}},
		{Hosts: hosts, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: "/once"}, To: []spillway.Target{{Service: "www", Weight: 1}}, Rate: &spillway.RateLimit{Requests: 1, Per: spillway.Duration(1e12), Burst: 1}},
	}
	r.push(table)
	got := map[string]int{}
	for i := range 60 {
		key, path := fmt.Sprint("user-", i), []string{"/", "/both"}[i%2]
		answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: "http://shop.test" + path, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		want := "external"
		if len(answer.Got.URLs) == 0 {
			want = fmt.Sprint(answer.Got.Release)
		}
		real := r.get(path, "X-User", key)
		if real.release != want || !answer.Key || answer.Bucket != Bucket(shop, key) {
			t.Errorf("%s asks for %s and gets %s; said was %+v", key, path, real.release, answer)
		}
		got[path+" "+want]++
	}
	if len(got) != 5 {
		t.Errorf("the users got %v, want each release on both paths, and the servers elsewhere on one", got)
	}
	for range 3 { // a look takes no token
		answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: "http://shop.test/once"})
		if err != nil || answer.Got == nil || answer.Key {
			t.Errorf("got %+v, %v", answer, err)
		}
	}
	if a := r.get("/once"); a.status != http.StatusOK {
		t.Errorf("the first request is answered %d", a.status)
	}
	for url, want := range map[string]string{"shop.test/": "is not a URL", "ftp://shop.test/": "is not a URL", "http://": "is not a URL"} {
		if _, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: url}); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
	other, err := r.Explain(t.Context(), "other", spillway.RouteQuery{Method: "GET", URL: "http://shop.test/"})
	if err != nil || other.Line != nil || other.Passed != nil || other.Text != "the host is one of shop, not of other" {
		t.Errorf("of another app: %+v, %v", other, err)
	}
}

func TestRoutes_AreToldAsTheyAreServed(t *testing.T) {
	r := start(t, tempDir(t), false)
	stable := replica(t, text("stable"))
	table := divided(1, spillway.Percent(5), stable, replica(t, reset))
	r.push(table)
	weights := func() string {
		lines, err := r.Routes(t.Context(), shop)
		if err != nil || len(lines) != 1 || !lines[0].Rest {
			t.Fatalf("got %+v, %v", lines, err)
		}
		return fmt.Sprint(lines[0].Host, lines[0].Match, lines[0].To[0].Backends[0].Weight, lines[0].To[0].Backends[1].Weight)
	}
	if got := weights(); got != "shop.test/*95% 5%" {
		t.Errorf("got %s", got)
	}
	for _, user := range usersAt(0, spillway.Percent(5), 10) {
		r.get("/", "X-User", user)
	}
	if got := weights(); got != "shop.test/*100% 0%" {
		t.Errorf("with a candidate that tripped: got %s", got)
	}
	if lines, err := r.Routes(t.Context(), "other"); err != nil || len(lines) != 0 {
		t.Errorf("of another app: %+v, %v", lines, err)
	}
}

func TestExplain_KnowsWhoIsSentToHTTPS(t *testing.T) {
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 7, "shop.test")
	table := secured(alone(1, replica(t, text("stable"))), files)
	table.Route.Edges[0].TLS.Redirect = true
	r.push(table)
	for url, want := range map[string]string{
		"http://shop.test/x?y": "308 https://shop.test/x?y", "https://shop.test/x": "0 ", // 443 in front of our port is not ours to know
	} {
		answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: url})
		if got := fmt.Sprintf("%d %s", answer.Status, answer.Text); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", url, got, err, want)
		}
	}
}
