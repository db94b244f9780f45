package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) rollbackCommand() *cobra.Command {
	detach := false
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "rollback [RELEASE] [flags]",
		Short: "Back to the last good release, or to the one named",
		Long: `Rollback serves an earlier release again, as it was built then. While a rollout runs, or is watched
after 100 %, it goes back to the release before it, whose replicas are still warm. Automatic deploys
stay away until spillway resume.`,
		Example: `  spillway rollback          the last good release
  spillway rollback 39       release 39`,
		Args:              atMost(1, "RELEASE"),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.rollback(cmd.Context(), first(args), detach) },
		ValidArgsFunction: c.completeReleases,
	})
	cmd.Flags().BoolVar(&detach, "detach", false, "do not watch")
	return cmd
}

func (c *cli) rollback(ctx context.Context, arg string, detach bool) error {
	target := 0
	if arg != "" {
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 {
			return usage("rollback %q: name a release by its number; see spillway releases", arg)
		}
		target = n
	}
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	intent := spillway.Intent{Verb: spillway.VerbRollback, Release: target}
	if target == 0 {
		o, err := client.Overview(ctx, app)
		if err != nil {
			return err
		}
		if target = rollbackTarget(o); target == 0 {
			return fmt.Errorf("%s has no earlier good release to roll back to; what there is: spillway releases", app)
		}
	}
	return c.askAndFollow(ctx, client, app, intent, target, detach)
}

// rollbackTarget is where a rollback without a number goes: out of the running rollout, else to the
// last good release. 0 is nowhere.
func rollbackTarget(o spillway.Overview) int {
	switch {
	case o.Rollout != nil:
		return o.Rollout.Stable
	case o.Queue != 0: // a deploy that has not begun: it is dropped
		return o.Stable
	case len(o.Good) > 0:
		return o.Good[0]
	default:
		return 0
	}
}
