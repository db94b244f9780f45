package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// deployOptions are the flags of deploy.
type deployOptions struct {
	strategy  string
	ifRelease int
	note      string
	dryRun    bool
	yes       bool
	detach    bool
	track     string
	from      string // an environment whose release is taken over
	when      whenFlags
	notBefore time.Time // what when says
	owned     bool      // the caller stops all that runs when ctx ends, so nothing is told of detaching
}

// deployLine is one line of the output of deploy --json: exactly one field is set, and End is the last.
type deployLine struct {
	Log    string            `json:"log,omitempty"`
	Result *api.DeployResult `json:"result,omitempty"`
	Event  *spillway.Event   `json:"event,omitempty"`
	End    *deployEnd        `json:"end,omitempty"`
}

// deployEnd is how a followed deploy or rollback ended.
type deployEnd struct {
	App     spillway.Ref     `json:"app"`
	Release int              `json:"release"`
	Outcome spillway.Outcome `json:"outcome,omitempty"` // "" when it goes on without us, or had nothing to do
	Reason  string           `json:"reason,omitempty"`
	Seconds float64          `json:"seconds"`
	Spent   int64            `json:"spent"` // failed requests of the budget
	Track   string           `json:"track,omitempty"`
	// Switched is how many seconds passed from asking until the proxy acknowledged the route that gives
	// the release its users; 0 when that was not seen.
	Switched float64        `json:"switched,omitempty"`
	Waits    *spillway.Wait `json:"waits,omitempty"` // why it has not begun, when it is not watched for that
	URLs     []string       `json:"urls,omitempty"`
}

func (c *cli) deployCommand() *cobra.Command {
	var o deployOptions
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "deploy [DIR | RELEASE | COMMIT] [flags]",
		Short: "Let out a new release, and watch it until it serves or is back",
		Long: `Deploy builds the directory of the app file as it is, uncommitted changes included, and moves the
users to the new release by its strategy. It returns when the release has all traffic, or when it was
taken back; Ctrl-C only stops watching. With a number or a commit, an earlier release is deployed again
as it was built then; with --from, the release of another environment, with the configuration of this one.

A deploy that has to wait, for --at, for the app's delay or for the end of a freeze window, is stored and
begins by itself; spillway cancel drops it.

Exit codes: 0 it serves, 1 failed and the old release still serves, 2 wrong usage or app file,
3 rolled back automatically, 4 superseded, cancelled or aborted, 5 not allowed.`,
		Example: `  spillway deploy                      the app of this directory
  spillway deploy ./shop --note "new checkout"
  spillway deploy 41                   release 41 again
  spillway deploy 1a2b3c4              what was built of that commit
  spillway deploy --track canary       to the track canary; then: spillway promote --track canary
  spillway deploy --from staging       what serves in staging, here
  spillway deploy --at 03:00           not before three o'clock
  spillway deploy --if-release 41      only if nobody deployed since release 41`,
		Args: atMost(1, "DIR, RELEASE or COMMIT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.track = c.track
			return c.deploy(cmd.Context(), o, first(args))
		},
		ValidArgsFunction: c.completeReleases,
	})
	flags := cmd.Flags()
	flags.StringVar(&o.strategy, "strategy", "", "rolling, canary, blue-green or recreate, instead of the file's")
	flags.IntVar(&o.ifRelease, "if-release", 0, "only when this is still the newest release")
	flags.StringVar(&o.note, "note", "", "a remark for the history")
	flags.BoolVar(&o.dryRun, "dry-run", false, "change nothing, print the plan (as spillway plan)")
	flags.BoolVarP(&o.yes, "yes", "y", false, "do not ask before something is removed or interrupted")
	flags.BoolVar(&o.detach, "detach", false, "do not watch; return when the release is built and stored")
	flags.StringVar(&o.from, "from", "", "take the release of this `ENVIRONMENT` over; nothing is built")
	o.when.add(cmd)
	c.trackFlag(cmd, "deploy to this track instead of stable")
	c.complete(cmd, "strategy", completeStrategies)
	return cmd
}

