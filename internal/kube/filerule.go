package kube

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
)

// matches are those of tracks behind the targets of a rule, which have somebody there.
func (r *rendering) matches(rule spillway.HTTPRule) (all []spillway.Match) {
	for _, to := range rule.To {
		e, err := r.target(to)
		if err != nil {
			return nil // fileRule says it
		}
		for _, rule := range e.Rules {
			if len(ofTrack(e, rule.Track)) > 0 && !slices.Contains(all, rule.Match) {
				all = append(all, rule.Match)
			}
		}
	}
	return all
}

// matchesOf is what a request has to be for a rule: one match for each method.
func matchesOf(rule spillway.HTTPRule) (all []gatewayv1.HTTPRouteMatch) {
	match := gatewayv1.HTTPRouteMatch{Path: pathMatch(rule.Path)}
	for _, f := range rule.Headers {
		match.Headers = append(match.Headers, headerMatch(f))
	}
	for _, f := range rule.Cookies {
		match.Headers = append(match.Headers, cookieMatch(f))
	}
	for _, f := range rule.Query {
		h := headerMatch(f)
		kind := gatewayv1.QueryParamMatchType(*h.Type)
		match.QueryParams = append(match.QueryParams, gatewayv1.HTTPQueryParamMatch{Type: &kind, Name: gatewayv1.HTTPHeaderName(f.Name), Value: h.Value})
	}
	for _, method := range rule.Methods {
		one, each := gatewayv1.HTTPMethod(method), match
		each.Method = &one
		all = append(all, each)
	}
	if len(all) == 0 {
		all = []gatewayv1.HTTPRouteMatch{match}
	}
	return all
}

// fileRule is a rule of the file's routes.
func (r *rendering) fileRule(rule variant) (made gatewayv1.HTTPRouteRule, _ error) {
	if what := beyondGateways(rule.HTTPRule); what != "" {
		return made, fmt.Errorf("routes: a rule of %s has %s, which a gateway cannot be told by HTTPRoute; take it out for this environment: %w", strings.Join(rule.Hosts, ", "), what, spillway.ErrInvalid)
	}
	made.Matches = matchesOf(rule.HTTPRule)
	made.Filters = filters(rule.HTTPRule)
	if rule.Timeout > 0 {
		limit := duration(time.Duration(rule.Timeout))
		made.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: &limit}
	}
	var weights []int64
	for _, to := range rule.To {
		e, err := r.target(to)
		if err != nil {
			return made, err
		}
		part := int64(to.Weight)
		if len(rule.To) == 1 { // of one alone it does not matter
			part = 1
		}
		backends := behind(e, rule.by)
		for _, b := range backends {
			weights = append(weights, part*int64(b.Weight))
		}
		made.BackendRefs = append(made.BackendRefs, r.backends(e.Service, backends, func(b spillway.Backend) spillway.Share { return b.Weight })...)
	}
	for i, weight := range bounded(weights) {
		made.BackendRefs[i].Weight = &weight
	}
	return made, nil
}

// behind are the backends that requests with a match get to by an edge, with their weights; nil = those without one.
func behind(e spillway.Edge, by *spillway.Match) []spillway.Backend {
	for _, rule := range e.Rules {
		if there := ofTrack(e, rule.Track); by != nil && rule.Match == *by && len(there) > 0 {
			return there
		}
	}
	return e.Backends
}

// target is the edge to a target of a rule.
func (r *rendering) target(to spillway.Target) (spillway.Edge, error) {
	i := slices.IndexFunc(r.desired.Route.Edges, func(e spillway.Edge) bool { return e.Target == to.Name() })
	if i < 0 {
		return spillway.Edge{}, fmt.Errorf("routes: nothing serves %s: %w", to.Name(), spillway.ErrInvalid)
	}
	return r.desired.Route.Edges[i], nil
}

// mostWeight is the greatest weight of a backend that the API server takes.
const mostWeight = 1_000_000

// bounded are the weights of a rule, all of them scaled by the same where one is greater than the API server takes. Who
// has some keeps some: 30,000,000, 10,000,000, 1 and 0 are 1,000,000, 333,333, 1 and 0.
func bounded(weights []int64) []int32 {
	most := int64(0)
	for _, w := range weights {
		most = max(most, w)
	}
	small := make([]int32, len(weights))
	for i, w := range weights {
		if most > mostWeight {
			w = max((w*mostWeight+most/2)/most, min(w, 1))
		}
		small[i] = int32(w)
	}
	return small
}

// duration writes a time as the Gateway API reads it (GEP-2257): whole hours, minutes, seconds and milliseconds; at
// least a millisecond, since 0 would be none.
func duration(d time.Duration) gatewayv1.Duration {
	var text strings.Builder
	rest := max(d.Round(time.Millisecond), time.Millisecond)
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := rest / unit.of; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, unit.name)
			rest -= n * unit.of
		}
	}
	return gatewayv1.Duration(text.String())
}

