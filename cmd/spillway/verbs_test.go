package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func resting() *actor {
	older, newer := twoReleases()
	return &actor{
		info: api.Info{Version: "v1", HTTP: "[::]:8080", Listen: "127.0.0.1:7300", PID: 1, Dir: "/var/lib/spillway"},
		apps: []spillway.Ref{"castle"}, rounds: []round{{overview: castleAt(7, 0)}},
		releases: []spillway.Release{newer, older},
		replicas: []spillway.Replica{{Name: "www.7-1", State: spillway.Ready, Started: at}},
		events:   []spillway.Event{{ID: 1, At: at, Kind: spillway.EventServing, Release: 7, Text: "release 7 has all traffic"}},
		lines:    []spillway.LogLine{{At: at, Replica: "www.7-1", Stream: "stderr", Group: spillway.Group{Service: "www", Release: 7}, Text: "hello"}},
		checks:   []spillway.Check{{Name: "cgroups", State: "ok", Text: "version 2"}},
	}
}

// quiet is an app that acts on an intent without an event.
func quiet(o spillway.Overview, verb spillway.Verb, events ...spillway.Event) *actor {
	e := resting()
	e.scripts = map[spillway.Verb][]round{verb: {{overview: castleAt(7, 0)}, {overview: o, events: events}}}
	return e
}

