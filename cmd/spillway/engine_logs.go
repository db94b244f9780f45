package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// Logs tells the lines that replicas wrote.
func (e *engine) Logs(ctx context.Context, app spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	saved, err := e.store.Load(ctx, app)
	if err != nil {
		return err
	}
	err = e.platform.Logs(ctx, app, q, line)
	if e.images != nil && errors.Is(err, spillway.ErrNotFound) {
		return silent(saved, q)
	}
	return err
}

// silent says why there are no logs of a query on a cluster, which throws them away with a pod.
func silent(saved reconcile.Saved, q spillway.LogQuery) error {
	app := saved.Spec.App
	release, known := saved.Spec.Releases[q.Release]
	var others []string // whose replicas the release has
	own := false
	for _, name := range slices.Sorted(maps.Keys(release.Groups)) {
		n := release.Groups[name]
		if q.Service != "" && q.Service != name {
			continue
		}
		if own = own || n == q.Release; n != q.Release {
			others = append(others, fmt.Sprintf("those of %s are of release %d: spillway logs -a %s --service %s --release %d", name, n, app, name, n))
		}
	}
	switch {
	case q.Release != 0 && !known:
		return fmt.Errorf("%s has no release %d, or not any more; there are: spillway releases -a %s: %w", app, q.Release, app, spillway.ErrNotFound)
	case q.Service != "" && !hasService(saved, q.Service):
		return fmt.Errorf("no release of %s has a service %s: %w", app, q.Service, spillway.ErrNotFound)
	case len(others) > 0 && !own:
		return fmt.Errorf("release %d of %s has no replicas of its own; %s: %w", q.Release, app, strings.Join(others, "; "), spillway.ErrNotFound)
	}
	what, label := fmt.Sprintf("replicas of %s that are asked for", app), ""
	switch {
	case q.Replica != "":
		what = fmt.Sprintf("replicas of %s named %s", app, q.Replica)
	case q.Release != 0:
		what, label = fmt.Sprintf("replicas of release %d of %s", q.Release, app), fmt.Sprintf(" by the label spillway.dev/release=%d", q.Release)
	}
	return fmt.Errorf("there are no %s, or not any more, and a cluster throws away what a pod wrote with the pod. Where it collects logs, they are found there%s; what became of them: spillway events -a %s; who runs now: spillway ps -a %s: %w",
		what, label, app, app, spillway.ErrNotFound)
}

// hasService reports whether any stored release of an app has a service.
func hasService(saved reconcile.Saved, name string) bool {
	for _, r := range saved.Spec.Releases {
		if _, ok := r.Config.Service(name); ok {
			return true
		}
	}
	return false
}
