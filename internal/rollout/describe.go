package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// Describe says in words and numbers where an app is. What it reports of weights is what the data plane
// serves, not what was asked for, except where a field says Asked. Like Decide it is pure. The time since the
// last decision counts as the next one will count it, so what is left of a hold at now is not what was
// left up to a heartbeat ago.
func Describe(spec Spec, status Status, obs Observation, now time.Time) spillway.Overview {
	t := &turn{spec: spec, st: status.clone(), obs: obs, now: now}
	t.remember() // so that every line tells the same evidence
	t.tick()
	o := spillway.Overview{
		App: spec.App, Phase: t.st.Phase, Stable: t.st.Stable, Good: t.st.Good, Held: t.st.Held,
		Intent: t.st.Intent, NoData: obs.NoData, Rollout: t.describeRollout(), Services: t.describeServices(),
	}
	if q := t.st.Queue; q != nil {
		o.Queue = q.Release
	}
	if l := t.st.Last; l != nil {
		o.Last = &spillway.LastRollout{ID: l.ID, Release: l.Release, Outcome: l.Outcome, Reason: l.Reason, At: l.At, Evidence: l.Evidence, Track: l.Track}
	}
	o.Tracks, o.Standby, o.Waits, o.Color = t.describeTracks(), t.describeStandby(), t.describeWaits(), t.liveColor()
	o.Problems = t.problems()
	if obs.NoData {
		o.Silence = obs.Silence
	}
	return o
}

func (t *turn) describeRollout() *spillway.RolloutOverview {
	r := t.st.Rollout
	if r == nil {
		return nil
	}
	o := &spillway.RolloutOverview{
		ID: r.ID, Release: r.Release, Stable: r.Stable, Strategy: r.Strategy, Step: r.Step + 1, Steps: len(r.Steps),
		Asked: t.shown(), Track: r.Track, Gates: t.describeGates(), Served: t.served(r), Unacknowledged: !t.acked(), Waiting: t.waiting(), Budget: t.candidate().Config.Budget, Users: t.candidate().Config.BudgetUsers,
		Evidence: r.Evidence, Back: r.Back, Reason: r.Reason, Began: r.Began,
	}
	if e := t.obs.Evidence; e != nil && e.Trial == r.ID {
		evidence := *e
		o.Evidence = &evidence
	}
	switch {
	case t.st.Phase == spillway.Promoting:
		o.Left = max(0, t.candidate().Config.Watch-r.Elapsed-t.dt)
	case t.st.Phase == spillway.Progressing && r.Acked:
		o.Left = max(0, t.step().Hold-r.Held-t.dt)
	}
	return o
}

// served is the part of the users whom the rollout is about (stable's, or its track's) that the data plane gives to
// its candidate; the greatest on a public edge.
func (t *turn) served(r *Rollout) spillway.Share {
	part := spillway.Share(0)
	if r.Evidence != nil && r.Evidence.Tripped {
		return part
	}
	for _, e := range t.obs.Served.Edges {
		if e.From.Release != 0 || e.Only != "" {
			continue
		}
		beside := slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return b.Track != "" })
		for _, b := range e.Backends {
			switch {
			case b.Release != r.Release || b.Track != r.Track || len(b.URLs) > 0:
			case r.Track != "":
				part = spillway.Whole
			case beside:
				part = max(part, b.Within)
			default:
				part = max(part, b.Weight)
			}
		}
	}
	return part
}