func TestVerbs(t *testing.T) {
	paused := trying(7, 8, spillway.Percent(5), 1)
	paused.Phase, paused.Rollout.Reason = spillway.Paused, "paused by root"
	failing := resting()
	failing.checks = append(failing.checks, spillway.Check{Name: "disk", State: "fail", Text: "full", Remedy: "remove something"})
	two := resting()
	two.apps = []spillway.Ref{"castle", "shop"}
	denied := resting()
	denied.askErr = fmt.Errorf("token ci may only read: %w", spillway.ErrDenied)
	never := resting() // takes intents and acts on none

	for name, tt := range map[string]struct {
		e    *actor
		args string
		code int
		says string // somewhere on stdout or stderr
		ask  spillway.Intent
	}{
		"status":             {e: resting(), args: "status", says: "castle · Healthy · release 7 serves\n  http://www.castle.localhost:8080/"},
		"ps":                 {e: resting(), args: "ps", says: "www.7-1  ready"},
		"logs":               {e: resting(), args: "logs -n 5", says: "www.7-1!  hello"},
		"logs of others":     {e: resting(), args: "logs --service backend", says: "castle wrote nothing that matches"},
		"logs of nothing":    {e: resting(), args: "logs -n 0", code: exitUsage, says: "--lines 0"},
		"events":             {e: resting(), args: "events", says: "release 7 has all traffic"},
		"releases":           {e: resting(), args: "releases", says: "8        -      "},
		"show":               {e: resting(), args: "show 8", says: "changed since release 7"},
		"show nothing":       {e: resting(), args: "show 99", code: exitFailed, says: "castle has no release 99"},
		"show no number":     {e: resting(), args: "show x", code: exitUsage, says: `"x" is not the number of a release`},
		"hold":               {e: resting(), args: "hold", says: "castle is held: new requests wait, each for up to 30s; let them go on: spillway hold --off"},
		"hold for":           {e: resting(), args: "hold --for 5s", says: "each for up to 5s"},
		"hold off":           {e: resting(), args: "hold --off", says: "castle goes on: 3 requests wait, each for up to 30s"},
		"hold for nothing":   {e: resting(), args: "hold --for 0s", code: exitUsage, says: "to let requests go on: spillway hold --off"},
		"hold and off":       {e: resting(), args: "hold --off --for 5s", code: exitUsage, says: "give one of them"},
		"doctor":             {e: resting(), args: "doctor", says: "ok    cgroups: version 2"},
		"doctor finds":       {e: failing, args: "doctor", code: exitFailed, says: "fail  disk: full\n      remedy: remove something"},
		"promote":            {e: quiet(trying(7, 8, spillway.Whole, 1), spillway.VerbPromote), args: "promote", says: "release 8 at 100% of the users", ask: spillway.Intent{Verb: spillway.VerbPromote}},
		"pause":              {e: quiet(paused, spillway.VerbPause), args: "pause", says: "castle · Paused · release 7 serves, release 8 at 5% of the users (step 2 of 4): paused by root", ask: spillway.Intent{Verb: spillway.VerbPause}},
		"resume":             {e: quiet(trying(7, 8, spillway.Percent(5), 1), spillway.VerbResume), args: "resume", says: "castle · Progressing", ask: spillway.Intent{Verb: spillway.VerbResume}},
		"cancel":             {e: quiet(castleAt(7, 1), spillway.VerbCancel), args: "cancel", says: "castle · Healthy · release 7 serves", ask: spillway.Intent{Verb: spillway.VerbCancel}},
		"nothing to promote": {e: quiet(castleAt(7, 1), spillway.VerbPromote, fact(spillway.EventIgnored, 0, "promote: no rollout runs")), args: "promote", code: exitFailed, says: "nothing was done: promote: no rollout runs"},
		"not allowed":        {e: denied, args: "pause", code: exitDenied, says: "token ci may only read"},
		"scale":              {e: quiet(castleAt(7, 1), spillway.VerbScale), args: "scale www=4", says: "www      2     2", ask: spillway.Intent{Verb: spillway.VerbScale, Service: "www", Replicas: 4}},
		"scale auto":         {e: quiet(castleAt(7, 1), spillway.VerbScale), args: "scale www=auto", says: "www      2     2", ask: spillway.Intent{Verb: spillway.VerbScale, Service: "www", Auto: true}},
		"scale to nothing":   {e: resting(), args: "scale www=0", code: exitUsage, says: "SERVICE=N with N from 1 to 1000"},
		"restart":            {e: quiet(castleAt(7, 1), spillway.VerbRestart), args: "restart www", says: "www of castle is being restarted", ask: spillway.Intent{Verb: spillway.VerbRestart, Service: "www"}},
		"destroy unasked":    {e: resting(), args: "destroy", code: exitUsage, says: "destroy castle needs -y"},
		"which app":          {e: two, args: "ps", code: exitUsage, says: "the server has castle, shop; say -a castle"},
		"that app":           {e: two, args: "ps -a castle", says: "www.7-1"},
		"no such app":        {e: two, args: "status -a barn", code: exitFailed, says: "there is no app barn"},
		"no app":             {e: &actor{}, args: "ps", code: exitFailed, says: "no app has been deployed here yet"},
		"no such flag":       {e: resting(), args: "status --wach", code: exitUsage, says: "unknown flag: --wach\nHelp:  spillway status --help"},
		"no such command":    {e: resting(), args: "depoly", code: exitUsage, says: "Did you mean this?\n\tdeploy"},
		"no such strategy":   {e: resting(), args: "deploy --strategy carnary", code: exitUsage, says: "--strategy carnary: there are rolling, canary, blue-green and recreate"},
		"no such file":       {e: resting(), args: "deploy -f nowhere.yaml", code: exitUsage, says: "--file nowhere.yaml"},
		"no app file":        {e: resting(), args: "deploy /", code: exitUsage, says: "spillway init /"},
		"waits in vain":      {e: never, args: "pause", code: exitFailed, says: "has not acted on it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			dir := serve(t, tt.e)
			var stdout, stderr bytes.Buffer
			c := newCLI(strings.NewReader(""), &stdout, &stderr, func(string) string { return "" })
			c.every, c.patience = time.Millisecond, 5*time.Second
			if tt.e == never {
				c.patience = 10 * time.Millisecond
			}
			code := c.run(t.Context(), append(strings.Fields(tt.args), "--dir", dir))
			if code != tt.code || !strings.Contains(stdout.String()+stderr.String(), tt.says) {
				t.Errorf("exit code %d, want %d and %q\n--- stdout\n%s--- stderr\n%s", code, tt.code, tt.says, &stdout, &stderr)
			}
			if code == exitDone && tt.ask.Verb != "" {
				tt.ask.Seq = 1
				if len(tt.e.intents) != 1 || !sameIntent(tt.e.intents[0], tt.ask) {
					t.Errorf("asked for %+v, want %+v", tt.e.intents, tt.ask)
				}
			}
		})
	}
}

// sameIntent compares what a user can say.
func sameIntent(a, b spillway.Intent) bool {
	a.At, a.By = b.At, b.By
	return a == b
}

func TestAbort_WaitsUntilTheProxyServesWeightZero(t *testing.T) {
	e := resting()
	leaving := trying(7, 8, spillway.Percent(25), 1)
	leaving.Phase, leaving.Rollout.Asked = spillway.RollingBack, 0
	out := leaving
	out.Rollout = &spillway.RolloutOverview{Release: 8, Stable: 7}
	late := leaving // the route before was not served yet either, so that 0 may be what was before it
	late.Rollout = &spillway.RolloutOverview{Release: 8, Stable: 7, Unacknowledged: true}
	e.scripts = map[spillway.Verb][]round{spillway.VerbAbort: {{overview: trying(7, 8, spillway.Percent(25), 0)}, {overview: leaving}, {overview: late}, {overview: out}}}
	t.Chdir(t.TempDir())
	got := invoke(t.Context(), serve(t, e), "abort")
	if want := "release 8 of castle has weight 0 after TIME; release 7 serves everybody\n"; got.code != exitDone || steady(got.stdout) != want {
		t.Errorf("exit code %d, stdout %q, want %q\n%s", got.code, got.stdout, want, got.stderr)
	}
	if left := len(e.rounds); left != 1 {
		t.Errorf("abort returned with %d looks to go: the weight was not 0 yet", left-1)
	}
}

