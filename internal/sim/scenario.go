package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Play runs a scenario: one action a line, "#" begins a comment. It gives the transcript, the actions with
// what each round changed, and the first invariant that broke. The same text gives the same transcript.
func Play(text string) (string, error) {
	var b strings.Builder
	r := NewRun(rand.New(rand.NewPCG(7, 7)))
	r.Trace = &b
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			b.WriteString(line + "\n")
			continue
		}
		b.WriteString("> " + line + "\n")
		if err := r.Step(Action(line)); err != nil {
			return b.String(), &Failure{0, r.Actions, r.Store.Events(app), err}
		}
	}
	return b.String(), nil
}

// tell writes what a decision changed.
func (r *Run) tell(before rollout.Status, d rollout.Decision) {
	if r.Trace == nil {
		return
	}
	if before.Phase != d.Status.Phase {
		fmt.Fprintf(r.Trace, "  phase %s\n", d.Status.Phase)
	}
	for _, e := range d.Events {
		if e.Kind != spillway.EventRoute { // the route line tells it, when it is asked for
			fmt.Fprintf(r.Trace, "  %s: %s\n", e.Kind, e.Text)
		}
	}
	if was, is := describeWants(before.Wants), describeWants(d.Desired.Groups); was != is {
		fmt.Fprintf(r.Trace, "  want%s\n", is)
	}
	if before.Route.Generation != d.Desired.Route.Generation {
		fmt.Fprintf(r.Trace, "  route %d%s\n", d.Desired.Route.Generation, describeRoute(d.Desired.Route))
	}
}

func describeWants(wants []rollout.Want) string {
	text := ""
	for _, w := range wants {
		text += fmt.Sprintf(" %s:%d", w.Group, w.Replicas)
		if w.Scaling.Max > 0 {
			text += fmt.Sprintf(" (%d-%d%s)", w.Scaling.Min, w.Scaling.Max, map[bool]string{true: " frozen"}[w.Scaling.Frozen])
		}
	}
	return text
}

// describeRoute prints the rules, the public edges, and the private ones with their callers.
func describeRoute(route spillway.Route) string {
	text := ""
	for _, rule := range route.Rules {
		to := "elsewhere"
		if len(rule.To) > 0 {
			to = rule.To[0].Name()
		}
		text += fmt.Sprintf(" %s to %s", rule, to)
	}
	for _, e := range route.Edges {
		text += " " + e.Service
		if e.Only != "" {
			text += "@" + e.Only
		}
		if e.From.Release != 0 {
			text += " from " + e.From.String()
		}
		text += " ["
		if len(e.Backends) == 0 {
			text += e.Closed
		}
		for i, b := range e.Backends {
			if i > 0 {
				text += " "
			}
			switch {
			case len(b.URLs) > 0:
				text += b.Track + "=elsewhere"
			case b.Track != "":
				text += b.Track + "=" + b.Group.String()
			default:
				text += b.Group.String()
			}
			text += ":" + b.Weight.String()
			if b.Color != "" {
				text += " (" + b.Color + ")"
			}
		}
		text += "]"
	}
	return text
}
