package rollout

import (
	"cmp"
	"slices"

	"github.com/spillway-dev/spillway"
)

// Compile turns a move from one release to another into steps. override, when not empty, is used
// instead of the lead service's strategy. sizes are the replicas chosen by scale, by service.
//
// The lead is the changed service that users see: public before private, then the strategy that shows
// least to fewest users (canary, blue-green, rolling, recreate), then the name. Its steps are the steps
// of the whole release, because the tiers move together. A first deploy, and a release that changes no
// replica, has one step.
func Compile(from, to spillway.Release, override spillway.Strategy, sizes map[string]int) (spillway.Strategy, []Step) {
	changed := Changed(from, to)
	if len(changed) == 0 || from.Number == 0 {
		return cmp.Or(override, spillway.Rolling), []Step{whole}
	}
	lead := leadOf(changed)
	switch strategy := cmp.Or(override, lead.Strategy); strategy {
	case spillway.Canary:
		return strategy, canarySteps(lead.Steps)
	case spillway.BlueGreen, spillway.Recreate:
		return strategy, []Step{whole}
	default:
		return spillway.Rolling, rollingSteps(changed, sizes)
	}
}

// whole is the one step of a switch: everything ready, everything moved, the old kept warm.
var whole = Step{Weight: spillway.Whole, Candidate: spillway.Whole, Stable: spillway.Whole}

// Changed lists the services of to whose replicas from does not have, in the order of to.Config.
func Changed(from, to spillway.Release) []spillway.Service {
	var changed []spillway.Service
	for _, s := range to.Config.Services {
		g, _ := to.Group(s.Name)
		if old, ok := from.Group(s.Name); !ok || old != g {
			changed = append(changed, s)
		}
	}
	return changed
}

// Lead is the service whose strategy a rollout takes: of those that changed a public one before a private
// one, then the one that asks for the most care. False: none changed.
func Lead(from, to spillway.Release) (spillway.Service, bool) {
	changed := Changed(from, to)
	if len(changed) == 0 {
		return spillway.Service{}, false
	}
	return leadOf(changed), true
}

func leadOf(changed []spillway.Service) spillway.Service {
	care := map[spillway.Strategy]int{spillway.Canary: 0, spillway.BlueGreen: 1, spillway.Rolling: 2, spillway.Recreate: 3}
	hidden := func(s spillway.Service) int {
		if s.Public() {
			return 0
		}
		return 1
	}
	return slices.MinFunc(changed, func(a, b spillway.Service) int {
		return cmp.Or(cmp.Compare(hidden(a), hidden(b)), cmp.Compare(care[a.Strategy], care[b.Strategy]), cmp.Compare(a.Name, b.Name))
	})
}

// canarySteps: the candidate has the capacity that its weight needs, stable keeps all of its own.
func canarySteps(specs []spillway.StepSpec) []Step {
	if len(specs) == 0 {
		specs = spillway.DefaultSteps()
	}
	var steps []Step
	for _, spec := range specs {
		if !spec.Pause {
			steps = append(steps, Step{Weight: spec.Weight, Candidate: spec.Weight, Stable: spillway.Whole, Hold: spec.Hold, Certify: true})
			continue
		}
		if len(steps) == 0 { // a pause before any traffic: one replica, nobody on it
			steps = append(steps, Step{Candidate: 1, Stable: spillway.Whole})
		}
		steps[len(steps)-1].Manual = true
	}
	return append(steps, whole)
}

// rollingSteps: the weight follows the capacity, batch by batch. Of 5 replicas with a surge of 2: weights
// 40, 80, 100 %; the candidate has 2, 4, 5 replicas and stable 5, 3, 1, so there are never more than 7, and
// one replica of stable is still warm at the end. The service that needs the most batches sets the pace.
func rollingSteps(changed []spillway.Service, sizes map[string]int) []Step {
	size, batch, gone := 1, 1, 0
	for _, s := range changed {
		n := sizeOf(s, sizes)
		missing := min(s.Unavailable.Of(n), n)
		b := max(1, s.Surge.Of(n)+missing)
		if s.Strategy != spillway.Recreate && (n+b-1)/b >= (size+batch-1)/batch {
			size, batch, gone = n, b, missing
		}
	}
	var steps []Step
	for moved := 0; moved < size; moved += batch {
		weight := shareOf(min(moved+batch, size), size)
		steps = append(steps, Step{Weight: weight, Candidate: weight, Stable: shareOf(max(0, size-moved-gone), size)})
	}
	return steps
}

// shareOf is n of size as a share, rounded down, so that Share.Of(size) gives n back.
func shareOf(n, size int) spillway.Share {
	return spillway.Share(int(spillway.Whole) * n / size)
}

// sizeOf is how many replicas a service should have: what scale chose, else what its release says.
func sizeOf(s spillway.Service, sizes map[string]int) int {
	n, chosen := sizes[s.Name]
	switch {
	case !chosen:
		return s.Scale
	case s.Max > 0: // another release may have other bounds
		return min(max(n, s.Scale), s.Max)
	}
	return n
}

// marginFor is how much worse than stable a candidate may still be, in the certificate that lets it go on
// to weight next: 1 point of all requests, so 100 points / next, at most 50. Going on to 5 % asks for
// "not 20 points worse" (about 14 good answers), to 25 % for 4 points, to 100 % for 1 point (about 400).
func marginFor(next spillway.Share) spillway.Share {
	if next <= 0 {
		return spillway.Percent(50)
	}
	return min(spillway.Percent(50), spillway.Percent(1)*spillway.Whole/next)
}
