package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// manyEvents is how far back the outcomes of old releases are looked for.
const manyEvents = 2000

func (c *cli) releasesCommand() *cobra.Command {
	return c.verb(groupWatch, &cobra.Command{
		Use:        "releases",
		SuggestFor: []string{"history"},
		Short:      "All releases: which is live, which can be gone back to",
		Long: `Releases lists the releases of an app, newest first, each with what it is now: live (with the track that
it serves), candidate, warm or standby (without users, and ready to take them at once), good (served
before), or how its last rollout ended. Every one that is listed can be deployed again as it was built.`,
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

// history is the releases of an app with what each is now.
type history struct {
	all      []spillway.Release // newest first
	state    func(n int) string
	overview spillway.Overview
}

func readHistory(ctx context.Context, client *api.Client, app spillway.Ref) (history, error) {
	all, err := client.Releases(ctx, app)
	if err != nil {
		return history{}, err
	}
	o, err := client.Overview(ctx, app)
	if err != nil {
		return history{}, err
	}
	events, err := client.Events(ctx, app, spillway.EventQuery{Tail: manyEvents, Limit: manyEvents})
	return history{all: all, state: states(o, events), overview: o}, err
}

func (c *cli) releases(ctx context.Context) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	h, err := readHistory(ctx, client, app)
	if err != nil {
		return err
	}
	if c.json {
		lines := make([]releaseLine, len(h.all))
		for i, r := range h.all {
			lines[i] = releaseLine{r, h.state(r.Number)}
		}
		return c.printJSON(map[string]any{"releases": lines})
	}
	return releaseTable(h.all, h.state, time.Now()).print(c.stdout)
}

func releaseTable(all []spillway.Release, state func(int) string, now time.Time) *table {
	t := newTable("RELEASE", "STATE", "TRACK", "CREATED", "BY", "COMMIT", "NOTE")
	for _, r := range all {
		t.row(strconv.Itoa(r.Number), state(r.Number), r.Track, age(now, r.Created), r.By, commit(r.Source), r.Note)
	}
	return t
}

// releaseState is "live", "live on canary", "warm" (replaced, and kept during the watch), "standby" (the dark
// colour), "candidate", "waiting", "good" (served before), how the last rollout of the release ended, or "".
func releaseState(o spillway.Overview, n int) string {
	if n == serves(o) {
		return "live"
	}
	var tracks []string
	good := slices.Contains(o.Good, n)
	for _, t := range o.Tracks {
		if t.Release == n {
			tracks = append(tracks, t.Name)
		}
		good = good || slices.Contains(t.Good, n)
	}
	switch {
	case len(tracks) > 0:
		return "live on " + strings.Join(tracks, ", ")
	case n == o.Stable:
		return "warm"
	case o.Rollout != nil && o.Rollout.Release == n:
		return "candidate"
	case o.Standby != nil && o.Standby.Release == n:
		return "standby"
	case o.Queue == n, slices.ContainsFunc(o.Waits, func(w spillway.Wait) bool { return w.Release == n }):
		return "waiting"
	case good:
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
