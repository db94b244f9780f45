package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// age says how long ago t was: "now", "3m ago", "2d ago". It is "-" for the zero time.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	if d < time.Second {
		return "now"
	}
	return span(d.Truncate(time.Second)) + " ago"
}

// span is a length of time in its largest unit, or in two when the second matters: "0.4s", "12s",
// "2m10s", "45m", "3h20m", "4d".
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d < 10*time.Minute:
		return spillway.Duration(d.Truncate(time.Second)).String()
	case d < 48*time.Hour:
		return spillway.Duration(d.Truncate(time.Minute)).String()
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
}

// count is "1 request" or "3 requests".
func count[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// bar draws a share in width cells. Anything above 0 shows, anything below 100 % leaves a gap.
func bar(s spillway.Share, width int) string {
	cells := (int(s)*width + int(spillway.Whole)/2) / int(spillway.Whole)
	if s > 0 {
		cells = max(cells, 1)
	}
	if s < spillway.Whole {
		cells = min(cells, width-1)
	}
	return strings.Repeat("█", cells) + strings.Repeat("░", width-cells)
}

// release is "release 7", or "no release".
func release(n int) string {
	if n == 0 {
		return "no release"
	}
	return fmt.Sprintf("release %d", n)
}

// ofTrack is " of track canary", and "" for stable.
func ofTrack(track string) string {
	if track == "" {
		return ""
	}
	return " of track " + track
}

// serves is the release that has the users, 0 for none: during the watch that is the new one.
func serves(o spillway.Overview) int {
	if r := o.Rollout; r != nil && r.Track == "" && o.Phase == spillway.Promoting {
		return r.Release
	}
	return o.Stable
}

// outcomeWords says how a rollout ended in a sentence that begins with the release.
func outcomeWords(o spillway.Outcome) string {
	switch o {
	case spillway.Succeeded:
		return "succeeded"
	case spillway.RolledBack:
		return "was rolled back"
	case spillway.Failed:
		return "failed"
	case spillway.Aborted:
		return "was aborted"
	case spillway.Superseded:
		return "was superseded by a newer deploy"
	case spillway.Cancelled:
		return "was cancelled"
	default:
		return "ended"
	}
}

// spent says what a rollout has cost so far.
func spent(r *spillway.RolloutOverview) string {
	var failures int64
	if r.Evidence != nil {
		failures = r.Evidence.Failures
	}
	switch {
	case r.Back:
		return fmt.Sprintf("%s; a rollback is not held to a budget", count(int(failures), "failed request"))
	case r.Users > 0:
		return fmt.Sprintf("%s, of those of %s of the users", count(int(failures), "failed request"), r.Users)
	}
	return fmt.Sprintf("%d of %s spent", failures, count(r.Budget, "failed request"))
}

// verdict says what the judge thinks and on what evidence.
func verdict(e *spillway.Evidence) string {
	if e == nil {
		return "nothing counted yet"
	}
	text := string(e.Verdict)
	if e.Reason != "" {
		text += ": " + e.Reason
	} else if e.Requests > 0 {
		text += fmt.Sprintf(": %d of %s failed, against %d of %d on stable",
			e.Failures, count(e.Requests, "request"), e.BaseFails, e.Baseline)
		if e.Verdict == spillway.Undecided && e.Needs > 0 {
			text += fmt.Sprintf("; about %d more needed", e.Needs) // a reason says it already
		}
	}
	return text
}

// commit is the short form of a commit: "1a2b3c4", "1a2b3c4+" with uncommitted changes, "-" without git.
func commit(s spillway.Source) string {
	if s.Commit == "" {
		return "-"
	}
	text := s.Commit[:min(len(s.Commit), 7)]
	if s.Dirty {
		text += "+"
	}
	return text
}

// urls gives the addresses at which the public services of an app answer, over HTTPS where they have a
// certificate and the proxy an address for it. Users of a track have its own hosts, where it has some.
func urls(info api.Info, config spillway.App, track string) []string {
	var list []string
	for _, s := range config.Services {
		hosts := s.Host
		if t, ok := s.Track(track); ok && len(t.Host) > 0 {
			hosts = t.Host
		}
		for _, address := range s.Listen {
			list = append(list, "tcp://"+nearby(address))
		}
		scheme, listen, usual := "http", info.HTTP, "80"
		if s.TLS != nil && info.HTTPS != "" {
			scheme, listen, usual = "https", info.HTTPS, "443"
		}
		_, port, err := net.SplitHostPort(listen)
		if err != nil {
			continue
		}
		for _, host := range hosts {
			if strings.HasPrefix(host, "*") {
				continue // nobody can go there as it is
			}
			u := url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: "/"}
			if port == usual {
				u.Host = host
			}
			list = append(list, u.String())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// nearby is an address that something listens at as one on this machine connects to it.
func nearby(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

// where asks for the addresses at which a release answers; none when that cannot be found out.
func where(ctx context.Context, client *api.Client, app spillway.Ref, n int, track string) []string {
	info, err := client.Info(ctx)
	if err != nil || n == 0 {
		return nil
	}
	r, err := client.Release(ctx, app, n)
	if err != nil {
		return nil
	}
	return urls(info, r.Config, track)
}

// steering matches the sequences with which programs colour their output and worse.
var steering = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)`)

// clean takes what could steer a terminal out of a text that comes from a program or a person.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, steering.ReplaceAllString(text, ""))
}

// cut shortens a text to width characters.
func cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string(runes[:width-1]) + "…"
}
