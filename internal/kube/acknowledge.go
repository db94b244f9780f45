package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// part is an object that is a part of a route: an HTTPRoute, or the Service of a private edge.
type part struct {
	object     client.Object
	edge       spillway.Edge
	generation int64
}

// routeParts are the parts of a route that are there, sorted by key.
func routeParts(there map[string]client.Object) []part {
	var parts []part
	for _, name := range sortedKeys(there) {
		o := there[name]
		p := part{object: o}
		if json.Unmarshal([]byte(o.GetAnnotations()[edgeAnnotation]), &p.edge) != nil || o.GetDeletionTimestamp() != nil {
			continue
		}
		p.generation, _ = strconv.ParseInt(o.GetAnnotations()[generationAnnotation], 10, 64)
		switch o := o.(type) {
		case *gatewayv1.HTTPRoute:
			reweigh(&p.edge, o)
		case *corev1.Service:
			repoint(&p.edge, o)
		}
		parts = append(parts, p)
	}
	return parts
}

// edgesOf are the edges of a route, with what the parts of its generation say now of their weights.
func edgesOf(parts []part, route spillway.Route) []spillway.Edge {
	edges := slices.Clone(route.Edges)
	for i, e := range edges {
		for _, p := range parts {
			if p.generation == route.Generation && sameWay(p.edge, e) {
				edges[i] = p.edge
			}
		}
	}
	return edges
}

// sameWay reports whether two edges are the same one, whoever is behind it.
func sameWay(x, y spillway.Edge) bool {
	return x.Service == y.Service && x.From == y.From && x.Only == y.Only && slices.Equal(x.Hosts, y.Hosts)
}

// reweigh gives an edge the weights that the HTTPRoute has: the route is the only copy of what is live. Weights
// that do not sum to Whole (somebody else wrote them) are scaled to it.
func reweigh(e *spillway.Edge, route *gatewayv1.HTTPRoute) {
	if len(route.Spec.Rules) == 0 {
		return
	}
	refs := route.Spec.Rules[len(route.Spec.Rules)-1].BackendRefs
	if len(refs) != len(e.Backends) {
		return
	}
	sum := int64(0)
	for _, ref := range refs {
		sum += weightOf(ref)
	}
	if sum == 0 {
		return
	}
	left := spillway.Whole
	for i := range e.Backends {
		e.Backends[i].Weight = spillway.Share(weightOf(refs[i]) * int64(spillway.Whole) / sum)
		left -= e.Backends[i].Weight
	}
	e.Backends[0].Weight += left
}

func weightOf(ref gatewayv1.HTTPBackendRef) int64 {
	if ref.Weight == nil {
		return 1
	}
	return int64(*ref.Weight)
}

// repoint gives a private edge the one group that its Service leads to.
func repoint(e *spillway.Edge, s *corev1.Service) {
	g, ok := groupOf(s.Spec.Selector)
	for i := range e.Backends {
		e.Backends[i].Weight = 0
		if ok && e.Backends[i].Group == g {
			e.Backends[i].Weight = spillway.Whole
		}
	}
}

// acknowledge asks until the gateway serves the route that was asked for last. It ends with ctx and with the app, and in a
// server that does not lead when there is no such route any more.
func (p *Platform) acknowledge(ctx context.Context, a *app) {
	pause := p.conf.Patience
	var quiet calm
	for {
		a.mu.Lock()
		route, n := a.asked, a.parts
		a.mu.Unlock()
		there, err := p.there(ctx, a.ref)
		parts := routeParts(there)
		if err == nil && a.overtaken(parts) || p.forgotten(a) {
			return
		}
		problem := p.serves(ctx, a, route, parts, n, err)
		holds := quiet.holds(problem == "", p.unsure(ctx, parts))
		if ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		again := a.asked.Generation != route.Generation
		if holds && !again {
			if a.refused != "" {
				p.log.Info("the gateway takes a route again", "app", a.ref, "generation", route.Generation)
			}
			a.served, a.known, a.since, a.asking, a.problem, a.refused = a.asked, true, time.Now(), false, "", "" // its trial may be newer
			p.follow(a.ref, a.served, a.since)
			a.mu.Unlock()
			p.watchers.Changed(a.ref)
			if p.lookForRivals(ctx, a) {
				p.watchers.Changed(a.ref)
			}
			return
		}
		if a.problem != problem && problem != "" {
			p.log.Debug("route is not acknowledged yet", "app", a.ref, "generation", route.Generation, "why", problem)
		}
		a.problem = problem
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(pause*5/4, 2*time.Second)
		if again {
			quiet = calm{}
		}
		if again || problem == "" {
			pause = p.conf.Patience
		}
	}
}

// overtaken reports whether a server that does not lead asks for a route that is not there any more: the one that leads has
// written another since. It forgets it then; who observes the app next has it asked for what is there.
func (a *app) overtaken(parts []part) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own || slices.ContainsFunc(parts, func(p part) bool { return p.generation == a.asked.Generation }) {
		return false
	}
	a.asked, a.asking, a.problem, a.refused = spillway.Route{}, false, "", ""
	return true
}

// withdraw takes an acknowledgement back when the gateway says of the route that it does not take it any more, and has it
// asked anew. Another route that was asked for since is acknowledged by itself. a.mu is held.
func (p *Platform) withdraw(a *app, parts []part) {
	if !a.known || a.asked.Generation != a.served.Generation {
		return
	}
	for _, part := range parts {
		h, ok := part.object.(*gatewayv1.HTTPRoute)
		if !ok || part.generation != a.served.Generation {
			continue
		}
		why, refused := accepted(h, p.conf.Gateway)
		if !refused {
			continue
		}
		p.log.Warn("the gateway does not take a route any more", "app", a.ref, "generation", part.generation, "why", why)
		a.known, a.refused, a.problem, a.begun = false, why, why, time.Now()
		if !a.asking {
			a.asking = true
			p.pending <- a
		}
		return
	}
}

