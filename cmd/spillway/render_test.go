package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func TestRendering(t *testing.T) {
	www := func(n int) spillway.Group { return spillway.Group{Service: "www", Release: n} }
	troubled := castleAt(7, 4)
	troubled.Phase, troubled.NoData, troubled.Held, troubled.Queue = spillway.Degraded, true, true, 9
	troubled.Problems = []string{"www has 1 of 2 replicas ready: GET /healthz answered 503; see spillway logs --service www", "the proxy does not answer: the counts are those last seen; look at: spillway doctor"}
	troubled.Services[1].Groups[0].Ready = 1
	troubled.Services[1].Groups[0].Problem = "GET /healthz answered 503"
	troubled.Last = &spillway.LastRollout{ID: 3, Release: 8, Outcome: spillway.RolledBack, Reason: "5 of 5 requests failed", At: at.Add(-3 * time.Minute)}
	away := castleAt(7, 4) // on a cluster
	away.Held, away.Uncounted = true, true
	harmful := trying(7, 8, spillway.Percent(5), 4)
	harmful.Phase = spillway.RollingBack
	harmful.Rollout.Asked, harmful.Rollout.Reason, harmful.Rollout.Left, harmful.Rollout.Waiting = 0, "5 of 5 requests failed", 0, ""
	harmful.Rollout.Evidence.Verdict = spillway.Harmful

	watched := trying(7, 8, spillway.Whole, 4)
	watched.Phase, watched.Rollout.Step, watched.Rollout.Waiting = spillway.Promoting, 4, "the watch"

	for name, write := range map[string]func(w io.Writer) error{
		"status-at-rest": func(w io.Writer) error {
			return writeStatus(w, castleAt(7, 4), []string{"http://www.castle.localhost:8080/"}, at, style{})
		},
		"status-rollout":  func(w io.Writer) error { return writeStatus(w, trying(7, 8, spillway.Percent(5), 4), nil, at, style{}) },
		"status-back":     func(w io.Writer) error { return writeStatus(w, harmful, nil, at, style{}) },
		"status-watched":  func(w io.Writer) error { return writeStatus(w, watched, nil, at, style{}) },
		"status-troubled": func(w io.Writer) error { return writeStatus(w, troubled, nil, at, style{}) },
		"status-away":     func(w io.Writer) error { return writeStatus(w, away, nil, at, style{}) },
		"status-colours":  func(w io.Writer) error { return writeStatus(w, troubled, nil, at, style{on: true}) },
		"status-first": func(w io.Writer) error {
			return writeStatus(w, spillway.Overview{App: "castle", Phase: spillway.Healthy}, nil, at, style{})
		},
		"status-held": func(w io.Writer) error {
			held := spillway.Overview{App: "castle", Phase: spillway.Healthy, Stable: 7, Hold: &spillway.Hold{Since: at.Add(-90 * time.Second), For: spillway.Duration(30 * time.Second), Waiting: 14}}
			return writeStatus(w, held, nil, at, style{})
		},
		"status-tracks": func(w io.Writer) error { return writeStatus(w, tracked(), nil, at, style{}) },
		"plan-track":    func(w io.Writer) error { return writePlan(w, trackPlan()) },
		"who":           func(w io.Writer) error { return writeWho(w, someone(), at) },
		"routes":        func(w io.Writer) error { return routeTable(routesOf(t)).print(w) },
		"routes-test":   func(w io.Writer) error { return explained(t, w) },
		"plan-canary":   func(w io.Writer) error { return writePlan(w, canaryPlan()) },
		"plan-first": func(w io.Writer) error {
			return writePlan(w, spillway.Plan{App: "castle", Release: 1, Changes: []spillway.Change{{Service: "www", What: "new", Restart: true}}, Strategy: spillway.Recreate, Steps: []spillway.PlanStep{{Weight: spillway.Whole}}, Worst: "nothing serves yet, so nothing can get worse", Gap: true})
		},
		"plan-nothing": func(w io.Writer) error { return writePlan(w, spillway.Plan{App: "castle", From: 7, Release: 8}) },
		"release":      func(w io.Writer) error { a, b := twoReleases(); return writeRelease(w, b, &a, at) },
		"releases": func(w io.Writer) error {
			a, b := twoReleases()
			return releaseTable([]spillway.Release{b, a}, states(trying(7, 8, 0, 1), nil), at).print(w)
		},
		"events": func(w io.Writer) error {
			return eventTable([]spillway.Event{{At: at.Add(-time.Minute), Kind: spillway.EventAsked, Release: 8, By: "root", Text: "deploy release 8"}, {At: at, Kind: spillway.EventReplica, Service: "www", Text: "www.8-1 \x1b[31mcrashed"}}, at).print(w)
		},
		"ps": func(w io.Writer) error {
			return replicaTable([]spillway.Replica{{Name: "www.7-1", Group: www(7), State: spillway.Ready, PID: 812, Address: "127.0.0.1:20001", Started: at.Add(-time.Hour), CPU: 250, Memory: 13 << 20}, {Name: "www.8-1", Group: www(8), State: spillway.Waiting, Restarts: 3, Problem: "exited with code 3 after 0.2 s"}}, at).print(w)
		},
		"block-canary":  block(trying(7, 8, spillway.Percent(25), 4)),
		"block-back":    block(harmful),
		"block-first":   block(firstRollout()),
		"block-waiting": block(func() spillway.Overview { o := castleAt(7, 4); o.Queue = 8; return o }()),
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
		})
	}
}

