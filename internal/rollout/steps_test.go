package rollout_test

import (
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// release makes a release of services; those in changed get its number as their group, the others group 1.
func release(number int, changed []string, services ...spillway.Service) spillway.Release {
	r := spillway.Release{App: "shop", Number: number, Groups: map[string]int{}, Artefacts: map[string]spillway.Artefact{}}
	r.Config = spillway.App{Name: "shop", Services: services, Budget: spillway.DefaultBudget, Watch: spillway.DefaultWatch}
	for _, s := range services {
		r.Groups[s.Name] = 1
		r.Artefacts[s.Name] = spillway.Artefact{Source: "one"}
	}
	for _, name := range changed {
		r.Groups[name] = number
	}
	return r
}

func web(strategy spillway.Strategy, scale int) spillway.Service {
	return spillway.Service{Name: "www", Host: []string{"shop.test"}, Scale: scale, Strategy: strategy, Surge: spillway.Count{Share: spillway.Percent(25)}}
}

func tier(strategy spillway.Strategy, scale int) spillway.Service {
	s := web(strategy, scale)
	s.Name, s.Host = "backend", nil
	return s
}

func weights(steps []rollout.Step) []spillway.Share {
	var w []spillway.Share
	for _, s := range steps {
		w = append(w, s.Weight)
	}
	return w
}

func TestCompile_ThePublicAndMostCarefulServiceLeads(t *testing.T) {
	steps := []spillway.StepSpec{{Weight: spillway.Percent(5)}, {Pause: true}, {Weight: spillway.Percent(50), Hold: spillway.Duration(time.Minute)}}
	canary := web(spillway.Canary, 4)
	canary.Steps = steps
	private := tier(spillway.Canary, 4)
	private.Steps = steps
	tests := []struct {
		name     string
		changed  []string
		services []spillway.Service
		override spillway.Strategy
		want     spillway.Strategy
		weights  []spillway.Share
	}{
		{"canary", []string{"www"}, []spillway.Service{canary}, "", spillway.Canary, []spillway.Share{500, 5000, 10000}},
		{"blue-green", []string{"www"}, []spillway.Service{web(spillway.BlueGreen, 4)}, "", spillway.BlueGreen, []spillway.Share{10000}},
		{"recreate", []string{"www"}, []spillway.Service{web(spillway.Recreate, 4)}, "", spillway.Recreate, []spillway.Share{10000}},
		{"rolling of 4, surge 1", []string{"www"}, []spillway.Service{web(spillway.Rolling, 4)}, "", spillway.Rolling, []spillway.Share{2500, 5000, 7500, 10000}},
		{"rolling of 5, surge 2", []string{"www"}, []spillway.Service{web(spillway.Rolling, 5)}, "", spillway.Rolling, []spillway.Share{4000, 8000, 10000}},
		{"public before private", []string{"www", "backend"}, []spillway.Service{private, web(spillway.BlueGreen, 2)}, "", spillway.BlueGreen, []spillway.Share{10000}},
		{"only the private one changed", []string{"backend"}, []spillway.Service{private, web(spillway.BlueGreen, 2)}, "", spillway.Canary, []spillway.Share{500, 5000, 10000}},
		{"asked for on the command line", []string{"www"}, []spillway.Service{canary}, spillway.BlueGreen, spillway.BlueGreen, []spillway.Share{10000}},
		{"nothing is replaced", nil, []spillway.Service{canary}, "", spillway.Rolling, []spillway.Share{10000}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from, to := release(1, nil, tt.services...), release(2, tt.changed, tt.services...)
			got, steps := rollout.Compile(from, to, tt.override, nil)
			if got != tt.want || !reflect.DeepEqual(weights(steps), tt.weights) {
				t.Errorf("%s %v, want %s %v", got, weights(steps), tt.want, tt.weights)
			}
		})
	}
}

func TestCompile_TheFirstDeployHasOneStep(t *testing.T) {
	_, steps := rollout.Compile(spillway.Release{}, release(1, nil, web(spillway.Canary, 3)), "", nil)
	if len(steps) != 1 || steps[0].Weight != spillway.Whole {
		t.Errorf("steps %+v, want one to 100 %%", steps)
	}
}

func TestCompile_APauseBelongsToTheStepBeforeIt(t *testing.T) {
	s := web(spillway.Canary, 2)
	s.Steps = []spillway.StepSpec{{Pause: true}, {Weight: spillway.Percent(20)}, {Pause: true}}
	_, steps := rollout.Compile(release(1, nil, s), release(2, []string{"www"}, s), "", nil)
	if !reflect.DeepEqual(weights(steps), []spillway.Share{0, 2000, 10000}) || !steps[0].Manual || !steps[1].Manual || steps[2].Manual {
		t.Errorf("steps %+v", steps)
	}
}

// A rolling rollout of any size, surge and unavailable rises to the whole, never has more than size + surge
// replicas (+1 where surge and unavailable come to 0, or for a service that may not lose its only one), and
// always keeps what the weight on stable needs, less what may be unavailable.
func TestCompile_RollingKeepsWithinSurgeAndUnavailable(t *testing.T) {
	check := func(a, b, c uint8) bool {
		size, surge, gone := 1+int(a)%40, int(b)%12, int(c)%6
		s := web(spillway.Rolling, size)
		s.Surge, s.Unavailable = spillway.Count{N: surge}, spillway.Count{N: gone}
		_, steps := rollout.Compile(release(1, nil, s), release(2, []string{"www"}, s), "", nil)
		before := spillway.Share(0)
		for i, step := range steps {
			candidate, stable := step.Candidate.Of(size), max(1, step.Stable.Of(size))
			need := (spillway.Whole - before - 1).Of(size) - min(gone, size)
			if step.Weight <= before || stable < need || candidate+stable > size+max(surge, 1) {
				t.Logf("size %d surge %d unavailable %d step %d of %+v: candidate %d, stable %d, needs %d", size, surge, gone, i, steps, candidate, stable, need)
				return false
			}
			before = step.Weight
		}
		return before == spillway.Whole && steps[len(steps)-1].Candidate.Of(size) == size
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
}
