package kube

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Gateway is the Gateway of the Gateway API that public routes are attached to. The zero value is none.
type Gateway struct {
	Namespace string
	Name      string
	Section   string // name of a listener; "" = all that allow it
}

// probePrefix begins the path by which a gateway is asked which generation of a route it serves: it answers by a
// redirect, without asking a replica.
const probePrefix = "/.well-known/spillway/"

// ownerPath is answered with a generation of the app that has the users of a host.
const ownerPath = probePrefix + "owner"

// elsewhere says that a gateway answers for another app of Spillway, where it should lead to own: "" = it does not. That one
// is of another namespace as a rule, since a server gives no host to two of its apps.
func elsewhere(to, own, host string) string {
	_, theirs, _ := strings.Cut(to, ".")
	_, ours, _ := strings.Cut(own, ".")
	if theirs == ours || !strings.HasSuffix(theirs, ".spillway.invalid") {
		return ""
	}
	return "the gateway answers at " + host + " for another app, of another namespace: " + twoOwners
}

// twoOwners is what to do about a host that an HTTPRoute has which the server may not read.
const twoOwners = "an HTTPRoute of somebody else seems to have this host too, of which a gateway obeys one, mostly the older; find it with kubectl get httproutes -A, and delete one of them, or give one another host"

// probeHost is the host that the answer to a probe leads to. The name cannot exist (RFC 6761), and is of this app alone:
// another namespace may have an app with the same host, and routes of the same number.
func probeHost(namespace, app string, generation int64) string {
	return fmt.Sprintf("generation-%d.%s.spillway.invalid", generation, identity(namespace, app))
}

// identity tells apps of a cluster apart, in a label of a host name.
func identity(namespace, app string) string {
	return fmt.Sprintf("%.6x", sha256.Sum256([]byte(namespace+"/"+app)))
}

// httpRoutes are the public edges. Those of TCP are not possible with the Gateway API's standard channel.
func (r *rendering) httpRoutes() ([]client.Object, error) {
	if r.gateway.Name == "" {
		return r.publicServices()
	}
	var routes []client.Object
	names := map[string]bool{}
	for _, s := range sites(r.desired.Route) {
		if s.edge.Protocol == spillway.TCP {
			return nil, fmt.Errorf("service %s: a public address of TCP cannot be had from a gateway by HTTPRoute; give it no listen on Kubernetes, and a Service of type LoadBalancer of your own: %w", s.edge.Service, spillway.ErrInvalid)
		}
		name := routeName(r.ref, s.edge)
		if names[name] {
			name = hostsName(r.ref, s.edge, s.hosts[0])
		}
		names[name] = true
		route, err := r.httpRoute(name, s)
		if err != nil {
			return nil, err
		}
		routes = append(routes, route)
	}
	return routes, nil
}

// reachRoutes are the ways by which a gateway is asked whether it reaches the replicas of a group, before the group
// has users: one for each group to which they come, or will. Without asking, the first users of a group would meet
// a gateway that knows their route and not yet who is behind it.
func (r *rendering) reachRoutes() []client.Object {
	var routes []client.Object
	for _, w := range r.desired.Groups {
		host := r.askedAt(w)
		if w.Replicas == 0 || host == "" {
			continue
		}
		route := &gatewayv1.HTTPRoute{
			TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"},
			ObjectMeta: r.meta(reachName(r.ref, w.Group), labels(r.ref, w.Group)),
			Spec: gatewayv1.HTTPRouteSpec{
				CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{r.parent()}},
				Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(host)},
				Rules: []gatewayv1.HTTPRouteRule{
					redirectRule(routedPath(w.Group), reachHost(r.namespace, v1alpha1.Label(r.ref))),
					{
						Matches:     []gatewayv1.HTTPRouteMatch{{Path: exact(reachPath(w.Group))}},
						BackendRefs: r.backends(w.Group.Service, []spillway.Backend{{Group: w.Group}}, func(spillway.Backend) spillway.Share { return 1 }),
					},
				},
			},
		}
		routes = append(routes, route)
	}
	return routes
}

