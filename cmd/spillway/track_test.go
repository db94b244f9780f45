package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// withTrack is the castle at rest with a track that holds a release.
func withTrack(stable, held int, intent int64, good ...int) spillway.Overview {
	o := castleAt(stable, intent)
	o.Tracks = []spillway.TrackOverview{{Name: "canary", Release: held, Share: spillway.Percent(10), Good: good}}
	return o
}

// onTrack makes events those of the track.
func onTrack(events ...spillway.Event) []spillway.Event {
	for i := range events {
		events[i].Track = "canary"
	}
	return events
}

func tracking(held int, good ...int) *actor {
	e := deploying()
	e.rounds = []round{{overview: withTrack(7, held, 0, good...)}}
	_, eight := twoReleases()
	five := eight
	five.Number, five.Track = 5, "canary"
	e.releases = []spillway.Release{eight, five}
	return e
}

func TestDeploy_ToATrack(t *testing.T) {
	appDir(t, castleFile)
	e := tracking(0)
	before := withTrack(7, 0, 1)
	before.Rollout = &spillway.RolloutOverview{ID: 3, Release: 8, Stable: 7, Track: "canary", Strategy: spillway.Canary, Step: 1, Steps: 1}
	e.deploys = []round{
		{overview: before, events: onTrack(fact(spillway.EventAsked, 8, "deploy release 8 to track canary"))},
		// What happens to the same release elsewhere is another matter.
		{overview: before, events: []spillway.Event{ended(8, spillway.Failed, "release 8 failed for stable")}},
		{overview: withTrack(7, 8, 1), events: onTrack(fact(spillway.EventServing, 8, "release 8 has the traffic of track canary"))},
	}
	got := invoke(t.Context(), serve(t, e), "deploy", "--track", "canary")
	if got.code != exitDone || !strings.Contains(got.stdout, "release 8 of castle serves track canary after ") || !strings.Contains(got.stdout, "undo: spillway rollback --track canary\n") {
		t.Errorf("exit code %d, %q\n%s", got.code, got.stdout, got.stderr)
	}
	if e.request.Track != "canary" {
		t.Errorf("asked for track %q", e.request.Track)
	}
}

func TestDeploy_AnotherTracksReleaseIsMadeAnew(t *testing.T) {
	t.Chdir(t.TempDir())
	e := tracking(0)
	e.deployed.Release = 9
	e.deploys = []round{{overview: withTrack(7, 9, 1)}}
	got := invoke(t.Context(), serve(t, e), "deploy", "8", "--track", "canary")
	want := api.DeployRequest{File: appFile, App: "castle", From: production, Release: 8, Track: "canary", By: e.request.By}
	if e.request.Source = nil; got.code != exitDone || !reflect.DeepEqual(e.request, want) {
		t.Errorf("exit code %d, asked for %+v, want %+v\n%s", got.code, e.request, want, got.stderr)
	}
}

func TestVerbs_NameTheirTrack(t *testing.T) {
	serving := func(n int) []round {
		return []round{{overview: withTrack(7, n, 1), events: onTrack(fact(spillway.EventServing, n, "release has the traffic"))}}
	}
	for args, tt := range map[string]struct {
		held   int
		good   []int
		script []round
		want   spillway.Intent
		says   string
	}{
		"deploy 5 --track canary":   {script: serving(5), want: spillway.Intent{Verb: spillway.VerbDeploy, Release: 5, Track: "canary"}, says: "release 5 of castle serves track canary"},
		"deploy 5 --track stable":   {script: []round{{overview: withTrack(5, 0, 1)}}, want: spillway.Intent{Verb: spillway.VerbDeploy, Release: 5}, says: "release 5 of castle serves everybody"},
		"rollback --track canary":   {held: 8, good: []int{5}, script: serving(5), want: spillway.Intent{Verb: spillway.VerbRollback, Track: "canary"}, says: "release 5 of castle serves track canary"},
		"rollback --track=canary":   {held: 8, script: []round{{overview: withTrack(7, 0, 1)}}, want: spillway.Intent{Verb: spillway.VerbRollback, Track: "canary"}, says: "track canary of castle holds no release any more; its users are given to release 7"},
		"promote --track canary":    {held: 5, script: []round{{overview: withTrack(5, 5, 1)}}, want: spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, says: "release 5 of castle serves everybody"},
		"pause --track canary":      {held: 5, script: []round{{overview: withTrack(7, 5, 1)}}, want: spillway.Intent{Verb: spillway.VerbPause, Track: "canary"}, says: "release 5 serves track canary"},
		"abort --track canary":      {held: 5, script: []round{{overview: withTrack(7, 5, 1)}}, want: spillway.Intent{Verb: spillway.VerbAbort, Track: "canary"}, says: "release 7 serves everybody"},
		"deploy 5 --track canary -": {},
	} {
		t.Run(args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			e := tracking(tt.held, tt.good...)
			e.scripts = map[spillway.Verb][]round{tt.want.Verb: tt.script}
			got := invoke(t.Context(), serve(t, e), strings.Fields(args)...)
			if tt.says == "" {
				if got.code != exitUsage {
					t.Errorf("exit code %d, want 2", got.code)
				}
				return
			}
			if got.code != exitDone || !strings.Contains(got.stdout, tt.says) {
				t.Fatalf("exit code %d, %q, want %q\n%s", got.code, got.stdout, tt.says, got.stderr)
			}
			asked := e.intents[0]
			tt.want.Seq, tt.want.By, tt.want.At = asked.Seq, asked.By, asked.At
			if asked != tt.want {
				t.Errorf("asked for %+v, want %+v", asked, tt.want)
			}
		})
	}
}