// waiting says what has to happen before the rollout goes on.
func (t *turn) waiting() string {
	r := t.st.Rollout
	waits, _ := t.gateWaits()
	switch {
	case t.obs.NoData:
		if t.obs.Silence != "" {
			return "the gateway to say what it serves"
		}
		return "the proxy to answer"
	case t.st.Phase == spillway.RollingBack && !t.acked():
		return fmt.Sprintf("release %d to be out of the route everywhere", r.Release) + t.stuck()
	case t.st.Phase == spillway.RollingBack:
		return fmt.Sprintf("release %d to be put back", r.Stable)
	case t.st.Phase == spillway.Promoting && t.silent() != "":
		return "the candidate to serve: " + t.silent()
	case t.st.Phase == spillway.Promoting && waits != "" && r.Elapsed+t.dt >= t.candidate().Config.Watch:
		return waits + "; promote ends the watch"
	case t.st.Phase == spillway.Promoting:
		return fmt.Sprintf("the end of the watch, with release %d warm", r.Stable)
	case r.Paused && waits != "" && strings.HasPrefix(r.Reason, "gate "): // as it is now, not as it was
		return "a person: " + waits + "; promote or abort"
	case r.Paused:
		return "a person: " + r.Reason
	case len(t.wantedTasks()) > 0:
		return t.commandText(t.wantedTasks()[0], "")
	case !r.Routed:
		return joined([]string{t.missing(), t.ending()}) + t.stuck()
	case !t.acked():
		return fmt.Sprintf("%s to be served everywhere", t.shown()) + t.stuck()
	case r.Held < t.step().Hold && !r.Forced:
		return fmt.Sprintf("the hold at %s", t.shown())
	case waits != "":
		return waits
	case t.step().Certify && !t.certified():
		return "enough evidence to go on: " + t.evidenceText() + t.goOn()
	}
	return "the next step"
}

// goOn is the next step of a person where nobody asks the candidate, and so nothing but time comes of waiting.
func (t *turn) goOn() string {
	if e := t.st.Rollout.Evidence; e != nil && e.Verdict != spillway.NoTraffic {
		return ""
	}
	return "; promote goes on without requests"
}

// ending says which replicas of stable have to end before the step's others of the candidate begin; "" = none. What does not
// take requests any more is there until its last ones have ended.
func (t *turn) ending() string {
	if t.st.Rollout.Track != "" {
		return ""
	}
	var texts []string
	for _, s := range t.candidate().Config.Services {
		g, ok := t.stable().Group(s.Name)
		n := t.group(g).Draining
		waits := t.mayStart(s) && t.needsReady(s) && t.candidateSize(s) < t.capacity(s, t.step().Candidate)
		if !ok || n == 0 || !waits {
			continue
		}
		was, _ := t.spec.Releases[g.Release].Config.Service(s.Name)
		if was.Stop == (spillway.Stop{}) {
			was.Stop = spillway.DefaultStop()
		}
		texts = append(texts, fmt.Sprintf("for the rest %d %s of %s to end, which may take %s (its stop: drain %s, grace %s)",
			n, plural(n, "replica"), g, was.Stop.Drain+was.Stop.Grace, was.Stop.Drain, was.Stop.Grace))
	}
	return joined(texts)
}

// stuck adds why what was asked for is not in place.
func (t *turn) stuck() string {
	if t.obs.Stuck == "" {
		return ""
	}
	return ": " + t.obs.Stuck
}

func (t *turn) describeServices() []spillway.ServiceOverview {
	var services []spillway.ServiceOverview
	known := map[string]bool{}
	for _, release := range append([]spillway.Release{t.candidate()}, t.inUse()...) {
		for _, s := range release.Config.Services {
			if !known[s.Name] {
				known[s.Name] = true
				services = append(services, spillway.ServiceOverview{Name: s.Name, Hosts: slices.Concat(s.Host, s.Listen), Size: t.size(s), Groups: t.describeGroups(s.Name)})
			}
		}
	}
	slices.SortFunc(services, func(a, b spillway.ServiceOverview) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return services
}

// describeGroups lists the groups of a service that run or should, stable before candidate.
func (t *turn) describeGroups(service string) []spillway.GroupOverview {
	wants := map[spillway.Group]int{}
	var groups []spillway.Group
	for _, w := range t.st.Wants {
		wants[w.Group] = w.Replicas
		groups = append(groups, w.Group)
	}
	for _, o := range t.obs.Groups {
		groups = append(groups, o.Group)
	}
	slices.SortFunc(groups, compareGroups)
	var list []spillway.GroupOverview
	for _, g := range slices.Compact(groups) {
		o := t.group(g)
		if g.Service != service || o.Running == 0 && wants[g] == 0 {
			continue
		}
		list = append(list, spillway.GroupOverview{
			Group: g, Role: t.role(g), Want: wants[g], Running: o.Running, Ready: o.Ready, InFlight: o.InFlight,
			Weight: t.weightOf(divided(t.obs.Served), g, nil), Problem: o.Problem,
		})
	}
	return list
}

// divided is a route without the ways that lead to one track or to the dark colour only, with weights as they are.
func divided(route spillway.Route) spillway.Route {
	route = cloneRoute(route)
	all := slices.Clone(route.Edges)
	route.Edges = slices.DeleteFunc(route.Edges, func(e spillway.Edge) bool { return e.Only != "" || besides(all, e) })
	for _, e := range route.Edges {
		for i := range e.Backends {
			e.Backends[i].Track = "" // see weightOf
		}
	}
	return route
}

func (t *turn) role(g spillway.Group) string {
	has := func(release spillway.Release) bool { return release.Groups[g.Service] == g.Release }
	stable, candidate := has(t.stable()), has(t.candidate())
	switch {
	case stable && candidate:
		return "both"
	case stable:
		return "stable"
	case candidate:
		return "candidate"
	}
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		if has(t.spec.Releases[t.st.Lanes[track].Release]) {
			return "track " + track
		}
	}
	if t.st.Standby != nil && has(t.spec.Releases[t.st.Standby.Release]) {
		return "standby"
	}
	return "leaving"
}

