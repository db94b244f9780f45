package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
)

// Plan says what deploying a release would do: the changes against stable, the steps, and the worst case.
// The release has its number and groups as it would get them; artefacts need only their Source.
func Plan(spec Spec, status Status, to spillway.Release, override spillway.Strategy) spillway.Plan {
	from := spec.Releases[status.Stable]
	strategy, steps := Compile(from, to, override, status.Sizes)
	p := spillway.Plan{App: to.App, Release: to.Number, From: from.Number, Strategy: strategy, Budget: to.Config.Budget}
	changed := Changed(from, to)
	for _, s := range to.Config.Services {
		differs := slices.ContainsFunc(changed, func(c spillway.Service) bool { return c.Name == s.Name })
		p.Changes = append(p.Changes, changesOf(from, to, s, differs)...)
		if !differs {
			p.Unchanged = append(p.Unchanged, s.Name)
		}
		_, old := from.Group(s.Name)
		p.Gap = p.Gap || differs && old && (s.Strategy == spillway.Recreate || strategy == spillway.Recreate)
	}
	for _, s := range from.Config.Services {
		if _, ok := to.Config.Service(s.Name); !ok {
			p.Changes = append(p.Changes, spillway.Change{Service: s.Name, What: "gone", Restart: true})
		}
	}
	if from.Number != 0 && !sameText(appSettings(from.Config), appSettings(to.Config)) {
		p.Changes = append(p.Changes, spillway.Change{What: "settings of rollouts (cohort, budget, watch, deadline, gates)"})
	}
	if len(p.Changes) > 0 {
		p.Steps = planSteps(steps, changed, status.Sizes, strategy)
	}
	p.Worst = worst(p, len(changed), steps)
	return p
}

func planSteps(steps []Step, changed []spillway.Service, sizes map[string]int, strategy spillway.Strategy) []spillway.PlanStep {
	var list []spillway.PlanStep
	for i, step := range steps {
		text := ""
		for _, s := range changed {
			size := sizeOf(s, sizes)
			part := step.Candidate
			if s.Strategy == spillway.Recreate || strategy == spillway.Recreate {
				part = spillway.Whole
			}
			text += fmt.Sprintf("%d of %d %s of %s, ", part.Of(size), size, plural(size, "replica"), s.Name)
		}
		switch {
		case step.Certify:
			text += fmt.Sprintf("then certified: errors < stable + %s", marginFor(steps[min(i+1, len(steps)-1)].Weight))
		case len(changed) == 0:
			text = "no replica is replaced"
		default:
			text += "watched for harm"
		}
		list = append(list, spillway.PlanStep{Weight: step.Weight, Hold: step.Hold, Manual: step.Manual, Text: text})
	}
	return list
}

// worst is the sentence that says what a release that fails every request can cost. It is kept by the
// data plane's admission limit: a candidate is never given more unanswered requests than it may fail.
func worst(p spillway.Plan, changed int, steps []Step) string {
	switch {
	case len(p.Changes) == 0:
		return "nothing changes"
	case p.From == 0:
		return "first deploy: there is nothing to compare it with and nothing to go back to"
	case changed == 0:
		return "no replica is replaced"
	case p.Gap:
		return "recreate stops the old replicas first: nothing serves until the new ones are ready, and again on the way back"
	}
	text := fmt.Sprintf("if release %d fails every request, at most %d %s fail", p.Release, p.Budget, plural(p.Budget, "request"))
	first := steps[0].Weight
	for _, s := range steps {
		if s.Weight > 0 {
			first = s.Weight
			break
		}
	}
	if first < spillway.Whole {
		text += fmt.Sprintf(" and %s of the users are given to it", first)
	}
	return text + ", then it is rolled back"
}

// changesOf says how a service differs between two releases.
func changesOf(from, to spillway.Release, s spillway.Service, restart bool) []spillway.Change {
	old, ok := from.Config.Service(s.Name)
	if !ok {
		return []spillway.Change{{Service: s.Name, What: "new", Restart: true}}
	}
	var changes []spillway.Change
	add := func(differs, restarts bool, what string) {
		if differs {
			changes = append(changes, spillway.Change{Service: s.Name, What: what, Restart: restarts && restart})
		}
	}
	add(from.Artefacts[s.Name].Source != to.Artefacts[s.Name].Source, true, "source")
	add(!sameText(old.Run, s.Run), true, "run")
	for _, name := range slices.Sorted(maps.Keys(merged(old.Env, s.Env))) {
		a, inOld := old.Env[name]
		b, inNew := s.Env[name]
		add(a != b || inOld != inNew, true, "env "+name)
	}
	add(!slices.Equal(old.Needs, s.Needs), true, "needs")
	add(old.Health != s.Health, true, "health")
	add(old.Limits != s.Limits, true, "limits")
	add(old.Stop != s.Stop, true, "stop")
	add(old.Scale != s.Scale, false, fmt.Sprintf("scale %d -> %d", old.Scale, s.Scale))
	add(!slices.Equal(old.Host, s.Host), false, "host")
	add(cmp.Compare(old.Strategy, s.Strategy) != 0 || !slices.Equal(old.Steps, s.Steps) || old.Surge != s.Surge || old.Unavailable != s.Unavailable, false, "strategy")
	return changes
}

func merged(a, b map[string]string) map[string]string {
	m := maps.Clone(b)
	if m == nil {
		m = map[string]string{}
	}
	maps.Copy(m, a)
	return m
}

func appSettings(a spillway.App) spillway.App {
	a.Services = nil
	return a
}

func sameText(a, b any) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