func (c *cli) deploy(ctx context.Context, o deployOptions, what string) error {
	if err := checkStrategy(o.strategy); err != nil {
		return err
	}
	if o.ifRelease < 0 {
		return usage("--if-release %d: a release is a number from 1", o.ifRelease)
	}
	var err error
	if o.notBefore, err = o.when.time(time.Now()); err != nil {
		return err
	}
	n, notNumber := strconv.Atoi(what)
	switch {
	case o.from != "":
		return c.deployFrom(ctx, o, what)
	case namesCommit(what):
		return c.redeploy(ctx, o, 0, what)
	case notNumber == nil:
		return c.redeploy(ctx, o, n, "")
	case o.dryRun:
		return c.plan(ctx, o, what)
	}
	src, err := c.openSource(what)
	if err != nil {
		return err
	}
	defer src.close()
	client, err := c.client()
	if err != nil {
		return err
	}
	_, err = c.release(ctx, client, src, o)
	return err
}

// deployFrom lets out the release of another environment, that which serves there or the one named.
func (c *cli) deployFrom(ctx context.Context, o deployOptions, what string) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(string(app), "@")
	there := refOf(name, o.from)
	n, err := strconv.Atoi(what)
	switch {
	case there == app:
		return usage("--from %s is the environment that is deployed to; say which other one: --env ENVIRONMENT", o.from)
	case namesCommit(what):
		if n, err = releaseOf(ctx, client, there, what); err != nil {
			return err
		}
	case what != "" && (err != nil || n < 1):
		return usage("%q is neither a release nor a commit of %s", what, there)
	}
	src := takenOver(app, o.from, n)
	if o.dryRun {
		return c.planOf(ctx, client, src, o)
	}
	_, err = c.release(ctx, client, src, o)
	return err
}

func checkStrategy(name string) error {
	if name != "" && !slices.Contains(spillway.Strategies, spillway.Strategy(name)) {
		return usage("--strategy %s: there are rolling, canary, blue-green and recreate", name)
	}
	return nil
}

// release builds and lets out a new release from source and follows it, as the options say. It returns
// what the server stored also when the release did not make it.
func (c *cli) release(ctx context.Context, client *api.Client, src *source, o deployOptions) (api.DeployResult, error) {
	if err := c.askBefore(ctx, client, src, o); err != nil {
		return api.DeployResult{}, err
	}
	request, err := src.request(o)
	if err != nil {
		return api.DeployResult{}, err
	}
	began := time.Now()
	if !c.json {
		src.tell(c)
	}
	result, err := client.Deploy(ctx, request, c.buildLine)
	switch {
	case err != nil && ctx.Err() != nil && o.owned:
		return result, nil
	case err != nil && ctx.Err() != nil:
		return result, exitError{exitReplaced, errors.New("interrupted while building; see what runs: spillway status")}
	case err != nil:
		return result, fmt.Errorf("deploy %s: %w", src.ref, err)
	}
	if c.json {
		if err := c.printJSON(deployLine{Result: &result}); err != nil {
			return result, err
		}
	}
	switch {
	case result.Underway && !c.json:
		c.say("nothing differs from %s of %s, which is being rolled out", release(result.Release), result.App)
	case result.Underway:
	case result.Same:
		return result, c.tellSame(result)
	case !c.json:
		made := "built and stored"
		if src.from != "" {
			made = "stored"
		}
		c.say("%s of %s is %s after %s", release(result.Release), result.App, made, span(time.Since(began)))
	}
	f := c.newFollower(client, result.App, result.Release, result.Intent, result.Event)
	f.track = o.track
	f.began = began
	if o.detach {
		return result, f.tellDetached()
	}
	end, err := f.follow(ctx)
	if errors.Is(err, errDetached) && o.owned {
		return result, nil
	}
	return result, f.conclude(end, err, result.URLs)
}

// askBefore asks a person at the terminal before a deploy removes a service or interrupts the traffic.
// Where no person is (a pipe, CI, --json) or -y was given, deploying is the answer.
func (c *cli) askBefore(ctx context.Context, client *api.Client, src *source, o deployOptions) error {
	if o.yes || c.json || !isTerminal(c.stdin) {
		return nil
	}
	request, err := src.request(o)
	if err != nil {
		return err
	}
	plan, err := client.Plan(ctx, request)
	if err != nil {
		return fmt.Errorf("plan %s: %w", src.ref, err)
	}
	var harm []string
	for _, ch := range plan.Changes {
		if slices.Contains(routing(), ch.What) || strings.HasPrefix(ch.What, "track ") {
			harm = append(harm, "changes the routing of "+ch.Service+" ("+ch.What+")")
		}
		if ch.What == "gone" {
			harm = append(harm, "removes "+ch.Service)
		}
	}
	if plan.Gap {
		harm = append(harm, "interrupts the traffic (strategy recreate)")
	}
	if len(harm) == 0 {
		return nil
	}
	yes, err := c.confirm(ctx, fmt.Sprintf("This deploy %s. Go on? [y/N] ", strings.Join(harm, " and ")), "y")
	if err == nil && !yes {
		err = exitError{exitReplaced, errors.New("nothing was changed")}
	}
	return err
}