func block(o spillway.Overview) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(rolloutBlock(o, 8, 12*time.Second), "\n")+"\n")
		return err
	}
}

func firstRollout() spillway.Overview {
	o := trying(0, 1, 0, 1)
	o.Rollout.Evidence, o.Rollout.Waiting, o.Rollout.Left = nil, "0 of 2 replicas of www ready", 0
	for i := range o.Services {
		o.Services[i].Groups = []spillway.GroupOverview{{Group: spillway.Group{Service: o.Services[i].Name, Release: 1}, Role: "candidate", Want: 2, Running: 2, Problem: "GET /healthz answered 503"}}
	}
	return o
}

func canaryPlan() spillway.Plan {
	return spillway.Plan{
		App: "castle", Release: 8, From: 7, Strategy: spillway.Canary, Budget: 20, Unchanged: []string{"backend"},
		Changes: []spillway.Change{{Service: "www", What: "source", Restart: true}, {What: "budget 10 -> 20"}},
		Steps: []spillway.PlanStep{
			{Weight: spillway.Percent(5), Hold: spillway.Duration(5 * time.Second), Text: "1 of 2 replicas of www"},
			{Weight: spillway.Percent(50), Manual: true},
			{Weight: spillway.Whole, Text: "2 of 2 replicas of www"}},
		Worst: "if release 8 fails every request, at most 20 requests fail",
	}
}

// tracked is the castle, blue, with tracks, a dark colour, deploys that wait and a rollout on a track.
func tracked() spillway.Overview {
	o := trying(7, 8, spillway.Percent(10), 4)
	o.Color = "blue"
	o.Rollout.Track = "canary"
	o.Rollout.Gates = []spillway.GateOverview{
		{Text: "restarts <= 0", Verdict: spillway.Certified, Reason: "0 restarts"},
		{Text: "query: up > 0", Verdict: spillway.NoData, Reason: "connection refused", DryRun: true},
	}
	o.Services[1].Groups[0].Traffic.Rate = 36.4
	o.Tracks = []spillway.TrackOverview{
		{Name: "canary", Release: 5, Share: spillway.Percent(10), Rules: []string{"cookie beta=1", "host canary.castle.localhost"}, Good: []int{4},
			Traffic: spillway.Traffic{Requests: 200, Failures: 3, P50: 2500, P95: 40100, Rate: 4.04}},
		{Name: "legacy", Share: spillway.Percent(20), URLs: []string{"http://10.0.0.1:8080"}, Problem: "http://10.0.0.1:8080: connection refused (12 of the last 12 tries)"},
	}
	o.Standby = &spillway.StandbyOverview{Release: 6, Left: spillway.Duration(58 * time.Minute), Ready: true, Color: "green", Hosts: []string{"off.castle.localhost"}}
	o.Waits = []spillway.Wait{
		{Release: 9, Reason: "its time", At: at.Add(3 * time.Hour), By: "root"},
		{Release: 10, Track: "canary", Reason: "the end of the freeze window Sat 00:00 - Mon 08:00"},
	}
	return o
}