func TestRollback_TellsHowLongTheSwitchTook(t *testing.T) {
	t.Chdir(t.TempDir())
	e := deploying()
	o := castleAt(7, 0)
	o.Good = []int{6}
	e.rounds = []round{{overview: o}}
	edge := func(weight spillway.Share) []spillway.Edge {
		return []spillway.Edge{
			{Service: "www", Backends: []spillway.Backend{{Release: 3, Track: "canary", Weight: 1000}, {Release: 7, Weight: 9000 - weight}, {Release: 6, Weight: weight}}},
			{Service: "www", Only: "standby", Backends: []spillway.Backend{{Release: 7, Weight: spillway.Whole}}},
		}
	}
	later := func(ms int, weight spillway.Share) spillway.Event {
		e := fact(spillway.EventRoute, 6, "the route is served")
		e.At, e.Edges = time.Now().Add(time.Hour+time.Duration(ms)*time.Millisecond), edge(weight)
		return e
	}
	f := &follower{release: 6, asked: time.Now().Add(time.Hour)}
	for _, e := range []spillway.Event{later(-5, 9000), later(20, 4500), later(41, 9000), later(80, 9000)} {
		f.clock(e)
	}
	if got := f.switched().Round(time.Millisecond); got != 41*time.Millisecond {
		t.Errorf("it took %s, want 41ms", got)
	}
	at := time.Now().Add(time.Minute)
	served := fact(spillway.EventServing, 6, "release 6 has all traffic")
	served.At = at
	e.scripts = map[spillway.Verb][]round{spillway.VerbRollback: {{overview: trying(7, 6, spillway.Whole, 1), events: []spillway.Event{served}}}}
	got := invoke(t.Context(), serve(t, e), "rollback")
	if got.code != exitDone || !strings.Contains(got.stdout, " (route acknowledged)") {
		t.Errorf("exit code %d, %q\n%s", got.code, got.stdout, got.stderr)
	}
}

func TestMoment(t *testing.T) {
	for d, want := range map[time.Duration]string{41*time.Millisecond + 300: "41ms", 10: "1ms", 2500 * time.Millisecond: "2.5s", 0: "1ms"} {
		if got := moment(d); got != want {
			t.Errorf("%s is told as %s, want %s", d, got, want)
		}
	}
}

