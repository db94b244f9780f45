package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// Present is what is known about the moment in which a plan is made.
type Present struct {
	Now time.Time // for freeze windows
	// ByReplicas: the data plane gives each ready replica the same; see Observation.Plain.
	ByReplicas bool
	// Counted: the data plane does not judge itself, its counters are read every now and then.
	Counted bool
	Rate    float64                           // requests a second to the public services
	Needs   func(margin spillway.Share) int64 // good answers of the candidate that a certificate for a margin takes
}

// Plan says what deploying a release to its track would do: the changes against what the track has, the steps,
// the worst case and how long it takes. The release has its number and groups as it would get them; artefacts
// need only their Source.
func Plan(spec Spec, status Status, to spillway.Release, override spillway.Strategy, present Present) spillway.Plan {
	status = before(spec, status, to.Track, present.Now)
	stable, from := spec.Releases[status.Stable], spec.Releases[status.Stable]
	if lane, ok := spec.Releases[status.Lanes[to.Track].Release]; ok && to.Track != "" {
		from = lane
	}
	sizes := sizesAtBegin(spec, status, to)
	strategy, steps := Compile(stable, to, override, sizes)
	if to.Track != "" {
		strategy, steps = spillway.Canary, []Step{whole}
	}
	p := spillway.Plan{App: to.App, Release: to.Number, From: from.Number, Strategy: strategy, Budget: to.Config.Budget, Track: to.Track}
	changed := Changed(from, to)
	for _, s := range to.Config.Services {
		differs := slices.ContainsFunc(changed, func(c spillway.Service) bool { return c.Name == s.Name })
		p.Changes = append(p.Changes, changesOf(from, to, s, differs)...)
		if !differs {
			p.Unchanged = append(p.Unchanged, s.Name)
		}
		_, old := from.Group(s.Name)
		p.Gap = p.Gap || to.Track == "" && differs && old && (s.Strategy == spillway.Recreate || strategy == spillway.Recreate)
	}
	for _, s := range from.Config.Services {
		if _, ok := to.Config.Service(s.Name); !ok {
			p.Changes = append(p.Changes, spillway.Change{Service: s.Name, What: "gone", Restart: true})
		}
	}
	if from.Number != 0 {
		p.Changes = append(p.Changes, ruleChanges(from.Config.Routes, to.Config.Routes)...)
	}
	if from.Number != 0 && !sameText(appSettings(from.Config), appSettings(to.Config)) {
		p.Changes = append(p.Changes, spillway.Change{What: "settings of rollouts (cohort, budget, watch, deadline, gates, freeze)"})
	}
	p.Worst = worst(p, to.Config, len(changed), steps, present)
	if present.ByReplicas && p.Track == "" {
		p.Worst = plainWorst(stable, p, to.Config, changed, steps, sizes)
	}
	if dark := status.Standby; dark != nil && to.Track == "" && len(p.Changes) > 0 {
		p.Worst += fmt.Sprintf("; release %d, which is warm, is let go when it begins", dark.Release)
	}
	if len(p.Changes) == 0 {
		return p
	}
	p.Steps = planSteps(steps, changed, sizes, to.Track, strategy)
	if present.ByReplicas {
		plainSteps(stable, p.Steps, steps, changed, sizes)
	}
	for _, s := range byNeeds(to) {
		if !s.Release.Zero() && slices.ContainsFunc(changed, func(c spillway.Service) bool { return c.Name == s.Name }) {
			p.Tasks = append(p.Tasks, s.Name+": "+cmp.Or(s.Release.Shell, strings.Join(s.Release.Exec, " ")))
		}
	}
	p.Rate, p.Takes = present.Rate, takes(steps, present)
	for _, w := range slices.Concat(stable.Config.Freeze, to.Config.Freeze) {
		if end, in := w.Until(present.Now); in {
			p.Frozen = fmt.Sprintf("%s, until %s", w.Text, end.Format("Mon 2 Jan 15:04 MST"))
		}
	}
	return p
}

// before is the status that a deploy to a track would begin from: a release in its watch that looks fine, and one to
// which everybody goes back, is what its track has by then; any other rollout makes way. See newerWaits.
func before(spec Spec, status Status, track string, now time.Time) Status {
	t := &turn{spec: spec, st: status.clone(), now: now}
	r := t.st.Rollout
	if r == nil {
		return status
	}
	watched := t.st.Phase == spillway.Promoting && (r.Track != track || t.failsNoMore())
	returns := t.st.Phase == spillway.Progressing && r.Back && r.Routed
	switch {
	case !watched && !returns:
	case r.Track == "":
		t.st.Stable = r.Release
	default:
		lane := t.st.Lanes[r.Track]
		lane.Release = r.Release
		t.setLane(r.Track, lane)
	}
	return t.st
}

