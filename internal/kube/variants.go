package kube

import (
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// variant is a rule as a gateway is told it. On one machine a rule leads to a service, and the service's tracks have those
// of its users who carry their matches. A gateway obeys one rule: it is told one more for each match.
type variant struct {
	spillway.HTTPRule
	of int             // which rule it is a variant of, by its place; -1 = of none, but of the service that has the hosts
	by *spillway.Match // of a track, which the rule has besides its own; nil = it is the rule itself
}

// with is a variant of a rule for those who carry a match.
func with(rule spillway.HTTPRule, of int, by spillway.Match) variant {
	field := spillway.FieldMatch{Name: by.Name, Text: by.Value}
	if by.Value == "*" {
		field = spillway.FieldMatch{Name: by.Name, Kind: "present"}
	}
	if by.Kind == "cookie" {
		rule.Cookies = append(slices.Clone(rule.Cookies), field)
	} else {
		rule.Headers = append(slices.Clone(rule.Headers), field)
	}
	return variant{rule, of, &by}
}

// variants are all of some rules, in the order in which they count. matches gives those of the tracks behind a rule.
func variants(rules []spillway.HTTPRule, places []int, matches func(spillway.HTTPRule) []spillway.Match) (all []variant) {
	places = slices.Clone(places)
	slices.SortStableFunc(places, func(i, j int) int { return rules[i].Compare(rules[j]) })
	for _, i := range places {
		for _, by := range matches(rules[i]) {
			all = append(all, with(rules[i], i, by))
		}
		all = append(all, variant{rules[i], i, nil})
		if takesAll(rules[i]) {
			break
		}
	}
	return all
}

// hides reports whether the last variant leaves nothing to who has the hosts.
func hides(all []variant) bool { return len(all) > 0 && takesAll(all[len(all)-1].HTTPRule) }

// outweighed finds two variants of which the first counts on one machine, being of the rule that comes first, and the
// second at a gateway, having more matches; false when there are none, as far as can be told of patterns of paths.
func outweighed(all []variant) (first, second variant, found bool) {
	for i, v := range all {
		for _, w := range all[i+1:] {
			samePath := v.Path == w.Path || anyPath(v.Path) && anyPath(w.Path)
			if v.of == w.of || !samePath || w.Compare(v.HTTPRule) >= 0 || exclude(v.HTTPRule, w.HTTPRule) {
				continue
			}
			before := func(u variant) bool { return u.of == v.of && u.by != nil && w.by != nil && *u.by == *w.by }
			if !slices.ContainsFunc(all, before) {
				return v, w, true
			}
		}
	}
	return first, second, false
}

// exclude reports whether no request fits both rules, as far as methods and parameters tell.
func exclude(v, w spillway.HTTPRule) bool {
	if len(v.Methods) > 0 && len(w.Methods) > 0 && !slices.ContainsFunc(v.Methods, func(m string) bool { return slices.Contains(w.Methods, m) }) {
		return true
	}
	return slices.ContainsFunc(v.Query, func(a spillway.FieldMatch) bool { // of a header or cookie a request may have two
		return slices.ContainsFunc(w.Query, func(b spillway.FieldMatch) bool {
			return a.Name == b.Name && a.Kind == "" && b.Kind == "" && a.Text != b.Text
		})
	})
}

// twice is the header or parameter that a rule asks for twice, which an HTTPRoute cannot: to it cookies are one header.
// "" = there is none.
func twice(rule spillway.HTTPRule) string {
	seen := map[string]bool{}
	for _, f := range rule.Headers {
		name := strings.ToLower(f.Name)
		if seen[name] {
			return "header " + f.Name
		}
		seen[name] = true
	}
	if len(rule.Cookies) > 1 || len(rule.Cookies) == 1 && seen["cookie"] {
		return "header Cookie"
	}
	seen = map[string]bool{}
	for _, f := range rule.Query {
		if seen[f.Name] {
			return "parameter " + f.Name
		}
		seen[f.Name] = true
	}
	return ""
}

// anyPath reports whether a match takes every path.
func anyPath(p spillway.PathMatch) bool {
	return p.Kind == "" || p.Kind == spillway.PathPrefix && p.Text == ""
}

// takesAll reports whether a rule takes all requests of its hosts, so that nothing is left to whoever has these.
func takesAll(rule spillway.HTTPRule) bool {
	return anyPath(rule.Path) && len(rule.Methods)+len(rule.Headers)+len(rule.Cookies)+len(rule.Query) == 0
}
