package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

// soon is how far away a deploy may begin and still be watched from the start.
const soon = 5 * time.Second

// whenFlags are the flags that say when a deploy begins.
type whenFlags struct {
	at  string
	now bool
}

func (w *whenFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.at, "at", "", "begin at `TIME`: 03:00, \"2026-11-22 03:00\", +10m, or RFC 3339")
	cmd.Flags().BoolVar(&w.now, "now", false, "begin in a freeze window too, and without the app's delay")
}

// time is when to begin; zero without --at.
func (w whenFlags) time(now time.Time) (time.Time, error) {
	switch {
	case w.at == "":
		return time.Time{}, nil
	case w.now:
		return time.Time{}, usage("--at and --now contradict each other; leave one out")
	}
	return parseWhen(w.at, now)
}

// parseWhen reads a time: "15:04" is the next one of the day, "+10m" is from now on; those without a time zone
// are in the zone of now.
func parseWhen(text string, now time.Time) (time.Time, error) {
	if after, ok := strings.CutPrefix(text, "+"); ok {
		var d spillway.Duration
		if err := d.UnmarshalText([]byte(after)); err != nil || d <= 0 {
			return time.Time{}, usage("--at %q: after the + is no length of time like 10m or 2h", text)
		}
		return now.Add(time.Duration(d)), nil
	}
	if clock, err := time.Parse("15:04", text); err == nil {
		day := now.Day()
		if at := time.Date(now.Year(), now.Month(), day, clock.Hour(), clock.Minute(), 0, 0, now.Location()); !at.After(now) {
			day++
		}
		return time.Date(now.Year(), now.Month(), day, clock.Hour(), clock.Minute(), 0, 0, now.Location()), nil
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", text, now.Location())
	if err != nil {
		at, err = time.Parse(time.RFC3339, text)
	}
	switch {
	case err != nil:
		return time.Time{}, usage("--at %q is not a time; write 03:00, \"2026-11-22 03:00\", +10m or 2026-11-22T03:00:00Z", text)
	case !at.After(now):
		return time.Time{}, usage("--at %q is in the past", text)
	}
	return at, nil
}

// waitOf is what a release waits for before it begins; nil when it does not.
func waitOf(o spillway.Overview, release int, track string) *spillway.Wait {
	for _, w := range o.Waits {
		if w.Release == release && w.Track == track {
			return &w
		}
	}
	return nil
}

// waitWords is "until Sun 22 Nov 03:00 CET, 5h40m from now", or "for the end of the freeze window …".
func waitWords(w spillway.Wait, now time.Time) string {
	if w.At.After(now) {
		return fmt.Sprintf("until %s, %s from now", w.At.In(now.Location()).Format("Mon 2 Jan 15:04:05 MST"), span(w.At.Sub(now)))
	}
	return "for " + clean(w.Reason)
}
