package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) abortCommand() *cobra.Command {
	cmd := c.verb(groupSteer, &cobra.Command{
		Use:   "abort",
		Short: "Take all users off the candidate, now",
		Long: `Abort takes the candidate to weight 0 at once, whatever state it is in. It returns when the proxy
serves that weight, and says how long it took.`,
		Example: "  spillway abort",
		Args:    atMost(0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.abort(cmd.Context()) },
	})
	c.trackFlag(cmd, "only if the rollout is one of this track")
	return cmd
}

func (c *cli) abort(ctx context.Context) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	a, err := c.ask(ctx, client, app, spillway.Intent{Verb: spillway.VerbAbort, Track: c.track})
	if err != nil {
		return err
	}
	began, candidate, told := time.Now(), 0, false
	o, err := c.until(ctx, client, app, func(o spillway.Overview) bool {
		if o.Rollout != nil {
			candidate = o.Rollout.Release
		}
		if o.Rollout != nil && !told && time.Since(began) > c.patience {
			told = true
			c.say("weight 0 is asked for, and not seen to be served everywhere after %s: %s; still waiting", span(c.patience), cmp.Or(o.Rollout.Waiting, "see spillway status"))
		}
		return o.Rollout == nil || o.Rollout.Served == 0 && !o.Rollout.Unacknowledged && !o.NoData
	})
	if err != nil {
		return fmt.Errorf("abort %s is asked for, but it was not seen at weight 0: %w", app, err)
	}
	if c.json {
		return c.printJSON(o)
	}
	for _, e := range a.events { // it may be over, or never have begun
		if e.Kind == spillway.EventAborting || e.Kind == spillway.EventFinished {
			candidate = e.Release
		}
	}
	c.print("%s of %s has weight 0 after %s; %s serves everybody",
		release(candidate), app, span(a.took+time.Since(began)), release(o.Stable))
	return nil
}