// Who waits for an instance of a gateway that does not answer is told.
func TestAbort_SaysWhatItWaitsFor(t *testing.T) {
	e := resting()
	leaving := trying(7, 8, spillway.Percent(25), 1)
	leaving.Phase, leaving.Rollout.Unacknowledged = spillway.RollingBack, true
	leaving.Rollout.Waiting = "the gateway's instance 10.1.2.3:8000 does not serve generation 9 yet"
	out := leaving
	out.Rollout = nil
	e.scripts = map[spillway.Verb][]round{spillway.VerbAbort: append(slices.Repeat([]round{{overview: leaving}}, 50), round{overview: out})}
	var stdout, stderr bytes.Buffer
	c := newCLI(strings.NewReader(""), &stdout, &stderr, func(string) string { return "" })
	c.every, c.patience = time.Millisecond, 20*time.Millisecond
	t.Chdir(t.TempDir())
	code := c.run(t.Context(), []string{"abort", "--dir", serve(t, e)})
	if n := strings.Count(stderr.String(), "still waiting"); code != exitDone || n != 1 || !strings.Contains(stderr.String(), leaving.Rollout.Waiting) {
		t.Errorf("exit code %d, told %d times\n%s", code, n, &stderr)
	}
}

func TestDestroy_WaitsUntilTheAppIsGone(t *testing.T) {
	e := resting()
	e.scripts = map[spillway.Verb][]round{spillway.VerbDestroy: {{overview: castleAt(7, 1)}, {overview: castleAt(7, 1)}, {}}}
	t.Chdir(t.TempDir())
	got := invoke(t.Context(), serve(t, e), "destroy", "-y")
	if want := "castle is gone after TIME\n"; got.code != exitDone || steady(got.stdout) != want {
		t.Errorf("exit code %d, stdout %q, want %q\n%s", got.code, got.stdout, want, got.stderr)
	}
}

func TestPlan_ExitCodeSaysWhetherThereAreChanges(t *testing.T) {
	appDir(t, castleFile)
	e := resting()
	dir := serve(t, e)
	e.planned = spillway.Plan{App: "castle", From: 7, Release: 8}
	if got := invoke(t.Context(), dir, "plan"); got.code != exitDone {
		t.Errorf("exit code %d without changes, want 0: %s", got.code, got.stderr)
	}
	e.planned = canaryPlan()
	for _, args := range [][]string{{"plan"}, {"deploy", "--dry-run"}, {"plan", "--json"}} {
		if got := invoke(t.Context(), dir, args...); got.code != exitChanges || got.stderr != "" {
			t.Errorf("%q: exit code %d, stderr %q; want 10 and nothing", args, got.code, got.stderr)
		}
	}
}

func TestJSON_IsOneObject(t *testing.T) {
	for _, args := range []string{"status", "ps", "releases", "show 8", "events", "doctor", "version", "schema", "promote", "scale www=3", "restart", "abort", "destroy -y"} {
		t.Run(args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			e := resting()
			e.scripts = map[spillway.Verb][]round{spillway.VerbDestroy: {{}}}
			for _, v := range []spillway.Verb{spillway.VerbPromote, spillway.VerbScale, spillway.VerbRestart, spillway.VerbAbort} {
				e.scripts[v] = []round{{overview: castleAt(7, 1)}}
			}
			got := invoke(t.Context(), serve(t, e), append(strings.Fields(args), "--json")...)
			var v map[string]any
			if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || got.code != exitDone {
				t.Errorf("exit code %d, %v\n%s%s", got.code, err, got.stdout, got.stderr)
			}
		})
	}
}

// waiting is a writer that tells when a text has been written to it.
type waiting struct {
	text bytes.Buffer
	want string
	seen func()
}

func (w *waiting) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	if strings.Contains(w.text.String(), w.want) {
		w.seen()
	}
	return n, err
}

