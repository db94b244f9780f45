package kube

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// SizeManager is the field manager of spec.replicas of Deployments. It is another one than Manager, so that an
// apply without the field gives up nothing: the number stays what it is, and is its autoscaler's from then on.
const SizeManager = "spillway-size"

// young is how long an autoscaler may be without figures before that is a problem: replicas that have just started
// have none.
const young = time.Minute

// autoscaler chooses the number of replicas of a group.
func (r *rendering) autoscaler(w rollout.Want, s spillway.Service) *autoscalingv2.HorizontalPodAutoscaler {
	least, down := int32(w.Scaling.Min), autoscalingv2.MaxChangePolicySelect
	if w.Scaling.Frozen {
		down = autoscalingv2.DisabledPolicySelect
	}
	behavior := &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{SelectPolicy: &down}}
	if t := w.Scaling.Targets.Tolerance; t > 0 {
		off := resource.NewMilliQuantity(int64(t/spillway.Percent(1))*10, resource.DecimalSI)
		behavior.ScaleDown.Tolerance, behavior.ScaleUp = off, &autoscalingv2.HPAScalingRules{Tolerance: off}
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		ObjectMeta: r.meta(groupName(r.ref, w.Group), labels(r.ref, w.Group)),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: groupName(r.ref, w.Group)},
			MinReplicas:    &least, MaxReplicas: int32(w.Scaling.Max),
			Behavior: behavior,
		},
	}
	for _, of := range []struct {
		name   corev1.ResourceName
		target spillway.Share
	}{{corev1.ResourceCPU, w.Scaling.Targets.CPU}, {corev1.ResourceMemory, w.Scaling.Targets.Memory}} {
		if of.target == 0 {
			continue
		}
		percent := int32(of.target / spillway.Percent(1))
		h.Spec.Metrics = append(h.Spec.Metrics, autoscalingv2.MetricSpec{
			Type: autoscalingv2.ContainerResourceMetricSourceType,
			ContainerResource: &autoscalingv2.ContainerResourceMetricSource{ // what else is put into the pods does not count
				Name: of.name, Container: s.Name,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
			},
		})
	}
	return h
}

// scales reports whether the group of a Deployment is to have an autoscaler.
func (r *rendering) scales(d *appsv1.Deployment) bool {
	g, _ := groupOf(d.Labels)
	return slices.ContainsFunc(r.desired.Groups, func(w rollout.Want) bool { return w.Group == g && w.Scaling.Max > 0 })
}

// dropAutoscalers deletes those that are not wanted any more, before anything else is written: the numbers of their
// groups are ours again. It gives what was refused.
func (p *Platform) dropAutoscalers(ctx context.Context, a *app, names map[string]bool, there map[string]client.Object) (refused map[string]error) {
	refused = map[string]error{}
	for _, name := range sortedKeys(there) {
		if o, ok := there[name].(*autoscalingv2.HorizontalPodAutoscaler); ok && !names[name] && o.DeletionTimestamp == nil {
			if err := p.remove(ctx, a, o); err != nil {
				refused[name] = err // and it goes on to be the one who writes the number
				continue
			}
			delete(there, name)
		}
	}
	return refused
}

// place applies an object of a rendering.
func (p *Platform) place(ctx context.Context, a *app, r *rendering, o client.Object, there map[string]client.Object) error {
	if d, ok := o.(*appsv1.Deployment); ok {
		h, kept := there["HorizontalPodAutoscaler/"+d.Name]
		return p.ensureDeployment(ctx, a, d, there, r.scales(d) || kept && h.GetDeletionTimestamp() == nil)
	}
	if job, ok := o.(*batchv1.Job); ok {
		if err := p.clear(ctx, a, job, there); err != nil {
			return err
		}
	}
	return p.ensure(ctx, a, o, there[key(o)])
}

// ensureDeployment applies a Deployment without its number of replicas, and the number by itself, but for a group
// that has an autoscaler already: nobody but that writes it. A Deployment that is not there begins with one replica
// for a moment, and one that is gets its number first, so that it never depends on the field of the other apply.
func (p *Platform) ensureDeployment(ctx context.Context, a *app, d *appsv1.Deployment, there map[string]client.Object, scaled bool) error {
	count, old := d.Spec.Replicas, there[key(d)]
	if scaled {
		autoscaled, err := p.autoscaled(ctx, d, there)
		if err != nil {
			return err
		}
		if autoscaled {
			count = nil
		}
	}
	d.Spec.Replicas = nil
	if old, ok := old.(*appsv1.Deployment); ok {
		if err := p.resize(ctx, a, d, old, count); err != nil {
			return err
		}
		return p.ensure(ctx, a, d, old)
	}
	if err := p.ensure(ctx, a, d, nil); err != nil {
		return err
	}
	a.mu.Lock()
	d.UID = a.applied[key(d)].uid
	a.mu.Unlock()
	return p.resize(ctx, a, d, d, count)
}

