package kube

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// doubt is how long a gateway's 502, 503 and 504 are taken for its own and not for the program's.
const doubt = 5 * time.Second

// reachable is an HTTPRoute by which a gateway is asked for a group.
type reachable struct {
	group spillway.Group
	host  string
	to    string // where a gateway leads that knows the way
}

// reachables are the ways of reachRoutes that are there.
func reachables(there map[string]client.Object) map[spillway.Group]reachable {
	all := map[spillway.Group]reachable{}
	for _, o := range there {
		h, ok := o.(*gatewayv1.HTTPRoute)
		if !ok || len(h.Spec.Hostnames) == 0 || h.DeletionTimestamp != nil {
			continue
		}
		if g, ok := groupOf(h.Labels); ok {
			all[g] = reachable{g, concrete(string(h.Spec.Hostnames[0])), reachHost(h.Namespace, h.Labels[AppLabel])}
		}
	}
	return all
}

// publicGroups are those that a gateway has to reach.
func publicGroups(there map[string]client.Object) map[spillway.Group]bool {
	public := map[spillway.Group]bool{}
	for _, o := range there {
		if d, ok := o.(*appsv1.Deployment); ok {
			g, _ := groupOf(d.Labels)
			public[g] = d.Annotations[publicAnnotation] != ""
		}
	}
	return public
}

// onlyReached counts no replica as ready of a group that the gateway does not reach yet: it would get no request. Of
// private groups the cluster's word is taken. a.mu is held.
func (p *Platform) onlyReached(a *app, there map[string]client.Object, groups []rollout.Group) {
	ask, public := false, publicGroups(there)
	for i := range groups {
		g := &groups[i]
		if !public[g.Group] || g.Ready == 0 {
			delete(a.reached, g.Group)
			delete(a.lost, g.Group)
			continue
		}
		if !a.reached[g.Group] {
			g.Ready, ask = 0, true
			if g.Problem == "" {
				g.Problem = "ready, and the gateway does not reach it yet"
				if why := a.lost[g.Group]; why != "" {
					g.Problem += ": " + why
				}
			}
		}
	}
	a.missed = a.missed || ask
	if ask && !a.reaching {
		a.reaching = true
		p.unknown <- a
	}
}

// settling is how long the nodes may take to lead a Service to a new replica: kube-proxy writes its rules at most once a
// second (its minSyncPeriod).
const settling = 2 * time.Second

// onlySettled counts no replica of a private group as ready before every node had the time to lead its Services there:
// who calls it would be refused. The time begins when this process sees the replica ready, because the clocks of nodes
// differ from its own; of those that were ready when it looked first the cluster's word is taken. a.mu is held.
func (p *Platform) onlySettled(a *app, there map[string]client.Object, pods []corev1.Pod, groups []rollout.Group, now time.Time) {
	public, next, seen := publicGroups(there), time.Duration(0), map[types.UID]time.Time{}
	for i := range pods {
		pod := &pods[i]
		g, ok := groupOf(pod.Labels)
		if !ok || public[g] || pod.DeletionTimestamp != nil || over(pod) || !ready(pod) {
			continue
		}
		since, known := a.ready[pod.UID]
		if !known {
			since = now
			if at := condition(pod, corev1.PodReady).LastTransitionTime.Time; a.ready == nil && at.Before(now) {
				since = at
			}
		}
		seen[pod.UID] = since
		left := settling - now.Sub(since)
		if left <= 0 {
			continue
		}
		next = max(next, left)
		for j := range groups {
			if groups[j].Group == g && groups[j].Ready > 0 {
				groups[j].Ready--
			}
		}
	}
	a.ready = seen
	if next > 0 && !a.settles {
		a.settles = true
		time.AfterFunc(next, func() { // it ends by itself: a round that is one too many costs nothing
			a.mu.Lock()
			a.settles = false
			a.mu.Unlock()
			p.watchers.Changed(a.ref)
		})
	}
}

// reach asks the gateway for the groups that are ready and that it was not known to reach, until it reaches all of
// them or they are gone. It ends with ctx.
func (p *Platform) reach(ctx context.Context, a *app) {
	began, quiet := map[spillway.Group]time.Time{}, map[spillway.Group]*calm{}
	for {
		a.mu.Lock()
		a.missed = false
		a.mu.Unlock()
		missing, more := p.missing(ctx, a)
		if a.reachesAll(more, ctx.Err() != nil) {
			return
		}
		maps.DeleteFunc(quiet, func(g spillway.Group, _ *calm) bool {
			return !slices.ContainsFunc(missing, func(w reachable) bool { return w.group == g })
		})
		news := false
		for _, w := range missing {
			if quiet[w.group] == nil {
				quiet[w.group] = &calm{}
			}
			if began[w.group].IsZero() {
				began[w.group] = time.Now()
			}
			problem := p.reaches(ctx, w, time.Since(began[w.group]))
			switch holds := quiet[w.group].holds(problem == "", p.calmTime(ctx, w.host)); {
			case problem == "" && !holds:
				continue
			case problem != "":
				p.log.Debug("group is not reached yet", "app", a.ref, "group", w.group, "why", problem)
				a.mu.Lock()
				a.lost[w.group] = problem
				a.mu.Unlock()
				continue
			}
			news = true
			a.mu.Lock()
			a.reached[w.group] = true
			a.mu.Unlock()
		}
		if news {
			p.watchers.Changed(a.ref)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(p.conf.Patience):
		}
	}
}

// reachesAll ends the asking when there is nothing more to ask for, and nothing was seen meanwhile: who sees something now
// begins anew.
func (a *app) reachesAll(more, ends bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if (more || a.missed) && !ends {
		return false
	}
	a.reaching = false
	return true
}

// missing are the groups with ready replicas that are not known to be reached, and for which there is a way of asking;
// more: there are some, with or without one.
func (p *Platform) missing(ctx context.Context, a *app) (list []reachable, more bool) {
	there, err := p.there(ctx, a.ref)
	if err != nil {
		return nil, false // the next observation asks again
	}
	pods, err := p.pods(ctx, a.ref)
	if err != nil {
		return nil, false
	}
	ways, public := reachables(there), publicGroups(there)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range observeGroups(there, pods) {
		if g.Ready == 0 || !public[g.Group] || a.reached[g.Group] {
			continue
		}
		more = true
		if w, ok := ways[g.Group]; ok {
			list = append(list, w)
		}
	}
	return list, more
}

// reaches asks a gateway for a group, each of its instances: first whether it knows the way, then for an answer of a
// replica, whatever that answer is. One that may be the gateway's own is believed to be the program's after a while.
func (p *Platform) reaches(ctx context.Context, w reachable, since time.Duration) (problem string) {
	return p.everywhere(ctx, w.host, func(ctx context.Context, d opening) (string, error) {
		to, status, err := p.look(ctx, d, routedPath(w.group), w.host)
		if err != nil {
			return "", err
		}
		if why := elsewhere(to, w.to, w.host); why != "" {
			return why, nil
		}
		if to != w.to {
			return fmt.Sprintf("%s does not know the way to %s yet (it answered %d)", d, w.group, status), nil
		}
		_, status, err = p.look(ctx, d, reachPath(w.group), w.host)
		if err != nil && !unconnected(err) {
			return fmt.Sprintf("%s gives no answer of %s: %v; does it answer any path within %v, and may the gateway connect to its pods?", d, w.group, err, p.http.Timeout), nil
		}
		if err == nil && status >= http.StatusBadGateway && status <= http.StatusGatewayTimeout && since < doubt {
			return fmt.Sprintf("%s answers %d for %s", d, status, w.group), nil
		}
		return "", err
	})
}