func TestFollowers_EndWithoutAnErrorWhenInterrupted(t *testing.T) {
	for args, want := range map[string]string{
		"events -f":        "release 7 has all traffic",
		"logs -f":          "hello",
		"logs -f --json":   `"text":"hello"`,
		"status --watch":   "release 8 by canary",
		"status -w --json": `"release":8`,
	} {
		t.Run(args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			e := resting()
			e.rounds = []round{{overview: castleAt(7, 0)}, {overview: castleAt(7, 0)}, {overview: trying(7, 8, 0, 1)}}
			dir := serve(t, e)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			out := &waiting{want: want, seen: cancel}
			var stderr bytes.Buffer
			c := newCLI(strings.NewReader(""), out, &stderr, func(string) string { return "" })
			c.every = time.Millisecond
			code := c.run(ctx, append(strings.Fields(args), "--dir", dir, "-a", "castle"))
			if code != exitDone || !strings.Contains(out.text.String(), want) {
				t.Errorf("exit code %d, want 0 and %q\n%s%s", code, want, &out.text, &stderr)
			}
			if n := strings.Count(out.text.String(), "Healthy"); n > 1 {
				t.Errorf("what did not change was told %d times", n)
			}
		})
	}
}

func TestNoServer_NamesTheNextCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	got := invoke(t.Context(), stateDir(t), "status", "-a", "castle")
	if got.code != exitFailed || !strings.Contains(got.stderr, "start one with: spillway server") {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
}

func TestHelp(t *testing.T) {
	got := invoke(t.Context(), "/tmp/state")
	if got.code != exitDone || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
	}
	golden(t, "help", strings.ReplaceAll(got.stdout, version(), "VERSION"))
	root := newCLI(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}, func(string) string { return "" }).rootCommand()
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		checkHelp(t, cmd)
	}
}

func TestUnknownCommand_SuggestsThoseThatAreMeant(t *testing.T) {
	got := invoke(t.Context(), "/tmp/state", "history")
	if got.code != exitUsage || !strings.Contains(got.stderr, "\treleases\n") || !strings.Contains(got.stderr, "\tevents\n") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

func checkHelp(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	if cmd.Short == "" || cmd.Long == "" || cmd.GroupID == "" {
		t.Errorf("%s has no short text, long text or group", cmd.Name())
	}
	if !strings.Contains(cmd.Example, "spillway "+cmd.Name()) {
		t.Errorf("the help of %s shows no example of it", cmd.Name())
	}
	for line := range strings.Lines(cmd.Example + "\n" + cmd.Long) {
		if len([]rune(line)) > 110 {
			t.Errorf("the help of %s has a line that is too long: %s", cmd.Name(), line)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	dir := serve(t, resting())
	for args, want := range map[string]string{
		"__complete rollback ":         "8\tfedcba9+ new gate",
		"__complete restart ":          "www",
		"__complete scale ":            "www=",
		"__complete status -a ":        "castle",
		"__complete deploy --strategy": "--strategy",
		"__complete logs --service ":   "backend",
	} {
		fields := strings.Split(args, " ")
		got := invoke(t.Context(), dir, fields...)
		if !slices.Contains(strings.Split(got.stdout, "\n"), want) && !strings.Contains(got.stdout, want+"\t") {
			t.Errorf("%q proposes\n%s\nwant %q among it", args, got.stdout, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := invoke(t.Context(), dir, "completion", shell); got.code != exitDone || len(got.stdout) < 1000 {
			t.Errorf("completion %s: exit code %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
	if got := invoke(t.Context(), dir, "completion", "tcsh"); got.code != exitUsage {
		t.Errorf("completion tcsh: exit code %d, want 2", got.code)
	}
}

func TestJSON_AFailureIsAnObjectToo(t *testing.T) {
	dir := stateDir(t) // without a server
	got := invoke(t.Context(), dir, "status", "--json")
	var v struct {
		Error struct {
			Text string
			Code int
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Error.Code != got.code || got.code != exitFailed || !strings.Contains(v.Error.Text, "no Spillway server answers") {
		t.Errorf("stdout %q (%v), exit code %d", got.stdout, err, got.code)
	}
}

func TestScale_SaysWhyTheSizeIsAnother(t *testing.T) {
	t.Chdir(t.TempDir())
	e := quiet(castleAt(7, 1), spillway.VerbScale, fact(spillway.EventScaled, 7, "www has 2 replicas: 5 were asked for, and its file says 1 to 2"))
	got := invoke(t.Context(), serve(t, e), "scale", "www=5")
	if got.code != exitDone || !strings.Contains(got.stderr, "its file says 1 to 2") {
		t.Errorf("exit code %d, %q %q", got.code, got.stdout, got.stderr)
	}
}