// sizesAtBegin are the sizes of the services of a release by which its rollout would be measured. See begin.
func sizesAtBegin(spec Spec, status Status, to spillway.Release) map[string]int {
	releases := map[int]spillway.Release{}
	maps.Copy(releases, spec.Releases)
	releases[to.Number], spec.Releases = to, releases
	t := &turn{spec: spec, st: status}
	t.st.Rollout = &Rollout{Release: to.Number, Track: to.Track}
	t.follow()
	return t.sizes(to)
}

// takes is about how long the steps take: each its hold, or as long as its certificate needs at the present
// traffic. Worked example: 5 % of 40 requests a second are 2 a second; 14 good answers take 7 s, and a hold of
// a minute is longer. 0 when a certificate is asked for and there is no traffic.
func takes(steps []Step, present Present) spillway.Duration {
	sum := spillway.Duration(0)
	for i, step := range steps {
		stay := step.Hold
		if step.Certify && present.Needs != nil {
			rate := present.Rate * float64(step.Weight) / float64(spillway.Whole)
			if rate <= 0 {
				return 0
			}
			needs := float64(present.Needs(marginFor(steps[min(i+1, len(steps)-1)].Weight)))
			stay = max(stay, spillway.Duration(needs/rate*float64(time.Second)))
		}
		sum += stay
	}
	return spillway.Duration(time.Duration(sum).Round(time.Second))
}

func planSteps(steps []Step, changed []spillway.Service, sizes map[string]int, track string, strategy spillway.Strategy) []spillway.PlanStep {
	var list []spillway.PlanStep
	for i, step := range steps {
		text := ""
		for _, s := range changed {
			size := sizeOf(s, sizes)
			part := step.Candidate
			if def, ok := s.Track(track); ok {
				text += fmt.Sprintf("%d %s of %s for track %s, ", max(1, def.Replicas), plural(max(1, def.Replicas), "replica"), s.Name, track)
				continue
			}
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
// admission limit of a data plane that judges: a candidate is never given more unanswered requests than it may fail.
func worst(p spillway.Plan, to spillway.App, changed int, steps []Step, present Present) string {
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
	if to.BudgetUsers > 0 {
		text = fmt.Sprintf("if release %d fails every request, requests of at most %s of the users fail, or 3 requests when that is more", p.Release, to.BudgetUsers)
	}
	end := ", then it is rolled back"
	if present.Counted {
		end += "; what it fails until that shows in the gateway's counters comes on top"
	}
	if p.Track != "" {
		return text + fmt.Sprintf(", all of users of track %s", p.Track) + end
	}
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
	return text + end
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
	was, is := from.Artefacts[s.Name].Image, to.Artefacts[s.Name].Image
	add(old.Image != s.Image, true, "image")
	add(old.Image == s.Image && was != is && was != "" && is != "", true, "what its image is") // a tag or the base means another
	add(old.Port != s.Port, true, "port")
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
	add(!sameText(old.Release, s.Release), true, "release command")
	add(old.Scale != s.Scale, false, fmt.Sprintf("scale %d -> %d", old.Scale, s.Scale))
	add(old.Max != s.Max, false, fmt.Sprintf("scale max %d -> %d", old.Max, s.Max))
	add(old.Targets != s.Targets, false, "what its autoscaler aims at")
	add(!sameText(old.TLS, s.TLS), false, "tls")
	add(!sameText(old.Standby, s.Standby), false, "standby")
	add(!sameText(old.Synthetic, s.Synthetic), false, "synthetic")
	for _, name := range trackNames(old, s) {
		a, inOld := old.Track(name)
		b, inNew := s.Track(name)
		what := "track " + name
		switch {
		case !inOld:
			what += " is new"
		case !inNew:
			what += " goes, with the release that it holds"
		}
		add(inOld != inNew || !sameText(a, b), false, what)
	}
	add(!slices.Equal(old.Host, s.Host), false, "host")
	add(!slices.Equal(old.Listen, s.Listen), false, "listen")
	add(cmp.Or(old.Protocol, spillway.HTTP) != cmp.Or(s.Protocol, spillway.HTTP), false, "protocol")
	add(old.Announce != s.Announce, false, "proxy_protocol")
	add(cmp.Compare(old.Strategy, s.Strategy) != 0 || !slices.Equal(old.Steps, s.Steps) || old.Surge != s.Surge || old.Unavailable != s.Unavailable, false, "strategy")
	return changes
}

// trackNames are the tracks of two versions of a service, sorted.
func trackNames(a, b spillway.Service) []string {
	var names []string
	for _, track := range slices.Concat(a.Tracks, b.Tracks) {
		names = append(names, track.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
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
	a.Services, a.Routes = nil, nil
	return a
}

func sameText(a, b any) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}
