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
	checkNeeds(r, services)
	for _, e := range services.entries {
		path := join("services", e.name)
		checkSteps(r, e, path)
		if run := e.child("run"); run != nil && run.kind == aList && len(run.items) > 0 {
			checkProgram(r, run.items[0], path+".run[0]")
		}
		if command := e.child("build").child("command"); command != nil && command.kind == aList && len(command.items) > 0 {
			checkProgram(r, command.items[0], path+".build.command[0]")
		}
	}
	checkGates(r, root.child("gates"))
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

// checkHosts reports a host name that is written twice: a request must have one place to go.
func checkHosts(r *report, services *node) {
	type owner struct {
		service string
		line    int
	}
	owners := map[string]owner{}
	for _, e := range services.entries {
		for i, host := range listed(e.child("host")) {
			if host.bad {
				continue
			}
			path := "services." + e.name + ".host"
			if e.child("host").kind == aList {
				path = fmt.Sprintf("%s[%d]", path, i)
			}
			switch o, taken := owners[host.text]; {
			case taken && o.service == e.name:
				r.add(host, path, quote(host.text)+" is listed twice", "remove one")
			case taken:
				r.add(host, path, fmt.Sprintf("%s is the host of %s already, in line %d", quote(host.text), o.service, o.line), "give each service its own")
			default:
				owners[host.text] = owner{e.name, host.line}
			}
		}
	}
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

// suggestService says which service may have been meant. A file with hundreds of mistakes was not
// misspelt, and comparing each of them with each service would take seconds.
func suggestService(r *report, wrong string, names []string) string {
	if len(r.errors) > 200 {
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
	if text(strategy, string(defaultStrategy)) != string(spillway.Canary) && (strategy != nil || !has(service, "strategy")) {
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

// has reports whether a key is there at all, with a good value or not.
func has(n entry, name string) bool {
	return slices.ContainsFunc(n.entries, func(e entry) bool { return e.name == name })
}

// checkProgram reports a list of words whose first is no program.
func checkProgram(r *report, program *node, path string) {
	if !program.bad && strings.TrimSpace(program.text) == "" {
		r.add(program, path, "the program is blank", "the first item of a command is the program to start")
	}
}

// checkGates reports gates of which one makes another useless.
func checkGates(r *report, gates *node) {
	seen := map[string]int{}
	for i, item := range listed(gates) {
		gate, err := parseGate(item.text)
		if item.bad || err != nil {
			continue
		}
		sort := gate.Metric
		if gate.Factor > 0 {
			sort += " relative to stable"
		}
		if first, again := seen[sort]; again {
			r.add(item, fmt.Sprintf("gates[%d]", i), fmt.Sprintf("there is a gate on %s already: gates[%d]", sort, first), "keep the stricter one")
			continue
		}
		seen[sort] = i
	}
}