func pathMatch(p spillway.PathMatch) *gatewayv1.HTTPPathMatch {
	kind, text := gatewayv1.PathMatchPathPrefix, cmp.Or(p.Text, "/")
	switch p.Kind {
	case spillway.PathExact:
		kind = gatewayv1.PathMatchExact
	case spillway.PathPattern:
		kind, text = gatewayv1.PathMatchRegularExpression, whole(p.Text)
	}
	return &gatewayv1.HTTPPathMatch{Type: &kind, Value: &text}
}

// beyondGateways says what of a rule HTTPRoute has no words for; "" when it has them all.
func beyondGateways(rule spillway.HTTPRule) string {
	method := slices.IndexFunc(rule.Methods, func(m string) bool {
		return !strings.Contains(" GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH ", " "+m+" ")
	})
	for _, part := range []struct {
		there bool
		word  string
	}{
		{len(rule.Users) > 0, "users"}, {len(rule.Allow) > 0, "allow"}, {rule.Rate != nil, "rate"}, {rule.MaxBody > 0, "max-body"},
		{rule.CORS != nil, "cors"}, {rule.Retries != nil, "retries"}, {len(rule.Mirror) > 0, "mirror"},
		{method >= 0, "a method that is not of HTTP itself"}, {!writable(rule.Path), "the path " + rule.Path.Text},
	} {
		if part.there {
			return part.word
		}
	}
	return ""
}

// plainPath is what the API server takes for a path.
var plainPath = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})*$`)

// writable reports whether the API server takes a path. Escaped slashes and empty segments mean something else to each server.
func writable(p spillway.PathMatch) bool {
	if p.Kind == spillway.PathPattern {
		return true
	}
	text := p.Text + "/"
	return plainPath.MatchString(text) && !strings.Contains(strings.TrimSuffix(text, "/"), "//") && !strings.Contains(text, "/./") && !strings.Contains(text, "/../") && !strings.Contains(strings.ToLower(text), "%2f")
}

// apart is a rule whose matches each need one of their own: what replaces a prefix has to be told which.
func apart(rule gatewayv1.HTTPRouteRule, replaces bool) (all []gatewayv1.HTTPRouteRule) {
	if !replaces {
		return []gatewayv1.HTTPRouteRule{rule}
	}
	for _, match := range rule.Matches {
		one := rule
		one.Matches = []gatewayv1.HTTPRouteMatch{match}
		all = append(all, one)
	}
	return all
}

// replacesPrefix reports whether a rule puts something in place of the prefix that it fits.
func replacesPrefix(rule spillway.HTTPRule) bool {
	return rule.Rewrite != nil && rule.Rewrite.Prefix != "" || rule.Redirect != nil && rule.Redirect.Prefix != ""
}

// filters are what a gateway does to requests and answers.
func filters(rule spillway.HTTPRule) []gatewayv1.HTTPRouteFilter {
	var all []gatewayv1.HTTPRouteFilter
	if d := rule.Redirect; d != nil {
		redirect := &gatewayv1.HTTPRequestRedirectFilter{Path: pathModifier(d.Path, d.Prefix), StatusCode: &d.Status}
		if d.Scheme != "" {
			redirect.Scheme = &d.Scheme
		}
		if d.Host != "" {
			host := gatewayv1.PreciseHostname(d.Host)
			redirect.Hostname = &host
		}
		if d.Port != 0 {
			port := gatewayv1.PortNumber(d.Port)
			redirect.Port = &port
		}
		all = append(all, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestRedirect, RequestRedirect: redirect})
	}
	if w := rule.Rewrite; w != nil {
		rewrite := &gatewayv1.HTTPURLRewriteFilter{Path: pathModifier(w.Path, w.Prefix)}
		if w.Host != "" {
			host := gatewayv1.PreciseHostname(w.Host)
			rewrite.Hostname = &host
		}
		all = append(all, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: rewrite})
	}
	if rule.Request != nil {
		all = append(all, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: headerFilter(*rule.Request)})
	}
	if rule.Response != nil {
		all = append(all, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterResponseHeaderModifier, ResponseHeaderModifier: headerFilter(*rule.Response)})
	}
	return all
}

func pathModifier(full, prefix string) *gatewayv1.HTTPPathModifier {
	switch {
	case full != "":
		return &gatewayv1.HTTPPathModifier{Type: gatewayv1.FullPathHTTPPathModifier, ReplaceFullPath: &full}
	case prefix != "":
		return &gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: &prefix}
	}
	return nil
}

func headerFilter(edit spillway.HeaderEdit) *gatewayv1.HTTPHeaderFilter {
	fields := func(list []spillway.HeaderField) (all []gatewayv1.HTTPHeader) {
		for _, f := range list {
			all = append(all, gatewayv1.HTTPHeader{Name: gatewayv1.HTTPHeaderName(f.Name), Value: f.Value})
		}
		return all
	}
	return &gatewayv1.HTTPHeaderFilter{Set: fields(edit.Set), Add: fields(edit.Add), Remove: edit.Remove}
}
