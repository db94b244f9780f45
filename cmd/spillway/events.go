package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func (c *cli) eventsCommand() *cobra.Command {
	follow, lines := false, 0
	cmd := c.verb(groupWatch, &cobra.Command{
		Use:   "events [flags]",
		Short: "What happened, when, by whom and why",
		Long:  "Events prints the history of an app, oldest first.",
		Example: `  spillway events
  spillway events -n 100
  spillway events -f --json`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 1 {
				return usage("--lines %d: a number from 1", lines)
			}
			return c.events(cmd.Context(), lines, follow)
		},
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().IntVarP(&lines, "lines", "n", 30, "the newest `N` events")
	return cmd
}

func (c *cli) events(ctx context.Context, lines int, follow bool) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	events, err := client.Events(ctx, app, api.EventQuery{Tail: lines})
	if err != nil {
		return err
	}
	if !follow {
		return c.printEvents(events)
	}
	var since int64
	for _, e := range events {
		if since = e.ID; c.printEvent(e) != nil {
			return nil
		}
	}
	err = client.Follow(ctx, app, since, c.printEvent)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// printEvents prints a finished list.
func (c *cli) printEvents(events []spillway.Event) error {
	if c.json {
		return c.printJSON(map[string]any{"events": events})
	}
	return eventTable(events, time.Now()).print(c.stdout)
}

func eventTable(events []spillway.Event, now time.Time) *table {
	t := newTable("WHEN", "KIND", "RELEASE", "BY", "WHAT")
	for _, e := range events {
		t.row(age(now, e.At), string(e.Kind), number(e.Release), e.By, e.Text)
	}
	return t
}

// printEvent prints one event of a list without an end.
func (c *cli) printEvent(e spillway.Event) error {
	if c.json {
		return c.printJSON(e)
	}
	c.print("%s  %-9s %s", c.outStyle.dim(e.At.Local().Format("15:04:05")), e.Kind, clean(e.Text))
	return nil
}
