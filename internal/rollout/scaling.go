package rollout

import (
	"maps"

	"github.com/spillway-dev/spillway"
)

// Scaling is what an autoscaler may do with the replicas of a group. The zero value: there is none, and
// Want.Replicas is what runs. With one, Want.Replicas is what it begins with; after that the platform never writes
// the number: it is the autoscaler's.
type Scaling struct {
	Min     int              `json:"min,omitempty"` // >= 1
	Max     int              `json:"max,omitempty"` // >= Min; 0 = there is no autoscaler
	Targets spillway.Targets `json:"targets,omitzero"`
	Frozen  bool             `json:"frozen,omitempty"` // it may add replicas and take none away
}

// size is how many replicas a service should have: what its autoscaler chose, else what scale did, else what its
// release says. What scale chose is the least that an autoscaler may choose.
func (t *turn) size(s spillway.Service) int {
	n := sizeOf(s, t.st.Sizes)
	if !s.Autoscaled() {
		return n
	}
	return max(n, min(t.st.Chosen[s.Name], s.Max))
}

// sizes are the sizes of the services of a release that were chosen by somebody.
func (t *turn) sizes(release spillway.Release) map[string]int {
	sizes := maps.Clone(t.st.Sizes)
	if sizes == nil {
		sizes = map[string]int{}
	}
	for _, s := range release.Config.Services {
		if s.Autoscaled() {
			sizes[s.Name] = t.size(s)
		}
	}
	return sizes
}

// follow remembers what autoscalers chose. While a rollout runs that does not fall: its capacity is measured by it,
// and nothing is taken away anyhow. A service that gets its first autoscaler begins with the size that it has.
func (t *turn) follow() {
	chosen := map[string]int{}
	for _, release := range []spillway.Release{t.stable(), t.candidate()} {
		for _, s := range release.Config.Services {
			if n := t.observedSize(s.Name); s.Autoscaled() && n > 0 {
				chosen[s.Name] = n
			}
		}
	}
	t.st.Chosen = nil
	if len(chosen) > 0 {
		t.st.Chosen = chosen
	}
}

// observedSize is the number of replicas that the users of a service have by its autoscaler, or by its fixed size
// when it has none; as it was when nobody can say, and 0 when nobody ever could.
func (t *turn) observedSize(service string) int {
	before := t.st.Chosen[service]
	g, ok := t.stable().Group(service)
	s, _ := t.stable().Config.Service(service)
	seen := t.group(g).Chosen
	if ok && !s.Autoscaled() {
		seen = sizeOf(s, t.st.Sizes)
	}
	if t.st.Rollout == nil {
		if seen == 0 {
			return before
		}
		return seen
	}
	if g, ok := t.incoming().Group(service); ok {
		seen = max(seen, t.group(g).Chosen)
	}
	return max(before, seen)
}

// scaling is the autoscaler of a service whose group has its users. While a rollout runs it takes nothing away, and
// begins with what was chosen: neither fewer users of stable nor none in the watch make the way back narrower.
func (t *turn) scaling(s spillway.Service) Scaling {
	if !s.Autoscaled() {
		return Scaling{}
	}
	scaling := Scaling{Min: sizeOf(s, t.st.Sizes), Max: s.Max, Targets: s.Targets}
	if t.st.Rollout != nil {
		scaling.Min, scaling.Frozen = t.size(s), true
	}
	return scaling
}

// stableScaling is the autoscaler of stable's group: none while its replicas give way to the candidate's.
func (t *turn) stableScaling(s spillway.Service) Scaling {
	if t.stableSize(s) < t.size(s) {
		return Scaling{}
	}
	return t.scaling(s)
}

// candidateScaling is the autoscaler of a candidate's own group: none before it has all users, because its load is
// not its last one, and none as long as a track has replicas of the same group.
func (t *turn) candidateScaling(s spillway.Service) Scaling {
	old, _ := t.stable().Group(s.Name)
	g, _ := t.incoming().Group(s.Name)
	if t.st.Phase != spillway.Promoting || old == g || t.lanePart(g) > 0 {
		return Scaling{}
	}
	return t.scaling(s)
}
