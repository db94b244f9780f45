package kube

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// A pattern fits what it fits on one machine, by gateways that look for a part of the text and by those that want it whole.
func TestWhole_FitsTheSameEitherWay(t *testing.T) {
	for _, text := range []string{"^/img/", "/img/", `\.png$`, "^/a$", "^/a|b$", "", "^", "$", "^$", "(?i)^/IMG", "a^b", "x(?:$|/)"} {
		for _, path := range []string{"/img/a.png", "/x/img/y", "/a", "/ab", "b", "", "/IMG", "x/", "/x"} {
			want := regexp.MustCompile(text).MatchString(path)
			part, all := regexp.MustCompile(whole(text)), regexp.MustCompile("^(?:"+whole(text)+")$")
			if part.MatchString(path) != want || all.MatchString(path) != want {
				t.Errorf("%q as %q fits %q: in part %v, as a whole %v; want %v", text, whole(text), path, part.MatchString(path), all.MatchString(path), want)
			}
		}
	}
}

func TestCookieMatch_FitsTheValueAlone(t *testing.T) {
	for _, text := range []string{"^b", "b$", "^b$", "b", "a.c", "^a.*z$", "[^x]", "", "^$", "(?i)^B", `^[!-~]+$`} {
		for _, value := range []string{"b", "beta", "ab", "abc", "az", "axz", "x", "", "B", "c"} {
			want := regexp.MustCompile(text).MatchString(value)
			match := regexp.MustCompile(cookieMatch(spillway.FieldMatch{Name: "c", Kind: "pattern", Text: text}).Value)
			for _, header := range []string{"c=" + value, "a=1; c=" + value, "c=" + value + "; d=z", "xc=b; c=" + value + "; b=abcz"} {
				if got := match.MatchString(header); got != want {
					t.Errorf("%q as %q fits %q: %v, want %v", text, match, header, got, want)
				}
			}
		}
	}
}

func TestFits_PatternsWhoseOrderIsOpen(t *testing.T) {
	rule := func(kind, text string) spillway.HTTPRule {
		return spillway.HTTPRule{Hosts: []string{"a.test"}, Path: spillway.PathMatch{Kind: kind, Text: text}, To: []spillway.Target{{Service: "www"}}}
	}
	get := func(r spillway.HTTPRule, method string) spillway.HTTPRule { r.Methods = []string{method}; return r }
	cookie := func(text string) spillway.HTTPRule {
		r := rule(spillway.PathPrefix, "/a")
		r.Cookies = []spillway.FieldMatch{{Name: "c", Kind: "pattern", Text: text}}
		return r
	}
	image, api := rule(spillway.PathPattern, "^/img/"), rule(spillway.PathPrefix, "/api")
	for _, c := range []struct {
		name  string
		rules []spillway.HTTPRule
		want  string // in the error; "" = none
	}{
		{"apart", []spillway.HTTPRule{image, api}, ""},
		{"alone", []spillway.HTTPRule{rule(spillway.PathPattern, "png"), rule("", "")}, ""},
		{"an exact path", []spillway.HTTPRule{image, rule(spillway.PathExact, "/img/a")}, ""},
		{"the same prefix", []spillway.HTTPRule{image, rule(spillway.PathPrefix, "/img")}, "a pattern of paths and another rule"},
		{"anywhere", []spillway.HTTPRule{rule(spillway.PathPattern, `\.png$`), api}, "a pattern of paths"},
		{"either", []spillway.HTTPRule{rule(spillway.PathPattern, "^/img|/x"), api}, "a pattern of paths"},
		{"any case", []spillway.HTTPRule{rule(spillway.PathPattern, "(?i)^/img"), api}, "a pattern of paths"},
		{"two patterns", []spillway.HTTPRule{image, rule(spillway.PathPattern, "^/img/x")}, "a pattern of paths"},
		{"two patterns apart", []spillway.HTTPRule{image, rule(spillway.PathPattern, "^/pic/")}, ""},
		{"other methods", []spillway.HTTPRule{get(image, "GET"), get(rule(spillway.PathPrefix, "/img"), "POST")}, ""},
		{"one pattern twice", []spillway.HTTPRule{get(image, "GET"), image}, ""},
		{"a cookie", []spillway.HTTPRule{cookie("^a.*b$")}, ""},
		{"an end within a cookie", []spillway.HTTPRule{cookie("^a|b$")}, "write ^ first and $ last"},
	} {
		err := Fits(spillway.App{Services: []spillway.Service{{Name: "www", Host: []string{"a.test"}}}, Routes: c.rules}, Gateway{Name: "gw"})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
