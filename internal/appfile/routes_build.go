package appfile

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// buildRoutes makes the rules of an app whose services are known.
func buildRoutes(n *node, services []spillway.Service) []spillway.HTTPRule {
	var rules []spillway.HTTPRule
	for _, item := range listed(n) {
		rules = append(rules, buildRoute(item, services))
	}
	return rules
}

func buildRoute(n *node, services []spillway.Service) spillway.HTTPRule {
	rule := spillway.HTTPRule{
		Hosts:    texts(n.child("host")),
		Path:     pathMatch(text(n.child("path"), "")),
		Methods:  texts(n.child("method")),
		Headers:  fieldMatches(n.child("header")),
		Cookies:  fieldMatches(n.child("cookie")),
		Query:    fieldMatches(n.child("query")),
		To:       buildTargets(n.child("to")),
		Redirect: buildRedirect(n.child("redirect")),
		Rewrite:  buildRewrite(n.child("rewrite")),
		Request:  buildEdit(n.child("request-headers")),
		Response: buildEdit(n.child("response-headers")),
		CORS:     buildCORS(n.child("cors")),
		Mirror:   buildMirrors(n.child("mirror")),
		Timeout:  duration(n.child("timeout"), 0),
		Rate:     buildRate(n.child("rate")),
		Users:    environment(n.child("users")),
		Allow:    texts(n.child("allow")),
	}
	if retries := n.child("retries"); retries != nil {
		v := whole(retries, 0)
		rule.Retries = &v
	}
	rule.MaxBody, _ = spillway.ParseBytes(text(n.child("max-body"), "0"))
	if rule.Hosts == nil {
		rule.Hosts = hostsFor(rule.To, services)
	}
	return rule
}

// hostsFor are the hosts of a rule that names none: those of the services that it leads to, or where they have
// none those of all services. Sorted.
func hostsFor(to []spillway.Target, services []spillway.Service) []string {
	var own, all []string
	for _, s := range services {
		all = append(all, s.Host...)
		if slices.ContainsFunc(to, func(t spillway.Target) bool { return t.Service == s.Name }) {
			own = append(own, s.Host...)
		}
	}
	if own == nil {
		own = all
	}
	slices.Sort(own)
	return slices.Compact(own)
}

// pathMatch reads "/x", "/x/*" or "~ EXPRESSION"; "" is any path.
func pathMatch(text string) spillway.PathMatch {
	if text == "" {
		return spillway.PathMatch{}
	}
	if pattern, ok := strings.CutPrefix(text, "~"); ok {
		return spillway.PathMatch{Kind: spillway.PathPattern, Text: strings.TrimSpace(pattern)}
	}
	if prefix, ok := strings.CutSuffix(text, "/*"); ok {
		return spillway.PathMatch{Kind: spillway.PathPrefix, Text: prefix}
	}
	return spillway.PathMatch{Kind: spillway.PathExact, Text: text}
}

// fieldMatches reads NAME=VALUE, NAME=* and NAME=~EXPRESSION.
func fieldMatches(n *node) []spillway.FieldMatch {
	var list []spillway.FieldMatch
	for _, item := range texts(n) {
		name, value, _ := strings.Cut(item, "=")
		m := spillway.FieldMatch{Name: name, Text: value}
		if value == "*" {
			m.Kind, m.Text = "present", ""
		} else if pattern, ok := strings.CutPrefix(value, "~"); ok {
			m.Kind, m.Text = "pattern", pattern
		}
		list = append(list, m)
	}
	return list
}

// targetOf reads a service, SERVICE@TRACK, a URL or a list of URLs.
func targetOf(n *node) spillway.Target {
	if n != nil && (n.kind == aList || strings.Contains(n.text, "://")) {
		return spillway.Target{URLs: texts(n)}
	}
	service, track, _ := strings.Cut(text(n, ""), "@")
	return spillway.Target{Service: service, Track: track}
}

func buildTargets(n *node) []spillway.Target {
	if n == nil {
		return nil
	}
	if n.kind != aList || len(n.items) > 0 && n.items[0].kind != aMapping {
		t := targetOf(n)
		t.Weight = 1
		return []spillway.Target{t}
	}
	var list []spillway.Target
	for _, item := range n.items {
		t := targetOf(item.child("to"))
		t.Weight = whole(item.child("weight"), 1)
		list = append(list, t)
	}
	return list
}

