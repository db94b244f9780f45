package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

const (
	rivalTime = 10 * time.Second // how long what was seen of others is believed
	freshTime = 2 * time.Second  // and at a deploy
	ownerTime = 30 * time.Second // how long what the gateway answered is believed, where the routes of others may not be read
	ownersAt  = 20               // apps that it is asked about at once
	rivalWait = 5 * time.Second  // how long looking may take
)

// others is what the HTTPRoutes of the cluster were seen to say of hosts. It is looked at rarely, and for all apps at
// once: there may be thousands of both.
type others struct {
	mu   sync.Mutex
	last seen
}

// seen is one look. What is in it is never changed.
type seen struct {
	at    time.Time
	all   bool                       // all namespaces; else the server may read its own alone
	taken map[string]string          // hosts of which a route of somebody else takes all requests at our gateway: "other/shop"
	own   map[string]map[string]bool // hosts that our own apps have, by the app's label
}

// lookAtOthers gives what the routes of others say, no older than age.
func (p *Platform) lookAtOthers(ctx context.Context, age time.Duration) (seen, error) {
	p.others.mu.Lock()
	defer p.others.mu.Unlock() // also while the cluster is asked: all who want to know wait for one answer
	if s := p.others.last; !s.at.IsZero() && time.Since(s.at) < age {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, rivalWait)
	defer cancel()
	var list gatewayv1.HTTPRouteList
	err := p.live.List(ctx, &list)
	all := err == nil
	if apierrors.IsForbidden(err) {
		err = p.live.List(ctx, &list, client.InNamespace(p.conf.Namespace))
	}
	if err != nil {
		return seen{}, explain("look at the routes of others", err)
	}
	s := seen{at: time.Now(), all: all, taken: map[string]string{}, own: map[string]map[string]bool{}}
	for i := range list.Items {
		p.sort(&list.Items[i], s)
	}
	p.others.last = s
	return s, nil
}

// sort adds a route to what is seen.
func (p *Platform) sort(h *gatewayv1.HTTPRoute, s seen) {
	ours, app := p.ours(h), h.Labels[AppLabel]
	switch {
	case ours && s.own[app] == nil:
		s.own[app] = map[string]bool{}
	case !ours && (h.DeletionTimestamp != nil || !p.attached(h) || !slices.ContainsFunc(h.Spec.Rules, catchesAll)):
		return
	}
	for _, name := range h.Spec.Hostnames {
		if host := strings.ToLower(string(name)); ours {
			s.own[app][host] = true
		} else {
			s.taken[host] = h.Namespace + "/" + h.Name
		}
	}
}

// HostsFree checks that no HTTPRoute of somebody else leads all requests of a host of the release elsewhere at the same
// gateway: ErrConflict, with its name. Of two the gateway obeys the older one. Hosts that the app has already are not
// looked at: its users must not wait for others to settle that. What the server may not read it cannot see.
func (p *Platform) HostsFree(ctx context.Context, release spillway.Release) error {
	hosts := release.Config.Hosts()
	if p.conf.Gateway.Name == "" || len(hosts) == 0 {
		return nil
	}
	s, err := p.lookAtOthers(ctx, freshTime)
	if err != nil {
		return err
	}
	for _, host := range hosts {
		name := strings.ToLower(host)
		if route := s.taken[name]; route != "" && !s.own[v1alpha1.Label(release.App)][name] {
			return fmt.Errorf("host %s is led elsewhere by HTTPRoute %s at the same gateway, and that one is older; give this app another host, or delete that route first: %w", host, route, spillway.ErrConflict)
		}
	}
	return nil
}

// ours reports whether a server of this namespace made a route.
func (p *Platform) ours(h *gatewayv1.HTTPRoute) bool {
	return h.Namespace == p.conf.Namespace && h.Labels[ManagedBy] == Manager
}

