package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/judge"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// material is what a release is made of before it has a number.
type material struct {
	release spillway.Release
	tree    *pipeline.Tree // to build from; nil = the artefacts are there
}

// refOf names an app in an environment: production is the one without a name.
func refOf(app, env string) spillway.Ref {
	if env == "" || env == production {
		return spillway.Ref(app)
	}
	return spillway.Ref(app + "@" + env)
}

// gather reads a request: its source with the app file, or the release that it is taken over from.
func (e *engine) gather(ctx context.Context, r api.DeployRequest) (material, error) {
	if r.From != "" {
		release, err := e.takeOver(ctx, r)
		return material{release: release}, err
	}
	tree, err := e.builder.Unpack(ctx, r.Source)
	if err != nil {
		return material{}, err
	}
	text, err := e.builder.File(tree, r.File)
	if err != nil {
		return material{}, err
	}
	config, err := appfile.ParseEnvironment(r.File, text, r.Env)
	if err != nil {
		return material{}, err
	}
	release := spillway.Release{
		App: refOf(config.Name, r.Env), Config: config, File: string(text), Artefacts: map[string]spillway.Artefact{},
		Source: spillway.Source{Commit: r.Commit, Dirty: r.Dirty, Digest: tree.Digest},
	}
	return material{release: release, tree: &tree}, nil
}

// takeOver makes a release of the source and artefacts of another one, which serves or is named, with what its
// app file says of the environment asked for.
func (e *engine) takeOver(ctx context.Context, r api.DeployRequest) (spillway.Release, error) {
	from, to := refOf(r.App, r.From), refOf(r.App, r.Env)
	saved, err := e.store.Load(ctx, from)
	if errors.Is(err, spillway.ErrNotFound) {
		return spillway.Release{}, e.noSuchEnvironment(ctx, r.App, r.From)
	}
	if err != nil {
		return spillway.Release{}, err
	}
	n := cmp.Or(r.Release, servesNow(saved.Status))
	old, ok := saved.Spec.Releases[n]
	switch {
	case n == 0:
		return old, fmt.Errorf("nothing serves in %s yet, so there is nothing to take over: %w", from, spillway.ErrConflict)
	case !ok:
		return old, fmt.Errorf("%s has no release %d; there are: %s: %w", from, n, numbers(saved.Spec.Releases), spillway.ErrNotFound)
	}
	release := spillway.Release{App: to, Config: old.Config, File: old.File, Source: old.Source, Artefacts: map[string]spillway.Artefact{}}
	if to != from {
		if old.File == "" {
			return old, fmt.Errorf("release %d of %s was made by an older Spillway, without its app file; deploy it to %s again first: %w", n, from, from, spillway.ErrConflict)
		}
		file := fmt.Sprintf("app file of release %d of %s", n, from)
		if release.Config, err = appfile.ParseEnvironment(file, []byte(old.File), r.Env); err != nil {
			return old, err
		}
	}
	for _, s := range release.Config.Services {
		was, has := old.Config.Service(s.Name)
		if !has || !reflect.DeepEqual(was.Build, s.Build) || was.Image != s.Image {
			return old, fmt.Errorf("service %s was not built for %s as %s needs it; deploy the source there: spillway deploy%s: %w", s.Name, from, to, envFlag(to), spillway.ErrConflict)
		}
		if err := e.held(ctx, old.Artefacts[s.Name]); err != nil {
			return old, fmt.Errorf("release %d of %s cannot run: service %s: %w", n, from, s.Name, err)
		}
		release.Artefacts[s.Name] = old.Artefacts[s.Name]
	}
	return release, nil
}

// envFlag is the flag that means the environment of a reference, with a space before it.
func envFlag(app spillway.Ref) string {
	if _, env, ok := strings.Cut(string(app), "@"); ok {
		return " --env " + env
	}
	return ""
}

// noSuchEnvironment says where the app has been deployed to instead.
func (e *engine) noSuchEnvironment(ctx context.Context, app, env string) error {
	refs, err := e.store.Apps(ctx)
	if err != nil {
		return err
	}
	var there []string
	for _, ref := range refs {
		if name, at, _ := strings.Cut(string(ref), "@"); name == app {
			there = append(there, cmp.Or(at, production))
		}
	}
	if len(there) == 0 {
		return fmt.Errorf("there is no app %s: %w", app, spillway.ErrNotFound)
	}
	return fmt.Errorf("%s has not been deployed to %s; it has been to: %s: %w", app, env, strings.Join(there, ", "), spillway.ErrNotFound)
}

// servesNow is the release that has the users: the new one from 100 % on.
func servesNow(st rollout.Status) int {
	if r := st.Rollout; r != nil && r.Track == "" && st.Phase == spillway.Promoting {
		return r.Release
	}
	return st.Stable
}

