package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

// trackFlag adds --track to a command.
func (c *cli) trackFlag(cmd *cobra.Command, about string) {
	cmd.Flags().StringVar(&c.track, "track", "", about)
	c.complete(cmd, "track", c.completeTracks)
}

// trackOf is the overview of a track; the zero value when there is none of that name.
func trackOf(o spillway.Overview, name string) spillway.TrackOverview {
	i := slices.IndexFunc(o.Tracks, func(t spillway.TrackOverview) bool { return t.Name == name })
	if i < 0 {
		return spillway.TrackOverview{}
	}
	return o.Tracks[i]
}

// holds is the release that a track has; "" is stable.
func holds(o spillway.Overview, track string) int {
	if track == "" {
		return o.Stable
	}
	return trackOf(o, track).Release
}

// rolloutOf is the rollout of a track, if one runs.
func rolloutOf(o spillway.Overview, track string) *spillway.RolloutOverview {
	if o.Rollout == nil || o.Rollout.Track != track {
		return nil
	}
	return o.Rollout
}

// waits reports whether a deploy to a track has not begun.
func waits(o spillway.Overview, track string) bool {
	return track == "" && o.Queue != 0 || slices.ContainsFunc(o.Waits, func(w spillway.Wait) bool { return w.Track == track })
}

// hint is a command for the app and track that are spoken of: "spillway cancel --env staging --track canary".
func hint(verb string, app spillway.Ref, track string) string {
	text := "spillway " + verb + envFlag(app)
	if track != "" {
		text += " --track " + track
	}
	return text
}

// hint is the same, with -a when that was needed to name the app: the command must not meet another one.
func (c *cli) hint(verb string, app spillway.Ref, track string) string {
	if c.app == "" {
		return hint(verb, app, track)
	}
	name, env, _ := strings.Cut(string(app), "@")
	return hint(verb+" -a "+name, refOf("", env), track)
}

// audience says whose traffic a release has: "serves everybody" or "serves track canary".
func audience(track string) string {
	if track == "" {
		return "serves everybody"
	}
	return "serves track " + track
}

// rulesOf says how a track is reached besides by its share.
func rulesOf(t spillway.TrackOverview) string { return strings.Join(t.Rules, ", ") }
