package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// deploying is an engine that answers a deploy of release 8 over release 7 with a script.
func deploying(script ...round) *actor {
	return &actor{
		info: api.Info{HTTP: "[::]:8080"}, apps: []spillway.Ref{"castle"},
		rounds:   []round{{overview: castleAt(7, 0)}},
		deployed: api.DeployResult{App: "castle", Release: 8, Intent: 1, URLs: []string{"http://www.castle.localhost:8080/"}},
		deploys:  script, build: []string{"www | go build", "www | \x1b[32mdone"},
		lines: []spillway.LogLine{
			{Replica: "www.7-1", Group: spillway.Group{Service: "www", Release: 7}, Text: "all well"},
			{Replica: "www.8-1", Group: spillway.Group{Service: "www", Release: 8}, Text: "panic: no gate"}},
	}
}

// climbing is how every rollout of the tests begins: it waits, starts, and reaches 5 %.
func climbing(rest ...round) []round {
	return append([]round{
		{overview: castleAt(7, 0)},
		{overview: trying(7, 8, 0, 1), events: []spillway.Event{fact(spillway.EventAsked, 8, "deploy release 8"), fact(spillway.EventStarted, 8, "release 8 by canary, 4 steps")}},
		{overview: trying(7, 8, spillway.Percent(5), 1), events: []spillway.Event{fact(spillway.EventStep, 8, "release 8 at 5% (step 1 of 4)")}},
	}, rest...)
}

func serving() round {
	return round{overview: trying(7, 8, spillway.Whole, 1), events: []spillway.Event{fact(spillway.EventServing, 8, "release 8 has all traffic")}}
}

func back(outcome spillway.Outcome, why string) round {
	o := castleAt(7, 1)
	o.Last = &spillway.LastRollout{ID: 3, Release: 8, Outcome: outcome, Reason: why}
	return round{overview: o, events: []spillway.Event{
		fact(spillway.EventAborting, 8, "release 8 to 0%: "+why), ended(8, outcome, fmt.Sprintf("release 8 was %s: %s", outcome, why))}}
}

func TestDeploy_EndsWithTheExitCodeOfTheOutcome(t *testing.T) {
	queued := castleAt(7, 1)
	queued.Queue = 8
	for name, tt := range map[string]struct {
		script []round
		want   int
	}{
		"serving":     {climbing(serving()), exitDone},
		"settled":     {climbing(round{overview: castleAt(8, 1)}), exitDone}, // the event was pruned
		"rolled-back": {climbing(back(spillway.RolledBack, "5 of 5 requests failed")), exitRolledBack},
		"failed":      {climbing(back(spillway.Failed, "not ready within 10m: 0 of 1 replica of www ready")), exitFailed},
		"aborted":     {climbing(back(spillway.Aborted, "aborted by root")), exitReplaced},
		"superseded":  {[]round{{overview: queued}, back(spillway.Superseded, "release 9 is next")}, exitReplaced},
		"cancelled":   {climbing(back(spillway.Cancelled, "cancelled by root")), exitReplaced},
		"ignored":     {[]round{{overview: castleAt(7, 1), events: []spillway.Event{fact(spillway.EventIgnored, 8, "deploy: the app is being destroyed")}}}, exitFailed},
		"of-another":  {climbing(round{overview: trying(7, 8, spillway.Percent(5), 1), events: []spillway.Event{ended(6, spillway.Failed, "release 6 was failed")}}, serving()), exitDone},
		// The watch of release 7 is on when release 8 is deployed: it has the users, but 6 is still stable.
		"during-a-watch": {append([]round{{overview: trying(6, 7, spillway.Whole, 0)}}, climbing(back(spillway.RolledBack, "5 of 5 requests failed"))...), exitRolledBack},
		"gone-meanwhile": {[]round{{overview: castleAt(7, 1)}, {}}, exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			dir := appDir(t, castleFile)
			got := invoke(t.Context(), serve(t, deploying(tt.script...)), "deploy", "--note", "new gate")
			if got.code != tt.want {
				t.Errorf("exit code %d, want %d", got.code, tt.want)
			}
			golden(t, "deploy-"+name, steady(fmt.Sprintf("exit %d\n--- stdout\n%s--- stderr\n%s", got.code, got.stdout, got.stderr), dir))
		})
	}
}

