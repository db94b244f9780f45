package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// noGateway is why a cluster can neither divide users as asked nor count answers, with the next step.
const noGateway = "the server has no gateway (" + toldGateway + "), so users are divided by ready replicas and nobody counts answers"

// narrowAnnotation says why a Service does not lead to all groups that it should.
const narrowAnnotation = "spillway.dev/narrow"

// publicServices are the public edges where there is no gateway: a Service named like the edge, for what leads users
// into the cluster (an Ingress, a load balancer) to point at. Users are divided by replicas.
func (r *rendering) publicServices() ([]client.Object, error) {
	var services []client.Object
	names := map[string]bool{}
	for _, e := range r.desired.Route.Edges {
		if e.From != (spillway.Group{}) || len(e.Hosts) == 0 {
			continue
		}
		name := routeName(r.ref, e)
		if e.Only != "" {
			return nil, fmt.Errorf("service %s: hosts of its own for %s need a gateway, and the server was told of none (%s): %w", e.Service, e.Only, toldGateway, spillway.ErrInvalid)
		}
		if names[name] { // some hosts are being moved to another service
			name = hostsName(r.ref, e, e.Hosts[0])
		}
		names[name] = true
		all := own(r.ref)
		all[ServiceLabel] = e.Service
		service := &corev1.Service{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: r.meta(name, all),
			Spec: corev1.ServiceSpec{Type: r.publicType, Ports: []corev1.ServicePort{portOf(e.Protocol)}},
		}
		r.annotate(service, r.part(e))
		selects, narrow := r.selects(e)
		if service.Spec.Selector = selects; narrow != "" {
			r.annotate(service, map[string]string{narrowAnnotation: narrow})
		}
		services = append(services, service)
	}
	return services, nil
}

// selects is what leads to the groups of an edge that have a weight and to no others. Selectors know equality alone:
// one group is found by its release, several by their service and track. While that would find a group without weight
// too, the first one alone is selected, which is stable: nobody is given more of a candidate than was said.
func (r *rendering) selects(e spillway.Edge) (selects map[string]string, narrow string) {
	var weighted []spillway.Group
	for _, b := range e.Backends {
		if b.Weight > 0 && len(b.URLs) == 0 {
			weighted = append(weighted, b.Group)
		}
	}
	switch len(weighted) {
	case 0:
		return nobody(r.ref, e.Service), ""
	case 1:
		return selector(r.ref, weighted[0]), ""
	}
	tracks := r.groupTracks()
	all := selector(r.ref, weighted[0])
	delete(all, ReleaseLabel)
	all[TrackLabel] = tracks[weighted[0]]
	for _, g := range weighted {
		if tracks[g] != all[TrackLabel] || g.Service != weighted[0].Service {
			return selector(r.ref, weighted[0]), fmt.Sprintf("no selector finds both %s and %s", weighted[0], g)
		}
	}
	for g, track := range tracks {
		if g.Service == weighted[0].Service && track == all[TrackLabel] && !slices.Contains(weighted, g) {
			return selector(r.ref, weighted[0]), fmt.Sprintf("%s has to be gone first: a selector that finds %s and %s finds it too", g, weighted[0], weighted[1])
		}
	}
	return all, ""
}

// groupTracks are all groups that are wanted or there, with the tracks that their replicas are labelled with.
func (r *rendering) groupTracks() map[spillway.Group]string {
	all := maps.Clone(r.tracks)
	if all == nil {
		all = map[spillway.Group]string{}
	}
	for _, w := range r.desired.Groups {
		if w.Replicas > 0 {
			all[w.Group] = r.trackOf(w)
		}
	}
	return all
}

// nobody selects no replica.
func nobody(ref spillway.Ref, service string) map[string]string {
	all := selector(ref, spillway.Group{Service: service})
	all[ReleaseLabel] = "none"
	return all
}

// byReplicas gives the edges of public Services the shares that the groups have by their ready replicas: what users
// get, not what was asked for. A group that is selected has a share as long as it could get a request.
func byReplicas(parts []part, groups []rollout.Group) {
	ready := map[spillway.Group]int{}
	for _, g := range groups {
		ready[g.Group] = g.Ready
	}
	for i := range parts {
		s, ok := parts[i].object.(*corev1.Service)
		backends := parts[i].edge.Backends // none: somebody edited the annotation
		if !ok || parts[i].edge.From != (spillway.Group{}) || s.Spec.Selector[ReleaseLabel] != "" || len(backends) == 0 {
			continue
		}
		sum := 0
		for _, b := range backends {
			sum += ready[b.Group]
		}
		left := spillway.Whole
		for j := len(backends) - 1; j > 0; j-- {
			backends[j].Weight = max(spillway.Share(int(spillway.Whole)*ready[backends[j].Group]/max(sum, 1)), 1)
			left -= backends[j].Weight
		}
		backends[0].Weight = left
	}
}

// leads says why the cluster does not yet lead a public Service to the replicas that it selects; "" = it does, as far
// as the cluster tells. When each node has heard of it nobody tells; old replicas answer for a while (see Stop.Drain).
func (p *Platform) leads(ctx context.Context, ref spillway.Ref, s *corev1.Service) string {
	if why := s.Annotations[narrowAnnotation]; why != "" {
		return "Service " + s.Name + ": " + why
	}
	pods, err := p.pods(ctx, ref)
	if err != nil {
		return spillway.Text(err)
	}
	var list discoveryv1.EndpointSliceList
	if err := p.live.List(ctx, &list, client.InNamespace(s.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: s.Name}); err != nil {
		return spillway.Text(explain("look where Service "+s.Name+" leads", err))
	}
	led := map[string]bool{}
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.TargetRef != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				led[e.TargetRef.Name] = true
			}
		}
	}
	for i := range pods {
		pod := &pods[i]
		wanted := k8slabels.SelectorFromSet(s.Spec.Selector).Matches(k8slabels.Set(pod.Labels)) && ready(pod) && pod.DeletionTimestamp == nil
		switch {
		case wanted && !led[pod.Name]:
			return fmt.Sprintf("Service %s does not lead to pod %s yet", s.Name, pod.Name)
		case !wanted && led[pod.Name] && pod.DeletionTimestamp == nil && ready(pod):
			return fmt.Sprintf("Service %s still leads to pod %s", s.Name, pod.Name)
		}
	}
	return ""
}

// ServiceType is a type of Service: "ClusterIP".
func ServiceType(text string) (corev1.ServiceType, error) {
	switch t := corev1.ServiceType(text); t {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return t, nil
	}
	return "", fmt.Errorf("%s is no type of Service; it is ClusterIP, NodePort or LoadBalancer: %w", strconv.Quote(text), spillway.ErrInvalid)
}
