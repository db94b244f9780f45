package kube

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// shop is a www with hosts, and an api that nobody but rules leads to.
func shop(hosts []string, rules ...spillway.HTTPRule) rendering {
	www, api := spillway.Group{Service: "www", Release: 1}, spillway.Group{Service: "api", Release: 1}
	release := castle(1, map[string]int{"www": 1, "api": 1})
	s, _ := release.Config.Service("www")
	s.Needs = nil
	s.Host = hosts
	private := s
	private.Name, private.Host = "api", nil
	release.Config.Services, release.Config.Routes = []spillway.Service{private, s}, rules
	release.Artefacts["api"] = release.Artefacts["www"]
	return rendering{
		ref: "castle", namespace: "shop", gateway: Gateway{Namespace: "edge", Name: "gw"},
		releases: map[int]spillway.Release{1: release},
		desired: rollout.Desired{
			Groups: []rollout.Want{{Group: api, Replicas: 1, Release: 1}, {Group: www, Replicas: 1, Release: 1}},
			Route: spillway.Route{Generation: 3, Rules: rules, Edges: []spillway.Edge{
				{Service: "api", Target: "api", Backends: []spillway.Backend{{Group: api, Release: 1, Weight: spillway.Whole}}},
				{Service: "www", Target: "www", Hosts: hosts, Backends: []spillway.Backend{{Group: www, Release: 1, Weight: spillway.Whole}}},
			}},
		},
	}
}

// under is a rule for the paths below a prefix of hosts.
func under(prefix string, to []spillway.Target, hosts ...string) spillway.HTTPRule {
	return spillway.HTTPRule{Hosts: hosts, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: prefix}, To: to}
}

var toAPI = []spillway.Target{{Service: "api", Weight: 1}}

// routesOf are the HTTPRoutes of users, by name.
func routesOf(t *testing.T, r rendering) map[string]*gatewayv1.HTTPRoute {
	t.Helper()
	objects, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string]*gatewayv1.HTTPRoute{}
	for _, o := range objects {
		if leadsUsers(o) {
			routes[o.GetName()] = o.(*gatewayv1.HTTPRoute)
		}
	}
	return routes
}

// found are for each host the prefixes of its rules but that of probes, and where they lead.
func found(t *testing.T, routes map[string]*gatewayv1.HTTPRoute) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		for _, host := range routes[name].Spec.Hostnames {
			if all[string(host)] != "" {
				t.Errorf("%s is a host of %s and of another HTTPRoute", host, name)
			}
			for _, rule := range routes[name].Spec.Rules[1:] {
				for _, b := range rule.BackendRefs {
					all[string(host)] += fmt.Sprintf("%s>%s ", *rule.Matches[0].Path.Value, b.Name)
				}
			}
		}
	}
	return all
}

func TestHTTPRoutes_ARuleCountsForTheHostsThatItNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		hosts []string
		rules []spillway.HTTPRule
		want  map[string]string
		n     int // HTTPRoutes
	}{
		{"no rule", []string{"a.test", "b.test"}, nil, map[string]string{"a.test": "/>castle-www-1 ", "b.test": "/>castle-www-1 "}, 1},
		{"of all hosts", []string{"a.test", "b.test"}, []spillway.HTTPRule{under("/v1", toAPI, "b.test", "a.test")},
			map[string]string{"a.test": "/v1>castle-api-1 />castle-www-1 ", "b.test": "/v1>castle-api-1 />castle-www-1 "}, 1},
		{"of one host", []string{"a.test", "b.test", "c.test"}, []spillway.HTTPRule{under("/v1", toAPI, "b.test")},
			map[string]string{"a.test": "/>castle-www-1 ", "b.test": "/v1>castle-api-1 />castle-www-1 ", "c.test": "/>castle-www-1 "}, 2},
		{"of hosts that no service has", []string{"a.test"}, []spillway.HTTPRule{under("/v1", toAPI, "api.test", "a.test"), under("/v2", toAPI, "api.test", "*.test")},
			map[string]string{"a.test": "/v1>castle-api-1 />castle-www-1 ", "api.test": "/v1>castle-api-1 /v2>castle-api-1 ", "*.test": "/v2>castle-api-1 "}, 3},
	} {
		routes := routesOf(t, shop(c.hosts, c.rules...))
		if got := found(t, routes); !maps.Equal(got, c.want) || len(routes) != c.n {
			t.Errorf("%s: %d HTTPRoutes: %v; want %d: %v", c.name, len(routes), got, c.n, c.want)
		}
	}
}

