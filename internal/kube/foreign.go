package kube

import (
	"context"
	"fmt"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// foreign is the error for an object whose name somebody else has, with what to do about it.
func (p *Platform) foreign(ctx context.Context, ref spillway.Ref, o client.Object) error {
	kind, label := o.GetObjectKind().GroupVersionKind().Kind, v1alpha1.Label(ref)
	way := fmt.Sprintf("let it be taken over: kubectl label --overwrite %s %s -n %s %s=%s %s=%s", kind, o.GetName(), o.GetNamespace(), ManagedBy, Manager, AppLabel, label)
	if wanted, ok := o.(*appsv1.Deployment); ok {
		var other appsv1.Deployment
		err := p.live.Get(ctx, client.ObjectKeyFromObject(o), &other)
		if err == nil && !reflect.DeepEqual(other.Spec.Selector, wanted.Spec.Selector) { // which the API server lets nobody change
			way = fmt.Sprintf("delete it if nobody needs it, since a Deployment of other pods cannot be taken over: kubectl delete %s %s -n %s", kind, o.GetName(), o.GetNamespace())
		}
	}
	return fmt.Errorf("there is a %s in namespace %s that does not belong to app %s and is left alone; rename it or the service, or %s: %w",
		key(o), o.GetNamespace(), ref, way, spillway.ErrConflict)
}
