package appfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// crossCheck reports what one value says about another. It skips values that are wrong by themselves.
func crossCheck(r *report, root *node) {
	services := root.child("services")
	if services == nil {
		return
	}
	checkHosts(r, services)
	checkAddresses(r, services)
	checkNeeds(r, services)
	users := connecting(root, services)
	for _, e := range services.entries {
		path := join("services", e.name)
		checkImage(r, e, path, users[e.name])
		checkSteps(r, e, path)
		checkEdges(r, e, path)
		checkProtocol(r, e, path)
		checkProgram(r, e.child("run"), path+".run")
		checkProgram(r, e.child("release"), path+".release")
		checkProgram(r, e.child("build").child("command"), path+".build.command")
	}
	checkRoutes(r, root, services)
	checkGates(r, root)
	seen := map[string]bool{}
	for i, source := range listed(root.child("cohort").child("key")) {
		if form := strings.Join(strings.Fields(source.text), " "); !source.bad && seen[form] {
			r.add(source, fmt.Sprintf("cohort.key[%d]", i), quote(form)+" is listed twice", "remove one")
		} else {
			seen[form] = true
		}
	}
}

// listed gives the items of a list, or the one value that stands for a list of one.
func listed(n *node) []*node {
	switch {
	case n == nil || n.bad:
		return nil
	case n.kind == aList:
		return n.items
	}
	return []*node{n}
}

// checkNeeds reports needs that name nothing, themselves, or each other in a circle.
func checkNeeds(r *report, services *node) {
	var names []string
	for _, e := range services.entries {
		names = append(names, e.name)
	}
	needs := map[string][]*node{}
	for _, e := range services.entries {
		seen := map[string]bool{}
		for i, need := range listed(e.child("needs")) {
			path := fmt.Sprintf("services.%s.needs[%d]", e.name, i)
			switch {
			case need.bad:
			case seen[need.text]:
				r.add(need, path, quote(need.text)+" is listed twice", "remove one")
			case need.text == e.name:
				r.add(need, path, "a service cannot need itself", "remove it")
			case !slices.Contains(names, need.text):
				r.add(need, path, "there is no service "+quote(need.text), suggestService(r, need.text, names))
			default:
				seen[need.text] = true
				needs[e.name] = append(needs[e.name], need)
			}
		}
	}
	done := map[string]bool{}
	for _, name := range names {
		findCircle(r, name, needs, nil, done)
	}
}

// suggestService says which service may have been meant. To compare the names of a lost cause with each
// service would take seconds.
func suggestService(r *report, wrong string, names []string) string {
	if len(r.errors) > lostCause {
		return ""
	}
	if extension(wrong) {
		return "keys that begin with x- are ignored, services too"
	}
	if near := closest(wrong, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "the services are " + strings.Join(names, ", ")
}

// findCircle walks the needs of a service, depth first, and reports the need that closes a circle.
// The path is how the walk came here; done are the services whose needs have been walked.
func findCircle(r *report, name string, needs map[string][]*node, path []string, done map[string]bool) {
	if done[name] {
		return
	}
	path = append(path, name)
	for i, need := range needs[name] {
		if begin := slices.Index(path, need.text); begin >= 0 {
			circle := strings.Join(append(slices.Clone(path[begin:]), need.text), " needs ")
			r.add(need, fmt.Sprintf("services.%s.needs[%d]", name, i), "the needs go in a circle: "+circle, "remove one of them")
			continue
		}
		findCircle(r, need.text, needs, path, done)
	}
	done[name] = true
}

// checkSteps reports steps that do not rise, and steps of a service that is no canary.
func checkSteps(r *report, service entry, path string) {
	list := service.child("steps")
	if list == nil {
		return
	}
	strategy := service.child("strategy")
	if text(strategy, string(defaultStrategy)) != string(spillway.Canary) && (strategy != nil || !has(service.node, "strategy")) {
		at := &node{place: list.key}
		r.add(at, path+".steps", "steps are for strategy canary, and this is "+text(strategy, string(defaultStrategy)), "write strategy: canary, or remove the steps")
	}
	var before spillway.StepSpec
	for i, item := range list.items {
		if item.bad {
			before.Pause = false
			continue
		}
		itemPath := fmt.Sprintf("%s.steps[%d]", path, i)
		step, _ := parseStep(item.text) // its shape has parsed it
		switch {
		case step.Pause && i == 0:
			r.add(item, itemPath, "a pause cannot be the first step", "write the weight to pause at before it: [1%, pause]")
		case step.Pause && before.Pause:
			r.add(item, itemPath, "a second pause in a row", "remove one")
		case !step.Pause && step.Weight <= before.Weight:
			r.add(item, itemPath, fmt.Sprintf("%s does not rise above the %s before it", step.Weight, before.Weight), "each step gives the new release more users")
		}
		before.Pause = step.Pause
		before.Weight = max(before.Weight, step.Weight)
	}
}

// checkProgram reports a command in words whose first is no program.
func checkProgram(r *report, command *node, path string) {
	if command == nil || command.kind != aList || len(command.items) == 0 {
		return
	}
	if program := command.items[0]; !program.bad && strings.TrimSpace(program.text) == "" {
		r.add(program, path+"[0]", "the program is blank", "the first item of a command is the program to start")
	}
}

// checkGates reports gates of which one makes another useless, and those that cannot be asked.
func checkGates(r *report, root *node) {
	sorts, texts, latency := map[spillway.Gate]int{}, map[string]int{}, 0
	for i, item := range listed(root.child("gates")) {
		if item.bad {
			continue
		}
		gate, err := gateOf(item)
		if err != nil {
			continue
		}
		path := fmt.Sprintf("gates[%d]", i)
		if first, again := texts[gate.Text]; again {
			r.add(item, path, fmt.Sprintf("there is a gate %s already: gates[%d]", quote(gate.Text), first), "remove one")
			continue
		}
		texts[gate.Text] = i
		if sort, name := sortOf(gate); name != "" {
			if first, again := sorts[sort]; again {
				r.add(item, path, fmt.Sprintf("there is a gate on %s already: gates[%d]", name, first), "keep the stricter one")
				continue
			}
			sorts[sort] = i
		}
		if gate.Metric == "latency" || strings.HasPrefix(gate.Metric, "p") {
			if latency++; gate.Metric == "latency" && gate.Factor > 0 {
				latency += 4
			}
			if latency > maxLatency {
				r.add(item, path, fmt.Sprintf("the gates on latency are more than %d, where one relative to stable counts as five", maxLatency), "every answer is held against each of them: keep those that matter")
			}
		}
		if gate.Metric == "query" && !has(root, "prometheus") {
			r.add(item, path, "asks a metric store, and the file names none", "write prometheus: http://127.0.0.1:9090 beside app and services")
		}
	}
}

// sortOf gives what two gates have in common of which one makes the other useless, and what to call it;
// "" for gates that ask something outside, of which there may be any number.
func sortOf(g spillway.Gate) (sort spillway.Gate, name string) {
	if g.External() {
		return sort, ""
	}
	sort = spillway.Gate{Metric: g.Metric, Factor: min(g.Factor, 1), For: g.For, From: g.From, DryRun: g.DryRun}
	if strings.HasPrefix(g.Op, ">") {
		sort.Op = ">"
	}
	if g.Factor > 0 {
		return sort, g.Metric + " relative to stable"
	}
	return sort, g.Metric
}
