package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func (c *cli) statusCommand() *cobra.Command {
	watch := false
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "status [flags]",
		Short: "What serves, what is on the way, what is wrong",
		Long: `Status shows which release serves, the rollout on the way with its weight and the judge's evidence,
each service, every problem with its next step, and how the last rollout ended.`,
		Example: `  spillway status
  spillway status --watch
  spillway status --json`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, app, err := c.target(cmd.Context())
			if err != nil {
				return err
			}
			if watch {
				return c.watchStatus(cmd.Context(), client, app)
			}
			return c.status(cmd.Context(), client, app)
		},
	})
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until Ctrl-C")
	return cmd
}

func (c *cli) status(ctx context.Context, client *api.Client, app spillway.Ref) error {
	o, err := client.Overview(ctx, app)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(o)
	}
	return writeStatus(c.stdout, o, where(ctx, client, app, serves(o), ""), time.Now(), c.outStyle)
}

// watchStatus shows the status again whenever it changes: in place on a terminal, else one after the other.
func (c *cli) watchStatus(ctx context.Context, client *api.Client, app spillway.Ref) error {
	screen := live{out: c.stdout, on: isTerminal(c.stdout) && !c.json}
	last, place, serving := "", []string(nil), 0
	_, err := c.until(ctx, client, app, func(o spillway.Overview) bool {
		var text strings.Builder
		if c.json {
			json.NewEncoder(&text).Encode(o)
		} else {
			// On a terminal ages go on by themselves; elsewhere only a change is news.
			now := time.Now()
			if !screen.on && o.Last != nil {
				now = o.Last.At
			}
			if serves(o) != serving {
				serving = serves(o)
				place = where(ctx, client, app, serving, "")
			}
			writeStatus(&text, o, place, now, style{})
		}
		if text.String() == last {
			return false
		}
		last = text.String()
		if screen.on {
			screen.draw(strings.Split(strings.TrimRight(last, "\n"), "\n"), func(_ int, line string) string { return line })
		} else {
			io.WriteString(c.stdout, last)
		}
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// writeStatus prints an overview for people.
func writeStatus(w io.Writer, o spillway.Overview, where []string, now time.Time, s style) error {
	var b strings.Builder
	b.WriteString(s.bold(string(o.App)) + " · " + phase(o.Phase, s))
	if n := serves(o); n != 0 {
		b.WriteString(" · " + release(n) + " serves" + colour(o.Color))
	} else if o.Phase == spillway.Destroying {
		b.WriteString(" · what runs of it is stopped, then it is forgotten")
	} else {
		b.WriteString(" · nothing serves")
	}
	for _, u := range where {
		b.WriteString("\n  " + u)
	}
	b.WriteString("\n")
	if r := o.Rollout; r != nil {
		writeRollout(&b, r, now, s)
	}
	writeWaits(&b, o, now)
	writeStandby(&b, o)
	for _, t := range []*table{tracksTable(o), servicesTable(o)} {
		if len(t.rows) > 1 {
			b.WriteString("\n")
		}
		if err := t.print(&b); err != nil {
			return err
		}
	}
	for _, p := range o.Problems {
		b.WriteString("\n" + s.yellow("problem") + "   " + clean(p) + "\n")
	}
	if o.Note != "" {
		b.WriteString("\nnote      " + clean(o.Note) + "\n")
	}
	if o.Held {
		b.WriteString("\nheld      automatic deploys stay away after the rollback; let them go on: spillway resume\n")
		if o.Uncounted { // on a cluster
			b.WriteString("          a changed App is deployed all the same: kubectl apply, Git\n")
		}
	}
	if h := o.Hold; h != nil {
		fmt.Fprintf(&b, "\n%s   requests are held since %s (%s): %s; let them go on: spillway hold --off\n", s.yellow("on hold"), h.Since.Local().Format("15:04:05"), age(now, h.Since), heldWords(*h))
	}
	if l := o.Last; l != nil {
		fmt.Fprintf(&b, "\nlast      %s%s %s %s", release(l.Release), trackWords(l.Track), outcomeWords(l.Outcome), age(now, l.At))
		if l.Reason != "" {
			b.WriteString(": " + clean(l.Reason))
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRollout(b *strings.Builder, r *spillway.RolloutOverview, now time.Time, s style) {
	verb := ""
	if r.Back {
		verb = ", a rollback"
	}
	if r.Step == r.Steps && r.Served == spillway.Whole && r.Stable != 0 {
		verb += fmt.Sprintf(" (watched; %s is still warm)", release(r.Stable))
	}
	fmt.Fprintf(b, "\nrollout   %s%s by %s%s, step %d of %d, began %s\n", release(r.Release), trackWords(r.Track), r.Strategy, verb, r.Step, r.Steps, age(now, r.Began))
	weight := weightWords(r)
	fmt.Fprintf(b, "          %s %s\n", bar(r.Served, 20), weight)
	if r.Stable != 0 {
		fmt.Fprintf(b, "          judge: %s\n", clean(verdict(r.Evidence)))
		fmt.Fprintf(b, "          budget: %s\n", spent(r))
	}
	writeGates(b, r.Gates, s)
	if r.Reason != "" {
		fmt.Fprintf(b, "          %s\n", s.yellow(clean(r.Reason)))
	}
	if r.Waiting != "" || r.Left > 0 {
		text := r.Waiting
		if r.Left > 0 {
			text = strings.TrimPrefix(text+", "+span(time.Duration(r.Left))+" left", ", ")
		}
		fmt.Fprintf(b, "          waiting: %s\n", clean(text))
	}
}

// weightWords says which users a candidate has, and which were asked for: where users are divided by replicas it has
// more of them.
func weightWords(r *spillway.RolloutOverview) string {
	weight := r.Served.String() + " of the users" + ofTrack(r.Track)
	switch {
	case r.Asked == r.Served:
		return weight
	case r.Served > r.Asked && r.Asked > 0:
		return weight + ", asked " + r.Asked.String()
	}
	return weight + ", on the way to " + r.Asked.String()
}

// servicesTable shows each group of replicas on a row.
func servicesTable(o spillway.Overview) *table {
	t := newTable("SERVICE", "RELEASE", "ROLE", "READY", "WEIGHT", "OPEN", "REQUESTS", "FAILED", "P95", "PROBLEM")
	for _, s := range o.Services {
		for _, g := range s.Groups {
			open, requests, failed := strconv.Itoa(g.InFlight), strconv.FormatInt(g.Traffic.Requests, 10), strconv.FormatInt(g.Traffic.Failures, 10)
			if o.Uncounted {
				open, requests, failed = "", "", ""
			}
			weight := g.Weight.String()
			if unweighed(o) {
				weight = ""
			}
			t.row(s.Name, strconv.Itoa(g.Group.Release), g.Role, fmt.Sprintf("%d/%d", g.Ready, g.Want), weight, open, requests, failed,
				latency(g.Traffic.P95), g.Problem)
		}
		if len(s.Groups) == 0 {
			t.row(s.Name, "", "", fmt.Sprintf("0/%d", s.Size), "", "", "", "", "", "no replica")
		}
	}
	return t
}

// unweighed reports that nobody knows which weights are served, not even those seen last: all of them are 0.
func unweighed(o spillway.Overview) bool {
	return o.NoData && !slices.ContainsFunc(o.Services, func(s spillway.ServiceOverview) bool {
		return slices.ContainsFunc(s.Groups, func(g spillway.GroupOverview) bool { return g.Weight > 0 })
	})
}

// latency prints microseconds as "12ms", "0.4ms", "1.25s".
func latency(us int64) string {
	switch d := time.Duration(us) * time.Microsecond; {
	case us == 0:
		return ""
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(float64(us/100)/10, 'f', -1, 64) + "ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	default:
		return d.Truncate(10 * time.Millisecond).String()
	}
}

// phase colours a phase by what it means for the reader.
func phase(p spillway.Phase, s style) string {
	switch p {
	case spillway.Healthy:
		return s.green(string(p))
	case spillway.Degraded, spillway.RollingBack:
		return s.red(string(p))
	default:
		return s.yellow(string(p))
	}
}