// askedAt is a public host at which a gateway is asked for a group; "" when no gateway has to reach it. It is one by which
// users get there now, or else will: by hosts of the service, or by rules of the release.
func (r *rendering) askedAt(w rollout.Want) string {
	config := r.releases[w.Release].Config
	s, _ := config.Service(w.Group.Service)
	if r.gateway.Name == "" || s.Protocol == spillway.TCP {
		return ""
	}
	var hosts []string
	for _, e := range r.desired.Route.Edges {
		if e.From != (spillway.Group{}) || !slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return b.Group == w.Group }) {
			continue
		}
		if len(e.Hosts) > 0 {
			return e.Hosts[0]
		}
		hosts = append(hosts, hostsTo(r.desired.Route.Rules, func(to spillway.Target) bool { return to.Name() == e.Target })...)
	}
	hosts = slices.Concat(hosts, s.Host, hostsTo(config.Routes, func(to spillway.Target) bool { return to.Service == s.Name && len(to.URLs) == 0 }))
	for _, t := range s.Tracks {
		hosts = append(hosts, t.Host...)
	}
	if len(hosts) == 0 {
		return ""
	}
	return hosts[0]
}

// hostsTo are the hosts of rules that lead to a target.
func hostsTo(rules []spillway.HTTPRule, is func(spillway.Target) bool) (hosts []string) {
	for _, rule := range rules {
		if slices.ContainsFunc(rule.To, is) {
			hosts = append(hosts, rule.Hosts...)
		}
	}
	return hosts
}

// reachHost is the host that a gateway redirects to which knows the way to a group of an app.
func reachHost(namespace, app string) string {
	return "reach." + identity(namespace, app) + ".spillway.invalid"
}

// routedPath is answered by the gateway itself, once it knows the way to the group.
func routedPath(g spillway.Group) string { return probePrefix + "routed/" + g.String() }

// reachPath is answered by a replica of the group.
func reachPath(g spillway.Group) string { return probePrefix + "reach/" + g.String() }

// routeName is the name of the HTTPRoute of an edge: "castle-www", "castle-www-canary" for the hosts of a track, and
// "castle-routes-…" for hosts that only rules name.
func routeName(ref spillway.Ref, e spillway.Edge) string {
	switch {
	case e.Service == "":
		return Name(ref, "routes", dashed(e.Hosts[0]))
	case e.Only == "":
		return Name(ref, e.Service)
	}
	return Name(ref, e.Service, e.Only)
}

// hostsName is the name of one more object of an edge, for some of its hosts: "castle-www-at-…".
func hostsName(ref spillway.Ref, e spillway.Edge, host string) string {
	return Name(ref, e.Service, cmp.Or(e.Only, "at"), dashed(host))
}

// dashed is a host as a part of a name; no two are the same.
func dashed(host string) string {
	return strings.NewReplacer("*", "-any", ".", "-", "-", "--").Replace(host)
}

func (r *rendering) httpRoute(name string, s site) (*gatewayv1.HTTPRoute, error) {
	all, e := own(r.ref), s.edge
	if e.Service != "" {
		all[ServiceLabel] = e.Service
	}
	route := &gatewayv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: gatewayv1.GroupVersion.String(), Kind: "HTTPRoute"},
		ObjectMeta: r.meta(name, all),
		Spec:       gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{r.parent()}}},
	}
	r.annotate(route, r.part(e))
	for _, host := range s.hosts {
		route.Spec.Hostnames = append(route.Spec.Hostnames, gatewayv1.Hostname(host))
	}
	route.Spec.Rules = append(route.Spec.Rules, r.probeRule())
	told := variants(r.desired.Route.Rules, s.rules, r.matches)
	for _, v := range told {
		made, err := r.fileRule(v)
		if err != nil {
			return nil, err
		}
		route.Spec.Rules = append(route.Spec.Rules, apart(made, replacesPrefix(v.HTTPRule))...)
	}
	if e.Service == "" {
		return route, nil
	}
	for _, rule := range e.Rules {
		if made, ok := r.trackRule(e, rule); ok && !hides(told) {
			route.Spec.Rules = append(route.Spec.Rules, made)
		}
	}
	route.Spec.Rules = append(route.Spec.Rules, gatewayv1.HTTPRouteRule{
		Matches:     []gatewayv1.HTTPRouteMatch{{Path: prefix("/")}},
		BackendRefs: r.backends(e.Service, e.Backends, func(b spillway.Backend) spillway.Share { return b.Weight }),
	})
	return route, nil
}

// parent names the gateway. What the API server would fill in is said, so that what is there can be compared.
func (r *rendering) parent() gatewayv1.ParentReference {
	group, kind := gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Kind("Gateway")
	parent := gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(r.gateway.Name)}
	if r.gateway.Namespace != "" {
		namespace := gatewayv1.Namespace(r.gateway.Namespace)
		parent.Namespace = &namespace
	}
	if r.gateway.Section != "" {
		section := gatewayv1.SectionName(r.gateway.Section)
		parent.SectionName = &section
	}
	return parent
}

