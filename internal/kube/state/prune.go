package state

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/reconcile"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// Prune forgets the releases of an app that drop names, in the transaction in which drop saw the app: what an intent
// stored in between asks for is not lost. It returns those that were forgotten. The newest release stays in any case.
// Releases that do not count, left by a crash, go too. ErrNotFound when there is no such app.
func (s *Store) Prune(ctx context.Context, ref spillway.Ref, drop func(reconcile.Saved) []int) ([]int, error) {
	if _, err := s.existing(ctx, ref); err != nil {
		return nil, fmt.Errorf("forget releases of %s: %w", ref, err)
	}
	var dropped []int
	app, err := s.change(ctx, ref, func(app *v1alpha1.App) error {
		saved, err := s.saved(ctx, app)
		if err != nil {
			return err
		}
		dropped = nil
		if len(app.Status.Releases) == 0 {
			return errSame
		}
		for _, n := range drop(saved) {
			if _, there := saved.Spec.Releases[n]; there && n != slices.Max(app.Status.Releases) {
				dropped = append(dropped, n)
			}
		}
		before := len(app.Status.Releases)
		newest := slices.Max(app.Status.Releases)
		app.Status.Releases = slices.DeleteFunc(app.Status.Releases, func(n int) bool {
			_, there := saved.Spec.Releases[n] // else somebody deleted it
			return slices.Contains(dropped, n) || !there && n != newest
		})
		if len(app.Status.Releases) == before {
			return errSame
		}
		return nil
	})
	if err == nil {
		err = s.deleteReleases(ctx, ref, func(n int) bool {
			return n <= app.Status.NewestRelease && !slices.Contains(app.Status.Releases, n) // a higher one may be on its way
		})
	}
	if err != nil {
		return nil, fmt.Errorf("forget releases of %s: %w", ref, err)
	}
	return dropped, nil
}

// deleteReleases deletes the Release objects of an app whose number is not needed.
func (s *Store) deleteReleases(ctx context.Context, ref spillway.Ref, unneeded func(int) bool) error {
	objects, err := s.objects(ctx, ref)
	if err != nil {
		return err
	}
	var errs []error
	for i := range objects {
		release, err := releaseOf(&objects[i])
		if err == nil && !unneeded(release.Number) {
			continue
		}
		if err == nil {
			err = s.deleteRelease(ctx, ref, release.Number)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Remove forgets an app that is gone, with its releases, intents and events. Forgetting one that is not there is
// fine. Its release numbers begin at 1 again; the IDs of its events do not. It lets an App go that waits for its
// finalizer; while it has others of other managers the App stays, empty.
func (s *Store) Remove(ctx context.Context, ref spillway.Ref) error {
	if err := s.remove(ctx, ref); err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	s.forget(ref)
	return nil
}

func (s *Store) remove(ctx context.Context, ref spillway.Ref) error {
	for try := range tries {
		app, _, err := s.read(ctx, ref, true)
		if err != nil {
			return err
		}
		// First the App: from then on nothing can be added, and after a crash it still asks to be removed.
		if app != nil && app.DeletionTimestamp == nil {
			if err := s.client.Delete(ctx, app, client.Preconditions{UID: &app.UID}); err != nil && !absent(err) {
				return s.explain(err, "delete", apps)
			}
			continue
		}
		if err := s.deleteReleases(ctx, ref, func(int) bool { return true }); err != nil {
			return err
		}
		if app == nil || !slices.Contains(app.Finalizers, v1alpha1.Finalizer) {
			return nil
		}
		if freed, err := s.free(ctx, app); freed || err != nil {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return busy(ref)
}

// Withdraw deletes the resource of an app that was applied and has never been a release, as when its spec has a mistake:
// nothing of it ever ran. ErrNotFound when there is none, ErrConflict when it is a release by now.
func (s *Store) Withdraw(ctx context.Context, ref spillway.Ref) error {
	for try := range tries {
		app, _, err := s.read(ctx, ref, true)
		switch {
		case err != nil:
			return err
		case app == nil:
			return noApp(ref)
		case exists(app):
			return fmt.Errorf("app %s has a release by now; destroy it again: %w", ref, spillway.ErrConflict)
		case app.DeletionTimestamp != nil:
			return nil // see Wish.Forget
		}
		err = s.client.Delete(ctx, app, client.Preconditions{UID: &app.UID, ResourceVersion: &app.ResourceVersion})
		if err == nil || absent(err) {
			s.forget(ref)
			return nil
		}
		if !apierrors.IsConflict(err) {
			return s.explain(err, "delete", apps)
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return busy(ref)
}

// Free takes the finalizer off every App of the namespace, when nobody is going to be there who would do it later: at
// an uninstall, or before the namespace goes. What runs goes on; an App that is being deleted is gone then, and takes
// everything that it owns with it. Hold is the way back.
func (s *Store) Free(ctx context.Context) error {
	var list v1alpha1.AppList
	if err := s.live.List(ctx, &list, client.InNamespace(s.namespace)); err != nil {
		return fmt.Errorf("list the apps: %w", s.explain(err, "list", apps))
	}
	for i := range list.Items {
		if err := s.letGo(ctx, v1alpha1.RefOf(list.Items[i].Name)); err != nil {
			return err
		}
	}
	return nil
}

// Hold gives an app that runs its finalizer again, when Free took it off: a server is there again. It writes nothing
// else, and nothing when the finalizer is there.
func (s *Store) Hold(ctx context.Context, ref spillway.Ref) error {
	for try := range tries {
		app, _, err := s.read(ctx, ref, try > 0)
		if err != nil || app == nil || app.DeletionTimestamp != nil || !exists(app) || controllerutil.ContainsFinalizer(app, v1alpha1.Finalizer) {
			return err
		}
		held, err := s.hold(ctx, app)
		if held || err != nil {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return busy(ref)
}

// hold puts the finalizer on an App. held is false when somebody else wrote the App in between, or it is gone.
func (s *Store) hold(ctx context.Context, app *v1alpha1.App) (held bool, err error) {
	with := app.DeepCopy()
	controllerutil.AddFinalizer(with, v1alpha1.Finalizer)
	err = s.client.Patch(ctx, with, client.MergeFromWithOptions(app, client.MergeFromWithOptimisticLock{}), client.FieldOwner(v1alpha1.Manager))
	if apierrors.IsConflict(err) || absent(err) {
		return false, nil
	}
	return err == nil, s.explain(err, "patch", apps)
}

func (s *Store) letGo(ctx context.Context, ref spillway.Ref) error {
	for try := range tries {
		app, _, err := s.read(ctx, ref, true)
		if err != nil || app == nil || !controllerutil.ContainsFinalizer(app, v1alpha1.Finalizer) {
			return err
		}
		if freed, err := s.free(ctx, app); freed || err != nil {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
	return busy(ref)
}

// free takes the finalizer off an App. freed is false when somebody else wrote the App in between.
func (s *Store) free(ctx context.Context, app *v1alpha1.App) (freed bool, err error) {
	bare := app.DeepCopy()
	controllerutil.RemoveFinalizer(bare, v1alpha1.Finalizer)
	err = s.client.Patch(ctx, bare, client.MergeFromWithOptions(app, client.MergeFromWithOptimisticLock{}), client.FieldOwner(v1alpha1.Manager))
	switch {
	case err == nil || absent(err):
		return true, nil
	case apierrors.IsConflict(err):
		return false, nil
	}
	return false, s.explain(err, "patch", apps)
}