func numbers(releases map[int]spillway.Release) string {
	var list []string
	for _, n := range slices.Sorted(maps.Keys(releases)) {
		list = append(list, fmt.Sprint(n))
	}
	return strings.Join(list, ", ")
}

// loaded is what is stored of an app; nothing when it was never deployed.
func (e *engine) loaded(ctx context.Context, app spillway.Ref) (reconcile.Saved, error) {
	saved, err := e.store.Load(ctx, app)
	if errors.Is(err, spillway.ErrNotFound) {
		return reconcile.Saved{Spec: rollout.Spec{App: app}}, nil
	}
	return saved, err
}

// Deploy builds the source, stores the release with the intent to roll it out, and wakes the loop.
func (e *engine) Deploy(ctx context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
	m, err := e.gather(ctx, r)
	if err != nil {
		return api.DeployResult{}, err
	}
	release := m.release
	saved, err := e.loaded(ctx, release.App)
	if err != nil {
		return api.DeployResult{}, err
	}
	// Before the build: nobody likes to wait for a no.
	if err := e.allowed(ctx, saved, release, r); err != nil {
		return api.DeployResult{}, err
	}
	for _, doubt := range e.doubted(ctx, release.Config) {
		log(doubt)
	}
	if m.tree != nil {
		for _, s := range release.Config.Services {
			artefact, err := e.artefact(ctx, release, *m.tree, s, func(line string) { log(s.Name + ": " + line) })
			if err != nil {
				return api.DeployResult{}, fmt.Errorf("service %s: %w", s.Name, err)
			}
			release.Artefacts[s.Name] = artefact
		}
	}
	before, err := e.store.LastEvent(ctx, release.App)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return api.DeployResult{}, err
	}
	now := time.Now().UTC()
	release.Created, release.By, release.Note = now, r.By, r.Note
	intent := spillway.Intent{Verb: spillway.VerbDeploy, Strategy: r.Strategy, By: r.By, At: now, Track: r.Track, NotBefore: r.NotBefore, Force: r.Force}
	release, intent, same, err := e.loop.Deploy(ctx, release, intent)
	if err != nil {
		return api.DeployResult{}, err
	}
	info := e.Info(ctx)
	result := api.DeployResult{App: release.App, Release: release.Number, Intent: intent.Seq, Event: before, Same: same, URLs: urls(info, release.Config, r.Track)}
	if same {
		o, err := e.Overview(ctx, release.App)
		result.Underway = err == nil && o.Rollout != nil && o.Rollout.Track == r.Track && o.Phase != spillway.Promoting
		return result, err
	}
	return result, nil
}

// allowed checks what stands against a deploy whatever its artefacts are.
func (e *engine) allowed(ctx context.Context, saved reconcile.Saved, release spillway.Release, r api.DeployRequest) error {
	if err := newestIs(saved, r.IfRelease); err != nil {
		return err
	}
	if err := checkTrack(saved, r.Track); err != nil {
		return err
	}
	if e.images == nil {
		if err := cmp.Or(checkCertificates(release.Config), checkImages(release), checkScaling(release)); err != nil {
			return err
		}
	}
	if e.fits != nil {
		if err := e.fits(release.Config); err != nil {
			return err
		}
	}
	if e.taken != nil {
		if err := e.taken(ctx, release); err != nil {
			return err
		}
	}
	return e.loop.HostsFree(ctx, release)
}

// checkImages refuses images on a server that runs processes of its own machine and nothing else.
func checkImages(release spillway.Release) error {
	for _, s := range release.Config.Services {
		if s.Image != "" {
			return fmt.Errorf("service %s is the image %s, and this server runs processes on one machine, no containers: nothing was changed; "+
				"deploy %s to a server on Kubernetes, or give %s a program to run here: write run, and build where it has to be built, instead of image%s: %w",
				s.Name, s.Image, release.App, s.Name, inEnvironment(release.App, s.Name), spillway.ErrInvalid)
		}
	}
	return nil
}

// checkScaling refuses autoscalers on a server that runs processes of its own machine.
func checkScaling(release spillway.Release) error {
	for _, s := range release.Config.Services {
		if s.Autoscaled() {
			alone := ""
			if _, env, ok := strings.Cut(string(release.App), "@"); ok {
				alone = fmt.Sprintf(" (for %s alone: environments: {%s: {services: {%s: {scale: %d}}}})", env, env, s.Name, s.Scale)
			}
			return fmt.Errorf("the size of %s is chosen by an autoscaler, and autoscaling runs on Kubernetes in this version: nothing was changed; "+
				"deploy %s to a server on Kubernetes, or scale it by hand here: write scale: {min: %d, max: %d}, and spillway scale %s=N%s: %w",
				s.Name, release.App, s.Scale, s.Max, s.Name, alone, spillway.ErrInvalid)
		}
	}
	return nil
}

