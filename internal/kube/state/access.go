package state

import (
	"context"
	"fmt"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/client-go/tools/cache"
	informers "sigs.k8s.io/controller-runtime/pkg/cache"
)

// Rules are the rights that a Store needs in its namespace, and no more. Watch is among them for a Client that reads
// from a cache and for WatchGone, and events for a Recorder.
func Rules() []rbac.PolicyRule {
	group := []string{v1alpha1.Group}
	return []rbac.PolicyRule{
		{APIGroups: group, Resources: []string{apps}, Verbs: []string{"get", "list", "watch", "create", "patch", "delete"}},
		{APIGroups: group, Resources: []string{status}, Verbs: []string{"update"}},
		{APIGroups: group, Resources: []string{releases}, Verbs: []string{"get", "list", "watch", "create", "delete"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
}

// Watch calls changed for every app at first and then whenever its resource may ask for something new: it was made, its
// spec has another generation, it is being deleted, it is gone. What it asks for, Asked says. It blocks until ctx ends.
// apps is the cache that the store's Client reads from.
func Watch(ctx context.Context, apps informers.Informers, changed func(app spillway.Ref)) error {
	informer, err := apps.GetInformer(ctx, &v1alpha1.App{})
	if err != nil {
		return fmt.Errorf("watch the apps: %w", err)
	}
	tell := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if app, ok := object.(*v1alpha1.App); ok {
			changed(v1alpha1.RefOf(app.Name))
		}
	}
	handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell, DeleteFunc: tell,
		UpdateFunc: func(before, after any) {
			old, hadOld := before.(*v1alpha1.App)
			app, ok := after.(*v1alpha1.App)
			if !hadOld || !ok || old.UID != app.UID || old.Generation != app.Generation || (old.DeletionTimestamp == nil) != (app.DeletionTimestamp == nil) {
				tell(after)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch the apps: %w", err)
	}
	<-ctx.Done()
	if err := informer.RemoveEventHandler(handler); err != nil {
		return fmt.Errorf("watch the apps: %w", err)
	}
	return nil
}
