package counts

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// pair is the candidate and what it is compared with, of one public service.
type pair struct {
	service   string
	candidate []Service
	baseline  []Service
	weight    spillway.Share // as judge.Batch.Weight
	crowded   bool           // other backends are behind the edge too: those of a track
	dealt     judge.Tally    // Requests of both since trial.since; Failures are the candidate's requests among them
}

// dealing is how requests are dealt, without what was counted.
func dealing(pairs []pair) []pair {
	plain := slices.Clone(pairs)
	for i := range plain {
		plain[i].dealt = judge.Tally{}
	}
	return plain
}

// pairsOf finds what is compared at the public edges of a route, by the rule of Spillway's own proxy: the
// groups of the candidate with those of the stable release, weights of others left out. Hosts that always lead to
// one track deal nothing at random; what they count is counted.
func pairsOf(r Route) ([]pair, error) {
	trial := r.Route.Trial
	byService := map[string]*pair{}
	for _, e := range r.Route.Edges {
		if e.From != (spillway.Group{}) || e.Protocol == spillway.TCP {
			continue
		}
		p := byService[e.Service]
		if p == nil {
			p = &pair{service: e.Service}
			byService[e.Service] = p
		}
		var candidate, baseline spillway.Share
		for _, b := range e.Backends {
			tried := slices.Contains(trial.Candidate, b.Group)
			compared := !tried && len(b.URLs) == 0 && b.Track == "" && b.Release == trial.Stable
			if !tried && !compared {
				p.crowded = true
				continue
			}
			name := b.Name(e.Service)
			s, ok := r.Services[name]
			switch {
			case !ok:
				return nil, fmt.Errorf("no Service is known for %s: %w", name, spillway.ErrInvalid)
			case tried:
				candidate += b.Weight
				p.candidate = include(p.candidate, s)
			default:
				baseline += b.Weight
				p.baseline = include(p.baseline, s)
			}
		}
		if e.Only == "" && candidate > 0 {
			p.weight = (candidate*spillway.Whole + candidate + baseline - 1) / (candidate + baseline)
		}
	}
	var pairs []pair
	for _, service := range slices.Sorted(maps.Keys(byService)) {
		if p := byService[service]; len(p.candidate) > 0 {
			pairs = append(pairs, *p)
		}
	}
	return pairs, nil
}

// divides reports whether a route has a public edge of a service that the candidate has another group of: to which it
// will lead, or did.
func divides(r spillway.Route) bool {
	return slices.ContainsFunc(r.Edges, func(e spillway.Edge) bool {
		return e.From == (spillway.Group{}) && e.Protocol != spillway.TCP &&
			slices.ContainsFunc(r.Trial.Candidate, func(g spillway.Group) bool { return g.Service == e.Service })
	})
}

// include adds a Service that is not in the list.
func include(list []Service, s Service) []Service {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// arm is one side of a pair.
type arm struct {
	pair      int
	candidate bool
}

// arms finds the side that a name of a Service belongs to.
func (t *trial) arms() map[string]arm {
	arms := map[string]arm{}
	for i, p := range t.pairs {
		for _, s := range p.candidate {
			for _, n := range t.flavour.names(s) {
				arms[n] = arm{i, true}
			}
		}
		for _, s := range p.baseline {
			for _, n := range t.flavour.names(s) {
				arms[n] = arm{i, false}
			}
		}
	}
	return arms
}
