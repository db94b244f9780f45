package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
)

// placeAll applies all that is wanted, and gives their names and what was refused. That holds up no other; held: nothing
// may be deleted, because a route of users was refused or the cluster does not answer.
func (p *Platform) placeAll(ctx context.Context, a *app, r *rendering, wanted []client.Object, there map[string]client.Object) (names map[string]bool, refused map[string]error, held bool) {
	names = map[string]bool{}
	for _, o := range wanted {
		names[key(o)] = true
	}
	refused = p.dropAutoscalers(ctx, a, names, there)
	slices.SortStableFunc(wanted, func(x, y client.Object) int { return cmp.Compare(lostHosts(x, there), lostHosts(y, there)) })
	for _, o := range wanted {
		if held && lostHosts(o, there) > 0 {
			continue // who was to get them may be the one that was refused
		}
		err := leadsAstray(o, there, refused)
		if err == nil {
			err = p.place(ctx, a, r, o, there)
		}
		if err == nil {
			continue
		}
		refused[key(o)] = err
		if errors.Is(err, spillway.ErrUnavailable) || ctx.Err() != nil {
			return names, refused, true // the others would fail too, each after its time
		}
		held = held || leadsUsers(o)
	}
	return names, refused, held
}

// lostHosts is how many hosts a route has and is to have no more. It is written after those that get them: a host must not
// be nobody's meanwhile.
func lostHosts(o client.Object, there map[string]client.Object) (n int) {
	will, ok := o.(*gatewayv1.HTTPRoute)
	was, is := there[key(o)].(*gatewayv1.HTTPRoute)
	if !ok || !is {
		return 0
	}
	for _, host := range was.Spec.Hostnames {
		if !slices.Contains(will.Spec.Hostnames, host) {
			n++
		}
	}
	return n
}

// leadsUsers reports whether users come by an object. By the way on which the gateway is asked for a group nobody does: if
// that held up what has to go, the route would wait for what is left of the one before, and the group for the route.
func leadsUsers(o client.Object) bool {
	_, route := o.(*gatewayv1.HTTPRoute)
	return route && o.GetAnnotations()[edgeAnnotation] != ""
}

// together is what was refused as one error. A write that came too late is tried again at once, and must not keep people
// from being told of the others.
func together(refused map[string]error) (failed error) {
	var late error
	for _, name := range sortedKeys(refused) {
		if errors.Is(refused[name], spillway.ErrStale) {
			late = errors.Join(late, refused[name])
		} else {
			failed = errors.Join(failed, refused[name])
		}
	}
	if failed == nil {
		failed = late
	}
	return failed
}

// leadsAstray is an error for a route that leads users to a Service that was refused: one of that name may be somebody
// else's. A route that leads no more of them there than the present one does, as after an abort, is none.
func leadsAstray(o client.Object, there map[string]client.Object, refused map[string]error) error {
	route, ok := o.(*gatewayv1.HTTPRoute)
	if !ok {
		return nil
	}
	present, _ := there[key(o)].(*gatewayv1.HTTPRoute)
	for _, rule := range route.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if err := refused["Service/"+string(b.Name)]; err != nil && partTo(route, b.Name) > partTo(present, b.Name) {
				return astray{route.Name, string(b.Name), err}
			}
		}
	}
	return nil
}

// astray is that a route is left as it is, because of a Service whose own error is told beside it.
type astray struct {
	route, service string
	refused        error
}

func (a astray) Error() string {
	return fmt.Sprintf("HTTPRoute %s is as it was: it would lead users to Service %s, which is refused", a.route, a.service)
}

func (a astray) Unwrap() error { return a.refused }

// partTo is the greatest part of its users, from 0 to 1, that a rule of a route leads to a Service.
func partTo(route *gatewayv1.HTTPRoute, service gatewayv1.ObjectName) (most float64) {
	if route == nil {
		return 0
	}
	for _, rule := range route.Spec.Rules {
		part, sum := int64(0), int64(0)
		for _, b := range rule.BackendRefs {
			sum += weightOf(b)
			if b.Name == service {
				part += weightOf(b)
			}
		}
		if part > 0 {
			most = max(most, float64(part)/float64(sum))
		}
	}
	return most
}

// mayLead reports whether a gateway may still lead users by an object that is not wanted any more: until it serves the
// route that was asked for last. Those of private edges have no such users.
func (a *app) mayLead(o client.Object, generation int64) bool {
	switch o.(type) {
	case *corev1.Service, *discoveryv1.EndpointSlice:
	default:
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.GetAnnotations()[edgeAnnotation] != "" || a.known && a.served.Generation == generation {
		return false
	}
	a.acts++ // it is left to do
	return true
}

// removeAll deletes what is not wanted any more, kind by kind. What is refused holds up no other.
func (p *Platform) removeAll(ctx context.Context, a *app, there map[string]client.Object, refused map[string]error, gone func(client.Object) bool) {
	for _, kind := range p.kinds() {
		for _, name := range sortedKeys(there) {
			o := there[name]
			if reflect.TypeOf(o) != reflect.TypeOf(kind) || refused[name] != nil || !gone(o) {
				continue
			}
			err := p.remove(ctx, a, o)
			if err != nil {
				refused[name] = err
			}
			if errors.Is(err, spillway.ErrUnavailable) || ctx.Err() != nil {
				return
			}
		}
	}
}

// remove deletes an object that is not wanted any more; the Job of a release command that has ended is left for its log.
func (p *Platform) remove(ctx context.Context, a *app, o client.Object) error {
	if job, ok := o.(*batchv1.Job); ok && jobEnd(job) != nil && job.Annotations[taskAnnotation] != "" {
		a.count(1)
		return p.leaveToRead(ctx, job)
	}
	return p.delete(ctx, a, o)
}

// delete deletes an object if it still is as it was seen.
func (p *Platform) delete(ctx context.Context, a *app, o client.Object) error {
	a.count(1)
	uid, version, background := o.GetUID(), o.GetResourceVersion(), metav1.DeletePropagationBackground
	err := p.client.Delete(ctx, o, client.Preconditions{UID: &uid, ResourceVersion: &version}, client.PropagationPolicy(background))
	if apierrors.IsNotFound(err) {
		return nil
	}
	return explain("delete "+key(o), err)
}