// inEnvironment says how an environment alone gets a program instead of an image.
func inEnvironment(app spillway.Ref, service string) string {
	if _, env, ok := strings.Cut(string(app), "@"); ok {
		return fmt.Sprintf(" (for %s alone: environments: {%s: {services: {%s: {image: null, run: COMMAND}}}})", env, env, service)
	}
	return ""
}

// newestIs checks --if-release.
func newestIs(saved reconcile.Saved, want int) error {
	newest := 0
	for n := range saved.Spec.Releases {
		newest = max(newest, n)
	}
	if want == 0 || newest == want {
		return nil
	}
	return fmt.Errorf("the newest release of %s is %d, not %d: somebody deployed in between; look at: spillway releases: %w", saved.Spec.App, newest, want, spillway.ErrConflict)
}

// checkTrack checks that a track can hold a release.
func checkTrack(saved reconcile.Saved, track string) error {
	stable := saved.Spec.Releases[servesNow(saved.Status)] // the deploy begins behind the watch
	lanes := stable.Config.Lanes()
	switch {
	case track == "" || slices.Contains(lanes, track):
		return nil
	case stable.Number == 0:
		return fmt.Errorf("nothing serves yet that track %s could be compared with: deploy without --track first: %w", track, spillway.ErrConflict)
	}
	for _, s := range stable.Config.Services {
		if t, ok := s.Track(track); ok {
			return fmt.Errorf("track %s is servers that Spillway does not run (%s): it holds no release: %w", track, strings.Join(t.URLs, ", "), spillway.ErrConflict)
		}
	}
	have := "it has none"
	if len(lanes) > 0 {
		have = "it has: " + strings.Join(lanes, ", ")
	}
	return fmt.Errorf("release %d, which serves, has no track %s; %s; a new one is written under tracks: of a service, and deployed without --track first: %w",
		stable.Number, track, have, spillway.ErrNotFound)
}

// Plan says what a deploy would do. Artefacts are found by what they are built from.
func (e *engine) Plan(ctx context.Context, r api.DeployRequest) (spillway.Plan, error) {
	m, err := e.gather(ctx, r)
	if err != nil {
		return spillway.Plan{}, err
	}
	release := m.release
	saved, err := e.loaded(ctx, release.App)
	if err != nil {
		return spillway.Plan{}, err
	}
	release.Number, release.Track = 1, r.Track
	for n := range saved.Spec.Releases {
		release.Number = max(release.Number, n+1)
	}
	if err := e.allowed(ctx, saved, release, r); err != nil {
		return spillway.Plan{}, err
	}
	for _, s := range release.Config.Services {
		if m.tree == nil {
			break
		}
		if s.Image != "" {
			if release.Artefacts[s.Name], err = e.pinned(ctx, s, func(string) {}); err != nil {
				return spillway.Plan{}, fmt.Errorf("service %s: %w", s.Name, err)
			}
			continue
		}
		digest, err := e.builder.SourceDigest(*m.tree, s)
		if err != nil {
			return spillway.Plan{}, fmt.Errorf("service %s: %w", s.Name, err)
		}
		release.Artefacts[s.Name] = spillway.Artefact{Source: digest}
		for _, old := range saved.Spec.Releases {
			if a := old.Artefacts[s.Name]; a.Source == digest {
				release.Artefacts[s.Name] = a
			}
		}
	}
	release = reconcile.Regroup(release, saved, e.loop.Divides())
	for name, group := range release.Groups {
		if group == 0 {
			release.Groups[name] = release.Number
		}
	}
	return rollout.Plan(saved.Spec, saved.Status, release, r.Strategy, e.present(ctx, saved)), nil
}

// present is what a plan has to know of this moment: how much traffic stable has, and how well it does.
func (e *engine) present(ctx context.Context, saved reconcile.Saved) rollout.Present {
	divides := e.loop.Divides()
	p := rollout.Present{Now: time.Now(), ByReplicas: divides == reconcile.ByReplicas, Counted: divides == reconcile.PublicEdges}
	report, err := e.proxy.Report(ctx, saved.Spec.App)
	if err != nil {
		report = spillway.Report{} // no proxy, no traffic
	}
	var lead spillway.Traffic // of the busiest public service
	stable := saved.Spec.Releases[servesNow(saved.Status)]
	for _, s := range stable.Config.Services {
		g, _ := stable.Group(s.Name)
		if t := report.Counts[g.String()]; s.Public() && t.Rate >= lead.Rate {
			lead = t
		}
	}
	p.Rate = lead.Rate
	p.Needs = func(margin spillway.Share) int64 {
		return judge.Needs(margin, judge.Tally{Requests: lead.Requests, Failures: lead.Failures})
	}
	return p
}
