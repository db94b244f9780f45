package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/pipeline"
)

// artefact makes what a service runs: it builds the source, and on a cluster puts it into the registry; an image of
// others is looked up and pinned.
func (e *engine) artefact(ctx context.Context, release spillway.Release, tree pipeline.Tree, s spillway.Service, log func(string)) (spillway.Artefact, error) {
	if s.Image != "" {
		return e.pinned(ctx, s, log)
	}
	a, err := e.builder.Build(ctx, tree, s, log)
	if err != nil || e.images == nil {
		return a, err
	}
	began := time.Now()
	if a, err = e.images.Push(ctx, release.Config.Name, s, a); err == nil {
		log(fmt.Sprintf("image %s is in the registry (%s)", a.Image, time.Since(began).Round(10*time.Millisecond)))
	}
	return a, err
}

func (e *engine) pinned(ctx context.Context, s spillway.Service, log func(string)) (spillway.Artefact, error) {
	a, err := e.images.Pin(ctx, s.Image)
	if err == nil {
		log(s.Image + " is " + a.Image)
	}
	return a, err
}

// whole checks that the artefacts of a release are there.
func (e *engine) whole(ctx context.Context, r spillway.Release) error {
	for _, name := range slices.Sorted(maps.Keys(r.Artefacts)) {
		if err := e.there(ctx, r.Artefacts[name], e.builder.Exists); err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
	}
	return nil
}

// held checks that an artefact is there, and keeps it from being removed.
func (e *engine) held(ctx context.Context, a spillway.Artefact) error {
	return e.there(ctx, a, e.builder.Hold)
}

// there asks for an artefact where replicas are made of it: the registry on a cluster, else a directory.
func (e *engine) there(ctx context.Context, a spillway.Artefact, here func(spillway.Artefact) error) error {
	if e.images != nil {
		return e.images.Exists(ctx, a.Image)
	}
	return here(a)
}

// deployFile releases an app file that came without source: all that it runs is images.
func (e *engine) deployFile(ctx context.Context, app spillway.Ref, text []byte, env, by string) error {
	config, err := appfile.ParseEnvironment("spec", text, env)
	if err != nil {
		return err
	}
	if refOf(config.Name, env) != app {
		return fmt.Errorf("the App is named %s and its spec says app: %s; they have to be the same: %w", app, config.Name, spillway.ErrInvalid)
	}
	release := spillway.Release{App: app, Config: config, File: string(text), Artefacts: map[string]spillway.Artefact{}}
	saved, err := e.loaded(ctx, app)
	if err != nil {
		return err
	}
	if err := e.allowed(ctx, saved, release, api.DeployRequest{}); err != nil {
		return err
	}
	for _, s := range config.Services {
		if s.Image == "" {
			return fmt.Errorf("service %s has no image: what is built from source is deployed by spillway deploy, not by kubectl: %w", s.Name, spillway.ErrInvalid)
		}
		if release.Artefacts[s.Name], err = e.pinned(ctx, s, func(string) {}); err != nil {
			err = fmt.Errorf("service %s: %w", s.Name, err)
			if mayPass(err) && ctx.Err() == nil {
				return registryAway{err}
			}
			return err
		}
	}
	now := time.Now().UTC()
	release.Created, release.By = now, by
	_, _, _, err = e.loop.Deploy(ctx, release, spillway.Intent{Verb: spillway.VerbDeploy, By: by, At: now})
	return err
}

// againAfter is when something is tried again that could not be done for want of the cluster or a registry.
const againAfter = 5 * time.Second

// hands is for how many apps something is done at once that their resources ask for: most of it is waiting for the
// cluster and for registries, and many apps may come at once.
const hands = 8

