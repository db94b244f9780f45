package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) eventsCommand() *cobra.Command {
	follow, all, lines := false, false, 0
	cmd := c.verb(groupWatch, &cobra.Command{
		Use:        "events [flags]",
		SuggestFor: []string{"history"},
		Short:      "What happened, when, by whom and why",
		Long: `Events prints the history of an app, oldest first. Changes of the route, of which there is one for each
step, are left out without --all; spillway who reads them.`,
		Example: `  spillway events
  spillway events -n 100
  spillway events -f --json`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 1 {
				return usage("--lines %d: a number from 1", lines)
			}
			return c.events(cmd.Context(), lines, follow, all)
		},
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().BoolVar(&all, "all", false, "changes of the route too")
	cmd.Flags().IntVarP(&lines, "lines", "n", 30, "the newest `N` events")
	return cmd
}

// routesBeside is how many changes of the route there may be for each other event of a list.
const routesBeside = 3

func (c *cli) events(ctx context.Context, lines int, follow, all bool) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	tail := lines
	if !all {
		tail *= 1 + routesBeside
	}
	events, err := client.Events(ctx, app, spillway.EventQuery{Tail: tail, Limit: tail})
	if err != nil {
		return err
	}
	var since int64
	if len(events) > 0 {
		since = events[len(events)-1].ID
	}
	hidden := func(e spillway.Event) bool { return e.Kind == spillway.EventRoute && !all }
	events = slices.DeleteFunc(events, hidden)
	events = events[max(0, len(events)-lines):]
	if !follow {
		return c.printEvents(events)
	}
	tell := func(e spillway.Event) error {
		if hidden(e) {
			return nil
		}
		return c.printEvent(e)
	}
	for _, e := range events {
		if tell(e) != nil {
			return nil
		}
	}
	err = client.Follow(ctx, app, since, tell)
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
