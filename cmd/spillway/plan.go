package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func (c *cli) planCommand() *cobra.Command {
	o := deployOptions{dryRun: true}
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "plan [DIR] [flags]",
		Short: "What deploy would do, and the worst that could happen",
		Long: `Plan prints what would change, the steps, and how many requests could fail at most. It builds and
changes nothing. Exit codes: 0 nothing to do, 10 there are changes.`,
		Example: `  spillway plan
  spillway plan ./shop --strategy blue-green
  spillway plan --track canary
  spillway plan --from staging         what taking over the release of staging would do`,
		Args: atMost(1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkStrategy(o.strategy); err != nil {
				return err
			}
			o.track = c.track
			if o.from != "" {
				return c.deployFrom(cmd.Context(), o, first(args))
			}
			return c.plan(cmd.Context(), o, first(args))
		},
	})
	cmd.Flags().StringVar(&o.strategy, "strategy", "", "rolling, canary, blue-green or recreate, instead of the file's")
	cmd.Flags().StringVar(&o.from, "from", "", "plan to take the release of this `ENVIRONMENT` over")
	c.trackFlag(cmd, "plan a deploy to this track instead of stable")
	c.complete(cmd, "strategy", completeStrategies)
	return cmd
}

func (c *cli) plan(ctx context.Context, o deployOptions, dir string) error {
	src, err := c.openSource(dir)
	if err != nil {
		return err
	}
	defer src.close()
	client, err := c.client()
	if err != nil {
		return err
	}
	return c.planOf(ctx, client, src, o)
}

// planOf prints what letting out a source would do.
func (c *cli) planOf(ctx context.Context, client *api.Client, src *source, o deployOptions) error {
	request, err := src.request(o)
	if err != nil {
		return err
	}
	plan, err := client.Plan(ctx, request)
	if err != nil {
		return fmt.Errorf("plan %s: %w", src.ref, err)
	}
	if c.json {
		err = c.printJSON(plan)
	} else {
		err = writePlan(c.stdout, plan)
	}
	if err == nil && len(plan.Changes) > 0 {
		err = exitError{code: exitChanges}
	}
	return err
}

// writePlan prints a plan for people.
func writePlan(w io.Writer, p spillway.Plan) error {
	var b strings.Builder
	if len(p.Changes) == 0 {
		fmt.Fprintf(&b, "%s: nothing to do, %s is what runs%s\n", p.App, release(p.From), strings.Replace(trackWords(p.Track), "for", "on", 1))
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "%s: %s%s", p.App, release(p.Release), trackWords(p.Track))
	if p.From != 0 {
		fmt.Fprintf(&b, " after %s", release(p.From))
	} else {
		b.WriteString(", the first")
	}
	fmt.Fprintf(&b, ", by %s\n\nchanges\n", p.Strategy)
	for _, ch := range p.Changes {
		service, restart := ch.Service, ""
		if service == "" {
			service = "the app"
		}
		if ch.Restart && ch.What != "new" {
			restart = " (its replicas are replaced)"
		}
		fmt.Fprintf(&b, "  %s: %s%s\n", service, clean(ch.What), restart)
	}
	if len(p.Unchanged) > 0 {
		fmt.Fprintf(&b, "  unchanged: %s\n", strings.Join(p.Unchanged, ", "))
	}
	if len(p.Tasks) > 0 {
		b.WriteString("\nrelease commands, once, before a new replica starts\n")
	}
	for _, task := range p.Tasks {
		b.WriteString("  " + clean(task) + "\n")
	}
	b.WriteString("\nsteps\n")
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "  %d. %4s of the users%s%s%s\n", i+1, cmp.Or(s.Served, s.Weight), asked(s), stay(s), after(": ", s.Text))
	}
	if p.Gap {
		b.WriteString("\nnothing serves while the old replicas are replaced by the new ones (strategy recreate)\n")
	}
	fmt.Fprintf(&b, "\nworst case: %s\n", p.Worst)
	if text := takes(p); text != "" {
		fmt.Fprintf(&b, "takes:      %s\n", text)
	}
	if p.Frozen != "" {
		fmt.Fprintf(&b, "waits:      for the end of the freeze window %s; deploy --now begins at once\n", p.Frozen)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// asked says that a step gives other users than it asks for.
func asked(s spillway.PlanStep) string {
	if s.Served == 0 {
		return ""
	}
	return fmt.Sprintf(" (asked %s: users are divided by replicas)", s.Weight)
}

// stay says how long a step lasts.
func stay(s spillway.PlanStep) string {
	switch {
	case s.Manual:
		return ", until a person resumes it"
	case s.Hold > 0:
		return ", at least " + span(time.Duration(s.Hold))
	default:
		return ""
	}
}

// after puts a mark before a text that is not empty.
func after(mark, s string) string {
	if s == "" {
		return ""
	}
	return mark + clean(s)
}