func TestDeploy_SendsTheDirectoryAndItsOptions(t *testing.T) {
	appDir(t, castleFile+"environments:\n  staging: {services: {www: {scale: 1}}}\n")
	e := deploying(climbing(serving())...)
	if got := invoke(t.Context(), serve(t, e), "deploy", "--strategy", "rolling", "--if-release", "7", "--note", "new gate", "-a", "castle@staging"); got.code != exitDone {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	r := e.request
	if r.File != appFile || r.Env != "staging" || r.Strategy != spillway.Rolling || r.IfRelease != 7 || r.Note != "new gate" {
		t.Errorf("the request was %+v", r)
	}
	if !slices.Equal(e.packed, []string{appFile}) {
		t.Errorf("the source holds %q, want the app file", e.packed)
	}
}

func TestDeploy_JSONIsOneObjectALine(t *testing.T) {
	appDir(t, castleFile)
	e := deploying(climbing(back(spillway.RolledBack, "5 of 5 requests failed"))...)
	got := invoke(t.Context(), serve(t, e), "deploy", "--json")
	if got.code != exitRolledBack || got.stderr != "" {
		t.Errorf("exit code %d, stderr %q; want 3 and nothing", got.code, got.stderr)
	}
	var logs, events int
	var end *deployEnd
	for line := range strings.Lines(got.stdout) {
		var l deployLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		switch {
		case end != nil:
			t.Errorf("a line after the end: %s", line)
		case l.Log != "":
			logs++
		case l.Event != nil:
			events++
		}
		end = l.End
	}
	if logs != 2 || events != 5 || end == nil || end.Outcome != spillway.RolledBack || end.Spent != 2 {
		t.Errorf("%d lines of the build, %d events, end %+v", logs, events, end)
	}
}

func TestDeploy_SaysWhenThereIsNothingToDo(t *testing.T) {
	appDir(t, castleFile)
	e := deploying()
	e.deployed.Same, e.deployed.Release = true, 7
	got := invoke(t.Context(), serve(t, e), "deploy")
	if want := "nothing to deploy: release 7 of castle is what runs  http://www.castle.localhost:8080/\n"; got.code != exitDone || got.stdout != want {
		t.Errorf("exit code %d, stdout %q, want 0 and %q", got.code, got.stdout, want)
	}
}

func TestDeploy_FindsAllMistakesOfTheFileWithoutAServer(t *testing.T) {
	appDir(t, "app: castle\nservices:\n  www: {run: ./www, scael: 2, strategy: carnary}\n")
	got := invoke(t.Context(), "/nonexistent", "deploy")
	if got.code != exitUsage {
		t.Errorf("exit code %d, want 2", got.code)
	}
	for _, want := range []string{"scael", "carnary", "2 mistakes in "} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("stderr does not name %q:\n%s", want, got.stderr)
		}
	}
}

