package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// rollbackOptions are the flags of rollback.
type rollbackOptions struct {
	detach bool
	force  bool // to a release that is known to be bad too
}

func (c *cli) rollbackCommand() *cobra.Command {
	var o rollbackOptions
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "rollback [RELEASE] [flags]",
		Short: "Back to the last good release, or to the one named",
		Long: `Rollback serves an earlier release again, as it was built then. While a rollout runs, or is watched
after 100 %, it goes back to the release before it, whose replicas are still warm. A release whose own
rollout was rolled back as harmful, or failed, is given to nobody without --force. Automatic deploys
stay away until spillway resume; on Kubernetes a changed App is deployed all the same, whoever applies
it, and one that is applied again without a change is not. With --track it concerns the users of that
track: they go back to the release that it had before, or are stable's.`,
		Example: `  spillway rollback          the last good release
  spillway rollback 39       release 39
  spillway rollback 39 --force   whatever became of release 39
  spillway rollback --track canary`,
		Args:              atMost(1, "RELEASE"),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.rollback(cmd.Context(), first(args), o) },
		ValidArgsFunction: c.completeReleases,
	})
	cmd.Flags().BoolVar(&o.detach, "detach", false, "do not watch")
	cmd.Flags().BoolVar(&o.force, "force", false, "also to a release that was rolled back as harmful or failed")
	c.trackFlag(cmd, "roll this track back instead of stable")
	return cmd
}

func (c *cli) rollback(ctx context.Context, arg string, how rollbackOptions) error {
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
	intent := spillway.Intent{Verb: spillway.VerbRollback, Release: target, Track: c.track, Force: how.force}
	if target == 0 {
		o, err := client.Overview(ctx, app)
		if err != nil {
			return err
		}
		target = rollbackTarget(o, c.track)
		switch {
		case waits(o, c.track), target == 0 && c.track == "":
			return c.rollbackPast(ctx, client, app, intent, how.detach)
		case target == 0:
			return c.closeTrack(ctx, client, app, intent)
		}
	}
	return c.askAndFollow(ctx, client, app, intent, target, how.detach)
}

// rollbackPast rolls back while a deploy waits, or where no way back is seen. Whether that deploy was all that was meant,
// or what serves is left too, and what there is instead of a way back, is the engine's to say: what has become of it is
// looked at when it has acted.
func (c *cli) rollbackPast(ctx context.Context, client *api.Client, app spillway.Ref, intent spillway.Intent, detach bool) error {
	since, err := newestEvent(ctx, client, app)
	if err != nil {
		return err
	}
	a, err := c.ask(ctx, client, app, intent)
	if err != nil {
		return err
	}
	n := holds(a.overview, intent.Track)
	if r := rolloutOf(a.overview, intent.Track); r != nil {
		n = r.Release
	}
	if n == 0 {
		return c.tellState(a.overview)
	}
	f := c.newFollower(client, app, n, a.intent.Seq, since)
	f.track, f.asked = intent.Track, a.intent.At
	if detach {
		return f.tellDetached()
	}
	end, err := f.follow(ctx)
	return f.conclude(end, err, where(ctx, client, app, n, intent.Track))
}

// closeTrack takes the release of a track away that held none before: its users are stable's.
func (c *cli) closeTrack(ctx context.Context, client *api.Client, app spillway.Ref, intent spillway.Intent) error {
	a, err := c.ask(ctx, client, app, intent)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(a.overview)
	}
	c.print("track %s of %s holds no release any more; its users are given to %s", intent.Track, app, release(serves(a.overview)))
	return nil
}

// rollbackTarget is where a rollback without a number goes: out of the running rollout, else to the
// last good release. 0 is nowhere; for a track it is to stable.
func rollbackTarget(o spillway.Overview, track string) int {
	if track != "" {
		held := trackOf(o, track)
		switch {
		case rolloutOf(o, track) != nil, waits(o, track):
			return held.Release
		case len(held.Good) > 0:
			return held.Good[0]
		default:
			return 0
		}
	}
	switch {
	case rolloutOf(o, "") != nil:
		return o.Rollout.Stable
	case o.Queue != 0: // a deploy that has not begun: it is dropped
		return o.Stable
	case len(o.Good) > 0:
		return o.Good[0]
	default:
		return 0
	}
}
