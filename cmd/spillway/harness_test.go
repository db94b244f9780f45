package main

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/sim/platformtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain lets the test binary play the server that `up` starts: see up_test.go, and the first moments and the
// program of a replica: see platform_test.go.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "_exec" {
		os.Exit(local.ExitCode(local.Exec(os.Args[2:])))
	}
	if os.Getenv(platformtest.Variable) != "" {
		os.Exit(platformtest.Play(os.Getenv))
	}
	if len(os.Args) > 1 && os.Args[1] == "server" {
		os.Exit(playServer(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// invocation is one run of the program against a server.
type invocation struct {
	code           int
	stdout, stderr string
}

// serve runs the real API server on an engine until the test ends, and gives its state directory.
func serve(t *testing.T, e *actor) string {
	t.Helper()
	dir := stateDir(t)
	t.Cleanup(serveOn(t, dir, e))
	return dir
}

// serveOn runs the real API server on a state directory until stop, which waits for its end.
func serveOn(t *testing.T, dir string, e *actor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	server := api.NewServer(api.Config{Engine: e, Log: slog.New(slog.DiscardHandler), Dir: dir})
	if err := server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }() // ended and waited for by stop
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the API server failed: %v", err)
		}
	}
}

// stateDir is a directory with a path short enough for a unix socket.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spillway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// invoke runs the program off a terminal.
func invoke(ctx context.Context, stateDir string, args ...string) invocation {
	var stdout, stderr bytes.Buffer
	c := newCLI(strings.NewReader(""), &stdout, &stderr, func(name string) string {
		return map[string]string{"SPILLWAY_DIR": stateDir, "HOME": stateDir}[name]
	})
	c.every, c.hush, c.brief = time.Millisecond, time.Hour, time.Minute
	code := c.run(ctx, args)
	return invocation{code, stdout.String(), stderr.String()}
}

// appDir is a directory with an app file, and the directory that commands run in.
func appDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, appFile), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	return dir
}

const castleFile = `app: castle
services:
  www: {run: ./www, host: www.castle.localhost}
`

var lengths = regexp.MustCompile(`\b\d+(\.\d+)?(ms|s)\b`)
var offsets = regexp.MustCompile(`(?m)^ *\+`)

// steady replaces what differs from run to run: lengths of time and directories.
func steady(text string, dirs ...string) string {
	text = offsets.ReplaceAllString(lengths.ReplaceAllString(text, "TIME"), "+")
	for _, dir := range dirs {
		text = strings.ReplaceAll(text, dir, "DIR")
	}
	return text
}

// golden compares a text with testdata/NAME.txt.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join(testdata, name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (write it with: go test ./cmd/spillway -update)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs\n--- got\n%s--- want\n%s", file, got, want)
	}
}

// testdata is absolute, because tests change the directory.
var testdata = func() string {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		panic(err)
	}
	return dir
}()

// at is a fixed time for rendering.
var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// castleAt is the castle at rest with a release.
func castleAt(n int, intent int64) spillway.Overview {
	return spillway.Overview{App: "castle", Phase: spillway.Healthy, Stable: n, Intent: intent, Services: []spillway.ServiceOverview{
		{Name: "backend", Size: 2, Groups: []spillway.GroupOverview{
			{Group: spillway.Group{Service: "backend", Release: 1}, Role: "stable", Want: 2, Running: 2, Ready: 2, Weight: spillway.Whole}}},
		{Name: "www", Hosts: []string{"www.castle.localhost"}, Size: 2, Groups: []spillway.GroupOverview{
			{Group: spillway.Group{Service: "www", Release: n}, Role: "stable", Want: 2, Running: 2, Ready: 2, Weight: spillway.Whole,
				Traffic: spillway.Traffic{Requests: 1800, Failures: 1, P50: 2100, P95: 12400}}}},
	}}
}

// trying is the castle with a candidate at a weight.
func trying(stable, candidate int, weight spillway.Share, intent int64) spillway.Overview {
	o := castleAt(stable, intent)
	o.Phase = spillway.Progressing
	o.Rollout = &spillway.RolloutOverview{
		ID: 3, Release: candidate, Stable: stable, Strategy: spillway.Canary, Step: 2, Steps: 4, Asked: weight, Served: weight,
		Waiting: "the hold", Left: spillway.Duration(12 * time.Second), Budget: 20, Began: at.Add(-30 * time.Second),
		Evidence: &spillway.Evidence{Verdict: spillway.Undecided, Requests: 90, Failures: 2, Baseline: 1800, BaseFails: 1, Needs: 40,
			Reason: "2 of 90 requests failed, against 1 of 1800 on release 7"},
	}
	www := &o.Services[1]
	www.Groups[0].Weight = spillway.Whole - weight
	www.Groups = append(www.Groups, spillway.GroupOverview{
		Group: spillway.Group{Service: "www", Release: candidate}, Role: "candidate", Want: 1, Running: 1, Ready: 1, Weight: weight,
		Traffic: spillway.Traffic{Requests: 90, Failures: 2, P95: 11900}})
	return o
}

// fact is an event of a rollout.
func fact(kind spillway.EventKind, release int, text string) spillway.Event {
	return spillway.Event{App: "castle", At: time.Now(), Kind: kind, Release: release, Rollout: 3, Text: text}
}

// ended is the event of a rollout's end.
func ended(release int, outcome spillway.Outcome, text string) spillway.Event {
	e := fact(spillway.EventFinished, release, text)
	e.Outcome = outcome
	return e
}
