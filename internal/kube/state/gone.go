package state

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Gone are the names of the Releases that serve by a status, or are to, that somebody deleted: a server that read them
// before goes on from what it remembers, and would not notice.
func (s *Store) Gone(ctx context.Context, ref spillway.Ref, st rollout.Status) ([]string, error) {
	var gone []string
	if st.Destroy {
		return nil, nil
	}
	for _, n := range serving(st) {
		object := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Release"}}
		name := releaseName(ref, n)
		err := s.live.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, object)
		switch {
		case absent(err):
			gone = append(gone, name)
		case err != nil:
			return nil, fmt.Errorf("look for release %d of %s: %w", n, ref, s.explain(err, "get", releases))
		}
	}
	return gone, nil
}

// PutBack makes those Releases anew that serve by a status, or are to, that somebody deleted, and that this store has read
// before; and gives their names. It leaves an app alone that is being deleted: its Releases go with it.
func (s *Store) PutBack(ctx context.Context, ref spillway.Ref, st rollout.Status) (names []string, err error) {
	gone, err := s.Gone(ctx, ref, st)
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	app, _, err := s.read(ctx, ref, true)
	if err != nil || app == nil || app.DeletionTimestamp != nil {
		return nil, err
	}
	known, err := s.releases(ctx, app)
	if err != nil {
		return nil, err
	}
	for _, n := range serving(st) {
		release, remembered := known[n]
		if !remembered || !slices.Contains(gone, releaseName(ref, n)) {
			continue
		}
		object, err := s.object(app, release)
		if err != nil {
			return names, err
		}
		err = s.client.Create(ctx, object, client.FieldOwner(v1alpha1.Manager))
		if apierrors.IsAlreadyExists(err) { // somebody else was faster
			continue
		}
		if err != nil {
			return names, fmt.Errorf("put %s back: %w", object.Name, s.explain(err, "create", releases))
		}
		names = append(names, object.Name)
	}
	return names, nil
}

// WatchGone calls gone for each Release of a namespace that is deleted, by whomever, until ctx ends. Of Releases it keeps their
// names.
func WatchGone(ctx context.Context, c metadata.Interface, namespace string, gone func(app spillway.Ref, number int)) {
	all := c.Resource(v1alpha1.GroupVersion.WithResource(releases)).Namespace(namespace)
	name := func(o any) (any, error) {
		if m, ok := o.(*metav1.PartialObjectMetadata); ok {
			return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}}, nil
		}
		return o, nil
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return all.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return all.Watch(ctx, o) },
		}, c),
		ObjectType: &metav1.PartialObjectMetadata{}, Transform: name,
		Handler: cache.ResourceEventHandlerFuncs{DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			m, ok := o.(*metav1.PartialObjectMetadata)
			if !ok {
				return
			}
			i := strings.LastIndexByte(m.Name, '-')
			if n, err := strconv.Atoi(m.Name[i+1:]); i > 0 && err == nil {
				gone(v1alpha1.RefOf(m.Name[:i]), n)
			}
		}},
	})
	informer.RunWithContext(ctx)
}
