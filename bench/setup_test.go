package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy"
)

func TestSteady_AsksAtItsRateAndMeasuresFromWhenARequestWasDue(t *testing.T) {
	const stall = 200 * time.Millisecond
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 20 {
			<-time.After(stall) // on the only connection: those that are due meanwhile wait
		}
		io.WriteString(w, r.Header.Get(userHeader))
	}))
	defer server.Close()
	got, err := runSteady(context.Background(), testCase{path: "/", connections: 1}, strings.TrimPrefix(server.URL, "http://"), 200, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got.requests != 200 || got.errors != 0 {
		t.Errorf("%d requests and %d errors in a second at 200/s, want 200 and 0", got.requests, got.errors)
	}
	if got.p99 < 150_000 || got.p50 > 100_000 {
		t.Errorf("p50 %g us and p99 %g us, want the stall of %s in the latter alone", got.p50, got.p99, stall)
	}
}

func TestSteady_CountsAnswersThatAreNoSuccess(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }))
	defer server.Close()
	got, err := runSteady(context.Background(), testCase{path: "/", connections: 2}, strings.TrimPrefix(server.URL, "http://"), 100, 100*time.Millisecond)
	if err != nil || got.errors != 10 || got.requests != 0 {
		t.Errorf("runSteady = %+v, %v, want 10 errors", got, err)
	}
}

func TestTable_DividesUsersAndHasATrial(t *testing.T) {
	s := setup{testCase: testCase{routes: manyRoutes, divided: true}, backend: "127.0.0.1:1"}
	got := table(s)
	if len(got.Route.Edges) != manyRoutes || got.Route.Trial == nil || len(got.Endpoints) != 2 {
		t.Fatalf("%d edges, %d endpoints, trial %v", len(got.Route.Edges), len(got.Endpoints), got.Route.Trial)
	}
	sum := spillway.Share(0)
	for _, b := range got.Route.Edges[0].Backends {
		sum += b.Weight
	}
	if sum != spillway.Whole {
		t.Errorf("the weights come to %s", sum)
	}
	s.divided = false
	if got = table(s); got.Route.Trial != nil || len(got.Endpoints) != 1 {
		t.Errorf("undivided: %d endpoints, trial %v", len(got.Endpoints), got.Route.Trial)
	}
}

func TestCandidateUser_HasTheCandidate(t *testing.T) {
	if user := candidateUser(); proxy.Bucket(app, user) >= weight {
		t.Errorf("user %s has the bucket %d", user, proxy.Bucket(app, user))
	}
}

func TestConfigurations_HaveARoutePerHost(t *testing.T) {
	s := setup{testCase: testCase{routes: fewRoutes}, dir: "/d", port: 1, tlsPort: 2, backend: "127.0.0.1:3", cert: "c", key: "k", pair: "p"}
	if got := strings.Count(nginxConfig(s), "server_name h"); got != fewRoutes {
		t.Errorf("nginx has %d servers", got)
	}
	if !strings.Contains(haproxyConfig(s), "map(/d/hosts.map,none)") {
		t.Errorf("HAProxy has no map:\n%s", haproxyConfig(s))
	}
	for name, config := range map[string]object{"caddy": caddyConfig(s), "traefik": traefikDynamic(s)} {
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, fewRoutes - 1} {
			if host := s.hosts()[i]; !strings.Contains(string(text), host) {
				t.Errorf("%s has no route for %s", name, host)
			}
		}
	}
}

func TestCases_NameKnownPeersOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cases() {
		if seen[c.name] {
			t.Errorf("two cases are called %s", c.name)
		}
		seen[c.name] = true
		for _, p := range c.peers {
			if !slices.Contains(everyPeer(), p) {
				t.Errorf("%s names %s", c.name, p)
			}
		}
	}
	for _, name := range []string{"small", "large", "h2"} {
		if !seen[name] {
			t.Errorf("there is no case %s, which the plot draws", name)
		}
	}
	if _, err := chosen("small,none"); err == nil {
		t.Error("a case that does not exist was chosen")
	}
}

func TestOutput_EndsWhatTakesTooLong(t *testing.T) {
	begin := time.Now()
	if _, err := output(context.Background(), 100*time.Millisecond, "sleep", "30"); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("err = %v after %s", err, time.Since(begin))
	}
}

func TestStart_EndsAllThatWasStarted(t *testing.T) {
	p, err := start(t.TempDir(), "family", nil, "sh", "-c", "sleep 300 & echo $!; wait")
	if err != nil {
		t.Fatal(err)
	}
	child := 0
	for until := time.Now().Add(10 * time.Second); child == 0 && time.Now().Before(until); <-time.After(5 * time.Millisecond) {
		child, _ = strconv.Atoi(p.said())
	}
	p.end()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); <-time.After(5 * time.Millisecond) {
		if _, err := treeUsage(child); err != nil {
			return
		}
	}
	t.Errorf("process %d, a child of what was started, still runs", child)
}