func buildRedirect(n *node) *spillway.Redirect {
	if n == nil {
		return nil
	}
	to := n
	if n.kind == aMapping {
		to = n.child("to")
	}
	r, _ := redirectTo(text(to, "")) // the shape has parsed it
	if n.kind == aMapping {
		r.Scheme = text(n.child("scheme"), r.Scheme)
	}
	r.Status = defaultRedirect
	if n.kind == aMapping {
		r.Status = whole(n.child("status"), defaultRedirect)
	}
	return &r
}

// redirectTo reads where a client is sent: "https://shop.example.com:8443/x/*", "//shop.example.com", "/x".
func redirectTo(text string) (spillway.Redirect, error) {
	bare, prefix := strings.CutSuffix(text, "/*")
	if prefix {
		bare += "/"
	}
	u, err := url.Parse(bare)
	if err != nil || u.User != nil || u.Host != "" && u.Hostname() == "" {
		return spillway.Redirect{}, fmt.Errorf("%s is neither a URL nor a path", quote(text))
	}
	r := spillway.Redirect{Scheme: u.Scheme, Host: strings.ToLower(u.Hostname())}
	if u.Port() != "" {
		if r.Port, err = strconv.Atoi(u.Port()); err != nil || r.Port < 1 || r.Port > 65535 {
			return r, fmt.Errorf("%s has no port that there is", quote(text))
		}
	}
	if path := u.EscapedPath(); prefix {
		r.Prefix = prefixText(path)
	} else {
		r.Path = path
	}
	return r, nil
}

// prefixText is a prefix as rules replace it: without a slash at its end, but for "/" alone.
func prefixText(path string) string {
	if path = strings.TrimSuffix(path, "/"); path == "" {
		return "/"
	}
	return path
}

func buildRewrite(n *node) *spillway.Rewrite {
	if n == nil {
		return nil
	}
	path, host := n, ""
	if n.kind == aMapping {
		path, host = n.child("path"), text(n.child("host"), "")
	}
	r := spillway.Rewrite{Host: host}
	if prefix, ok := strings.CutSuffix(text(path, ""), "/*"); ok {
		r.Prefix = prefixText(prefix)
	} else {
		r.Path = text(path, "")
	}
	return &r
}

func buildEdit(n *node) *spillway.HeaderEdit {
	if n == nil {
		return nil
	}
	return &spillway.HeaderEdit{Set: headerFields(n.child("set")), Add: headerFields(n.child("add")), Remove: texts(n.child("remove"))}
}

func headerFields(n *node) []spillway.HeaderField {
	if n == nil {
		return nil
	}
	var list []spillway.HeaderField
	for _, e := range n.entries {
		list = append(list, spillway.HeaderField{Name: e.name, Value: e.text})
	}
	slices.SortFunc(list, func(a, b spillway.HeaderField) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func buildCORS(n *node) *spillway.CORS {
	if n == nil {
		return nil
	}
	return &spillway.CORS{
		Origins: texts(n.child("origins")), Methods: texts(n.child("methods")), Headers: texts(n.child("headers")), Expose: texts(n.child("expose")),
		Credentials: text(n.child("credentials"), "false") == "true", Age: duration(n.child("age"), defaultCORSAge),
	}
}

func buildMirrors(n *node) []spillway.Mirror {
	var list []spillway.Mirror
	for _, item := range listed(n) {
		to, share := item, "100%"
		if item.kind == aMapping {
			to, share = item.child("to"), text(item.child("share"), share)
		}
		m := spillway.Mirror{Target: targetOf(to)}
		m.Share, _ = spillway.ParseShare(share)
		list = append(list, m)
	}
	return list
}

func buildRate(n *node) *spillway.RateLimit {
	if n == nil {
		return nil
	}
	r := spillway.RateLimit{Requests: whole(n.child("requests"), 1), Per: duration(n.child("per"), defaultPer)}
	r.Burst = whole(n.child("burst"), r.Requests)
	if fields := strings.Fields(text(n.child("by"), "")); len(fields) == 2 {
		r.By = spillway.KeySource{Kind: fields[0], Name: fields[1]}
	}
	return &r
}
