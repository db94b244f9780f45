package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// answer is what became of an intent.
type answer struct {
	intent   spillway.Intent
	overview spillway.Overview // after the engine acted on it
	events   []spillway.Event  // what happened from asking until then
	took     time.Duration
}

// intentCommand makes the command of a verb that has no arguments and only changes what a rollout does.
func (c *cli) intentCommand(verb spillway.Verb, cmd *cobra.Command) *cobra.Command {
	cmd.Use = string(verb)
	cmd.Args = atMost(0, "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, app, err := c.target(cmd.Context())
		if err != nil {
			return err
		}
		a, err := c.ask(cmd.Context(), client, app, spillway.Intent{Verb: verb, Track: c.track})
		if err != nil {
			return err
		}
		return c.tellState(a.overview)
	}
	c.trackFlag(cmd, "only what concerns this track")
	return c.verb(groupSteer, cmd)
}

// ask sends an intent and waits until the engine has acted on it. An intent that the engine ignores is
// an error with its reason.
func (c *cli) ask(ctx context.Context, client *api.Client, app spillway.Ref, intent spillway.Intent) (answer, error) {
	since, err := newestEvent(ctx, client, app)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	stored, err := client.Ask(ctx, app, intent)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", intent.Verb, err)
	}
	limited, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	o, err := c.until(limited, client, app, func(o spillway.Overview) bool { return o.Intent >= stored.Seq })
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the server took the request but has not acted on it for %s; see: spillway doctor", span(c.patience))
		}
		return answer{}, fmt.Errorf("%s %s: %w", intent.Verb, app, err)
	}
	events, err := client.Events(ctx, app, spillway.EventQuery{Since: since})
	if err != nil {
		return answer{}, err
	}
	for _, e := range events {
		if e.Kind == spillway.EventIgnored {
			return answer{}, fmt.Errorf("nothing was done: %s; what runs: spillway status", e.Text)
		}
	}
	return answer{stored, o, events, time.Since(began)}, nil
}

// until looks at the app until an overview is as wanted, and returns it.
func (c *cli) until(ctx context.Context, client *api.Client, app spillway.Ref, wanted func(spillway.Overview) bool) (spillway.Overview, error) {
	ticker := time.NewTicker(min(c.every, 50*time.Millisecond))
	defer ticker.Stop()
	for {
		o, err := client.Overview(ctx, app)
		if err != nil || wanted(o) {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, ctx.Err()
		case <-ticker.C:
		}
	}
}

// tellState prints the state of an app in one line.
func (c *cli) tellState(o spillway.Overview) error {
	if c.json {
		return c.printJSON(o)
	}
	c.print("%s", stateLine(o))
	return nil
}

// stateLine is the state of an app in one line.
func stateLine(o spillway.Overview) string {
	n := serves(o)
	text := fmt.Sprintf("%s · %s · %s serves", o.App, o.Phase, release(n))
	if n == 0 {
		text = fmt.Sprintf("%s · %s · nothing serves", o.App, o.Phase)
	}
	if r := o.Rollout; r != nil && r.Release != n {
		to := ""
		if r.Track != "" {
			to = " for track " + r.Track
		}
		text += fmt.Sprintf(", %s%s at %s of the users (step %d of %d)", release(r.Release), to, r.Served, r.Step, r.Steps)
		if r.Reason != "" {
			text += ": " + r.Reason
		}
	}
	for _, t := range o.Tracks {
		if t.Release != 0 {
			text += fmt.Sprintf(", %s %s", release(t.Release), audience(t.Name))
		}
	}
	if o.Queue != 0 && len(o.Waits) == 0 {
		text += fmt.Sprintf(", %s waits", release(o.Queue))
	}
	for _, w := range o.Waits {
		text += fmt.Sprintf(", %s waits %s", release(w.Release), waitWords(w, time.Now()))
	}
	return clean(text)
}