// routing lists the changes that change who reaches what, as a plan calls them.
func routing() []string { return []string{"host", "tls", "standby"} }

// buildLine shows one line of the build's output.
func (c *cli) buildLine(line string) {
	if c.json {
		c.printJSON(deployLine{Log: line})
		return
	}
	c.say("%s", c.errStyle.dim(clean(line)))
}

func (c *cli) tellSame(r api.DeployResult) error {
	if c.json {
		return c.printJSON(deployLine{End: &deployEnd{App: r.App, Release: r.Release, Reason: "nothing to deploy", URLs: r.URLs}})
	}
	c.print("%s", strings.TrimRight(fmt.Sprintf("nothing to deploy: %s of %s is what runs  %s", release(r.Release), r.App, strings.Join(r.URLs, "  ")), " "))
	return nil
}

// redeploy lets out a release that exists: of a number, or of a commit.
func (c *cli) redeploy(ctx context.Context, o deployOptions, n int, hash string) error {
	switch {
	case n < 1 && hash == "":
		return usage("release %d: releases are numbered from 1; see spillway releases", n)
	case hash == "" && (o.ifRelease != 0 || o.note != "" || o.dryRun):
		return usage("--if-release, --note and --dry-run are for new releases; %s exists already", release(n))
	}
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	if hash != "" {
		if n, err = releaseOf(ctx, client, app, hash); err != nil {
			return err
		}
		if !c.json {
			c.say("%s of %s is of commit %s", release(n), app, hash)
		}
	}
	if o.track != "" {
		made, err := client.Release(ctx, app, n)
		if err != nil {
			return err
		}
		if made.Track != o.track { // a track needs replicas of its own for all that calls what changed
			_, env, _ := strings.Cut(string(app), "@")
			_, err = c.release(ctx, client, takenOver(app, cmp.Or(env, production), n), o)
			return err
		}
	}
	intent := spillway.Intent{
		Verb: spillway.VerbDeploy, Release: n, Strategy: spillway.Strategy(o.strategy),
		Track: o.track, NotBefore: o.notBefore, Force: o.when.now,
	}
	return c.askAndFollow(ctx, client, app, intent, n, o.detach)
}

// askAndFollow sends an intent that is to make a release serve, and follows it.
func (c *cli) askAndFollow(ctx context.Context, client *api.Client, app spillway.Ref, intent spillway.Intent, n int, detach bool) error {
	before, err := client.Overview(ctx, app)
	if err != nil {
		return err
	}
	track := intent.Track
	if intent.Verb == spillway.VerbPromote { // to stable
		track = ""
	}
	if rolloutOf(before, track) == nil && !waits(before, track) && holds(before, track) == n {
		return c.tellSame(api.DeployResult{App: app, Release: n, Same: true})
	}
	since, err := newestEvent(ctx, client, app)
	if err != nil {
		return err
	}
	stored, err := client.Ask(ctx, app, intent)
	if err != nil {
		return fmt.Errorf("%s: %w", intent.Verb, err)
	}
	f := c.newFollower(client, app, n, stored.Seq, since)
	f.track, f.asked = track, stored.At
	if r := rolloutOf(before, track); r != nil && intent.Verb == spillway.VerbRollback && rollbackTarget(before, track) == n {
		f.leaving = r.ID
	}
	if detach {
		return f.tellDetached()
	}
	end, err := f.follow(ctx)
	return f.conclude(end, err, where(ctx, client, app, n, track))
}

// newestEvent gives the ID of the newest event of an app, 0 when it has none.
func newestEvent(ctx context.Context, client *api.Client, app spillway.Ref) (int64, error) {
	events, err := client.Events(ctx, app, spillway.EventQuery{Tail: 1})
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return events[len(events)-1].ID, nil
}
