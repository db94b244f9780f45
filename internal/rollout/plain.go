package rollout

import (
	"fmt"
	"strings"

	"github.com/spillway-dev/spillway"
)

// byReplicas is what a data plane without weights (Observation.Plain) gives a candidate that has some replicas ready
// beside those of stable. Worked example: asked for 5 % with 1 replica of each, it is 50 %. Nothing and everything are
// given exactly.
func byReplicas(asked spillway.Share, candidate, stable int) spillway.Share {
	if asked <= 0 || asked >= spillway.Whole || candidate+stable == 0 {
		return asked
	}
	return spillway.Share(int(spillway.Whole) * candidate / (candidate + stable))
}

// plainShare says what a step really gives the candidate where users are divided by replicas; "" = what was asked.
func (t *turn) plainShare() string {
	if t.obs.Plain == "" {
		return ""
	}
	most, step := spillway.Share(0), t.step()
	for _, s := range Changed(t.stable(), t.candidate()) {
		if old, ok := t.stable().Group(s.Name); ok && s.Public() {
			new, _ := t.candidate().Group(s.Name)
			most = max(most, byReplicas(step.Weight, t.ready(new), t.ready(old)))
		}
	}
	if most == step.Weight || most == 0 {
		return ""
	}
	return fmt.Sprintf(", which is %s of the users by replicas", most)
}

// plainProblem says that users are divided otherwise than asked; "" = they are not.
func (t *turn) plainProblem() string {
	r := t.st.Rollout
	if t.obs.Plain == "" || r == nil || r.Track != "" || !t.acked() || t.st.Phase == spillway.RollingBack {
		return ""
	}
	asked, served := t.shown(), t.served(r)
	if asked == served || asked == 0 {
		return ""
	}
	return fmt.Sprintf("asked %s, served %s: %s; more replicas make smaller shares", asked, served, t.obs.Plain)
}

// plainStep is the largest share that a step of a plan gives the candidate where users are divided by replicas.
func plainStep(stable spillway.Release, step Step, changed []spillway.Service, sizes map[string]int) spillway.Share {
	most, public := spillway.Share(0), false
	for _, s := range changed {
		if old, ok := stable.Config.Service(s.Name); ok && s.Public() {
			stays := max(1, step.Stable.Of(sizeOf(old, sizes)))
			most, public = max(most, byReplicas(step.Weight, step.Candidate.Of(sizeOf(s, sizes)), stays)), true
		}
	}
	if !public {
		return step.Weight
	}
	return most
}

// plainSteps says in the steps of a plan what each of them gives users where they are divided by replicas, and who
// judges where nobody counts answers.
func plainSteps(stable spillway.Release, list []spillway.PlanStep, steps []Step, changed []spillway.Service, sizes map[string]int) {
	for i, step := range steps {
		if share := plainStep(stable, step, changed, sizes); share != step.Weight {
			list[i].Served = share
		}
		if before, _, certifies := strings.Cut(list[i].Text, "then certified:"); step.Certify && certifies {
			list[i].Text = before + "then a person judges, because nobody counts answers"
		}
	}
}

// plainWorst is worst where nobody counts answers: there is no limit but how many users the candidate has.
func plainWorst(stable spillway.Release, p spillway.Plan, to spillway.App, changed []spillway.Service, steps []Step, sizes map[string]int) string {
	if len(p.Changes) == 0 || p.From == 0 || len(changed) == 0 || p.Gap {
		return worst(p, to, len(changed), steps, Present{})
	}
	first := spillway.Whole
	for _, s := range steps {
		if s.Weight > 0 {
			first = plainStep(stable, s, changed, sizes)
			break
		}
	}
	return fmt.Sprintf("if release %d is ready and fails every request, those of %s of the users fail at first, until a person aborts: without a gateway nobody counts answers", p.Release, first)
}
