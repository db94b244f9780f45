package appfile

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// Parse reads the text of an app file into an App with every default filled in, as the environment
// production has it. Its services, and the needs and tracks of each, are sorted by name. The file is the
// name that mistakes are reported under.
//
// The error is nil or a spillway.FieldErrors with every mistake in the text, in its order, also those that
// only another environment of the file has.
func Parse(file string, text []byte) (spillway.App, error) {
	return ParseEnvironment(file, text, production)
}

// buildApp makes the App of a file without mistakes.
func buildApp(root *node) spillway.App {
	app := spillway.App{
		Name:     text(root.child("app"), ""),
		Budget:   spillway.DefaultBudget,
		Watch:    duration(root.child("watch"), spillway.DefaultWatch),
		Deadline: duration(root.child("deadline"), spillway.DefaultDeadline),
		Thin:     spillway.Thin(text(root.child("thin"), string(defaultThin))),
		Warmup:   duration(root.child("warmup"), 0),
		Delay:    duration(root.child("delay"), 0),
		Keep:     whole(root.child("keep"), 0),

		Prometheus: text(root.child("prometheus"), ""),
	}
	if budget := root.child("budget"); budget != nil && budget.kind == aText {
		share, _, _ := strings.Cut(budget.text, " ")
		app.BudgetUsers, _ = spillway.ParseShare(share)
	} else {
		app.Budget = whole(budget, spillway.DefaultBudget)
	}
	for _, e := range root.child("services").entries {
		app.Services = append(app.Services, buildService(e))
	}
	slices.SortFunc(app.Services, func(a, b spillway.Service) int { return strings.Compare(a.Name, b.Name) })
	app.Routes = buildRoutes(root.child("routes"), app.Services)
	for _, source := range texts(root.child("cohort").child("key")) {
		fields := strings.Fields(source)
		app.Cohort.Key = append(app.Cohort.Key, spillway.KeySource{Kind: fields[0], Name: fields[1]})
	}
	for _, item := range listed(root.child("gates")) {
		gate, _ := gateOf(item) // the shape of a gate has parsed it
		app.Gates = append(app.Gates, gate)
	}
	for _, item := range texts(root.child("freeze")) {
		window, _ := parseWindow(item) // the shape of a window has parsed it
		app.Freeze = append(app.Freeze, window)
	}
	return app
}

// buildService makes one service.
func buildService(n entry) spillway.Service {
	s := spillway.Service{
		Name:        n.name,
		Build:       buildOf(n.child("build")),
		Image:       text(n.child("image"), ""),
		Run:         command(n.child("run")),
		Port:        whole(n.child("port"), 0),
		Host:        texts(n.child("host")),
		Protocol:    spillway.Protocol(text(n.child("protocol"), string(spillway.HTTP))),
		Listen:      texts(n.child("listen")),
		Announce:    spillway.Announce(text(n.child("proxy_protocol"), "")),
		Needs:       slices.Sorted(slices.Values(texts(n.child("needs")))),
		Env:         environment(n.child("env")),
		Health:      probe(n.child("health")),
		Strategy:    spillway.Strategy(text(n.child("strategy"), string(defaultStrategy))),
		Surge:       count(n.child("surge"), defaultSurge),
		Unavailable: count(n.child("unavailable"), defaultUnavailable),
		Release:     command(n.child("release")),
		TLS:         buildTLS(n.child("tls")),
		Standby:     buildStandby(n.child("standby")),
		Tracks:      buildTracks(n.child("tracks")),
		Synthetic:   buildSynthetic(n.child("synthetic")),
	}
	if scale := n.child("scale"); scale != nil && scale.kind == aMapping {
		s.Scale, s.Max = whole(scale.child("min"), defaultScale), whole(scale.child("max"), 0)
		s.Targets.CPU, _ = spillway.ParseShare(text(scale.child("cpu"), "0%"))
		s.Targets.Memory, _ = spillway.ParseShare(text(scale.child("memory"), "0%"))
		s.Targets.Tolerance, _ = spillway.ParseShare(text(scale.child("tolerance"), "0%"))
	} else {
		s.Scale = whole(scale, defaultScale)
	}
	limits := n.child("limits")
	s.Limits.CPU, _ = spillway.ParseMilli(text(limits.child("cpu"), "0"))
	s.Limits.Memory, _ = spillway.ParseBytes(text(limits.child("memory"), "0"))
	stop, d := n.child("stop"), spillway.DefaultStop()
	if s.Protocol == spillway.TCP && s.Strategy == spillway.Recreate {
		d.Drain = recreatedDrain
	}
	s.Stop = spillway.Stop{
		Signal: text(stop.child("signal"), d.Signal),
		Grace:  duration(stop.child("grace"), d.Grace),
		Drain:  duration(stop.child("drain"), d.Drain),
	}
	if s.Strategy == spillway.Canary {
		s.Steps = steps(n.child("steps"))
	}
	return s
}

