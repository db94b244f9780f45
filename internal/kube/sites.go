package kube

import (
	"slices"

	"github.com/spillway-dev/spillway"
)

// site is hosts at which users find the same: it becomes an HTTPRoute. Each rule of an HTTPRoute counts for all of its
// hosts, so hosts with other rules have one of their own.
type site struct {
	edge  spillway.Edge // as the route has it, with all of its hosts; of hosts that only rules name, without a service
	hosts []string      // at least one, and no more than an HTTPRoute has room for
	rules []int         // those of the route that name the hosts, by their places in it
}

// sites are all of a route: those of its edges in their order, then those of hosts that only rules name. No host is of
// two; one that two edges have is the last one's, as on one machine.
func sites(route spillway.Route) (all []site) {
	owner := map[string]int{}
	for i, e := range route.Edges {
		if e.From == (spillway.Group{}) {
			for _, host := range e.Hosts {
				owner[host] = i
			}
		}
	}
	for i, e := range route.Edges {
		if e.From != (spillway.Group{}) {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(e.Hosts), func(host string) bool { return owner[host] != i })
		all = append(all, divide(e, own, route.Rules)...)
	}
	known := map[string]bool{}
	for host := range owner {
		known[host] = true
	}
	for _, s := range divide(spillway.Edge{}, ruleHosts(route.Rules, known), route.Rules) {
		s.edge.Hosts = s.hosts
		all = append(all, s)
	}
	return all
}

// divide puts those hosts together for which the same rules count.
func divide(e spillway.Edge, hosts []string, rules []spillway.HTTPRule) (all []site) {
	for _, host := range hosts {
		var own []int
		for i, rule := range rules {
			if slices.Contains(rule.Hosts, host) {
				own = append(own, i)
			}
		}
		i := slices.IndexFunc(all, func(s site) bool { return len(s.hosts) < mostHosts && slices.Equal(s.rules, own) })
		if i < 0 {
			i, all = len(all), append(all, site{edge: e, rules: own})
		}
		all[i].hosts = append(all[i].hosts, host)
	}
	return all
}

// ruleHosts are the hosts that rules name and nobody else has, in the order of the rules.
func ruleHosts(rules []spillway.HTTPRule, known map[string]bool) (hosts []string) {
	for _, rule := range rules {
		for _, host := range rule.Hosts {
			if !known[host] && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}
