package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) scaleCommand() *cobra.Command {
	return c.verb(groupWork, &cobra.Command{
		Use:   "scale SERVICE=N|auto...",
		Short: "Change how many replicas a service has",
		Long: `Scale sets the number of replicas of a service, also for the releases to come; auto gives the number
back to the app file. Of a service with an autoscaler it sets the smallest number that the autoscaler
may choose.`,
		Example: `  spillway scale www=4
  spillway scale www=4 backend=auto`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := parseScale(args)
			return err
		},
		RunE:              func(cmd *cobra.Command, args []string) error { return c.scale(cmd.Context(), args) },
		ValidArgsFunction: c.completeScale,
	})
}

// parseScale reads "www=4" and "www=auto".
func parseScale(args []string) ([]spillway.Intent, error) {
	if len(args) == 0 {
		return nil, usage("which service, and how many replicas? Like www=4 or www=auto")
	}
	var intents []spillway.Intent
	for _, arg := range args {
		name, number, ok := strings.Cut(arg, "=")
		in := spillway.Intent{Verb: spillway.VerbScale, Service: name, Auto: number == "auto"}
		if !in.Auto {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 || n > 1000 {
				ok = false
			}
			in.Replicas = n
		}
		if !ok || name == "" {
			return nil, usage("%q: write SERVICE=N with N from 1 to 1000, or SERVICE=auto; to stop everything: spillway destroy", arg)
		}
		intents = append(intents, in)
	}
	return intents, nil
}

// tellBounds says why a service has another size than was asked for: its file bounds it.
func (c *cli) tellBounds(in spillway.Intent, a answer) {
	for _, s := range a.overview.Services {
		if s.Name != in.Service || in.Auto || s.Size == in.Replicas {
			continue
		}
		for _, e := range a.events {
			if e.Kind == spillway.EventScaled {
				c.say("%s", clean(e.Text))
			}
		}
	}
}

func (c *cli) scale(ctx context.Context, args []string) error {
	intents, err := parseScale(args)
	if err != nil {
		return err
	}
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	var o spillway.Overview
	for _, in := range intents {
		a, err := c.ask(ctx, client, app, in)
		if err != nil {
			return err
		}
		o = a.overview
		c.tellBounds(in, a)
	}
	if c.json {
		return c.printJSON(o)
	}
	t := newTable("SERVICE", "SIZE", "READY")
	for _, s := range o.Services {
		ready := 0
		for _, g := range s.Groups {
			ready += g.Ready
		}
		t.row(s.Name, strconv.Itoa(s.Size), strconv.Itoa(ready))
	}
	return t.print(c.stdout)
}
