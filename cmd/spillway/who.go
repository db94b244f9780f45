package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway/internal/api"
)

func (c *cli) whoCommand() *cobra.Command {
	var at string
	cmd := c.verb(groupWatch, &cobra.Command{
		Use:   "who KEY [flags]",
		Short: "Which release a user has, or had at a time",
		Long: `Who says which release and track a user was given, from the history of the routes that the proxy served.
KEY is what the header or cookie of the user carries that cohort: in the app file names. Users without
one have a bucket in a cookie of Spillway's own, and cannot be asked for. On Kubernetes the gateway deals
each request anew: who says what Spillway's own proxy would do by that route, and that nobody is bound.`,
		Example: `  spillway who 4711
  spillway who 4711 --at "2026-11-20 14:05"
  spillway who 4711 --at 14:05 --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usage("which user? Like spillway who 4711, with what the header or cookie of the cohort carries")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			past, err := parsePast(at, time.Now())
			if err != nil {
				return err
			}
			if past.After(time.Now()) {
				return usage("--at %s: that is still to come, and nobody knows who will have what", at)
			}
			return c.who(cmd.Context(), api.WhoQuery{Key: args[0], At: past})
		},
	})
	cmd.Flags().StringVar(&at, "at", "", "at this `TIME`: 14:05, \"2026-11-20 14:05\", -2h, or RFC 3339 (default: now)")
	return cmd
}

// parsePast reads a time that was: "14:05" is the last one of the day, "-2h" is before now; "" is zero.
func parsePast(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		d, err := time.ParseDuration(ago)
		if err != nil {
			return time.Time{}, usage("--at %q: after the - is no length of time like 10m or 2h", text)
		}
		return now.Add(-d), nil
	}
	if clock, err := time.Parse("15:04", text); err == nil {
		at := time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), 0, 0, now.Location())
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return at, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", time.RFC3339} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usage("--at %q is not a time; write 14:05, \"2026-11-20 14:05\", -2h or 2026-11-20T14:05:00Z", text)
}

func (c *cli) who(ctx context.Context, q api.WhoQuery) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	who, err := client.Who(ctx, app, q)
	if err != nil {
		return err
	}
	known := len(who.Edges) > 0
	switch {
	case c.json && !known:
		return errors.Join(c.printJSON(who), exitError{code: exitFailed})
	case c.json:
		return c.printJSON(who)
	case known:
		return writeWho(c.stdout, who, time.Now())
	case !who.Since.IsZero():
		return fmt.Errorf("at that time %s had no public service", app)
	}
	return fmt.Errorf("the history of %s does not reach back to %s: nothing was routed yet, or it is too long ago; what it has: spillway events --all", app, stamp(who.At, time.Now()))
}

// writeWho prints what a user had.
func writeWho(w io.Writer, who api.Who, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s, bucket %d of 10000, at %s\n", clean(who.Key), who.App, who.Bucket, stamp(who.At, now))
	for _, e := range who.Edges {
		got := release(e.Release)
		switch {
		case e.Closed != "":
			got = "nothing: " + clean(e.Closed)
		case e.Release == 0 && e.Track != "":
			got = "the servers of track " + e.Track
		case e.Track != "":
			got += " (track " + e.Track + ")"
		}
		fmt.Fprintf(&b, "\n%s  %s\n  %s\n", e.Service, cmp.Or(strings.Join(e.Hosts, ", "), "by routes"), got)
		for _, rule := range e.Otherwise {
			fmt.Fprintf(&b, "  but with %s\n", clean(rule))
		}
	}
	if who.Loose != "" {
		fmt.Fprintf(&b, "\n%s\n", clean(who.Loose))
	}
	if who.Doubt != "" {
		fmt.Fprintf(&b, "\nat the moment it may be something else: %s\n", clean(who.Doubt))
	}
	fmt.Fprintf(&b, "\nthis route is in force since %s\n", stamp(who.Since, now))
	_, err := io.WriteString(w, b.String())
	return err
}

// stamp is a time in the zone of now.
func stamp(t, now time.Time) string { return t.In(now.Location()).Format("2006-01-02 15:04:05 MST") }