func TestEnvironment_IsPartOfTheApp(t *testing.T) {
	t.Chdir(t.TempDir())
	e := resting()
	e.apps = []spillway.Ref{"castle", "castle@staging"}
	dir := serve(t, e)
	for args, says := range map[string]string{
		"status -a castle --env staging":                     "castle@staging · ",
		"status --env staging":                               "castle@staging · ",
		"status -a castle@staging":                           "castle@staging · ",
		"status -a castle --env production":                  "castle · ",
		"status -a castle@production":                        "castle · ",
		"status -a castle@staging --env production":          "contradict each other",
		"status -a castle --env nowhere":                     "there is no app castle@nowhere",
		"status":                                             "which app?",
		"deploy --from staging -a castle@staging":            "--from staging is the environment that is deployed to",
		"deploy what --from staging -a castle":               "neither a release nor a commit",
		"deploy 8 --from staging -a castle --note again":     "release 8 of castle serves everybody",
		"plan --from staging -a castle --track canary":       "castle: nothing to do",
		"deploy --from production --dry-run -a castle":       "--from production is the environment",
		"deploy fedcba98 --from staging -a castle":           "with changes that were not committed",
		"deploy 0123456 --from staging -a castle":            "serves everybody",
		"rollback 99 -a castle":                              "Error: rollback: castle has no release 99",
		"events -a castle --all -n 3":                        "",
		"deploy --from staging --env two -a castle --detach": "castle@two: what serves in castle@staging is taken over",
	} {
		e.askErr = nil
		if strings.HasPrefix(args, "rollback 99") {
			e.askErr = fmt.Errorf("castle has no release 99: %w", spillway.ErrNotFound)
		}
		e.deployed, e.rounds = api.DeployResult{App: "castle", Release: 8}, []round{{overview: castleAt(7, 0)}}
		e.deploys, e.planned = []round{{overview: castleAt(8, 0)}}, spillway.Plan{App: "castle", From: 7}
		got := invoke(t.Context(), dir, strings.Fields(args)...)
		if !strings.Contains(got.stdout+got.stderr, says) {
			t.Errorf("%s: exit code %d\n%s%s\nwant %q", args, got.code, got.stdout, got.stderr, says)
		}
		if strings.HasPrefix(args, "deploy 8 --from") && (e.request.From != "staging" || e.request.Release != 8 || e.request.App != "castle" || e.request.Note != "again") {
			t.Errorf("asked for %+v", e.request)
		}
	}
}

func TestOops(t *testing.T) {
	coloured := func() *actor {
		e := resting()
		o := castleAt(7, 0)
		o.Color, o.Good = "blue", []int{6}
		o.Standby = &spillway.StandbyOverview{Release: 6, Left: spillway.Duration(time.Hour), Ready: true, Color: "green", Hosts: []string{"off.castle.localhost"}}
		e.rounds = []round{{overview: o}}
		seven, six := e.releases[len(e.releases)-1], e.releases[len(e.releases)-1]
		seven.Number, seven.Groups = 7, map[string]int{"www": 7}
		seven.Config.Services[0].Standby = &spillway.Standby{Host: []string{"off.castle.localhost"}}
		six.Number, six.Groups = 6, map[string]int{"www": 6}
		six.Source = spillway.Source{Commit: "6666666aaaa"}
		e.releases = []spillway.Release{seven, six}
		e.replicas = []spillway.Replica{
			{Group: spillway.Group{Service: "www", Release: 7}, State: spillway.Ready, Address: "127.0.0.1:1"},
			{Group: spillway.Group{Service: "www", Release: 6}, State: spillway.Ready, Address: "127.0.0.1:2"},
			{Group: spillway.Group{Service: "www", Release: 6}, State: spillway.Unready, Address: "127.0.0.1:3"},
		}
		return e
	}
	for args, tt := range map[string]struct {
		code int
		says string
	}{
		"":                  {says: "Undo deploys"},
		"list":              {says: "*  7 "},
		"l":                 {says: "6666666"},
		"status":            {says: `{"active":{"color":"blue","release":7,"replicas":["127.0.0.1:1"]},"off":{"color":"green","release":6,"replicas":["127.0.0.1:2"]}}` + "\n"},
		"rollback -c":       {says: "Active color: 'blue', release 7 at 127.0.0.1:1\nOff color: 'green', release 6 at 127.0.0.1:2\n"},
		"rollback":          {says: "release 6 of castle serves everybody"},
		"off":               {says: "Off color: 'green', release 6 at 127.0.0.1:2; look at it at off.castle.localhost"},
		"deploy":            {code: exitUsage, says: "which commit or release?"},
		"deploy nonsense":   {code: exitUsage, says: "neither a release nor a commit"},
		"deploy 6666666":    {says: "release 6 of castle serves everybody"},
		"deploy 7777777":    {code: exitFailed, says: "there are releases of: "},
		"undo":              {code: exitUsage, says: "unknown command"},
		"status unexpected": {code: exitUsage, says: "takes no arguments"},
	} {
		t.Run(args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			e := coloured()
			done := []round{{overview: castleAt(6, 1)}}
			e.scripts = map[spillway.Verb][]round{spillway.VerbRollback: done, spillway.VerbDeploy: done}
			got := invoke(t.Context(), serve(t, e), append([]string{"oops"}, strings.Fields(args)...)...)
			if got.code != tt.code || !strings.Contains(got.stdout+got.stderr, tt.says) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", got.code, tt.code, tt.says, got.stdout, got.stderr)
			}
		})
	}
}