// autoscaled reports whether a Deployment has its autoscaler. What the cache does not have yet is asked for.
func (p *Platform) autoscaled(ctx context.Context, d *appsv1.Deployment, there map[string]client.Object) (bool, error) {
	h := &autoscalingv2.HorizontalPodAutoscaler{TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}}
	h.Namespace, h.Name = d.Namespace, d.Name
	if there[key(h)] != nil {
		return true, nil
	}
	err := p.live.Get(ctx, client.ObjectKeyFromObject(h), h)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, explain("look for "+key(h), err)
}

// resize writes the number of replicas of the Deployment that is there, unless it has it; nil = it is not ours. It names
// that one by its UID: an apply to one that was deleted meanwhile would make another, of nothing but a number. ErrStale when it
// is another one, or newer than the cache knows: what was asked for was not done.
func (p *Platform) resize(ctx context.Context, a *app, d, there *appsv1.Deployment, count *int32) error {
	if count == nil { // it is another one whenever its autoscaler likes, and no edit by hand
		a.mu.Lock()
		delete(a.sizes, key(d))
		a.mu.Unlock()
		return nil
	}
	if there.Spec.Replicas != nil && *there.Spec.Replicas == *count {
		return nil
	}
	a.count(1)
	size := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"namespace": d.Namespace, "name": d.Name, "uid": string(there.UID)},
		"spec":     map[string]any{"replicas": int64(*count)},
	}}
	before, written := there.GetResourceVersion(), fmt.Sprint(*count)
	a.mu.Lock()
	last := a.sizes[key(d)]
	size.SetResourceVersion(a.applied[key(d)].knows(before))
	a.mu.Unlock()
	err := p.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(size), client.FieldOwner(SizeManager), client.ForceOwnership)
	if apierrors.IsNotFound(err) { // the cache tells of the end
		return nil
	}
	if err == nil {
		a.mu.Lock()
		a.applied[key(d)] = applied{before: before, after: size.GetResourceVersion()}
		if a.sizes == nil {
			a.sizes = map[string]applied{}
		}
		a.sizes[key(d)] = applied{print: written, before: before, uid: there.UID}
		a.mu.Unlock()
		if last.print == written && last.uid == there.UID && last.before != before && size.GetResourceVersion() != before {
			p.tellEdit(a, key(d), "spec.replicas") // it was so, and the cache knows something newer
		}
	}
	return explain("set the number of replicas of "+key(d), err)
}

// observeScaling adds to a group what its autoscaler chose, and what keeps it from choosing.
func observeScaling(g *rollout.Group, d *appsv1.Deployment, there map[string]client.Object, now time.Time) {
	h, ok := there["HorizontalPodAutoscaler/"+d.Name].(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok || d.Spec.Replicas == nil {
		return
	}
	g.Chosen, g.Scaling = int(*d.Spec.Replicas), scalingProblem(h, g.Group.Service, now)
}

// scalingProblem says in words what keeps an autoscaler from its work, with the next step; "" = nothing.
func scalingProblem(h *autoscalingv2.HorizontalPodAutoscaler, service string, now time.Time) string {
	conditions := map[autoscalingv2.HorizontalPodAutoscalerConditionType]autoscalingv2.HorizontalPodAutoscalerCondition{}
	for _, c := range h.Status.Conditions {
		conditions[c.Type] = c
	}
	able, active, limited := conditions[autoscalingv2.AbleToScale], conditions[autoscalingv2.ScalingActive], conditions[autoscalingv2.ScalingLimited]
	switch {
	case able.Status == corev1.ConditionFalse && strings.HasPrefix(able.Reason, "Failed"):
		return fmt.Sprintf("its autoscaler cannot change its size: %s; see why: kubectl describe hpa %s", oneLine(able.Message), h.Name)
	case active.Status == corev1.ConditionFalse && strings.Contains(active.Message, "could not find the requested resource"),
		active.Status == corev1.ConditionFalse && strings.Contains(active.Message, "unable to fetch metrics from resource metrics API: the server is currently unable"):
		return "its autoscaler is without figures, because the cluster has no metrics-server that answers: its size stays as it is; install one (kubectl top pods has to answer), or write a fixed scale"
	case active.Status == corev1.ConditionFalse && now.Sub(active.LastTransitionTime.Time) > young:
		return fmt.Sprintf("its autoscaler is without figures, and its size stays as it is: %s; see what is known: kubectl top pods, kubectl describe hpa %s", oneLine(active.Message), h.Name)
	case limited.Status == corev1.ConditionTrue && limited.Reason == "TooManyReplicas":
		return fmt.Sprintf("its autoscaler wants more than its maximum of %d replicas (max size reached); raise max in scale of %s, or its limits", h.Spec.MaxReplicas, service)
	}
	return ""
}

// unchanged reports whether two states of an object tell the platform the same. An autoscaler writes its figures into
// its status at every look.
func unchanged(was, is any) bool {
	before, ok := was.(*autoscalingv2.HorizontalPodAutoscaler)
	after, same := is.(*autoscalingv2.HorizontalPodAutoscaler)
	return ok && same && before.Generation == after.Generation && before.DeletionTimestamp == nil && after.DeletionTimestamp == nil &&
		reflect.DeepEqual(before.Status.Conditions, after.Status.Conditions)
}
