package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// withoutGateway is a rollout of release 2 at 5 % where there is no gateway.
func withoutGateway() rendering {
	r := canary()
	r.gateway, r.publicType, r.desired.Tasks = Gateway{}, corev1.ServiceTypeNodePort, nil
	r.desired.Groups = []rollout.Want{r.desired.Groups[3], r.desired.Groups[4]}
	edges := r.desired.Route.Edges
	public := edges[len(edges)-1]
	public.Rules, public.Backends = nil, public.Backends[1:]
	r.desired.Route.Edges = []spillway.Edge{public}
	return r
}

func TestRender_WithoutAGateway(t *testing.T) { golden(t, "plain.yaml", withoutGateway()) }

func TestRender_SelectsWhatHasAWeightAndNothingElse(t *testing.T) {
	www := func(n int) spillway.Group { return spillway.Group{Service: "www", Release: n} }
	edge := func(backends ...spillway.Backend) spillway.Edge {
		return spillway.Edge{Service: "www", Hosts: []string{"www.castle.test"}, Backends: backends}
	}
	stable, candidate := spillway.Backend{Group: www(1), Weight: 9500}, spillway.Backend{Group: www(2), Weight: 500}
	one := selector("castle", www(1))
	both := map[string]string{AppLabel: "castle", ServiceLabel: "www", TrackLabel: "stable"}
	for _, c := range []struct {
		name   string
		edge   spillway.Edge
		change func(*rendering)
		want   map[string]string
		narrow string // a part of it
	}{
		{"stable alone", edge(stable), func(*rendering) {}, one, ""},
		{"both", edge(stable, candidate), func(*rendering) {}, both, ""},
		{"a candidate without users", edge(stable, spillway.Backend{Group: www(2)}), func(*rendering) {}, one, ""},
		{"closed", edge(), func(*rendering) {}, nobody("castle", "www"), ""},
		{"another release is leaving", edge(stable, candidate), func(r *rendering) { r.tracks = map[spillway.Group]string{www(3): "stable"} }, one, "www.3 has to be gone first"},
		{"another track is not found", edge(stable, candidate), func(r *rendering) { r.tracks = map[spillway.Group]string{www(3): "beta"} }, both, ""},
		{"a candidate made for a track", edge(stable, candidate), func(r *rendering) { r.tracks = map[spillway.Group]string{www(2): "beta"} }, one, "no selector finds both"},
		{"hosts that move to another service", edge(stable, spillway.Backend{Group: spillway.Group{Service: "shop", Release: 2}, Weight: 500}), func(*rendering) {}, one, "no selector finds both"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := withoutGateway()
			c.change(&r)
			got, narrow := r.selects(c.edge)
			if !maps.Equal(got, c.want) || (narrow == "") != (c.narrow == "") || !strings.Contains(narrow, c.narrow) {
				t.Errorf("%v, %q; want %v, %q", got, narrow, c.want, c.narrow)
			}
		})
	}
}

func TestByReplicas_TellsWhatUsersGet(t *testing.T) {
	www := func(n int) spillway.Group { return spillway.Group{Service: "www", Release: n} }
	for _, c := range []struct {
		stable, candidate int // ready
		want              spillway.Share
	}{{1, 1, 5000}, {3, 1, 2500}, {0, 1, 10000}, {2, 0, 1}, {0, 0, 1}} {
		e := spillway.Edge{Service: "www", Backends: []spillway.Backend{{Group: www(1), Weight: 9500}, {Group: www(2), Weight: 500}}}
		parts := []part{{object: &corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{ServiceLabel: "www"}}}, edge: e}}
		byReplicas(parts, []rollout.Group{{Group: www(1), Ready: c.stable}, {Group: www(2), Ready: c.candidate}})
		if got := parts[0].edge.Backends; got[1].Weight != c.want || got[0].Weight != spillway.Whole-c.want {
			t.Errorf("%d and %d ready: %v; want %v for the candidate", c.stable, c.candidate, got, c.want)
		}
	}
}

func TestByReplicas_TakesAnEdgeThatSomebodyEdited(t *testing.T) {
	for _, edge := range []string{"{}", `{"service":"www","hosts":["www.castle.test"],"backends":[]}`} {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www", Annotations: map[string]string{edgeAnnotation: edge}}, Spec: corev1.ServiceSpec{Selector: map[string]string{ServiceLabel: "www"}}}
		byReplicas(routeParts(there(s)), []rollout.Group{{Group: spillway.Group{Service: "www", Release: 1}, Ready: 1}})
	}
}