// buildOf reads "./dir" or {dir, command}.
func buildOf(n *node) *spillway.Build {
	if n == nil {
		return nil
	}
	if n.kind == aText {
		return &spillway.Build{Dir: path.Clean(n.text)}
	}
	return &spillway.Build{Dir: path.Clean(text(n.child("dir"), ".")), Command: command(n.child("command"))}
}

// command reads a line for the shell or a list of words.
func command(n *node) spillway.Command {
	switch {
	case n == nil:
		return spillway.Command{}
	case n.kind == aList:
		return spillway.Command{Exec: texts(n)}
	}
	return spillway.Command{Shell: n.text}
}

// environment reads the variables; nil when there are none.
func environment(n *node) map[string]string {
	if n == nil || len(n.entries) == 0 {
		return nil
	}
	env := map[string]string{}
	for _, e := range n.entries {
		env[e.name] = e.text
	}
	return env
}

// probe reads "/path" or a mapping.
func probe(n *node) spillway.Probe {
	p := spillway.DefaultProbe()
	if n != nil && n.kind == aText {
		p.Path = n.text
		return p
	}
	return spillway.Probe{
		Path:      text(n.child("path"), p.Path),
		Interval:  duration(n.child("interval"), p.Interval),
		Timeout:   duration(n.child("timeout"), p.Timeout),
		Start:     duration(n.child("start"), p.Start),
		Healthy:   whole(n.child("healthy"), p.Healthy),
		Unhealthy: whole(n.child("unhealthy"), p.Unhealthy),
	}
}

// steps reads the steps of a canary. A pause rests at the weight of the step before it.
func steps(n *node) []spillway.StepSpec {
	if n == nil {
		return spillway.DefaultSteps()
	}
	var list []spillway.StepSpec
	var weight spillway.Share
	for _, item := range texts(n) {
		step, _ := parseStep(item) // the shape of a step has parsed it
		if step.Pause {
			step.Weight = weight
		}
		weight = step.Weight
		list = append(list, step)
	}
	return list
}

// The readers below give the fallback for a key that is not there. The shapes have checked the rest.

func text(n *node, fallback string) string {
	if n == nil {
		return fallback
	}
	return n.text
}

// texts reads one text or a list of them.
func texts(n *node) []string {
	if n == nil || n.bad {
		return nil
	}
	if n.kind != aList {
		return []string{n.text}
	}
	var list []string
	for _, item := range n.items {
		list = append(list, item.text)
	}
	return list
}

func whole(n *node, fallback int) int {
	if n == nil {
		return fallback
	}
	v, _ := strconv.Atoi(n.text)
	return v
}

func duration(n *node, fallback spillway.Duration) spillway.Duration {
	if n == nil {
		return fallback
	}
	var d spillway.Duration
	_ = d.UnmarshalText([]byte(n.text))
	return d
}

func count(n *node, fallback spillway.Count) spillway.Count {
	if n == nil {
		return fallback
	}
	c, _ := spillway.ParseCount(n.text)
	return c
}