func TestDeploy_FailedBuildChangesNothing(t *testing.T) {
	appDir(t, castleFile)
	e := deploying()
	e.buildErr = fmt.Errorf("build www: go build ended with 1: %w", spillway.ErrInvalid)
	got := invoke(t.Context(), serve(t, e), "deploy")
	if got.code != exitUsage || !strings.Contains(got.stderr, "Error: deploy castle: build www: go build ended with 1") {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
	if !strings.Contains(got.stderr, "www | go build\n") || strings.Contains(got.stderr, "\x1b") {
		t.Errorf("the output of the build should be there, without codes for the terminal: %q", got.stderr)
	}
}

func TestDeploy_InterruptDetaches(t *testing.T) {
	appDir(t, castleFile)
	dir := serve(t, deploying(climbing()...)) // stays at 5 % for ever
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	got := invoke(ctx, dir, "deploy")
	if got.code != exitDone || !strings.Contains(got.stderr, "release 8 is still being deployed") {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
}

func TestDeploy_SaysWhatASilentRolloutWaitsFor(t *testing.T) {
	appDir(t, castleFile)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stderr := &waiting{want: "waiting: the hold", seen: cancel}
	c := newCLI(strings.NewReader(""), io.Discard, stderr, func(string) string { return "" })
	c.every, c.hush = time.Millisecond, 0
	c.run(ctx, []string{"deploy", "--dir", serve(t, deploying(climbing()...))})
	if n := strings.Count(stderr.text.String(), "waiting: the hold"); n != 1 {
		t.Errorf("it was told %d times, want once:\n%s", n, &stderr.text)
	}
}

func TestDeploy_DetachDoesNotWatch(t *testing.T) {
	appDir(t, castleFile)
	got := invoke(t.Context(), serve(t, deploying(climbing()...)), "deploy", "--detach")
	if got.code != exitDone || !strings.Contains(got.stderr, "spillway status --watch") {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
}

func TestDeploy_OfAnEarlierRelease(t *testing.T) {
	e := deploying()
	e.rounds = []round{{overview: castleAt(8, 0)}}
	e.scripts = map[spillway.Verb][]round{spillway.VerbDeploy: {
		{overview: trying(8, 5, spillway.Percent(5), 1)},
		{overview: trying(8, 5, spillway.Whole, 1), events: []spillway.Event{fact(spillway.EventServing, 5, "release 5 has all traffic")}}}}
	got := invoke(t.Context(), serve(t, e), "deploy", "5", "-a", "castle")
	if got.code != exitDone || !strings.Contains(got.stdout, "release 5 of castle serves everybody") {
		t.Errorf("exit code %d, stdout %q, stderr %q", got.code, got.stdout, got.stderr)
	}
	if len(e.intents) != 1 || e.intents[0].Release != 5 {
		t.Errorf("asked for %+v, want deploy of release 5", e.intents)
	}
}

func TestRollback(t *testing.T) {
	after := func(n int) spillway.Overview { o := castleAt(n, 1); o.Good = []int{6}; return o }
	whole := func() []round {
		return []round{{overview: trying(7, 6, spillway.Whole, 1), events: []spillway.Event{fact(spillway.EventServing, 6, "release 6 has all traffic")}}}
	}
	for name, tt := range map[string]struct {
		now    spillway.Overview
		script []round
		arg    string
		code   int
		asked  int // release of the intent
		says   string
		refuse error // by the server
	}{
		"to the last good one": {now: after(7), script: whole(), says: "release 6 of castle serves everybody"},
		"to a release":         {now: after(7), script: whole(), arg: "6", asked: 6, says: "release 6 of castle serves everybody"},
		"out of a rollout":     {now: trying(7, 8, spillway.Percent(25), 0), script: []round{back(spillway.Aborted, "rollback asked for by root")}, says: "release 7 of castle serves everybody"},
		"to nowhere": {now: castleAt(7, 0), refuse: fmt.Errorf("there is none; by force: 6: %w", spillway.ErrConflict),
			code: exitFailed, says: "rollback: there is none; by force: 6"},
		"to what serves already": {now: after(7), arg: "7", says: "nothing to deploy: release 7 of castle is what runs"},
		"which is harmful too": {now: after(7), script: []round{{overview: castleAt(7, 1), events: []spillway.Event{ended(6, spillway.RolledBack, "release 6 was rolled-back")}}},
			code: exitRolledBack, says: "release 6 of castle was rolled back"},
		"to a bad one, by force": {now: after(7), script: whole(), arg: "6 --force", asked: 6, says: "release 6 of castle serves everybody"},
		"to no number":           {now: after(7), arg: "six", code: exitUsage, says: "name a release by its number"},
	} {
		t.Run(name, func(t *testing.T) {
			e := deploying()
			e.rounds, e.scripts = []round{{overview: tt.now}}, map[spillway.Verb][]round{spillway.VerbRollback: tt.script}
			e.askErr = tt.refuse
			args := []string{"rollback", "-a", "castle"}
			if tt.arg != "" {
				args = append(args, strings.Fields(tt.arg)...)
			}
			got := invoke(t.Context(), serve(t, e), args...)
			if forced := strings.Contains(tt.arg, "--force"); len(e.intents) > 0 && e.intents[0].Force != forced {
				t.Errorf("asked for %+v, want force %v", e.intents[0], forced)
			}
			if got.code != tt.code || !strings.Contains(got.stdout+got.stderr, tt.says) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", got.code, tt.code, tt.says, got.stdout, got.stderr)
			}
			if len(tt.script) > 0 && (len(e.intents) != 1 || e.intents[0].Release != tt.asked) {
				t.Errorf("asked for %+v, want release %d", e.intents, tt.asked)
			}
		})
	}
}