// fulfil does what is asked of apps by their resources, until ctx ends. All that one app asks for is done by the same
// hand, one after the other.
func (e *engine) fulfil(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	var asked [hands]chan spillway.Ref
	for i := range asked {
		asked[i] = make(chan spillway.Ref, 1000)
		// Owned by fulfil; ends with ctx; waited for above.
		working.Go(func() { e.fulfilAll(ctx, asked[i]) })
	}
	seed := maphash.MakeSeed()
	err := e.asked(ctx, func(app spillway.Ref) {
		select {
		case asked[maphash.String(seed, string(app))%hands] <- app:
		case <-ctx.Done():
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// fulfilAll does what is asked of the apps that it is told, and tries again what could not be done yet, or was refused for
// something that may change, until ctx ends.
func (e *engine) fulfilAll(ctx context.Context, asked <-chan spillway.Ref) {
	later, tick := map[spillway.Ref]time.Time{}, time.NewTicker(againAfter) // when, at the soonest
	defer tick.Stop()
	try := func(app spillway.Ref) {
		delete(later, app)
		refused, err := e.fulfilOne(ctx, app)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			e.log.Warn("what is asked of an app was not done yet", "app", app, "error", err, "in", againAfter)
			later[app] = time.Now()
		case refused:
			later[app] = time.Now().Add(state.LookAgain)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case app := <-asked:
			try(app)
		case <-tick.C:
			for app, at := range maps.Clone(later) {
				if !time.Now().Before(at) {
					try(app)
				}
			}
		}
	}
}

// fulfilOne does what is asked of one app by its resource, and says there what came of it. An error is worth another try
// soon; refused says that what was asked for is worth one later: it may be no mistake then.
func (e *engine) fulfilOne(ctx context.Context, app spillway.Ref) (refused bool, err error) {
	if err := e.wishes.Hold(ctx, app); err != nil { // an uninstall let it go
		return false, err
	}
	wish, err := e.wishes.Asked(ctx, app)
	switch {
	case errors.Is(err, spillway.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case wish.Forget:
		return false, e.store.Remove(ctx, app)
	case wish.Destroy:
		_, err = e.loop.Ask(ctx, app, spillway.Intent{Verb: spillway.VerbDestroy, By: wish.By, At: time.Now().UTC()})
		return false, err
	case !wish.Deploy:
		return false, nil
	case wish.By == kube.Manager: // the file of a release that is stored already: nobody asks for it again
		return false, e.wishes.Answer(ctx, app, wish.Generation, nil)
	}
	mistakes := e.deployFile(ctx, app, wish.File, wish.Env, wish.By)
	if away := (registryAway{}); mayPass(mistakes) && !errors.As(mistakes, &away) {
		return false, mistakes
	}
	if mistakes != nil && !wish.Again {
		e.log.Warn("an App was not deployed", "app", app, "by", wish.By, "error", mistakes)
	}
	return mistakes != nil && !errors.Is(mistakes, spillway.ErrInvalid), e.wishes.Answer(ctx, app, wish.Generation, mistakes)
}

// registryAway is that a registry did not tell of an image. It may pass, and it may be a mistake in the name, or in how the
// registry is reached: whoever applied the spec has to hear of it.
type registryAway struct{ error }

func (r registryAway) Unwrap() error { return r.error }

// mayPass reports whether an error is no mistake in a file: it is worth another try.
func mayPass(err error) bool {
	for _, passing := range []error{spillway.ErrUnavailable, spillway.ErrStale, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// correct is what to do about a spec that was not accepted.
const correct = "if it has a mistake, correct it and apply it again"

// refused says that the spec of an app was applied and not accepted, and why; "" = it was, or that is not known.
func (e *engine) refused(ctx context.Context, app spillway.Ref) string {
	if e.wishes == nil {
		return ""
	}
	why, err := e.wishes.Refused(ctx, app)
	if err != nil { // the overview is not worth less for it
		return ""
	}
	return why
}

// checkSpecs looks for apps whose spec was applied and not accepted.
func (e *engine) checkSpecs(ctx context.Context) spillway.Check {
	c := spillway.Check{Name: "specs", State: "ok", Text: "each App that was applied is accepted"}
	all, err := e.wishes.AllRefused(ctx)
	if err != nil {
		c.State, c.Text = "warn", "the apps cannot be listed: "+spillway.Text(err)
		return c
	}
	var refused []string
	for _, app := range slices.Sorted(maps.Keys(all)) {
		refused = append(refused, fmt.Sprintf("app %s: %s", app, all[app]))
	}
	if len(refused) > 0 {
		c.State, c.Text, c.Remedy = "warn", strings.Join(refused, "; "), correct
	}
	return c
}
