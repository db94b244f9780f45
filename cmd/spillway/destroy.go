package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) destroyCommand() *cobra.Command {
	yes := false
	cmd := c.verb(groupWork, &cobra.Command{
		Use:   "destroy [flags]",
		Short: "Stop an app and forget it, with its history",
		Long: `Destroy stops all replicas of an app and removes its releases, its history and its addresses. It asks
for the name of the app, or takes -y. It returns when everything is gone.`,
		Example: `  spillway destroy -a castle
  spillway destroy -a castle -y`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.destroy(cmd.Context(), yes) },
	})
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *cli) destroy(ctx context.Context, yes bool) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	if !yes && !isTerminal(c.stdin) {
		return usage("destroy %s needs -y where nobody can be asked", app)
	}
	if !yes {
		sure, err := c.confirm(ctx, fmt.Sprintf("This stops %s and removes its history. Type its name to go on: ", app), string(app))
		if err != nil {
			return err
		}
		if !sure {
			return exitError{exitReplaced, errors.New("nothing was changed")}
		}
	}
	began := time.Now()
	if _, err := client.Ask(ctx, app, spillway.Intent{Verb: spillway.VerbDestroy}); err != nil {
		return fmt.Errorf("destroy %s: %w", app, err)
	}
	c.say("stopping %s", app)
	_, err = c.until(ctx, client, app, func(spillway.Overview) bool { return false })
	switch {
	case ctx.Err() != nil:
		c.say("%s is still being destroyed; watch it: spillway ps -a %s", app, app)
		return nil
	case !errors.Is(err, spillway.ErrNotFound):
		return fmt.Errorf("destroy %s: %w", app, err)
	}
	if c.json {
		return c.printJSON(map[string]any{"app": app, "destroyed": true})
	}
	c.print("%s is gone after %s", app, span(time.Since(began)))
	return nil
}