// follow tells the judge what is served and since when; zero = it is about to be.
func (p *Platform) follow(ref spillway.Ref, route spillway.Route, since time.Time) {
	if p.conf.Judge == nil {
		return
	}
	if !slices.ContainsFunc(route.Edges, func(e spillway.Edge) bool { return e.From == (spillway.Group{}) }) {
		route = spillway.Route{} // no request comes by a gateway: nobody is judged, and nobody waits for a verdict
	}
	services := map[string]counts.Service{}
	for _, e := range route.Edges {
		for _, b := range e.Backends {
			services[b.Name(e.Service)] = counts.Service{Namespace: p.conf.Namespace, Name: backendName(ref, e.Service, b), Port: servicePort, Asked: reachName(ref, b.Group)}
		}
	}
	if err := p.conf.Judge.Follow(ref, counts.Route{Route: route, Services: services, Acknowledged: since}); err != nil {
		p.log.Warn("a candidate is judged anew", "app", ref, "error", err)
	}
}

// serves says why a route of n parts is not yet what the gateway serves; "" = it is.
func (p *Platform) serves(ctx context.Context, a *app, route spillway.Route, parts []part, n int, err error) string {
	if err != nil {
		return spillway.Text(err)
	}
	late := ""
	for _, part := range parts { // all of them first: the times of several go by together
		if s, ok := part.object.(*corev1.Service); ok && part.edge.From != (spillway.Group{}) && !a.led(s) {
			late = cmp.Or(late, fmt.Sprintf("the nodes may not have Service %s yet", s.Name))
		}
	}
	if len(parts) != n {
		return fmt.Sprintf("%d of %d routes are there", len(parts), n)
	}
	for _, part := range parts {
		if part.generation != route.Generation {
			return fmt.Sprintf("%s is of generation %d", key(part.object), part.generation)
		}
		if s, ok := part.object.(*corev1.Service); ok && part.edge.From == (spillway.Group{}) {
			if problem := p.leads(ctx, a.ref, s); problem != "" {
				return problem
			}
		}
		if h, ok := part.object.(*gatewayv1.HTTPRoute); ok {
			if problem, _ := accepted(h, p.conf.Gateway); problem != "" {
				return problem
			}
		}
	}
	if late != "" {
		return late
	}
	for _, part := range parts {
		if h, ok := part.object.(*gatewayv1.HTTPRoute); ok {
			if problem := p.probe(ctx, h, route.Generation); problem != "" {
				return problem
			}
		}
	}
	return ""
}

// led reports whether the nodes had the time to learn where a Service leads: see settling.
func (a *app) led(s *corev1.Service) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	to, now := fmt.Sprint(s.UID, s.Spec.Selector), time.Now()
	if a.leads[s.Name].to != to {
		a.leads[s.Name] = leading{to, now}
	}
	return now.Sub(a.leads[s.Name].since) >= settling
}

// leading is where a Service leads, and since when this process knows.
type leading struct {
	to    string
	since time.Time
}

// wantedParts is how many objects a route is.
func (p *Platform) wantedParts(route spillway.Route) (n int) {
	for _, e := range route.Edges {
		if e.From != (spillway.Group{}) || len(e.Hosts) > 0 && p.conf.Gateway.Name == "" {
			n++
		}
	}
	if p.conf.Gateway.Name != "" {
		n += len(sites(route))
	}
	return n
}

// accepted says why a gateway does not take a route; "" = it does, in its present form. refused: it says so itself.
func accepted(h *gatewayv1.HTTPRoute, g Gateway) (problem string, refused bool) {
	for _, parent := range h.Status.Parents {
		if string(parent.ParentRef.Name) != g.Name {
			continue
		}
		for _, kind := range []gatewayv1.RouteConditionType{gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs} {
			i := slices.IndexFunc(parent.Conditions, func(c metav1.Condition) bool { return c.Type == string(kind) })
			switch {
			case i < 0 || parent.Conditions[i].ObservedGeneration != h.Generation:
				return fmt.Sprintf("gateway %s has not looked at HTTPRoute %s yet", g.Name, h.Name), false
			case parent.Conditions[i].Status != metav1.ConditionTrue:
				return fmt.Sprintf("gateway %s does not take HTTPRoute %s: %s: %s", g.Name, h.Name, parent.Conditions[i].Reason, parent.Conditions[i].Message), parent.Conditions[i].Status == metav1.ConditionFalse
			}
		}
		return "", false
	}
	return fmt.Sprintf("gateway %s says nothing of HTTPRoute %s; is there such a Gateway, and does its listener allow routes of this namespace?", g.Name, h.Name), false
}

// probe asks the gateway, as users would by each of its listeners, which generation it serves: "" = each of its instances
// serves this one.
func (p *Platform) probe(ctx context.Context, h *gatewayv1.HTTPRoute, generation int64) string {
	if len(h.Spec.Hostnames) == 0 {
		return fmt.Sprintf("HTTPRoute %s has no host any more", h.Name)
	}
	host := concrete(string(h.Spec.Hostnames[0]))
	return p.everywhere(ctx, host, func(ctx context.Context, d opening) (string, error) {
		to, status, err := p.look(ctx, d, fmt.Sprintf("%s%d", probePrefix, generation), host)
		own := probeHost(h.Namespace, h.Labels[AppLabel], generation)
		if why := elsewhere(to, own, host); err == nil && why != "" {
			return why, nil
		}
		if err == nil && to != own {
			return fmt.Sprintf("%s does not serve generation %d of %s yet (it answered %d)", d, generation, host, status), nil
		}
		return "", err
	})
}