// attached reports whether a route may be of a listener that ours are of.
func (p *Platform) attached(h *gatewayv1.HTTPRoute) bool {
	g := p.conf.Gateway
	namespace := g.Namespace
	if namespace == "" {
		namespace = p.conf.Namespace
	}
	return slices.ContainsFunc(h.Spec.ParentRefs, func(parent gatewayv1.ParentReference) bool {
		in := h.Namespace
		if parent.Namespace != nil {
			in = string(*parent.Namespace)
		}
		other := parent.SectionName != nil && g.Section != "" && string(*parent.SectionName) != g.Section
		return string(parent.Name) == g.Name && in == namespace && !other && (parent.Kind == nil || *parent.Kind == "Gateway")
	})
}

// catchesAll reports whether a rule takes every request that no other rule takes. One of a path gets along with ours.
func catchesAll(rule gatewayv1.HTTPRouteRule) bool {
	return len(rule.Matches) == 0 || slices.ContainsFunc(rule.Matches, func(m gatewayv1.HTTPRouteMatch) bool {
		path := m.Path == nil || m.Path.Value == nil || *m.Path.Value == "/" && (m.Path.Type == nil || *m.Path.Type == gatewayv1.PathMatchPathPrefix)
		return path && len(m.Headers) == 0 && len(m.QueryParams) == 0 && m.Method == nil
	})
}

