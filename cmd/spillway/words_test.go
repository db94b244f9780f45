package main

import (
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func TestSpan(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0s"},
		{0, "0s"},
		{449 * time.Millisecond, "0.4s"},
		{9999 * time.Millisecond, "9.9s"},
		{12 * time.Second, "12s"},
		{130 * time.Second, "2m10s"},
		{45*time.Minute + 3*time.Second, "45m"},
		{3*time.Hour + 20*time.Minute, "3h20m"},
		{4 * 24 * time.Hour, "4d"},
	} {
		if got := span(tt.d); got != tt.want {
			t.Errorf("span(%v) = %q, want %q", tt.d, got, tt.want)
		}
	}
}

func TestAge(t *testing.T) {
	for _, tt := range []struct {
		t    time.Time
		want string
	}{
		{time.Time{}, "-"},
		{at.Add(-500 * time.Millisecond), "now"},
		{at.Add(time.Hour), "now"}, // a clock that is ahead of ours
		{at.Add(-3 * time.Minute), "3m ago"},
		{at.Add(-49 * time.Hour), "2d ago"},
	} {
		if got := age(at, tt.t); got != tt.want {
			t.Errorf("age(%v) = %q, want %q", tt.t, got, tt.want)
		}
	}
}

func TestBar_ShowsTheSmallestShareAndTheSmallestGap(t *testing.T) {
	for _, tt := range []struct {
		share spillway.Share
		want  string
	}{
		{0, "░░░░"},
		{1, "█░░░"},
		{spillway.Percent(50), "██░░"},
		{spillway.Whole - 1, "███░"},
		{spillway.Whole, "████"},
	} {
		if got := bar(tt.share, 4); got != tt.want {
			t.Errorf("bar(%s) = %q, want %q", tt.share, got, tt.want)
		}
	}
}

func TestClean_TakesAwayWhatSteersATerminal(t *testing.T) {
	if got, want := clean("a\x1b[2Jb\tc\rd\x07é\x1b[1;32mf\x1b]0;title\x07g\x1b"), "ab cdéfg"; got != want {
		t.Errorf("clean = %q, want %q", got, want)
	}
	if got, want := clean("last lines:\nboom\r\nbang"), "last lines: boom bang"; got != want {
		t.Errorf("clean = %q, want %q", got, want)
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		width int
		want  string
	}{{9, "grün grün"}, {8, "grün gr…"}, {1, "…"}, {0, ""}} {
		if got := cut("grün grün", tt.width); got != tt.want {
			t.Errorf("cut to %d = %q, want %q", tt.width, got, tt.want)
		}
	}
}

func TestURLs_HaveThePortOfTheProxy(t *testing.T) {
	config := spillway.App{Services: []spillway.Service{{Name: "www", Host: []string{"www.castle.localhost"}, Tracks: []spillway.Track{{Name: "canary", Host: []string{"canary.test"}}}}, {Name: "backend"}}}
	for http, want := range map[string]string{
		"[::]:8080":  "http://www.castle.localhost:8080/",
		"0.0.0.0:80": "http://www.castle.localhost/",
	} {
		got := urls(api.Info{HTTP: http, HTTPS: ":8443"}, config, "")
		if len(got) != 1 || got[0] != want {
			t.Errorf("urls on %s = %q, want %q", http, got, want)
		}
	}
	if got := urls(api.Info{}, config, ""); got != nil {
		t.Errorf("urls without a proxy = %q, want none", got)
	}
	if got := urls(api.Info{HTTP: ":8080"}, config, "canary"); len(got) != 1 || got[0] != "http://canary.test:8080/" {
		t.Errorf("urls of the track = %q", got)
	}
	config.Services[0].TLS = &spillway.TLS{}
	for info, want := range map[api.Info]string{
		{HTTP: ":8080", HTTPS: ":8443"}: "https://www.castle.localhost:8443/",
		{HTTP: ":80", HTTPS: ":443"}:    "https://www.castle.localhost/",
		{HTTP: ":8080"}:                 "http://www.castle.localhost:8080/",
	} {
		if got := urls(info, config, ""); len(got) != 1 || got[0] != want {
			t.Errorf("urls on %+v = %q, want %s", info, got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	for want, e := range map[string]*spillway.Evidence{
		"nothing counted yet": nil,
		"no-traffic":          {Verdict: spillway.NoTraffic},
		"harmful: 5 of 5 requests failed, against 0 of 95 on stable":                       {Verdict: spillway.Harmful, Requests: 5, Failures: 5, Baseline: 95},
		"undecided: 0 of 1 request failed, against 0 of 9 on stable; about 40 more needed": {Verdict: spillway.Undecided, Requests: 1, Baseline: 9, Needs: 40},
		"undecided: no harm shown; about 40 more good requests":                            {Verdict: spillway.Undecided, Requests: 1, Needs: 40, Reason: "no harm shown; about 40 more good requests"},
		"healthy: certified": {Verdict: spillway.Certified, Requests: 300, Reason: "certified"},
	} {
		if got := verdict(e); got != want {
			t.Errorf("verdict = %q, want %q", got, want)
		}
	}
}

func TestFailing(t *testing.T) {
	for want, traffic := range map[string]spillway.Traffic{
		"":       {},
		"0%":     {Requests: 10},
		"0.056%": {Requests: 1800, Failures: 1},
		"1.5%":   {Requests: 200, Failures: 3},
		"25%":    {Requests: 4, Failures: 1},
		"100%":   {Requests: 7, Failures: 7},
	} {
		if got := failing(traffic); got != want {
			t.Errorf("%+v fails %q, want %q", traffic, got, want)
		}
	}
}

func TestSpent_SaysWhatARolloutCost(t *testing.T) {
	e := &spillway.Evidence{Failures: 70}
	for want, r := range map[string]spillway.RolloutOverview{
		"70 of 20 failed requests spent":                         {Budget: 20, Evidence: e},
		"0 of 20 failed requests spent":                          {Budget: 20},
		"70 failed requests; a rollback is not held to a budget": {Budget: 20, Evidence: e, Back: true},
		"70 failed requests, of those of 0.1% of the users":      {Users: spillway.Percent(1) / 10, Evidence: e},
	} {
		if got := spent(&r); got != want {
			t.Errorf("spent(%+v) = %q, want %q", r, got, want)
		}
	}
}