func TestFits_SaysAllThatAClusterCannotDo(t *testing.T) {
	www := spillway.Service{Name: "www", Host: []string{"www.castle.test"}}
	with := func(urls ...string) spillway.App {
		s := www
		s.Tracks = []spillway.Track{{Name: "legacy", URLs: urls}}
		return spillway.App{Name: "castle", Services: []spillway.Service{s}}
	}
	listens := www
	listens.Listen = []string{":6379"}
	dark := www
	dark.Standby = &spillway.Standby{Host: []string{"off.castle.test"}}
	rule := spillway.HTTPRule{Hosts: []string{"www.castle.test"}, To: []spillway.Target{{Service: "www"}}}
	many := func(n int, hosts ...string) (rules []spillway.HTTPRule) {
		for i := range n {
			rules = append(rules, under(fmt.Sprintf("/%d", i), []spillway.Target{{Service: "www", Track: "stable"}}, hosts...))
		}
		return rules
	}
	matched := www
	carries := func(name string) spillway.Match {
		return spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: name}, Value: "1"}
	}
	matched.Tracks = []spillway.Track{{Name: "canary", Match: []spillway.Match{carries("X-A"), carries("X-B")}}}
	hosts := www
	for i := range 17 {
		hosts.Host = append(hosts.Host, fmt.Sprintf("h%d.castle.test", i))
	}
	two, wild := www, www
	two.Host = []string{"a.castle.test", "b.castle.test"}
	wild.Host = []string{"*.castle.test"}
	below := []spillway.HTTPRule{under("/v1", rule.To, "api.castle.test")}
	limited := rule
	limited.Rate = &spillway.RateLimit{}
	gateway := Gateway{Namespace: "edge", Name: "gw"}
	for _, c := range []struct {
		name string
		app  spillway.App
		at   Gateway
		want []string
	}{
		{"all is well", with("http://10.0.0.1", "http://10.0.0.2:81"), gateway, nil},
		{"the machine itself", with("http://127.0.0.1:9101"), gateway, []string{"give an address that pods reach"}},
		{"TLS", with("https://10.0.0.1"), gateway, []string{"track legacy", "BackendTLSPolicy"}},
		{"an address twice", with("http://10.0.0.1:80", "http://10.0.0.1:81"), gateway, []string{"two of the servers are 10.0.0.1"}},
		{"TCP", spillway.App{Services: []spillway.Service{listens}}, gateway, []string{"listen: :6379"}},
		{"a limit of rate and TCP", spillway.App{Services: []spillway.Service{listens}, Routes: []spillway.HTTPRule{limited}}, gateway, []string{"listen", "rate"}},
		{"plain", spillway.App{Services: []spillway.Service{www}}, Gateway{}, nil},
		{"tracks", with("http://10.0.0.1"), Gateway{}, []string{"tracks (legacy)", "--gateway"}},
		{"a dark host", spillway.App{Services: []spillway.Service{dark}}, Gateway{}, []string{"off.castle.test"}},
		{"as many rules as there is room for", spillway.App{Services: []spillway.Service{www}, Routes: many(14, www.Host[0])}, gateway, nil},
		{"too many rules", spillway.App{Services: []spillway.Service{www}, Routes: many(15, www.Host[0])}, gateway, []string{"service www: " + www.Host[0] + " has 15 rules", "room for 14 in all", "a host of their own"}},
		{"too many with those of tracks", spillway.App{Services: []spillway.Service{matched}, Routes: many(13, www.Host[0])}, gateway, []string{"13 rules of routes and 2 matches of tracks"}},
		{"too many with those of tracks behind rules", spillway.App{Services: []spillway.Service{matched}, Routes: []spillway.HTTPRule{
			under("/a", rule.To, www.Host[0]), under("/b", rule.To, www.Host[0]), under("/c", rule.To, www.Host[0]), under("/d", rule.To, www.Host[0]), under("/e", rule.To, www.Host[0]),
		}}, gateway, []string{"5 rules of routes and 12 matches of tracks"}},
		{"too many of a host of rules alone", spillway.App{Services: []spillway.Service{www}, Routes: many(15, "api.castle.test")}, gateway, []string{"routes: api.castle.test has 15 rules"}},
		{"as many rules for each of two hosts", spillway.App{Services: []spillway.Service{two}, Routes: slices.Concat(many(14, two.Host[0]), many(14, two.Host[1]))}, gateway, nil},
		{"too many for one of two hosts", spillway.App{Services: []spillway.Service{two}, Routes: many(15, two.Host[1])}, gateway, []string{"service www: " + two.Host[1] + " has 15 rules"}},
		{"more hosts than an HTTPRoute takes", spillway.App{Services: []spillway.Service{hosts}}, gateway, nil},
		{"a host of rules below a wildcard", spillway.App{Services: []spillway.Service{wild}, Routes: below}, gateway, []string{"no rule of api.castle.test takes would go on to *.castle.test"}},
		{"one whose rules take all", spillway.App{Services: []spillway.Service{wild}, Routes: append(below, spillway.HTTPRule{Hosts: below[0].Hosts, To: rule.To})}, gateway, nil},
		{"rules", spillway.App{Services: []spillway.Service{www}, Routes: []spillway.HTTPRule{rule}}, Gateway{}, []string{"rules about requests need a gateway"}},
	} {
		err := Fits(c.app, c.at)
		if (err == nil) != (len(c.want) == 0) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v; want %q in it", c.name, err, part)
			}
		}
	}
}
