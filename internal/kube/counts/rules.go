package counts

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// The kinds of batches.
const (
	dealt  = iota // by the weight of the pair
	moved         // by a weight, which was another for a part of the batch, or there is nothing to compare with
	chosen        // by a header: the rule leads to one side only
	kinds
)

// kind is that of a batch of a rule. steady: the weight was the same all the time.
func (t *trial) kind(u *rule, candidate judge.Tally, steady bool) int {
	both := t.behind(u) && (len(u.candidate) > 0 || candidate.Requests > 0)
	switch {
	case t.pairs[u.pair].weight == spillway.Whole || both && !steady:
		return moved
	case both && t.pairs[u.pair].weight > 0:
		return dealt
	}
	return chosen
}

// rule is one rule of the gateway with the clusters of a pair behind it that have been seen. A rule that has
// both sides deals requests to them; behind one that has the candidate alone, it was chosen.
type rule struct {
	name                string
	pair                int
	candidate, baseline []string
	all                 []string // those that are no side of a pair too
}

// rules finds the rules behind which the clusters are, each with its pair.
func (t *trial) rules(counters map[string]judge.Tally, arms map[string]arm) map[string]*rule {
	found := map[string]*rule{}
	for cluster := range counters {
		for _, form := range t.flavour.forms(cluster) {
			a, ok := arms[form.name]
			if !ok {
				continue
			}
			if t.own(form.rule) {
				break
			}
			key := fmt.Sprint(form.rule, " ", a.pair)
			if found[key] == nil {
				found[key] = &rule{name: form.rule, pair: a.pair}
			}
			if a.candidate {
				found[key].candidate = append(found[key].candidate, cluster)
			} else {
				found[key].baseline = append(found[key].baseline, cluster)
			}
			break
		}
	}
	for cluster := range counters {
		for _, u := range found {
			if slices.ContainsFunc(t.flavour.forms(cluster), func(f form) bool { return f.rule == u.name && f.name != cluster }) {
				u.all = append(u.all, cluster)
			}
		}
	}
	return found
}

// sum adds the tallies of clusters.
func sum(tallies map[string]judge.Tally, clusters []string) (s judge.Tally) {
	for _, c := range clusters {
		s = s.Plus(tallies[c])
	}
	return s
}

// missing are the failures of a rule that no backend of it has.
type missing struct {
	sum, last int64 // now, and at the reading before
	told      int64 // of these, given to a side or to nobody
	waited    int64 // of those that are not told, how many met a time in which nobody answered
}

// loose gives the failures of a rule that no backend got to the side that stands still while the other answers:
// it has no endpoints. If both answer they are nobody's, and if both stand still they wait. A rule and its backends
// are not counted in the same moment, so only those count that were missing at the reading before as well. When
// they are more than the candidate's share, it is not the candidate that is missing, or not alone.
func (t *trial) loose(instance string, u *rule, grown map[string]judge.Tally, candidate, stable *judge.Tally) {
	key := instance + " " + u.name
	m := t.missing[key]
	m.sum += grown[u.name].Failures - sum(grown, u.all).Failures
	n := min(m.sum, m.last) - m.told
	m.last = m.sum
	weight := t.pairs[u.pair].weight
	alone := weight == spillway.Whole || t.alone(u)
	switch {
	case n <= 0:
	case !alone && candidate.Requests+stable.Requests == 0:
		m.waited = n
	default:
		lost := n
		switch waited := min(m.waited, n); {
		case candidate.Requests > 0 && stable.Requests == 0 && t.behind(u):
			*stable = stable.Plus(judge.Tally{Requests: n, Failures: n})
			lost = 0
		case candidate.Requests > 0:
			lost = 0
		case !alone:
			lost = plausible(waited, waited, weight) + plausible(n-waited, n-waited+stable.Requests, weight)
		}
		*candidate = candidate.Plus(judge.Tally{Requests: lost, Failures: lost})
		m.told, m.waited = m.told+n, 0
	}
	t.missing[key] = m
}

// plausible gives n failures back if that many of all requests are the candidate's by chance, and else 0. Three in a row
// are proof of harm at a low weight, and just as unlikely to be the candidate's alone: then stable was away too.
func plausible(n, all int64, weight spillway.Share) int64 {
	const rare = 0.05
	w := float64(weight) / float64(spillway.Whole)
	mean := float64(all) * w
	switch {
	case n <= 1 || w >= 1:
		return n
	case mean > 100:
		if float64(n) > mean+1.645*math.Sqrt(mean*(1-w)) {
			return 0
		}
		return n
	}
	fewer, term := 0.0, math.Pow(1-w, float64(all)) // the chance of less than n, and of exactly k
	for k := range n {
		fewer += term
		term *= float64(all-k) / float64(k+1) * w / (1 - w)
	}
	if 1-fewer < rare {
		return 0
	}
	return n
}

// behind reports whether stable is behind a rule, as far as that has ever been seen: the gateway forgets what a Service
// has counted when it is deleted.
func (t *trial) behind(u *rule) bool { return t.shared[t.pairs[u.pair].service][u.name] }

// alone reports whether a rule leads to the candidate alone. That it has been seen there alone does not say so before
// stable was seen somewhere.
func (t *trial) alone(u *rule) bool {
	return !t.behind(u) && len(t.shared[t.pairs[u.pair].service]) > 0
}

// share remembers the rules that stable is behind.
func (t *trial) share(rules map[string]*rule) {
	for _, u := range rules {
		service := t.pairs[u.pair].service
		if len(u.baseline) == 0 {
			continue
		}
		if t.shared[service] == nil {
			t.shared[service] = map[string]bool{}
		}
		t.shared[service][u.name] = true
	}
}

// own reports whether a rule is one by which the server itself asks for a replica: nobody else does.
func (t *trial) own(rule string) bool {
	return t.flavour == Traefik && slices.ContainsFunc(t.services, func(s Service) bool {
		return s.Asked != "" && strings.HasPrefix(rule, "httproute-"+s.Namespace+"-"+s.Asked+"-gw-")
	})
}

// excessive reports whether so many of all requests are more than chance gives the candidate at a weight.
func excessive(got, all int64, weight spillway.Share) bool {
	n, w := float64(all), float64(weight)/float64(spillway.Whole)
	return float64(got) > n*w+4*math.Sqrt(n*w*(1-w))+3
}

// odds is the weight with which a batch is compared: the one that was asked for, unless the candidate gets
// more than chance makes of it. Then others reach it too, by a header or at a part of the gateway that still
// serves an older route, and the share that it has is what an error hits it with if it is no worse.
func (p *pair) odds(b judge.Batch) spillway.Share {
	p.dealt.Requests += b.Candidate.Requests + b.Stable.Requests
	p.dealt.Failures += b.Candidate.Requests
	if p.weight == 0 || p.weight >= spillway.Whole || p.dealt.Requests == 0 {
		return p.weight
	}
	if !excessive(p.dealt.Failures, p.dealt.Requests, p.weight) {
		return p.weight
	}
	share := math.Ceil(float64(p.dealt.Failures) / float64(p.dealt.Requests) * float64(spillway.Whole))
	return min(max(p.weight, spillway.Share(share)), spillway.Whole-1)
}