// A rule for all requests of a host hides who has it, and so do those of its users whom a header would lead to a track.
func TestHTTPRoutes_ARuleForAllRequestsGoesBeforeMatchesOfTracks(t *testing.T) {
	r := shop([]string{"a.test", "b.test"}, under("", toAPI, "a.test"))
	www := &r.desired.Route.Edges[1]
	www.Backends = append([]spillway.Backend{{Group: spillway.Group{Service: "www", Release: 2}, Track: "beta"}}, www.Backends...)
	www.Rules = []spillway.Rule{{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Beta"}, Value: "1"}, Track: "beta"}}
	for _, route := range routesOf(t, r) {
		matched := slices.ContainsFunc(route.Spec.Rules, func(rule gatewayv1.HTTPRouteRule) bool { return len(rule.Matches[0].Headers) > 0 })
		if a := route.Spec.Hostnames[0] == "a.test"; matched == a {
			t.Errorf("of %v a header leads to the track: %v", route.Spec.Hostnames, matched)
		}
	}
}

func TestSites_AreNoGreaterThanAnHTTPRoute(t *testing.T) {
	var hosts []string
	for i := range 2*mostHosts + 1 {
		hosts = append(hosts, fmt.Sprintf("h%02d.test", i))
	}
	routes := routesOf(t, shop(hosts))
	if got := found(t, routes); len(routes) != 3 || len(got) != len(hosts) {
		t.Errorf("%d hosts have %d HTTPRoutes: %v", len(hosts), len(routes), got)
	}
}

// While a host moves from a service to one of its tracks both edges have it.
func TestSites_AHostOfTwoEdgesIsTheLastOnes(t *testing.T) {
	r := shop([]string{"a.test", "b.test"})
	only := r.desired.Route.Edges[1]
	only.Only, only.Hosts = "beta", []string{"a.test"}
	r.desired.Route.Edges = append([]spillway.Edge{only}, r.desired.Route.Edges...)
	routes := routesOf(t, r)
	if got := found(t, routes); len(routes) != 1 || len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// The names of HTTPRoutes are told apart by all of a host.
func TestDashed_IsAnotherForEachHost(t *testing.T) {
	seen := map[string]string{}
	for _, host := range []string{"a.b.test", "a-b.test", "a.b-test", "a-b-test", "*.b.test", "any.b.test", "a--b.test"} {
		if other := seen[dashed(host)]; other != "" {
			t.Errorf("%s and %s are both %s", host, other, dashed(host))
		}
		seen[dashed(host)] = host
	}
}

// A server that did not ask for a route itself sees its edges once each, and as many parts as there are.
func TestAdopt_SeesAnEdgeOfSeveralHTTPRoutesOnce(t *testing.T) {
	r := shop([]string{"a.test", "b.test"}, under("/v1", toAPI, "b.test", "api.test"))
	var objects []client.Object
	for _, route := range routesOf(t, r) {
		objects = append(objects, route)
	}
	parts := routeParts(there(objects...))
	p := &Platform{pending: make(chan *app, 1), conf: Config{Gateway: r.gateway}}
	a := &app{}
	p.adopt(a, parts)
	if edges := a.asked.Edges; len(edges) != 1 || edges[0].Service != "www" || !slices.Equal(edges[0].Hosts, []string{"a.test", "b.test"}) {
		t.Errorf("the edges are %+v", edges)
	}
	if n := p.wantedParts(r.desired.Route); a.parts != 3 || n != 3 {
		t.Errorf("it waits for %d parts, and who asked for them for %d; want 3", a.parts, n)
	}
	seen := edgesOf(parts, r.desired.Route)
	if len(seen) != 2 || seen[1].Backends[0].Weight != spillway.Whole {
		t.Errorf("what is served reads as %+v", seen)
	}
}

// A group to which rules alone lead, or those of its release will, is asked for like one that has hosts: before it has
// users the gateway has to reach it.
func TestReach_AsksForGroupsToWhichRulesLead(t *testing.T) {
	api := spillway.Group{Service: "api", Release: 1}
	will := shop([]string{"a.test"}, under("/v1", toAPI, "a.test"))
	will.desired.Route.Rules, will.desired.Route.Edges = nil, will.desired.Route.Edges[1:]
	never := shop([]string{"a.test"})
	never.desired.Route.Edges = never.desired.Route.Edges[1:]
	for _, c := range []struct {
		name string
		r    rendering
		host string // "" = it is private
	}{
		{"by a rule", shop([]string{"a.test"}, under("/v1", toAPI, "a.test")), "a.test"},
		{"at a host that rules alone have", shop([]string{"a.test"}, under("/v1", toAPI, "api.test")), "api.test"},
		{"by a rule that its release will bring", will, "a.test"},
		{"by none", never, ""},
	} {
		objects, err := c.r.objects()
		if err != nil {
			t.Fatal(err)
		}
		all := there(objects...)
		way := reachables(all)[api]
		policy, closed := all["NetworkPolicy/castle-api"]
		if public := publicGroups(all)[api]; way.host != c.host || public != (c.host != "") || closed != (c.host == "") {
			t.Errorf("%s: it is asked for at %q, public %v, policy %v; want %q", c.name, way.host, public, policy, c.host)
		}
	}
}

// weighted are the weights of all rules of the HTTPRoute of www, by the Services that they lead to.
func weighted(t *testing.T, r rendering) (all []map[string]int64) {
	t.Helper()
	for _, rule := range routesOf(t, r)["castle-www"].Spec.Rules[1:] {
		weights := map[string]int64{}
		for _, b := range rule.BackendRefs {
			weights[string(b.Name)] = weightOf(b)
		}
		all = append(all, weights)
	}
	return all
}

func TestWeights_AreInTheProportionsOfTheTargets(t *testing.T) {
	for _, c := range []struct {
		name     string
		www, api int // weights in the file
		canary   spillway.Share
		want     map[string]int64
	}{
		{"even", 1, 1, 0, map[string]int64{"castle-www-1": 10_000, "castle-www-2": 0, "castle-api-1": 10_000}},
		{"nobody", 0, 1, 0, map[string]int64{"castle-www-1": 0, "castle-www-2": 0, "castle-api-1": 10_000}},
		{"more than an HTTPRoute takes", 300, 100, 0, map[string]int64{"castle-www-1": 1_000_000, "castle-www-2": 0, "castle-api-1": 333_333}},
		{"with a canary", 950, 50, 500, map[string]int64{"castle-www-1": 1_000_000, "castle-www-2": 52_632, "castle-api-1": 55_402}},
		{"the least", 1_000_000, 1, 0, map[string]int64{"castle-www-1": 1_000_000, "castle-www-2": 0, "castle-api-1": 1}},
		{"the most", 1_000_000, 1_000_000, 5000, map[string]int64{"castle-www-1": 500_000, "castle-www-2": 500_000, "castle-api-1": 1_000_000}},
	} {
		r := shop([]string{"a.test"}, under("/v1", []spillway.Target{{Service: "www", Weight: c.www}, {Service: "api", Weight: c.api}}, "a.test"))
		www := &r.desired.Route.Edges[1]
		www.Backends[0].Weight -= c.canary
		www.Backends = append(www.Backends, spillway.Backend{Group: spillway.Group{Service: "www", Release: 2}, Release: 2, Weight: c.canary})
		if got := weighted(t, r)[0]; !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Of one target alone its weight does not matter.
func TestWeights_OfOneTargetAreThoseOfItsEdge(t *testing.T) {
	for _, weight := range []int{0, 1, 7} {
		r := shop([]string{"a.test"}, under("/v1", []spillway.Target{{Service: "api", Weight: weight}}, "a.test"))
		if got := weighted(t, r)[0]["castle-api-1"]; got != 10_000 {
			t.Errorf("weight %d is %d", weight, got)
		}
	}
}

// When the candidate has all users, those whom a header leads to stable are the candidate's too.
func TestWeights_WhoHasNoPartOfATrackGetsNobodyOfIt(t *testing.T) {
	r := shop([]string{"a.test"})
	www := &r.desired.Route.Edges[1]
	www.Rules = []spillway.Rule{{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Old"}, Value: "1"}}}
	www.Backends[0].Weight, www.Backends[0].Within = 0, 0
	www.Backends = append(www.Backends, spillway.Backend{Group: spillway.Group{Service: "www", Release: 2}, Release: 2, Weight: 9000, Within: spillway.Whole})
	if got := weighted(t, r)[0]; !maps.Equal(got, map[string]int64{"castle-www-1": 0, "castle-www-2": 10_000}) {
		t.Error(got)
	}
}
