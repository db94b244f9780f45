package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// tracksTable shows stable and each track beside it: who reaches it, and how it does.
func tracksTable(o spillway.Overview) *table {
	t := newTable("TRACK", "RELEASE", "SHARE", "RATE", "FAILED", "P50", "P95", "REACHED BY")
	if len(o.Tracks) == 0 {
		return t
	}
	left := spillway.Whole
	for _, track := range o.Tracks {
		left -= track.Share
	}
	row := func(name string, release int, share spillway.Share, traffic spillway.Traffic, reached string) {
		t.row(name, number(release), share.String(), rate(traffic), failing(traffic), latency(traffic.P50), latency(traffic.P95), reached)
	}
	row("stable", serves(o), max(left, 0), stableTraffic(o), "everybody else")
	for _, track := range o.Tracks {
		reached := strings.TrimPrefix(rulesOf(track)+", "+strings.Join(track.URLs, ", "), ", ")
		row(track.Name, track.Release, track.Share, track.Traffic, strings.TrimSuffix(reached, ", "))
	}
	return t
}

// stableTraffic is that of the busiest public service, as stable serves it.
func stableTraffic(o spillway.Overview) spillway.Traffic {
	var busiest spillway.Traffic
	for _, s := range o.Services {
		for _, g := range s.Groups {
			if len(s.Hosts) > 0 && (g.Role == "stable" || g.Role == "both") && g.Traffic.Requests >= busiest.Requests {
				busiest = g.Traffic
			}
		}
	}
	return busiest
}

// rate is "40/s", or "0.5/s".
func rate(t spillway.Traffic) string {
	if t.Requests == 0 {
		return ""
	}
	decimals := 0
	if t.Rate >= 0.05 && t.Rate < 10 {
		decimals = 1
	}
	return strconv.FormatFloat(t.Rate, 'f', decimals, 64) + "/s"
}

// failing is the share of requests that failed: "0.1%".
func failing(t spillway.Traffic) string {
	if t.Requests == 0 {
		return ""
	}
	percent := 100 * float64(t.Failures) / float64(t.Requests)
	if percent >= 10 {
		return strconv.FormatFloat(percent, 'f', 0, 64) + "%"
	}
	return strconv.FormatFloat(percent, 'g', 2, 64) + "%"
}

// writeStandby says what is warm in the dark, for how long, and how to use it.
func writeStandby(b *strings.Builder, o spillway.Overview) {
	s := o.Standby
	if s == nil || o.Rollout != nil && o.Rollout.Release == s.Release { // it comes out of the dark just now
		return
	}
	fmt.Fprintf(b, "\nstandby   %s%s is warm for %s more", release(s.Release), colour(s.Color), span(time.Duration(s.Left)))
	if !s.Ready {
		b.WriteString(", but not ready")
	}
	if len(s.Hosts) > 0 {
		b.WriteString("; it answers at " + strings.Join(s.Hosts, ", "))
	}
	fmt.Fprintf(b, "; everybody back to it: %s\n", hint("rollback", o.App, ""))
}

// colour is " (blue)", or "" for what has none.
func colour(name string) string {
	if name == "" {
		return ""
	}
	return " (" + name + ")"
}

// writeWaits lists the deploys that have not begun.
func writeWaits(b *strings.Builder, o spillway.Overview, now time.Time) {
	if o.Queue != 0 && len(o.Waits) == 0 {
		fmt.Fprintf(b, "\nwaiting   %s, until the present rollout has ended\n", release(o.Queue))
	}
	for _, w := range o.Waits {
		to := ""
		if w.Track != "" {
			to = " for track " + w.Track
		}
		if w.By != "" {
			to += " (by " + clean(w.By) + ")"
		}
		fmt.Fprintf(b, "\nwaiting   %s%s, %s; drop it: %s\n", release(w.Release), to, waitWords(w, now), hint("cancel", o.App, w.Track))
	}
}

// writeGates lists the gates of a rollout that are not the judge's.
func writeGates(b *strings.Builder, gates []spillway.GateOverview, s style) {
	for _, g := range gates {
		verdict := string(g.Verdict)
		switch g.Verdict {
		case spillway.Certified:
			verdict = s.green(verdict)
		case spillway.Harmful:
			verdict = s.red(verdict)
		}
		if g.DryRun {
			verdict += " (dry run)"
		}
		fmt.Fprintf(b, "          gate %s: %s%s\n", clean(g.Text), verdict, after(": ", g.Reason))
	}
}

// takes says how long a plan takes, "" when there is nothing to wait for.
func takes(p spillway.Plan) string {
	rate := strconv.FormatFloat(p.Rate, 'f', -1, 64)
	if p.Rate >= 10 {
		rate = strconv.FormatFloat(p.Rate, 'f', 0, 64)
	}
	switch {
	case p.Takes > 0 && p.Rate > 0:
		return fmt.Sprintf("about %s at %s requests/s", span(time.Duration(p.Takes)), rate)
	case p.Takes > 0:
		return "about " + span(time.Duration(p.Takes))
	case p.Strategy == spillway.Canary && p.From != 0 && p.Track == "" && p.Rate == 0:
		return "until enough requests came for each step; there are none now: promote goes on without them, synthetic: makes some"
	default:
		return ""
	}
}

// trackWords is " for track canary", or "" for stable.
func trackWords(track string) string {
	if track == "" {
		return ""
	}
	return " for track " + track
}

// states says of each release what it is now: see releaseState. Outcomes are those of the last rollouts.
func states(o spillway.Overview, events []spillway.Event) func(n int) string {
	ended := map[int]spillway.Outcome{}
	for _, e := range events {
		if e.Kind == spillway.EventFinished {
			ended[e.Release] = e.Outcome
		}
	}
	return func(n int) string { return cmp.Or(releaseState(o, n), string(ended[n])) }
}
