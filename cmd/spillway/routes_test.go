package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/proxy"
)

const ruledApp = `app: castle
services:
  www:
    run: ./www
    host: [castle.test, "*.castle.test"]
    tracks: {legacy: {urls: ["http://10.0.0.1"], share: 20%, cookie: old=1}}
  api: {run: ./api}
cohort: {key: [header X-Account-Id]}
routes:
  - {host: castle.test, path: /api/*, method: POST, to: api, timeout: 10s, retries: 2, max-body: 1Mi}
  - {host: castle.test, path: /api/*, header: X-Beta=1, to: api, rewrite: {path: /v2/*, host: api.internal}, request-headers: {set: {X-Tier: gold}, remove: [X-Debug]}}
  - {host: castle.test, path: /api/*, to: [{to: api, weight: 3}, {to: "http://10.0.0.2:8080", weight: 1}], mirror: {to: www, share: 5%}}
  - {path: /old/*, redirect: {to: https://new.test:8443/*, status: 308}}
  - {path: /admin/*, to: www, allow: [10.0.0.0/8], rate: {requests: 5}, cors: {origins: ["https://castle.test"]}, users: {ann: "sha256:3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"}}
`

func ruled(t *testing.T) spillway.Table {
	t.Helper()
	app, err := appfile.Parse("spillway.yaml", []byte(ruledApp))
	if err != nil {
		t.Fatal(err)
	}
	return draft("castle", app)
}

func routesOf(t *testing.T) []spillway.RouteLine {
	t.Helper()
	lines, err := proxy.Lines(ruled(t))
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// explained prints what would become of several requests.
func explained(t *testing.T, w io.Writer) error {
	for _, q := range []spillway.RouteQuery{
		{Method: "POST", URL: "https://castle.test/api/x"},
		{Method: "GET", URL: "http://castle.test/api/x/../y?a=b", Header: []spillway.HeaderField{{Name: "X-Beta", Value: "1"}}},
		{Method: "GET", URL: "http://castle.test/api/x", Key: "42"},
		{Method: "GET", URL: "http://castle.test/old/x"},
		{Method: "GET", URL: "http://castle.test/admin", Client: "192.0.2.1"},
		{Method: "GET", URL: "http://castle.test/admin", Client: "10.0.0.1"},
		{Method: "GET", URL: "http://castle.test/admin"},
		{Method: "GET", URL: "http://castle.test/x/..%2fadmin"},
		{Method: "GET", URL: "http://castle.test/", Key: "4711"},
		{Method: "GET", URL: "http://a.castle.test/", Header: []spillway.HeaderField{{Name: "Cookie", Value: "old=1"}}},
		{Method: "GET", URL: "http://elsewhere.test/"},
	} {
		answer, err := proxy.Explain(ruled(t), q)
		if err != nil {
			return err
		}
		if err := errors.Join(writeRouteAnswer(w, q, answer), second(io.WriteString(w, "----\n"))); err != nil {
			return err
		}
	}
	return nil
}

func second(_ int, err error) error { return err }

// What is shown of a table never has the hash of a password in it.
func TestRoutes_ShowNoHash(t *testing.T) {
	text, err := json.Marshal(routesOf(t))
	if err != nil || strings.Contains(string(text), "3c469e") {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestRoutes_AskTheServer(t *testing.T) {
	t.Chdir(t.TempDir())
	e := resting()
	e.ways = routesOf(t)
	dir := serve(t, e)
	got := invoke(t.Context(), dir, "routes")
	if got.code != exitDone || !strings.Contains(got.stdout, "308 to https://new.test:8443/*") {
		t.Errorf("code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	var lines []spillway.RouteLine
	if got := invoke(t.Context(), dir, "routes", "--json"); json.Unmarshal([]byte(got.stdout), &lines) != nil || len(lines) != len(e.ways) {
		t.Errorf("--json gave %s", got.stdout)
	}
	e.answer = spillway.RouteAnswer{Status: 404, Text: "no app answers to this host"}
	got = invoke(t.Context(), dir, "routes", "test", "post", "castle.test/x", "-H", "X-A: b:c ", "-H", "Y:", "--as", "4711", "--client", "10.0.0.1")
	want := spillway.RouteQuery{Method: "POST", URL: "http://castle.test/x", Key: "4711", Client: "10.0.0.1", Header: []spillway.HeaderField{{Name: "X-A", Value: "b:c"}, {Name: "Y"}}}
	if got.code != exitFailed || !strings.Contains(got.stdout, "answer  404 no app") || len(e.tested) != 1 || !reflect.DeepEqual(e.tested[0], want) {
		t.Errorf("code %d, asked %+v\n%s%s", got.code, e.tested, got.stdout, got.stderr)
	}
	for _, args := range [][]string{{"routes", "test"}, {"routes", "test", "a", "b", "c"}, {"routes", "test", "castle.test", "-H", "x"}} {
		if got := invoke(t.Context(), dir, args...); got.code != exitUsage {
			t.Errorf("%v: code %d", args, got.code)
		}
	}
}

func TestRoutes_LookAtAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "spillway.yaml")
	if err := os.WriteFile(file, []byte(ruledApp+"  - {path: /admin/*, to: api}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := invoke(t.Context(), t.TempDir(), "routes", "test", "http://castle.test/api/x", "-f", file, "--json")
	var answer spillway.RouteAnswer
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || got.code != exitDone || answer.Line.Match != "/api/*" || answer.Asked != "castle.test/api/x" {
		t.Errorf("code %d, %v\n%s%s", got.code, err, got.stdout, got.stderr)
	}
	if !strings.Contains(got.stderr, ":15:5: routes[5]: the rule for") || !strings.Contains(got.stderr, "never counts") {
		t.Errorf("no warning of the rule that never counts: %s", got.stderr)
	}
}
