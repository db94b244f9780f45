package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func (c *cli) promoteCommand() *cobra.Command {
	now, detach := false, false
	cmd := c.verb(groupSteer, &cobra.Command{
		Use:   "promote [flags]",
		Short: "Move all users to the candidate without further holds; later: end the watch",
		Long: `Promote skips the holds and certificates that are left and moves all users to the candidate. It is
still rolled back if it turns out to be harmful. At 100 %, promote ends the watch: the old release is
stopped.

With --track the release that serves the track becomes stable: it is rolled out to everybody by its
strategy, with the replicas that it has. Nothing is built. While a release is still on its way to the
track, promote lets that one go on.`,
		Example: `  spillway promote
  spillway promote --track canary`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.promote(cmd.Context(), now, detach) },
	})
	cmd.Flags().BoolVar(&now, "now", false, "with --track: in a freeze window too")
	cmd.Flags().BoolVar(&detach, "detach", false, "with --track: do not watch")
	c.trackFlag(cmd, "make the release of this track stable")
	return cmd
}

// endWatch ends the watch of a release of a track, and waits until it is that of the track.
func (c *cli) endWatch(ctx context.Context, client *api.Client, app spillway.Ref, intent spillway.Intent) error {
	a, err := c.ask(ctx, client, app, intent)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	over := func(o spillway.Overview) bool { return rolloutOf(o, intent.Track) == nil }
	if !over(a.overview) {
		_, err = c.until(limited, client, app, over)
	}
	if err != nil {
		return fmt.Errorf("the watch of track %s does not end: %w; see: %s", intent.Track, err, c.hint("status", app, ""))
	}
	return nil
}

func (c *cli) promote(ctx context.Context, now, detach bool) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	intent := spillway.Intent{Verb: spillway.VerbPromote, Track: c.track, Force: now}
	if c.track != "" {
		o, err := client.Overview(ctx, app)
		if err != nil {
			return err
		}
		held := trackOf(o, c.track)
		switch {
		case rolloutOf(o, c.track) != nil && o.Phase == spillway.Promoting: // it serves the track, and is only watched
			if err := c.endWatch(ctx, client, app, intent); err != nil {
				return err
			}
			return c.askAndFollow(ctx, client, app, intent, o.Rollout.Release, detach)
		case rolloutOf(o, c.track) != nil: // on its way to the track: let it go on
		case len(held.URLs) > 0:
			return fmt.Errorf("track %s is servers that Spillway does not run; there is nothing of it to promote", c.track)
		case held.Release != 0:
			return c.askAndFollow(ctx, client, app, intent, held.Release, detach)
		}
	}
	a, err := c.ask(ctx, client, app, intent)
	if err != nil {
		return err
	}
	return c.tellState(a.overview)
}