// probeRule has the gateway answer by itself, with the generation that it serves, whatever it is asked for: what the
// server asks must never get to a replica, where it would be counted as what a user asked. The path of the generation is
// in it by itself, so that an app whose host another one has as well hears of its own route.
func (r *rendering) probeRule() gatewayv1.HTTPRouteRule {
	generation := r.desired.Route.Generation
	rule := redirectRule(fmt.Sprintf("%s%d", probePrefix, generation), probeHost(r.namespace, v1alpha1.Label(r.ref), generation))
	rule.Matches = append(rule.Matches, gatewayv1.HTTPRouteMatch{Path: prefix(strings.TrimSuffix(probePrefix, "/"))})
	return rule
}

func redirectRule(path, to string) gatewayv1.HTTPRouteRule {
	host, status := gatewayv1.PreciseHostname(to), 302
	return gatewayv1.HTTPRouteRule{
		Matches: []gatewayv1.HTTPRouteMatch{{Path: exact(path)}},
		Filters: []gatewayv1.HTTPRouteFilter{{
			Type:            gatewayv1.HTTPRouteFilterRequestRedirect,
			RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{Hostname: &host, StatusCode: &status},
		}},
	}
}

func exact(path string) *gatewayv1.HTTPPathMatch {
	kind := gatewayv1.PathMatchExact
	return &gatewayv1.HTTPPathMatch{Type: &kind, Value: &path}
}

func prefix(path string) *gatewayv1.HTTPPathMatch {
	kind := gatewayv1.PathMatchPathPrefix
	return &gatewayv1.HTTPPathMatch{Type: &kind, Value: &path}
}

// backends are references to the Services of groups with the weights that of gives.
func (r *rendering) backends(service string, backends []spillway.Backend, of func(spillway.Backend) spillway.Share) []gatewayv1.HTTPBackendRef {
	var refs []gatewayv1.HTTPBackendRef
	for _, b := range backends {
		group, kind, port, weight := gatewayv1.Group(""), gatewayv1.Kind("Service"), gatewayv1.PortNumber(servicePort), int32(of(b))
		name := backendName(r.ref, service, b)
		refs = append(refs, gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{
			BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(name), Port: &port},
			Weight:                 &weight,
		}})
	}
	return refs
}

// trackRule sends the requests that carry a header or cookie to a track; false when the track has nobody here.
func (r *rendering) trackRule(e spillway.Edge, rule spillway.Rule) (made gatewayv1.HTTPRouteRule, ok bool) {
	there := ofTrack(e, rule.Track)
	if len(there) == 0 {
		return made, false
	}
	made.Matches = matchesOf(with(spillway.HTTPRule{}, -1, rule.Match).HTTPRule)
	made.BackendRefs = r.backends(e.Service, there, func(b spillway.Backend) spillway.Share { return b.Weight })
	return made, true
}

// ofTrack are the backends of a track behind an edge, with their parts of what a rule sends there as weights.
func ofTrack(e spillway.Edge, track string) (there []spillway.Backend) {
	for _, b := range e.Backends {
		if b.Track == track {
			b.Weight = b.Within
			there = append(there, b)
		}
	}
	if len(there) == 1 { // who alone is there has all, and may be told no part
		there[0].Weight = spillway.Whole
	}
	return there
}

func headerMatch(f spillway.FieldMatch) gatewayv1.HTTPHeaderMatch {
	kind, text := gatewayv1.HeaderMatchExact, f.Text
	switch f.Kind {
	case "present":
		kind, text = gatewayv1.HeaderMatchRegularExpression, ".*"
	case "pattern":
		kind, text = gatewayv1.HeaderMatchRegularExpression, whole(f.Text)
	}
	return gatewayv1.HTTPHeaderMatch{Type: &kind, Name: gatewayv1.HTTPHeaderName(f.Name), Value: text}
}

// cookieMatch looks into the Cookie header. The Gateway API has no word for cookies; matches by expression are
// "implementation-specific" in it, and every implementation that we know has RE2 or more.
func cookieMatch(f spillway.FieldMatch) gatewayv1.HTTPHeaderMatch {
	value := regexp.QuoteMeta(f.Text)
	switch f.Kind {
	case "present":
		value = "[^;]*"
	case "pattern":
		value = ofCookie(f.Text)
	}
	kind := gatewayv1.HeaderMatchRegularExpression
	return gatewayv1.HTTPHeaderMatch{Type: &kind, Name: "Cookie", Value: `^(?:.*;\s*)?` + regexp.QuoteMeta(f.Name) + "=" + value + `\s*(?:;.*)?$`}
}
