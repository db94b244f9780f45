package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/store"
)

// pruneEvery is how often builds that no release needs are looked for. They are left alone for some hours
// anyway: see pipeline.Builder.Prune.
const pruneEvery = time.Hour

// keepSmall removes what was built for releases that are gone, at once and then every so often, until ctx
// ends. What cannot be removed now stays for the next time: a full disk is no reason to stop the server.
func (in *installation) keepSmall(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := prune(ctx, in.store, in.builder); err != nil && ctx.Err() == nil {
			in.log.Warn("not every build that nobody needs could be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// prune removes the builds that no stored release needs. When a release cannot be read, nothing is removed.
// Builds are told apart by the source they are of, not by where they are, so that a state directory can
// be moved.
func prune(ctx context.Context, releases *store.Store, builds *pipeline.Builder) error {
	apps, err := releases.Apps(ctx)
	if err != nil {
		return fmt.Errorf("find the builds that are needed: %w", err)
	}
	needed := map[string]bool{}
	for _, app := range apps {
		all, err := releases.Releases(ctx, app)
		if err != nil && !errors.Is(err, spillway.ErrNotFound) { // destroyed meanwhile
			return fmt.Errorf("find the builds that are needed: %w", err)
		}
		for _, r := range all {
			for _, a := range r.Artefacts {
				needed[a.Source] = true
			}
		}
	}
	return builds.Prune(func(a spillway.Artefact) bool { return needed[a.Source] })
}
