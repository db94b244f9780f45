package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// appIndex leads from an app's label to all that is cached of it. Without it every look at one app would go through
// the objects of all.
const appIndex = "app"

// index makes the cache find objects by their app; before the cache runs.
func (p *Platform) index(ctx context.Context) error {
	for _, kind := range append(p.kinds(), &corev1.Pod{}) {
		err := p.cache.IndexField(ctx, kind, appIndex, func(o client.Object) []string { return []string{o.GetLabels()[AppLabel]} })
		if err != nil {
			return explain("watch the cluster", err)
		}
	}
	return nil
}

// ofApp finds what is cached of an app. What is found is shared with the cache and must not be changed, but for the
// fields of the object itself that are no pointer, map or slice.
func (p *Platform) ofApp(ctx context.Context, list client.ObjectList, label string) error {
	return p.client.List(ctx, list, client.InNamespace(p.conf.Namespace), client.MatchingFields{appIndex: label}, client.UnsafeDisableDeepCopy)
}

// slim leaves out of a pod what nobody here reads: most of it, and there are more pods than anything else.
func slim(o any) (any, error) {
	if pod, ok := o.(*corev1.Pod); ok {
		ref, long := pod.Annotations[refAnnotation]
		var spec corev1.PodSpec // what a node has to have for it: diagnoses name it
		for _, c := range pod.Spec.Containers {
			kept := corev1.Container{Name: c.Name, Resources: c.Resources}
			if probe := c.StartupProbe; probe != nil { // how long the kubelet tries
				kept.StartupProbe = &corev1.Probe{PeriodSeconds: probe.PeriodSeconds, FailureThreshold: probe.FailureThreshold}
			}
			spec.Containers = append(spec.Containers, kept)
		}
		spec.ImagePullSecrets = pod.Spec.ImagePullSecrets
		pod.Spec, pod.ManagedFields, pod.Annotations, pod.OwnerReferences = spec, nil, nil, nil
		if long {
			pod.Annotations = map[string]string{refAnnotation: ref}
		}
	}
	return o, nil
}
