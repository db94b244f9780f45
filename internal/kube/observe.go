package kube

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Observe says what the cache has of the app, what its gateway was last seen to serve, and what the gateway's
// counters say.
func (p *Platform) Observe(ctx context.Context, ref spillway.Ref) (rollout.Observation, error) {
	there, err := p.there(ctx, ref)
	if err != nil {
		return rollout.Observation{}, err
	}
	pods, err := p.pods(ctx, ref)
	if err != nil {
		return rollout.Observation{}, err
	}
	o := rollout.Observation{Groups: observeGroups(there, pods)}
	a := p.app(ref)
	parts := routeParts(there)
	uid := p.uid(ctx, ref)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.renew(uid) {
		p.follow(ref, spillway.Route{}, time.Time{})
	}
	a.trust(parts, o.Groups)
	p.onlyReached(a, there, o.Groups)
	p.onlySettled(a, there, pods, o.Groups, time.Now())
	p.adopt(a, parts)
	p.withdraw(a, parts)
	o.Served, o.Dead = a.served, a.contest.contested(p.names.dead(a.asked))
	if p.conf.Gateway.Name == "" && len(there) > 0 {
		o.Plain = noGateway
		byReplicas(parts, o.Groups)
	}
	a.silent = silentJobs(a.silent, silentPods(a.silent, pods), there, pods)
	a.explain(o.Groups, pods)
	o.Tasks = observeTasks(there, pods, a.silent)
	o.Stuck = a.stuck(time.Now())
	o.Silence = a.unseen(parts)
	o.NoData = o.Silence != ""
	if a.known {
		o.Served.Edges = edgesOf(parts, a.served) // as they are, also when somebody else changed them
	}
	if p.conf.Judge != nil {
		o.Evidence, o.Memory, _ = p.conf.Judge.Evidence(ref) // why there are no data is in the evidence too
	}
	return o, nil
}

// unseen says why it is not known what the gateway serves; "" = it is known. a.mu is held.
func (a *app) unseen(parts []part) string {
	switch {
	case a.refused != "": // it was served, and nobody knows what users get instead
		return cmp.Or(a.problem, a.refused)
	case !a.known && !a.own && len(parts) > 0: // another process asked for it, and it was not looked at yet
		return Unasked
	}
	return ""
}

// slow is how long the gateway may take for a route before people are told why.
const slow = 3 * time.Second

// stale is after what time what failed is old: a server that leads has tried it again long before.
const stale = time.Minute

// stuck says why what was asked for last is not in place; "" = it is, or is on its way. a.mu is held.
func (a *app) stuck(now time.Time) string {
	switch {
	case a.failed != nil && now.Sub(a.failedAt) < stale && !errors.Is(a.failed, context.Canceled) && !errors.Is(a.failed, spillway.ErrStale): // which is tried again at once
		return sentences(a.failed)
	case a.asking && a.problem != "" && a.refused == "" && now.Sub(a.begun) > slow:
		return a.problem
	}
	return ""
}

// trust takes the gateway to reach the groups that have users by a route that this process did not ask for: when it first
// looks, and when another one has asked for a newer route since. They were reached once, and not to be ready is for those
// that nobody has asked for yet. a.mu is held.
func (a *app) trust(parts []part, groups []rollout.Group) {
	if a.asked.Generation != 0 && (len(parts) == 0 || parts[0].generation <= a.asked.Generation) {
		return
	}
	led := map[string]bool{} // Services, by name: rules lead to groups that are of no edge with hosts
	for _, part := range parts {
		h, ok := part.object.(*gatewayv1.HTTPRoute)
		if !ok {
			continue
		}
		for _, rule := range h.Spec.Rules {
			for _, b := range rule.BackendRefs {
				led[string(b.Name)] = led[string(b.Name)] || weightOf(b) > 0
			}
		}
	}
	for _, g := range groups {
		if led[groupName(a.ref, g.Group)] {
			a.reached[g.Group] = true
		}
	}
}

// uid is that of the App as the cache has it; "" = it has none.
func (p *Platform) uid(ctx context.Context, ref spillway.Ref) types.UID {
	var found v1alpha1.App
	if !p.isDefined() || p.client.Get(ctx, client.ObjectKey{Namespace: p.conf.Namespace, Name: v1alpha1.Name(ref)}, &found, client.UnsafeDisableDeepCopy) != nil {
		return ""
	}
	return found.UID
}

// renew forgets what is remembered when there is another App of the name, and reports whether it did: that one was
// deleted, and its routes are no older ones of this. a.mu is held.
func (a *app) renew(uid types.UID) (forgot bool) {
	if uid == "" || uid == a.uid {
		return false
	}
	if forgot = a.uid != ""; forgot {
		a.asked, a.served, a.since, a.own, a.known = spillway.Route{}, spillway.Route{}, time.Time{}, false, false
		a.problem, a.refused, a.begun, a.failed, a.done = "", "", time.Time{}, nil, ""
		a.reached, a.lost, a.leads, a.applied = map[spillway.Group]bool{}, map[spillway.Group]string{}, map[string]leading{}, map[string]applied{}
		a.sizes, a.edits, a.contest = nil, nil, contest{}
	}
	a.uid = uid
	return forgot
}