// CannotStart begins Group.Problem when the platform could not even make a process: what such a replica wrote is
// not the place to look at.
const CannotStart = "cannot start: "

// whereToLook is the next step about a group with a problem.
func (t *turn) whereToLook(o Group) string {
	if o.Told {
		return ""
	}
	if strings.HasPrefix(o.Problem, CannotStart) {
		return "; look at: spillway doctor"
	}
	return fmt.Sprintf("; look at: spillway logs -a %s --service %s", t.spec.App, o.Group.Service)
}

// starting reports whether a group of the candidate has only just been started: that is no problem yet.
func (t *turn) starting(o Group) bool {
	const young = spillway.Duration(10 * time.Second)
	r := t.st.Rollout
	return r != nil && r.Elapsed+t.dt < young && o.Crashes == 0 && o.Restarts == 0 && !o.Fatal && slices.Contains(t.candidateGroups(), o.Group)
}

// problems are what a person should know, each with the next step.
func (t *turn) problems() []string {
	var problems []string
	if t.obs.NoData {
		problems = append(problems, cmp.Or(t.obs.Silence, "the proxy does not answer: the counts are those last seen, and nothing is stopped or judged; look at: spillway doctor"))
	}
	for _, o := range t.obs.Groups {
		if o.Problem != "" && o.Ready < o.Running-o.Draining && !t.starting(o) {
			problems = append(problems, fmt.Sprintf("%s: %s%s", o.Group, o.Problem, t.whereToLook(o)))
		}
	}
	if t.obs.Stuck != "" {
		problems = append(problems, "what was decided is not in place: "+t.obs.Stuck)
	}
	if why := t.plainProblem(); why != "" {
		problems = append(problems, why)
	}
	for _, what := range slices.Sorted(maps.Keys(t.obs.Dead)) {
		if why := t.obs.Dead[what]; strings.Contains(what, "://") {
			problems = append(problems, fmt.Sprintf("%s is a black hole: %s; requests for it fail until it answers or the file names another", what, why))
		} else { // a certificate, or an address of a private edge
			problems = append(problems, fmt.Sprintf("%s: %s", what, why))
		}
	}
	for _, o := range t.obs.Groups {
		if o.Scaling != "" {
			problems = append(problems, fmt.Sprintf("%s: %s", o.Group, o.Scaling))
		}
	}
	for _, s := range t.stable().Config.Services {
		if n, ok := t.st.Sizes[s.Name]; ok && s.Max > 0 && n >= s.Max {
			problems = append(problems, fmt.Sprintf("%s is at its maximum of %d replicas (max size reached); raise max in scale of %s", s.Name, s.Max, s.Name))
		}
	}
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		if why := t.laneProblem(track); why != "" {
			problems = append(problems, why)
		}
	}
	if t.st.Stable == 0 && t.st.Last != nil && t.st.Rollout == nil && !t.st.Destroy {
		problems = append(problems, "nothing serves: "+ended(t.st.Last.Release, t.st.Last.Track, t.st.Last.Outcome, t.st.Last.Reason))
	}
	return problems
}
