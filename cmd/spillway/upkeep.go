package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// pruneEvery is how often releases that are no longer kept, and builds that no release needs, are looked for.
// Builds are left alone for some hours anyway: see pipeline.Builder.Prune.
const pruneEvery = time.Hour

// keepSmall removes old releases and what was built for releases that are gone, and on a cluster puts back what is in use
// and was deleted, at once and then every so often, until ctx ends. What cannot be removed now stays for the next time: a
// full disk is no reason to stop the server.
func (in *installation) keepSmall(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if in.putBack != nil { // also at once: this server may have stood by for long, and remember what is gone
			in.restoreAll(ctx)
		}
		if err := prune(ctx, in.store, in.builder); err != nil && ctx.Err() == nil {
			in.log.Warn("not every release and build that nobody needs could be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// prune forgets the releases that are no longer kept, and then removes the builds that no stored release needs.
// When a release cannot be read, no build is removed. Builds are told apart by the source they are of, not by
// where they are, so that a state directory can be moved.
func prune(ctx context.Context, releases records, builds *pipeline.Builder) error {
	apps, err := releases.Apps(ctx)
	if err != nil {
		return fmt.Errorf("find the builds that are needed: %w", err)
	}
	needed, errs := map[string]bool{}, []error(nil)
	for _, app := range apps {
		_, err := releases.Prune(ctx, app, outlived)
		if err != nil && !errors.Is(err, spillway.ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		all, err := releases.Releases(ctx, app)
		if err != nil && !errors.Is(err, spillway.ErrNotFound) { // destroyed meanwhile
			errs = append(errs, fmt.Errorf("find the builds that are needed: %w", err))
		}
		for _, r := range all {
			for _, a := range r.Artefacts {
				needed[a.Source] = true
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return builds.Prune(func(a spillway.Artefact) bool { return needed[a.Source] })
}

// outlived are the releases of an app that are not kept: older than the newest App.Keep of stable's file, and
// needed by nothing.
func outlived(saved reconcile.Saved) []int {
	releases, kept := saved.Spec.Releases, inUse(saved)
	keep := cmp.Or(releases[saved.Status.Stable].Config.Keep, spillway.DefaultKeep)
	newest := 0
	for n := range releases {
		newest = max(newest, n)
	}
	for n := newest; n > 0 && keep > 0; n-- {
		if _, ok := releases[n]; ok {
			kept[n] = true
			keep--
		}
	}
	withGroups(kept, releases)
	var list []int
	for n := 1; n <= newest; n++ {
		if _, ok := releases[n]; ok && !kept[n] {
			list = append(list, n)
		}
	}
	return list
}

// inUse are the releases that run, that wait, or that a rollback may go to, by number.
func inUse(saved reconcile.Saved) map[int]bool {
	st, used := saved.Status, map[int]bool{}
	use := func(numbers ...int) {
		for _, n := range numbers {
			used[n] = true
		}
	}
	use(st.Stable)
	use(st.Good...)
	if r := st.Rollout; r != nil {
		use(r.Release, r.Stable, r.From)
	}
	if st.Queue != nil {
		use(st.Queue.Release)
	}
	for _, lane := range st.Lanes {
		use(lane.Release)
		use(lane.Good...)
		if lane.Queue != nil {
			use(lane.Queue.Release)
		}
	}
	if st.Standby != nil {
		use(st.Standby.Release)
	}
	for _, in := range saved.Spec.Intents {
		use(in.Release)
	}
	for _, w := range st.Wants { // what leaves runs until its last request has ended
		use(w.Release, w.Group.Release)
	}
	for _, e := range st.Route.Edges {
		use(e.From.Release)
		for _, b := range e.Backends {
			use(b.Release, b.Group.Release)
		}
	}
	return used
}

// withGroups adds the releases whose groups a kept release runs.
func withGroups(kept map[int]bool, releases map[int]spillway.Release) {
	for n := range maps.Clone(kept) {
		for _, group := range releases[n].Groups {
			kept[group] = true
		}
	}
}