// formerly reports whether an object was made for an App of the name that is gone. a.mu is held.
func (a *app) formerly(o client.Object) bool {
	return a.uid != "" && slices.ContainsFunc(o.GetOwnerReferences(), func(owner metav1.OwnerReference) bool { return owner.Kind == "App" && owner.UID != a.uid })
}

// adopt has the gateway asked for a route that another process asked for, when that is newer than our own: this server
// does not lead, and whoever asks it wants to know what is served too. a.mu is held.
func (p *Platform) adopt(a *app, parts []part) {
	if len(parts) == 0 || parts[0].generation <= a.asked.Generation {
		return
	}
	route := spillway.Route{Generation: parts[0].generation}
	for _, part := range parts {
		if part.generation != route.Generation || a.formerly(part.object) {
			return // it is just being written, or on its way out
		}
		known := part.edge.Service == "" // no edge has its hosts
		for _, e := range route.Edges {  // it may have several HTTPRoutes
			known = known || sameWay(e, part.edge)
		}
		if !known {
			route.Edges = append(route.Edges, part.edge)
		}
	}
	p.follow(a.ref, spillway.Route{}, time.Time{}) // another process judged since: begin with what it remembers
	a.asked, a.parts, a.own, a.begun, a.refused = route, len(parts), false, time.Now(), ""
	if !a.asking {
		a.asking = true
		p.pending <- a
	}
}

// pods are the replicas and release commands of an app.
func (p *Platform) pods(ctx context.Context, ref spillway.Ref) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := p.ofApp(ctx, &list, v1alpha1.Label(ref))
	return list.Items, explain("look at the replicas of "+string(ref), err)
}

// observeGroups counts pods by group. A group is there as long as it has a Deployment or a pod.
func observeGroups(there map[string]client.Object, pods []corev1.Pod) []rollout.Group {
	groups := map[spillway.Group]*rollout.Group{}
	at := func(labels map[string]string) *rollout.Group {
		g, ok := groupOf(labels)
		if !ok {
			return nil
		}
		if groups[g] == nil {
			groups[g] = &rollout.Group{Group: g}
		}
		return groups[g]
	}
	for _, o := range there {
		d, ok := o.(*appsv1.Deployment)
		if !ok {
			continue
		}
		if g := at(d.Labels); g != nil {
			g.Problem, g.Fatal = deploymentProblem(d)
			g.Told = g.Problem != ""
			observeScaling(g, d, there, time.Now())
		}
	}
	for i := range pods {
		pod := &pods[i]
		if g := at(pod.Labels); g != nil && !over(pod) {
			count(g, pod)
		}
	}
	var list []rollout.Group
	for _, g := range groups {
		if g.Running == 0 && g.Problem == "" {
			continue // as one that is not there
		}
		if g.Ready > 0 { // in a row, since one became ready
			g.Crashes = 0
		}
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b rollout.Group) int {
		if a.Group.Less(b.Group) {
			return -1
		}
		return 1
	})
	return list
}

// count adds a pod to its group.
func count(g *rollout.Group, pod *corev1.Pod) {
	g.Running++
	if pod.DeletionTimestamp != nil {
		g.Draining++
		return
	}
	if ready(pod) {
		g.Ready++
	}
	ends := endsOf(pod)
	if everReady(pod) {
		g.Restarts += ends
	} else {
		g.Crashes += ends
	}
	problem, fatal := podProblem(pod)
	if problem != "" && (g.Problem == "" || fatal && !g.Fatal) {
		g.Problem, g.Fatal, g.Told = problem, fatal, !ran(pod)
	}
}

// over reports whether a pod has ended for good.
func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}

func ready(pod *corev1.Pod) bool {
	return condition(pod, corev1.PodReady).Status == corev1.ConditionTrue
}

// everReady reports whether a pod is or was ready: its Ready condition has changed since the kubelet took it up.
// The times of conditions are whole seconds, so a pod that was ready within the first one counts as never.
func everReady(pod *corev1.Pod) bool {
	c := condition(pod, corev1.PodReady)
	if c.Status == corev1.ConditionTrue {
		return true
	}
	return pod.Status.StartTime != nil && !c.LastTransitionTime.IsZero() && c.LastTransitionTime.Sub(pod.Status.StartTime.Time).Seconds() > 1
}

// endsOf is how often the program of a pod has ended.
func endsOf(pod *corev1.Pod) int {
	n := 0
	for _, c := range pod.Status.ContainerStatuses {
		n += int(c.RestartCount)
		if c.State.Terminated != nil { // and was not started again yet
			n++
		}
	}
	return n
}
