package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// owned are the kinds of what a server makes for an App and has it own.
func owned() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		schema.GroupVersionKind{Group: gatewayv1.GroupName, Version: "v1", Kind: "HTTPRoute"}, appsv1.SchemeGroupVersion.WithKind("Deployment"), corev1.SchemeGroupVersion.WithKind("Service"),
		discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), batchv1.SchemeGroupVersion.WithKind("Job"),
	}
}

// Leave lets the apps of a namespace be without a server. Nothing waits for one any more: the finalizers of the Apps go.
// And nothing that serves goes with an App: it owns its objects no more, so neither the end of an App nor that of the
// definitions, which takes every App along, ends what users are served by. A server that comes later makes both again.
// An App that is being deleted already keeps what it owns: somebody asked for its end, and it goes with all of that.
func (i *Installer) Leave(ctx context.Context, namespace string) error {
	ending, err := i.ending(ctx, namespace)
	if err != nil {
		return err
	}
	for _, kind := range owned() { // first: an App without finalizer may be gone a moment later
		if err := i.disown(ctx, namespace, kind, ending); err != nil {
			return err
		}
	}
	apps, err := i.Apps(ctx, namespace)
	if err != nil || len(apps) == 0 {
		return err
	}
	if err := state.New(state.Config{Client: i.client, Namespace: namespace}).Free(ctx); err != nil {
		return mayNot("let the apps be without a server", err)
	}
	return nil
}

// ending are the Apps of a namespace that are being deleted.
func (i *Installer) ending(ctx context.Context, namespace string) (map[types.UID]bool, error) {
	list, err := i.list(ctx, namespace, v1alpha1.GroupVersion.WithKind("App"))
	if err != nil {
		return nil, err
	}
	ending := map[types.UID]bool{}
	for _, app := range list {
		if app.DeletionTimestamp != nil {
			ending[app.UID] = true
		}
	}
	return ending, nil
}

// disown takes the Apps out of the owners of all of one kind, but for those that are ending.
func (i *Installer) disown(ctx context.Context, namespace string, kind schema.GroupVersionKind, ending map[types.UID]bool) error {
	list, err := i.list(ctx, namespace, kind, client.MatchingLabels{ManagedBy: Manager})
	if err != nil {
		return err
	}
	app := func(o metav1.OwnerReference) bool {
		return o.Kind == "App" && strings.HasPrefix(o.APIVersion, v1alpha1.Group+"/") && !ending[o.UID]
	}
	for n := range list {
		o := &list[n]
		err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			if !slices.ContainsFunc(o.OwnerReferences, app) {
				return nil
			}
			free := o.DeepCopy()
			free.OwnerReferences = slices.DeleteFunc(free.OwnerReferences, app)
			err := i.client.Patch(ctx, free, client.MergeFromWithOptions(o, client.MergeFromWithOptimisticLock{}), client.FieldOwner(Manager))
			if apierrors.IsConflict(err) {
				if again := i.client.Get(ctx, client.ObjectKeyFromObject(o), o); again != nil {
					return again
				}
			}
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return mayNot(fmt.Sprintf("take the owner off %s %s", kind.Kind, o.Name), err)
		}
	}
	return nil
}

// list is what there is of a kind; nothing of one that the cluster does not know.
func (i *Installer) list(ctx context.Context, namespace string, kind schema.GroupVersionKind, options ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	err := i.client.List(ctx, list, append(options, client.InNamespace(namespace))...)
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, mayNot("look for what there is of "+kind.Kind, err)
	}
	for n := range list.Items {
		list.Items[n].SetGroupVersionKind(kind) // lists leave it out
	}
	return list.Items, nil
}

// Destroy has the server of a namespace destroy all of its apps, and waits until they are gone.
func (i *Installer) Destroy(ctx context.Context, namespace string, within time.Duration) error {
	if _, err := i.Installed(ctx, namespace); err != nil {
		return fmt.Errorf("only a server destroys apps in good order: %w", err)
	}
	list, err := i.list(ctx, namespace, v1alpha1.GroupVersion.WithKind("App"))
	if err != nil {
		return err
	}
	for n := range list {
		if err := i.client.Delete(ctx, &list[n]); err != nil && !apierrors.IsNotFound(err) {
			return mayNot("delete App "+list[n].Name, err)
		}
	}
	var left []string
	not := func() string {
		return fmt.Sprintf("%s: not gone yet; the server is still there and goes on with it (kubectl get apps -n %s)", strings.Join(left, ", "), namespace)
	}
	err = i.until(ctx, within, not, func() (bool, error) {
		left, err = i.Apps(ctx, namespace)
		return len(left) == 0, err
	})
	if err == nil && len(list) > 0 {
		i.tell("%s of namespace %s destroyed", map[bool]string{true: "the app", false: fmt.Sprintf("%d apps", len(list))}[len(list) == 1], namespace)
	}
	return err
}

// Orphans is the command that deletes what apps leave behind when their Apps are deleted and no server is there.
func Orphans(namespace string) string {
	var kinds []string
	for _, kind := range owned() {
		kinds = append(kinds, strings.ToLower(kind.Kind))
	}
	return fmt.Sprintf("kubectl delete -n %s -l %s=%s,%s %s", namespace, ManagedBy, Manager, AppLabel, strings.Join(kinds, ","))
}
