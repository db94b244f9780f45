package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/sim"
)

// simulateOptions are the flags of simulate.
type simulateOptions struct {
	strategy             string
	rate                 int
	errors, stableErrors string // "10%"
	slow                 string // "2x"
	crash                bool
	seed                 uint64
}

func (c *cli) simulateCommand() *cobra.Command {
	var o simulateOptions
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "simulate [DIR] [flags]",
		Short: "What a deploy would look like if the new release were bad, or good",
		Long: `Simulate lets the engine and the judge roll out a release of your app file in a simulated world, in no
time: it draws how the users move, what the release costs and how it ends. It runs nothing of your app
and asks no server. Release commands succeed, gates outside (query, http, run) hold, and a person
resumes where the file has a pause.`,
		Example: `  spillway simulate                                as good as before
  spillway simulate --errors 10%                   every tenth request fails
  spillway simulate --rps 2 --errors 100%          broken, on a quiet service
  spillway simulate --slow 2x --stable-errors 0.5%
  spillway simulate --crash --strategy blue-green`,
		Args: atMost(1, "DIR"),
		RunE: func(_ *cobra.Command, args []string) error { return c.simulate(o, first(args)) },
	})
	flags := cmd.Flags()
	flags.IntVar(&o.rate, "rps", 50, "requests a second")
	flags.StringVar(&o.errors, "errors", "", "`SHARE` of the new release's requests that fail (default: as stable)")
	flags.StringVar(&o.stableErrors, "stable-errors", "0.1%", "`SHARE` of the stable release's requests that fail")
	flags.StringVar(&o.slow, "slow", "1x", "how many `TIMES` as long the new release takes to answer")
	flags.BoolVar(&o.crash, "crash", false, "the new release ends before it is ready")
	flags.StringVar(&o.strategy, "strategy", "", "rolling, canary, blue-green or recreate, instead of the file's")
	flags.Uint64Var(&o.seed, "seed", 1, "another seed is another day; the same one is the same timeline")
	c.complete(cmd, "strategy", completeStrategies)
	return cmd
}

func (c *cli) simulate(o simulateOptions, dir string) error {
	q, err := o.question()
	if err != nil {
		return err
	}
	file, err := c.findFile(dir)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return usage("read the app file: %w", err)
	}
	if q.App, err = appfile.ParseEnvironment(file, text, c.env); err != nil {
		return err
	}
	timeline, err := sim.Forecast(q)
	if err != nil {
		return usage("simulate %s: %w", q.App.Name, err)
	}
	if !c.json {
		return writeTimeline(c.stdout, q, timeline)
	}
	for _, m := range timeline.Moments {
		if err := c.printJSON(m); err != nil {
			return err
		}
	}
	return c.printJSON(timeline)
}

// question reads the flags.
func (o simulateOptions) question() (sim.Question, error) {
	q := sim.Question{Strategy: spillway.Strategy(o.strategy), Rate: o.rate, Crash: o.crash, Seed: o.seed}
	if err := checkStrategy(o.strategy); err != nil {
		return q, err
	}
	if o.rate < 0 || o.rate > sim.MaxRate {
		return q, usage("--rps %d: want 0 to %d; more are judged no later", o.rate, sim.MaxRate)
	}
	stable, err := spillway.ParseShare(o.stableErrors)
	if err != nil {
		return q, usage("--stable-errors: %w", err)
	}
	errors := stable
	if o.errors != "" {
		if errors, err = spillway.ParseShare(o.errors); err != nil {
			return q, usage("--errors: %w", err)
		}
	}
	q.Stable, q.Errors = fractionOf(stable), fractionOf(errors)
	q.Slow, err = strconv.ParseFloat(strings.TrimSuffix(o.slow, "x"), 64)
	if err != nil || !(q.Slow >= 1 && q.Slow <= 1000) {
		return q, usage("--slow %s: want a number from 1x to 1000x, like 2x or 1.5x", o.slow)
	}
	return q, nil
}

func fractionOf(s spillway.Share) float64 { return float64(s) / float64(spillway.Whole) }

// writeTimeline draws a timeline for people.
func writeTimeline(w io.Writer, q sim.Question, t sim.Timeline) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, simulated: release 2 after release 1, %s a second\n", q.App.Name, count(q.Rate, "request"))
	fmt.Fprintf(&b, "release 1 fails %.4g%% of its requests, release 2 %s\n\n", 100*q.Stable, character(q))
	fmt.Fprintf(&b, "%7s  %-16s  %8s  %6s\n", "time", "users on it", "requests", "failed")
	for i, m := range t.Moments {
		event := m.Event
		switch {
		case event == "":
			event = verdictWords(m, t.Budget)
		case i == len(t.Moments)-1 && t.Outcome != "":
			event, _, _ = strings.Cut(event, ": ") // why is in the line before
		}
		line := fmt.Sprintf("%7s  %s %6s  %8d  %6d  %s", clock(time.Duration(m.At)), bar(m.Weight, 10), m.Weight, m.Requests, m.Failures, clean(event))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	b.WriteString("\n" + endOf(t) + "\n")
	if q.Slow > 1 && !judgesLatency(q.App) {
		b.WriteString("no gate of the file is about latency, so nobody noticed that it is slow; add: gates: [latency < 1.5x stable]\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// character is how the new release differs from the stable one.
func character(q sim.Question) string {
	words := fmt.Sprintf("%.4g%%", 100*q.Errors)
	if q.Slow > 1 {
		words += fmt.Sprintf(" and takes %.4gx as long", q.Slow)
	}
	if q.Crash {
		words = "ends before it is ready"
	}
	return words
}

// clock is a time since the begin: "0:04", "12:31", "1:02:03".
func clock(d time.Duration) string {
	s := int(d / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// verdictWords says what the numbers alone say.
func verdictWords(m sim.Moment, budget int) string {
	switch {
	case m.Verdict == spillway.Certified:
		return "certified for this step"
	case m.Verdict == spillway.Undecided && budget > 0 && m.Failures >= int64(budget):
		return "not shown to be worse than release 1"
	case m.Verdict == spillway.Undecided:
		return "no harm shown"
	}
	return ""
}

// endOf says how it ended and what it cost.
func endOf(t sim.Timeline) string {
	took := span(time.Duration(t.Took))
	cost := fmt.Sprintf("%d of its %s failed; the budget is %d", t.Failures, count(t.Requests, "request"), t.Budget)
	switch {
	case t.Outcome == "":
		return fmt.Sprintf("after %s it waits for a person: %s\n%s", took, clean(t.Reason), cost)
	case t.Outcome == spillway.Succeeded:
		return fmt.Sprintf("release 2 had all users after %s and was stable after %s: %s", span(time.Duration(t.Whole)), took, cost)
	}
	return fmt.Sprintf("%s after %s: %s", strings.ReplaceAll(string(t.Outcome), "-", " "), took, cost)
}

func judgesLatency(app spillway.App) bool {
	for _, g := range app.Gates {
		if g.Metric == "latency" || strings.HasPrefix(g.Metric, "p") {
			return true
		}
	}
	return false
}