func TestWho_SaysHowFarTheHistoryReaches(t *testing.T) {
	t.Chdir(t.TempDir())
	e := resting()
	e.whose = someone()
	dir := serve(t, e)
	if got := invoke(t.Context(), dir, "who", "4711"); got.code != exitDone || !strings.Contains(got.stdout, "release 8 (track canary)") {
		t.Errorf("exit code %d, %q\n%s", got.code, got.stdout, got.stderr)
	}
	var who api.Who
	got := invoke(t.Context(), dir, "who", "4711", "--json", "--at", "2026-02-28 11:00")
	if err := json.Unmarshal([]byte(got.stdout), &who); err != nil || who.At.Day() != 28 {
		t.Errorf("%v: %s", err, got.stdout)
	}
	e.whose = api.Who{At: at}
	if got := invoke(t.Context(), dir, "who", "4711"); got.code != exitFailed || !strings.Contains(got.stderr, "does not reach back") {
		t.Errorf("exit code %d, %q", got.code, got.stderr)
	}
	if got := invoke(t.Context(), dir, "who"); got.code != exitUsage {
		t.Errorf("without a key: exit code %d, want 2", got.code)
	}
}

func TestPromote_EndsTheWatchOfTheTrackFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	e := tracking(8)
	watched := withTrack(7, 8, 0)
	watched.Phase = spillway.Promoting
	watched.Rollout = &spillway.RolloutOverview{ID: 3, Release: 8, Stable: 7, Track: "canary"}
	still := watched
	still.Intent = 1
	e.rounds = []round{{overview: watched}}
	served := fact(spillway.EventServing, 8, "release 8 has all traffic")
	e.scripts = map[spillway.Verb][]round{spillway.VerbPromote: {
		{overview: still}, {overview: still}, {overview: withTrack(7, 8, 1)}, {overview: withTrack(7, 8, 1)},
		{overview: withTrack(8, 8, 2), events: []spillway.Event{served}},
	}}
	got := invoke(t.Context(), serve(t, e), "promote", "--track", "canary")
	if got.code != exitDone || !strings.Contains(got.stdout, "release 8 of castle serves everybody") || len(e.intents) != 2 {
		t.Errorf("exit code %d, asked %d times, %q\n%s", got.code, len(e.intents), got.stdout, got.stderr)
	}
}

func TestDeploy_ToATrackBeginsAgainBehindOneToStable(t *testing.T) {
	appDir(t, castleFile)
	e := tracking(0)
	queued := withTrack(7, 0, 1)
	queued.Rollout = &spillway.RolloutOverview{ID: 4, Release: 9, Stable: 7}
	queued.Waits = []spillway.Wait{{Release: 8, Track: "canary", Reason: "the rollout of release 9 to end"}}
	e.deploys = []round{
		{overview: queued, events: onTrack(fact(spillway.EventAsked, 8, "deploy release 8 to track canary"), ended(8, spillway.Superseded, "release 9 goes to stable first"))},
		{overview: queued}, {overview: queued},
		{overview: withTrack(9, 8, 1), events: onTrack(fact(spillway.EventServing, 8, "release 8 has the traffic of track canary"))},
	}
	got := invoke(t.Context(), serve(t, e), "deploy", "--track", "canary")
	if got.code != exitDone || !strings.Contains(got.stdout, "release 8 of castle serves track canary") {
		t.Errorf("exit code %d, %q\n%s", got.code, got.stdout, got.stderr)
	}
}

func TestHint_NamesWhatHadToBeNamed(t *testing.T) {
	for want, c := range map[string]*cli{"spillway rollback --env staging --track canary": {}, "spillway rollback -a shop --env staging --track canary": {app: "shop"}} {
		if got := c.hint("rollback", "shop@staging", "canary"); got != want {
			t.Errorf("the hint is %q, want %q", got, want)
		}
	}
	if got := (&cli{app: "shop"}).hint("rollback", "shop", ""); got != "spillway rollback -a shop" {
		t.Errorf("the hint is %q", got)
	}
}