// publicHosts are the hosts of a route, sorted.
func publicHosts(route spillway.Route) []string {
	var hosts []string
	for _, e := range route.Edges {
		if e.From == (spillway.Group{}) {
			hosts = append(hosts, e.Hosts...)
		}
	}
	for _, rule := range route.Rules {
		hosts = append(hosts, rule.Hosts...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// lookForRivals looks whether others have hosts of an app too: two servers that deploy in the same moment do not see
// each other. It does so once for each route that is served, and again while there are some, or while it is not known. Where
// the routes of others may not be read, the gateway is asked now and then: it may obey one that is made later.
// news: others have other hosts than before.
func (p *Platform) lookForRivals(ctx context.Context, a *app) (news bool) {
	a.mu.Lock()
	hosts := publicHosts(a.served)
	generation, last := a.served.Generation, a.contest
	a.mu.Unlock()
	known := generation == last.generation && !last.open()
	if p.conf.Gateway.Name == "" || known && !last.due(time.Now()) {
		return false
	}
	var s seen
	var err error
	if !known {
		s, err = p.lookAtOthers(ctx, rivalTime/2)
	}
	found := contest{generation: generation, rivals: map[string]string{}, narrow: !s.all && len(hosts) > 0, looked: time.Now()}
	for _, host := range hosts {
		if route := s.taken[strings.ToLower(host)]; route != "" {
			found.rivals[host] = route
		} else if err == nil && !s.all && p.answersForOthers(ctx, a.ref, host) {
			found.rivals[host] = ""
		}
	}
	if err != nil {
		found.rivals, found.unknown = last.rivals, spillway.Text(err) // as they were seen last
		if found.unknown != last.unknown && ctx.Err() == nil {
			p.log.Warn("it is not known whether others have the hosts of an app", "app", a.ref, "error", err, "again in", rivalTime)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.served.Generation != generation { // whoever asked for that one looks for its hosts
		return false
	}
	a.contest = found
	return !maps.Equal(found.rivals, last.rivals)
}

// answersForOthers reports whether an instance of the gateway answers for another app of Spillway at a host: that is how a
// server sees a route that it may not read.
func (p *Platform) answersForOthers(ctx context.Context, ref spillway.Ref, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, rivalWait)
	defer cancel()
	own, host := probeHost(p.conf.Namespace, v1alpha1.Label(ref), 0), concrete(host)
	var found atomic.Bool
	p.everywhere(ctx, host, func(ctx context.Context, d opening) (string, error) {
		to, _, err := p.look(ctx, d, ownerPath, host)
		found.CompareAndSwap(false, err == nil && elsewhere(to, own, host) != "")
		return "", err
	})
	return found.Load()
}

// followRivals looks again where others had hosts at the last look, or where it failed, or is long ago, until ctx ends. No
// round waits for that: an abort has other things to do.
func (p *Platform) followRivals(ctx context.Context) {
	repeat(ctx, rivalTime, func() {
		began := time.Now()
		for _, a := range p.disputes(began) {
			a.mu.Lock()
			open := a.contest.open()
			a.mu.Unlock()
			if !open && time.Since(began) > rivalTime { // a gateway that is silent must not hold up those; the rest is first in the next pass
				break
			}
			if p.lookForRivals(ctx, a) {
				p.watchers.Changed(a.ref)
			}
		}
	})
}

// disputes are the apps whose hosts are to be looked at again: all where something is open, and some of the others, those
// that were looked at first.
func (p *Platform) disputes(now time.Time) (list []*app) {
	type due struct {
		app    *app
		looked time.Time
	}
	var others []due
	for _, a := range p.allApps() {
		a.mu.Lock()
		switch c := a.contest; {
		case c.open():
			list = append(list, a)
		case c.due(now):
			others = append(others, due{a, c.looked})
		}
		a.mu.Unlock()
	}
	slices.SortFunc(others, func(a, b due) int { return a.looked.Compare(b.looked) })
	for _, d := range others[:min(len(others), ownersAt)] {
		list = append(list, d.app)
	}
	return list
}

// repeat does something again and again, for the first time after a pause, until ctx ends.
func repeat(ctx context.Context, pause time.Duration, do func()) {
	every := time.NewTicker(pause)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			do()
		}
	}
}

// contest is who else has the hosts of an app.
type contest struct {
	generation int64             // of the route whose hosts were looked for
	rivals     map[string]string // by host; "" = one that the server may not read
	unknown    string            // why the last look failed, and rivals are those of the one before; "" = it did not
	narrow     bool              // the routes of others may not be read: by the gateway's answers alone they are known
	looked     time.Time
}

// open reports whether it has to be looked again.
func (c contest) open() bool { return len(c.rivals) > 0 || c.unknown != "" }

// due reports whether the gateway is to be asked again.
func (c contest) due(now time.Time) bool { return c.narrow && now.Sub(c.looked) >= ownerTime }

// contested adds to what is wrong with an app the hosts that others have too.
func (c contest) contested(wrong map[string]string) map[string]string {
	for host, route := range c.rivals {
		if wrong == nil {
			wrong = map[string]string{}
		}
		if route == "" {
			wrong[host] = "the gateway answers there for another app, of another namespace: " + twoOwners
			continue
		}
		wrong[host] = fmt.Sprintf("HTTPRoute %s has this host at the same gateway too, which leads users to the older of the two; delete one of them, or give one another host", route)
	}
	return wrong
}

// checkHosts looks whether others have hosts of the apps of this namespace too.
func (p *Platform) checkHosts(ctx context.Context) spillway.Check {
	s, err := p.lookAtOthers(ctx, 0)
	if err != nil {
		return spillway.Check{Name: "hosts", State: "fail", Text: spillway.Text(err)}
	}
	c := spillway.Check{Name: "hosts", State: "ok", Text: "no other HTTPRoute at the gateway has a host of the apps here"}
	if !s.all {
		c.Text += ", as far as this namespace goes: the server may not read those of others"
	}
	for _, app := range slices.Sorted(maps.Keys(s.own)) {
		for _, host := range slices.Sorted(maps.Keys(s.own[app])) {
			if route := s.taken[host]; route != "" {
				c.State, c.Text = "warn", fmt.Sprintf("host %s of app %s belongs to HTTPRoute %s too, and the gateway leads users to the older of the two", host, app, route)
				c.Remedy = "delete one of them, or give one another host"
			}
		}
	}
	return c
}
