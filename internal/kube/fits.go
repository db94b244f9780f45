package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// Fits says what of an app's configuration a cluster cannot do with the gateway that there is, all at once, so that it
// is refused before anything is changed. nil = it can do all.
func Fits(config spillway.App, g Gateway) error {
	var all []error
	for _, s := range config.Services {
		if len(s.Listen) > 0 {
			all = append(all, fmt.Errorf("service %s: a public address of TCP (listen: %s) cannot be had by HTTPRoute; leave listen out here, and make a Service of type LoadBalancer of your own that selects %s=%s: %w",
				s.Name, strings.Join(s.Listen, ", "), ServiceLabel, s.Name, spillway.ErrInvalid))
		}
		for _, t := range s.Tracks {
			if err := serversFit(t.URLs); err != nil {
				all = append(all, fmt.Errorf("service %s: track %s: %w", s.Name, t.Name, err))
			}
		}
		if g.Name == "" {
			all = append(all, plainFit(s))
		}
	}
	for _, rule := range config.Routes {
		if what := beyondGateways(rule); what != "" {
			all = append(all, fmt.Errorf("routes: a rule of %s has %s, which a gateway cannot be told by HTTPRoute; take it out for this environment: %w", strings.Join(rule.Hosts, ", "), what, spillway.ErrInvalid))
		}
		if n := backendsOf(config, rule); n > mostBackends {
			all = append(all, fmt.Errorf("routes: a rule of %s leads to %d groups, with a candidate and tracks, and an HTTPRoute has room for %d of a rule; lead to fewer: %w", strings.Join(rule.Hosts, ", "), n, mostBackends, spillway.ErrInvalid))
		}
		for _, to := range rule.To {
			if err := serversFit(to.URLs); err != nil {
				all = append(all, fmt.Errorf("routes: a rule of %s: %w", strings.Join(rule.Hosts, ", "), err))
			}
		}
	}
	if g.Name != "" {
		all = append(all, rulesFit(config)...)
	}
	if g.Name == "" && len(config.Routes) > 0 {
		all = append(all, fmt.Errorf("routes: rules about requests need a gateway, and the server was told of none (%s); or keep such rules in an Ingress of your own: %w", toldGateway, spillway.ErrInvalid))
	}
	return errors.Join(all...)
}

const (
	mostRules = 16 // of an HTTPRoute, which the API server takes
	ownRules  = 2  // of them: the one by which the gateway is asked what it serves, and that of all other requests
	mostHosts = 16 // of an HTTPRoute

	mostBackends = 16 // of a rule
)

// backendsOf is how many backends a rule may have.
func backendsOf(config spillway.App, rule spillway.HTTPRule) (n int) {
	for _, to := range rule.To {
		switch s, _ := config.Service(to.Service); {
		case len(to.URLs) > 0:
			n++
		case to.Track == "":
			n += 2 + len(s.Tracks)
		default:
			n += 2
		}
	}
	return n
}

// rulesFit checks that the rules of each public host find room in its HTTPRoute, and count there as on one machine. An API
// server would refuse the route when the rest of a release is there already.
func rulesFit(config spillway.App) (all []error) {
	known := map[string]bool{}
	fits := func(where string, hosts []string, tracks []spillway.Match) {
		for _, s := range divide(spillway.Edge{}, hosts, config.Routes) {
			if err := siteFits(config, s, tracks); err != nil {
				all = append(all, fmt.Errorf("%s: %s %w", where, strings.Join(s.hosts, ", "), err))
			}
		}
		for _, host := range hosts {
			known[host] = true
		}
	}
	for _, s := range config.Services {
		for _, t := range s.Tracks {
			fits("service "+s.Name, t.Host, nil) // these have a route of their own
		}
		if s.Standby != nil {
			fits("service "+s.Name, s.Standby.Host, nil)
		}
		fits("service "+s.Name, s.Host, matchesTo(config, s.Name))
	}
	alone := ruleHosts(config.Routes, known)
	fits("routes", alone, nil)
	for _, host := range alone {
		if by := wildcardOver(host, config.Hosts()); by != "" && !slices.ContainsFunc(config.Routes, func(rule spillway.HTTPRule) bool { return slices.Contains(rule.Hosts, host) && takesAll(rule) }) {
			all = append(all, fmt.Errorf("routes: what no rule of %s takes would go on to %s, which not every gateway does; add a rule for all paths of %s that says where the rest goes: %w", host, by, host, spillway.ErrInvalid))
		}
	}
	return all
}

// matchesTo are the matches of the tracks of a service.
func matchesTo(config spillway.App, service string) (all []spillway.Match) {
	s, _ := config.Service(service)
	for _, t := range s.Tracks {
		all = append(all, t.Match...)
	}
	return all
}

