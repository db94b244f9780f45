package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 21, 10, 30, 0, 0, zone)
	for text, want := range map[string]string{
		"11:00":                "2026-11-21T11:00:00+01:00",
		"10:30":                "2026-11-22T10:30:00+01:00", // the next one
		"03:00":                "2026-11-22T03:00:00+01:00",
		"2026-12-01 04:05":     "2026-12-01T04:05:00+01:00",
		"2026-12-01T04:05:00Z": "2026-12-01T04:05:00Z",
		"+10m":                 "2026-11-21T10:40:00+01:00",
		"2026-11-21 10:30":     "is in the past",
		"2020-01-01T00:00:00Z": "is in the past",
		"+":                    "no length of time",
		"+-5m":                 "no length of time",
		"soon":                 "is not a time",
		"25:00":                "is not a time",
	} {
		got, err := parseWhen(text, now)
		if err != nil {
			if exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", text, err, want)
			}
		} else if got.Format(time.RFC3339) != want {
			t.Errorf("%q is %s, want %s", text, got.Format(time.RFC3339), want)
		}
	}
}

func TestParsePast(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"10:30":                "2026-11-21T10:30:00Z",
		"11:00":                "2026-11-20T11:00:00Z",
		"-2h":                  "2026-11-21T08:30:00Z",
		"2026-11-20 09:00":     "2026-11-20T09:00:00Z",
		"2026-11-20T09:00:00Z": "2026-11-20T09:00:00Z",
	} {
		if got, err := parsePast(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q is %s, %v; want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	if _, err := parsePast("yesterday", now); exitCode(err) != exitUsage {
		t.Errorf("yesterday: %v, want a usage error", err)
	}
}

func TestDeploy_DoesNotWatchWhatTheClockKeeps(t *testing.T) {
	waiting := func(w spillway.Wait) []round {
		o := castleAt(7, 1)
		o.Queue, o.Waits = 8, []spillway.Wait{w}
		return []round{{overview: castleAt(7, 0)}, {overview: o, events: []spillway.Event{fact(spillway.EventAsked, 8, "deploy release 8")}}}
	}
	for says, w := range map[string]spillway.Wait{
		"release 8 of castle waits until ":                                       {Release: 8, Reason: "its time", At: time.Now().Add(time.Hour)},
		"release 8 of castle waits for the end of the freeze window Sat - Mon\n": {Release: 8, Reason: "the end of the freeze window Sat - Mon"},
		"release 8 of castle waits for the end of the freeze window Fri - Tue\n": {Release: 8, Reason: "the end of the freeze window Fri - Tue", At: time.Now().Add(-time.Second)}, // after the app's delay
	} {
		appDir(t, castleFile)
		e := deploying(waiting(w)...)
		got := invoke(t.Context(), serve(t, e), "deploy", "--at", "+1h")
		if got.code != exitDone || !strings.Contains(got.stdout, says) || !strings.Contains(got.stdout, "drop it: spillway cancel\n") {
			t.Errorf("exit code %d, %q\n%s", got.code, got.stdout, got.stderr)
		}
		if left := time.Until(e.request.NotBefore); left < 59*time.Minute || left > time.Hour {
			t.Errorf("not before %s from now, want 1h", left)
		}
	}
}

func TestDeploy_WatchesWhatWaitsForAnotherRollout(t *testing.T) {
	appDir(t, castleFile)
	o := trying(7, 6, spillway.Percent(5), 1)
	o.Queue, o.Waits = 8, []spillway.Wait{{Release: 8, Reason: "the rollout of release 6 to end"}}
	script := append([]round{{overview: o}, {overview: o}, {overview: o}}, climbing(serving())...)
	got := invoke(t.Context(), serve(t, deploying(script...)), "deploy", "--now")
	if got.code != exitDone || !strings.Contains(got.stdout, "release 8 of castle serves everybody") {
		t.Errorf("exit code %d, %q\n%s", got.code, got.stdout, got.stderr)
	}
}

func TestDeploy_AtAndNowContradict(t *testing.T) {
	appDir(t, castleFile)
	got := invoke(t.Context(), "/nonexistent", "deploy", "--at", "+1h", "--now")
	if got.code != exitUsage || !strings.Contains(got.stderr, "contradict") {
		t.Errorf("exit code %d, %q", got.code, got.stderr)
	}
}
