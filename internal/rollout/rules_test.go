package rollout_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Each row is the rules of the release that serves and of the next one, by path and service, and the changes told.
func TestPlan_NamesRulesThatChange(t *testing.T) {
	for _, row := range []struct{ old, new, want string }{
		{"/a:web /b:web", "/a:web /b:web", ""},
		{"/a:web", "/a:web /b:web", "route shop.test/b is new"},
		{"/a:web /b:web", "/b:web", "route shop.test/a goes"},
		{"/a:web", "/a:api", "route shop.test/a does something else"},
		{"/a:web /b:web", "/b:web /a:web", "the order of routes"},
		{"/a:web /b:web /a:api", "/a:api /b:web /a:web", "route shop.test/a does something else, route shop.test/a does something else"},
	} {
		release := func(n int, rules string) spillway.Release {
			r := spillway.Release{App: "shop", Number: n, Groups: map[string]int{"web": 1}}
			r.Config = spillway.App{Name: "shop", Services: []spillway.Service{{Name: "web", Scale: 1}}}
			for rule := range strings.FieldsSeq(rules) {
				path, service, _ := strings.Cut(rule, ":")
				r.Config.Routes = append(r.Config.Routes, spillway.HTTPRule{
					Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: path}, To: []spillway.Target{{Service: service}},
					Users: map[string]string{"ann": "sha256:secret"},
				})
			}
			return r
		}
		from, to := release(1, row.old), release(2, row.new)
		p := rollout.Plan(rollout.Spec{App: "shop", Releases: map[int]spillway.Release{1: from}}, rollout.Status{Stable: 1}, to, "", rollout.Present{})
		var got []string
		for _, c := range p.Changes {
			got = append(got, c.What)
			if c.Restart {
				t.Errorf("%s: %s restarts something", row.new, c.What)
			}
		}
		if strings.Join(got, ", ") != row.want || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "secret") }) {
			t.Errorf("%s to %s: got %q, want %q", row.old, row.new, got, row.want)
		}
	}
}

// web@stable is what no track has; web is divided between all. That the two are told apart is the app file's too.
func TestPreview_LeadsToStableAlone(t *testing.T) {
	r := spillway.Release{App: "shop", Number: 1, Groups: map[string]int{"web": 1}, Config: spillway.App{Name: "shop"}}
	r.Config.Services = []spillway.Service{{
		Name: "web", Scale: 1, Host: []string{"shop.test"},
		Tracks: []spillway.Track{{Name: "legacy", URLs: []string{"http://127.0.0.1:9"}, Share: spillway.Percent(20)}},
	}}
	r.Config.Routes = []spillway.HTTPRule{{Hosts: []string{"shop.test"}, To: []spillway.Target{{Service: "web", Track: spillway.StableTrack, Weight: 1}}}}
	got := map[string]string{}
	for _, e := range rollout.Preview(r).Edges {
		for _, b := range e.Backends {
			got[strings.Join(e.Hosts, ",")+e.Target] += b.Name("web") + " " + b.Weight.String() + ";"
		}
	}
	want := map[string]string{"shop.test": "web@legacy 20%;web.1 80%;", "web@stable": "web.1 100%;"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