func trackPlan() spillway.Plan {
	p := canaryPlan()
	p.Track, p.From, p.Tasks = "canary", 5, []string{"www: bin/migrate"}
	p.Takes, p.Rate, p.Frozen = spillway.Duration(12*time.Minute), 40.3, "Sat 00:00 - Mon 08:00, until Mon 2 Mar 08:00 UTC"
	return p
}

func someone() api.Who {
	return api.Who{App: "castle", Key: "4711", At: at, Bucket: 1448, Since: at.Add(-time.Hour), Edges: []api.WhoEdge{
		{Service: "api", Hosts: []string{"api.castle.localhost"}, Track: "legacy"},
		{Service: "www", Hosts: []string{"www.castle.localhost"}, Release: 8, Track: "canary", Otherwise: []string{"header X-Beta=1: release 9 (track beta)"}},
	}}
}

func twoReleases() (older, newer spillway.Release) {
	config := func(scale int, level string) spillway.App {
		return spillway.App{Name: "castle", Budget: 20, Watch: spillway.Duration(2 * time.Minute), Services: []spillway.Service{{
			Name: "www", Run: spillway.Command{Shell: "./www"}, Host: []string{"www.castle.localhost"}, Needs: []string{"backend"},
			Health: spillway.Probe{Path: "/healthz"}, Scale: scale, Strategy: spillway.Canary, Env: map[string]string{"LOG_LEVEL": level}}}}
	}
	older = spillway.Release{App: "castle", Number: 7, Config: config(2, "info"), Created: at.Add(-26 * time.Hour), By: "root",
		Source: spillway.Source{Commit: "0123456789abcdef", Digest: "sha256:aa"}, Artefacts: map[string]spillway.Artefact{"www": {Digest: "sha256:11"}}}
	newer = spillway.Release{App: "castle", Number: 8, Config: config(3, "debug"), Created: at.Add(-time.Minute), By: "token ci", Note: "new gate",
		Source: spillway.Source{Commit: "fedcba9876543210", Dirty: true, Digest: "sha256:bb"}, Artefacts: map[string]spillway.Artefact{"www": {Digest: "sha256:22"}}}
	return older, newer
}

// screen is as much of a terminal as a live block needs.
type screen struct{ lines []string }

func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
			up := 0
			for rest[0] >= '0' && rest[0] <= '9' {
				up, rest = up*10+int(rest[0]-'0'), rest[1:]
			}
			if rest[0] == 'A' {
				s.lines = s.lines[:len(s.lines)-up] // what is below is cleared right after
			}
			text = rest[1:]
			continue
		}
		if rest, ok := strings.CutPrefix(text, "\r"); ok {
			text = rest
			continue
		}
		line, rest, _ := strings.Cut(text, "\n")
		s.lines, text = append(s.lines, line), rest
	}
	return len(p), nil
}

func TestLive_KeepsOrdinaryLinesAboveTheBlock(t *testing.T) {
	same := func(_ int, line string) string { return line }
	var s screen
	l := live{out: &s, on: true}
	l.draw([]string{"a", "b", "c"}, same)
	l.line("first %d%%", 5)
	l.draw([]string{"d"}, same)
	l.line("second")
	l.draw([]string{"e", strings.Repeat("x", 200)}, same)
	want := []string{"first 5%", "second", "e", strings.Repeat("x", 78) + "…"}
	if got := strings.Join(s.lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the screen shows\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	l.clear()
	if len(s.lines) != 2 {
		t.Errorf("after clear the screen shows %q, want the two ordinary lines", s.lines)
	}
}

func TestLive_DrawsNothingOffATerminal(t *testing.T) {
	var b strings.Builder
	l := live{out: &b}
	l.draw([]string{"block"}, func(_ int, line string) string { return line })
	l.line("told")
	l.clear()
	if b.String() != "told\n" {
		t.Errorf("wrote %q, want only the ordinary line", b.String())
	}
}