// matchesBehind are the matches of tracks behind the targets of a rule; mixed: these have different ones.
func matchesBehind(config spillway.App, rule spillway.HTTPRule) (all []spillway.Match, mixed bool) {
	for _, to := range rule.To {
		if to.Track != "" || len(to.URLs) > 0 {
			continue
		}
		own := matchesTo(config, to.Service)
		mixed = mixed || len(all) > 0 && len(own) > 0 && !slices.Equal(all, own)
		for _, by := range own {
			if !slices.Contains(all, by) {
				all = append(all, by)
			}
		}
	}
	return all, mixed
}

// siteFits checks the rules of hosts of a service whose tracks have these matches.
func siteFits(config spillway.App, s site, tracks []spillway.Match) error {
	told := variants(config.Routes, s.rules, func(rule spillway.HTTPRule) []spillway.Match {
		all, _ := matchesBehind(config, rule)
		return all
	})
	if !hides(told) {
		for _, by := range tracks {
			told = append(told, with(spillway.HTTPRule{Hosts: s.hosts}, -1, by))
		}
	}
	n, more := 0, 0
	for _, v := range told {
		each := 1
		if replacesPrefix(v.HTTPRule) {
			each = max(len(v.Methods), 1)
		}
		if v.by == nil {
			n += each
		} else {
			more += each
		}
		if what := twice(v.HTTPRule); what != "" {
			return fmt.Errorf("has a rule with two matches of the %s, counting those of tracks, of which an HTTPRoute takes one (%s): %w", what, v, spillway.ErrInvalid)
		}
		if i := slices.IndexFunc(v.Cookies, func(f spillway.FieldMatch) bool { return f.Kind == "pattern" && parsed(f.Text).anchored() }); i >= 0 {
			return fmt.Errorf("has a rule whose pattern of the cookie %s asks for a beginning or an end within it, and a gateway sees all cookies as one text (%s); write ^ first and $ last: %w", v.Cookies[i].Name, v, spillway.ErrInvalid)
		}
		if _, mixed := matchesBehind(config, v.HTTPRule); mixed {
			return fmt.Errorf("has a rule whose targets have tracks with different matches, and an HTTPRoute obeys one of them (%s); give them the same, or lead to SERVICE@stable and SERVICE@TRACK: %w", v, spillway.ErrInvalid)
		}
	}
	if room := mostRules - ownRules; n+more > room {
		return fmt.Errorf("has %d rules of routes and %d matches of tracks with them, and an HTTPRoute has room for %d in all; make one of several (a prefix or pattern of paths, a list of methods), or give some of them a host of their own: %w",
			n, more, room, spillway.ErrInvalid)
	}
	if v, w, found := unsettled(told); found {
		return fmt.Errorf("has a pattern of paths and another rule that may take the same ones, of which each gateway has another one count (%s; %s); write a prefix instead, begin the pattern with ^ and another path, or give it a host of its own: %w", v, w, spillway.ErrInvalid)
	}
	if v, w, found := outweighed(told); found {
		return fmt.Errorf("has two rules of which the first counts on one machine, and at a gateway the one with more matches (%s; %s); give one of them another path or a method: %w", v, w, spillway.ErrInvalid)
	}
	return nil
}

// wildcardOver is one of the hosts that a host is below; "" = it is below none.
func wildcardOver(host string, hosts []string) string {
	for _, other := range hosts {
		if suffix, any := strings.CutPrefix(other, "*"); any && other != host && strings.HasSuffix(host, suffix) {
			return other
		}
	}
	return ""
}

// toldGateway is how a server is told of a gateway.
const toldGateway = "--gateway NAMESPACE/NAME"

// plainFit says what of a service cannot be had by a Service of Kubernetes alone.
func plainFit(s spillway.Service) error {
	switch {
	case len(s.Tracks) > 0:
		return fmt.Errorf("service %s: users are led to tracks (%s) by a gateway, and the server was told of none (%s): %w", s.Name, s.Tracks[0].Name, toldGateway, spillway.ErrInvalid)
	case s.Standby != nil && len(s.Standby.Host) > 0:
		return fmt.Errorf("service %s: the host of the dark colour (%s) is given to it by a gateway, and the server was told of none (%s): %w", s.Name, s.Standby.Host[0], toldGateway, spillway.ErrInvalid)
	}
	return nil
}

// serversFit checks servers that Spillway does not run. Traefik takes an address once, whatever its ports; the second
// would silently get nothing.
func serversFit(urls []string) error {
	ports := map[string]uint16{}
	for _, text := range urls {
		s, err := originOf(text)
		if err != nil {
			return err
		}
		if a, err := netip.ParseAddr(s.host); err == nil {
			if s.host = a.String(); ownMachine(a) {
				return fmt.Errorf("the server %s is another machine for everybody who uses the address, and no Service of a cluster may lead there; give an address that pods reach: %w", text, spillway.ErrInvalid)
			}
		}
		if port, twice := ports[s.host]; twice && port != s.port {
			return fmt.Errorf("two of the servers are %s, at the ports %d and %d, of which gateways take one only; name one, or give each an address: %w", s.host, port, s.port, spillway.ErrInvalid)
		}
		ports[s.host] = s.port
	}
	return nil
}
