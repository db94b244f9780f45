package kube

import (
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

func match(kind, name, value string) spillway.Match {
	return spillway.Match{KeySource: spillway.KeySource{Kind: kind, Name: name}, Value: value}
}

// Who carries the match of a track gets to it by rules too, whatever the weights are.
func TestHTTPRoutes_ARuleLeadsUsersOfATrackToIt(t *testing.T) {
	beta := match("cookie", "beta", "*")
	r := shop([]string{"a.test"}, under("/v1", []spillway.Target{{Service: "www", Weight: 3}, {Service: "api", Weight: 1}}, "a.test"), under("/v2", []spillway.Target{{Service: "www", Track: "stable"}}, "a.test"))
	www := &r.desired.Route.Edges[1]
	stable := *www
	stable.Target, stable.Hosts = "www@stable", nil
	r.desired.Route.Edges = append(r.desired.Route.Edges, stable)
	www = &r.desired.Route.Edges[1]
	www.Rules = []spillway.Rule{{Match: beta, Track: "beta"}, {Match: match("header", "X-Nobody", "1"), Track: "nobody"}}
	www.Backends = []spillway.Backend{
		{Group: spillway.Group{Service: "www", Release: 2}, Release: 2, Track: "beta", Weight: 2000},
		{Group: spillway.Group{Service: "www", Release: 1}, Release: 1, Weight: 8000, Within: spillway.Whole},
	}
	var got []string
	for _, rule := range routesOf(t, r)["castle-www"].Spec.Rules[1:] {
		text := *rule.Matches[0].Path.Value
		for _, h := range rule.Matches[0].Headers {
			text += " " + string(h.Name)
		}
		for _, b := range rule.BackendRefs {
			text += " " + strings.TrimPrefix(string(b.Name), "castle-") + "=" + spillway.Share(weightOf(b)).String()
		}
		got = append(got, text)
	}
	want := []string{
		"/v1 Cookie www-2=300% api-1=100%", "/v1 www-2=60% www-1=240% api-1=100%", "/v2 www-1=100%",
		"/ Cookie www-2=100%", "/ www-2=20% www-1=80%",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the rules are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The rule that counts on one machine is the first of all that fit; at a gateway it must be the same one, or none is made.
func TestFits_TheRuleThatCountsIsTheSame(t *testing.T) {
	www := spillway.Service{Name: "www", Host: []string{"a.test"}, Tracks: []spillway.Track{{Name: "beta", Match: []spillway.Match{match("header", "X-Beta", "1")}}}}
	cookie := www
	cookie.Name, cookie.Host = "shop", nil
	cookie.Tracks = []spillway.Track{{Name: "beta", Match: []spillway.Match{match("cookie", "beta", "1")}}}
	api := spillway.Service{Name: "api"}
	to := func(services ...string) (all []spillway.Target) {
		for _, s := range services {
			all = append(all, spillway.Target{Service: s, Weight: 1})
		}
		return all
	}
	rule := func(path string, more func(*spillway.HTTPRule), services ...string) spillway.HTTPRule {
		r := under(path, to(services...), "a.test")
		if more != nil {
			more(&r)
		}
		return r
	}
	query := func(r *spillway.HTTPRule) { r.Query = []spillway.FieldMatch{{Name: "q", Text: "1"}} }
	header := func(r *spillway.HTTPRule) { r.Headers = []spillway.FieldMatch{{Name: "X-A", Text: "1"}} }
	get := func(r *spillway.HTTPRule) { r.Methods = []string{"GET"} }
	post := func(r *spillway.HTTPRule) { r.Methods = []string{"POST"} }
	jar := func(r *spillway.HTTPRule) { r.Cookies = []spillway.FieldMatch{{Name: "a", Text: "1"}} }
	jars := func(r *spillway.HTTPRule) { jar(r); r.Cookies = append(r.Cookies, spillway.FieldMatch{Name: "b"}) }
	for _, c := range []struct {
		name  string
		rules []spillway.HTTPRule
		want  string // in the error; "" = none
	}{
		{"other paths", []spillway.HTTPRule{rule("/v1", query, "api"), rule("/v2", nil, "www")}, ""},
		{"a parameter against the header of a track", []spillway.HTTPRule{rule("/v1", query, "api"), rule("/v1", nil, "www")}, "two rules of which the first counts on one machine"},
		{"as many headers", []spillway.HTTPRule{rule("/v1", header, "api"), rule("/v1", nil, "www")}, ""},
		{"the first of the file", []spillway.HTTPRule{rule("/v1", get, "api"), rule("/v1", get, "www")}, "two rules of which"},
		{"other methods", []spillway.HTTPRule{rule("/v1", get, "api"), rule("/v1", post, "www")}, ""},
		{"both lead to the track", []spillway.HTTPRule{rule("/v1", query, "www"), rule("/v1", nil, "www")}, ""},
		{"a parameter against who has the host", []spillway.HTTPRule{rule("", query, "api")}, "two rules of which"},
		{"all requests", []spillway.HTTPRule{rule("", nil, "api")}, ""},
		{"a limit of size, as the file calls it", []spillway.HTTPRule{{Hosts: []string{"a.test"}, MaxBody: 1}}, "has max-body,"},
		{"two cookies", []spillway.HTTPRule{rule("/v1", jars, "api")}, "two matches of the header Cookie"},
		{"a cookie and that of a track", []spillway.HTTPRule{rule("/v1", jar, "shop")}, "two matches of the header Cookie"},
		{"a cookie and the header of a track", []spillway.HTTPRule{rule("/v1", jar, "www")}, ""},
		{"targets with other tracks", []spillway.HTTPRule{rule("/v1", nil, "www", "shop")}, "tracks with different matches"},
		{"targets of which one has tracks", []spillway.HTTPRule{rule("/v1", nil, "www", "api")}, ""},
	} {
		err := Fits(spillway.App{Services: []spillway.Service{www, cookie, api}, Routes: c.rules}, Gateway{Name: "gw"})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// The API server takes what replaces a prefix only where one prefix is to be replaced, so each method has a rule.
func TestHTTPRoutes_WhatReplacesAPrefixHasARuleForEachMethod(t *testing.T) {
	rule := under("/v1", toAPI, "a.test")
	rule.Methods, rule.Rewrite = []string{"GET", "POST"}, &spillway.Rewrite{Prefix: "/"}
	rules := routesOf(t, shop([]string{"a.test"}, rule))["castle-www"].Spec.Rules
	if len(rules) != 4 || len(rules[1].Matches) != 1 || *rules[1].Matches[0].Method != "GET" || *rules[2].Matches[0].Method != "POST" {
		t.Errorf("the rules are %+v", rules)
	}
	rule.Rewrite = nil
	if rules = routesOf(t, shop([]string{"a.test"}, rule))["castle-www"].Spec.Rules; len(rules) != 3 || len(rules[1].Matches) != 2 {
		t.Errorf("without: the rules are %+v", rules)
	}
}

func TestFits_WhatAnAPIServerWouldRefuse(t *testing.T) {
	method := under("/v1", toAPI, "a.test")
	method.Methods = []string{"GET", "PURGE"}
	many := under("/v1", nil, "a.test")
	for range 9 {
		many.To = append(many.To, spillway.Target{Service: "api", Track: "stable", Weight: 1})
	}
	var replaced []spillway.HTTPRule
	for i := range 5 {
		rule := under(strings.Repeat("/a", i+1), toAPI, "a.test")
		rule.Methods, rule.Rewrite = []string{"GET", "HEAD", "POST"}, &spillway.Rewrite{Prefix: "/"}
		replaced = append(replaced, rule)
	}
	for _, c := range []struct {
		rules []spillway.HTTPRule
		want  string // in the error; "" = none
	}{
		{[]spillway.HTTPRule{method}, "a method that is not of HTTP itself"},
		{[]spillway.HTTPRule{under("/a//b", toAPI, "a.test")}, "the path /a//b"},
		{[]spillway.HTTPRule{under("/a%2Fb", toAPI, "a.test")}, "the path /a%2Fb"},
		{[]spillway.HTTPRule{under("/a/..", toAPI, "a.test")}, "the path /a/.."},
		{[]spillway.HTTPRule{under("/a%20b/c.d", toAPI, "a.test"), under("", toAPI, "a.test")}, ""},
		{[]spillway.HTTPRule{many}, "leads to 18 groups"},
		{replaced, "15 rules of routes"},
		{replaced[:4], ""},
	} {
		err := Fits(spillway.App{Services: []spillway.Service{{Name: "www", Host: []string{"a.test"}}, {Name: "api"}}, Routes: c.rules}, Gateway{Name: "gw"})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.rules, err, c.want)
		}
	}
}
