package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) releasesCommand() *cobra.Command {
	return c.verb(groupWatch, &cobra.Command{
		Use:   "releases",
		Short: "All releases: which is live, which can be gone back to",
		Long:  "Releases lists the releases of an app, newest first. Those marked good have served before.",
		Example: `  spillway releases
  spillway releases --json`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.releases(cmd.Context()) },
	})
}

// releaseLine is a release with what it is now.
type releaseLine struct {
	spillway.Release
	State string `json:"state,omitempty"` // see releaseState
}

func (c *cli) releases(ctx context.Context) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	all, err := client.Releases(ctx, app)
	if err != nil {
		return err
	}
	o, err := client.Overview(ctx, app)
	if err != nil {
		return err
	}
	if c.json {
		lines := make([]releaseLine, len(all))
		for i, r := range all {
			lines[i] = releaseLine{r, releaseState(o, r.Number)}
		}
		return c.printJSON(map[string]any{"releases": lines})
	}
	return releaseTable(all, o, time.Now()).print(c.stdout)
}

func releaseTable(all []spillway.Release, o spillway.Overview, now time.Time) *table {
	t := newTable("RELEASE", "STATE", "CREATED", "BY", "COMMIT", "NOTE")
	for _, r := range all {
		t.row(strconv.Itoa(r.Number), releaseState(o, r.Number), age(now, r.Created), r.By, commit(r.Source), r.Note)
	}
	return t
}

// releaseState is "live", "warm" (replaced, and kept during the watch), "candidate", "waiting", "good" (served before), how the last rollout of the
// release ended, or "".
func releaseState(o spillway.Overview, n int) string {
	switch {
	case n == serves(o):
		return "live"
	case n == o.Stable:
		return "warm"
	case o.Rollout != nil && o.Rollout.Release == n:
		return "candidate"
	case o.Queue == n:
		return "waiting"
	case slices.Contains(o.Good, n):
		return "good"
	case o.Last != nil && o.Last.Release == n:
		return string(o.Last.Outcome)
	default:
		return ""
	}
}

// number prints a number, and nothing for 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
