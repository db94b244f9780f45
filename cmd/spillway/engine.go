package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/store"
)

// engine is what the API offers, on the parts of an installation.
type engine struct {
	*installation
	options serverOptions
}

var _ api.Engine = (*engine)(nil)

// Info describes this server, with the address at which the proxy that runs really listens.
func (e *engine) Info(ctx context.Context) api.Info {
	info := api.Info{Version: version(), Dir: e.options.dir, Listen: e.api.Addr(), HTTP: e.options.http, PID: os.Getpid()}
	if p, err := e.proxy.Info(ctx); err == nil {
		info.HTTP, info.Proxy = p.HTTP, p.PID
	}
	return info
}

// Apps lists what has been deployed.
func (e *engine) Apps(ctx context.Context) ([]spillway.Ref, error) { return e.store.Apps(ctx) }

// Overview describes an app in words and numbers, with the traffic that the proxy counted.
func (e *engine) Overview(ctx context.Context, app spillway.Ref) (spillway.Overview, error) {
	saved, err := e.store.Load(ctx, app)
	if err != nil {
		return spillway.Overview{}, err
	}
	observed, err := e.platform.Observe(ctx, app)
	if err != nil {
		return spillway.Overview{}, err
	}
	o := rollout.Describe(saved.Spec, saved.Status, observed, time.Now())
	report, err := e.proxy.Report(ctx, app)
	if err != nil {
		return o, nil // the overview says NoData, or the app is new
	}
	for _, s := range o.Services {
		for i := range s.Groups {
			s.Groups[i].Traffic = report.Counts[s.Groups[i].Group.String()]
		}
	}
	return o, nil
}

// Releases is the history of an app, newest first.
func (e *engine) Releases(ctx context.Context, app spillway.Ref) ([]spillway.Release, error) {
	return e.store.Releases(ctx, app)
}

// Replicas are the running copies of an app.
func (e *engine) Replicas(ctx context.Context, app spillway.Ref) ([]spillway.Replica, error) {
	if _, err := e.store.Load(ctx, app); err != nil {
		return nil, err
	}
	return e.platform.Replicas(ctx, app)
}

// Events is what happened to an app.
func (e *engine) Events(ctx context.Context, app spillway.Ref, q api.EventQuery) ([]spillway.Event, error) {
	return e.store.Events(ctx, app, store.EventQuery(q))
}

// Logs tells the lines that replicas wrote.
func (e *engine) Logs(ctx context.Context, app spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	if _, err := e.store.Load(ctx, app); err != nil {
		return err
	}
	return e.platform.Logs(ctx, app, q, line)
}

// unpacked is a deploy request: the tree and what its app file says.
type unpacked struct {
	tree   pipeline.Tree
	config spillway.App
	app    spillway.Ref
}

func (e *engine) unpack(ctx context.Context, r api.DeployRequest) (unpacked, error) {
	var u unpacked
	tree, err := e.builder.Unpack(ctx, r.Source)
	if err != nil {
		return u, err
	}
	text, err := e.builder.File(tree, r.File)
	if err != nil {
		return u, err
	}
	config, err := appfile.Parse(r.File, text)
	if err != nil {
		return u, err
	}
	u = unpacked{tree: tree, config: config, app: spillway.Ref(config.Name)}
	if r.Env != "" && r.Env != "production" {
		return u, fmt.Errorf("environment %s: this version of Spillway has only production: %w", r.Env, spillway.ErrInvalid)
	}
	return u, nil
}

// Deploy builds the source, stores the release with the intent to roll it out, and wakes the loop.
func (e *engine) Deploy(ctx context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
	u, err := e.unpack(ctx, r)
	if err != nil {
		return api.DeployResult{}, err
	}
	if err := e.newestIs(ctx, u.app, r.IfRelease); err != nil {
		return api.DeployResult{}, err
	}
	release := spillway.Release{
		App: u.app, Config: u.config, Created: time.Now().UTC(), By: r.By, Note: r.Note, Artefacts: map[string]spillway.Artefact{},
		Source: spillway.Source{Commit: r.Commit, Dirty: r.Dirty, Digest: u.tree.Digest},
	}
	if err := e.loop.HostsFree(ctx, release); err != nil {
		return api.DeployResult{}, err // before the build: nobody likes to wait for a no
	}
	for _, s := range u.config.Services {
		artefact, err := e.builder.Build(ctx, u.tree, s, func(line string) { log(s.Name + ": " + line) })
		if err != nil {
			return api.DeployResult{}, fmt.Errorf("service %s: %w", s.Name, err)
		}
		release.Artefacts[s.Name] = artefact
	}
	before, err := e.store.LastEvent(ctx, u.app)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return api.DeployResult{}, err
	}
	intent := spillway.Intent{Verb: spillway.VerbDeploy, Strategy: r.Strategy, By: r.By, At: time.Now().UTC()}
	release, intent, same, err := e.loop.Deploy(ctx, release, intent)
	if err != nil {
		return api.DeployResult{}, err
	}
	result := api.DeployResult{App: u.app, Release: release.Number, Intent: intent.Seq, Event: before, Same: same, URLs: e.urls(ctx, u.config)}
	if same {
		o, err := e.Overview(ctx, u.app)
		result.Underway = err == nil && o.Rollout != nil && o.Phase != spillway.Promoting
		return result, err
	}
	return result, nil
}

// newestIs checks --if-release.
func (e *engine) newestIs(ctx context.Context, app spillway.Ref, want int) error {
	if want == 0 {
		return nil
	}
	releases, err := e.store.Releases(ctx, app)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	newest := 0
	if len(releases) > 0 {
		newest = releases[0].Number
	}
	if newest != want {
		return fmt.Errorf("the newest release of %s is %d, not %d: somebody deployed in between; look at: spillway releases: %w", app, newest, want, spillway.ErrConflict)
	}
	return nil
}

// urls says where the public services answer.
func (e *engine) urls(ctx context.Context, config spillway.App) []string {
	_, port, err := net.SplitHostPort(e.Info(ctx).HTTP)
	if err != nil {
		return nil
	}
	if port = ":" + port; port == ":80" {
		port = ""
	}
	var urls []string
	for _, host := range config.Hosts() {
		urls = append(urls, "http://"+host+port+"/")
	}
	return urls
}

// Plan says what a deploy of the source would do. Artefacts are found by what they are built from.
func (e *engine) Plan(ctx context.Context, r api.DeployRequest) (spillway.Plan, error) {
	u, err := e.unpack(ctx, r)
	if err != nil {
		return spillway.Plan{}, err
	}
	saved, err := e.store.Load(ctx, u.app)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return spillway.Plan{}, err
	}
	release := spillway.Release{App: u.app, Config: u.config, Artefacts: map[string]spillway.Artefact{}, Number: 1}
	for n := range saved.Spec.Releases {
		release.Number = max(release.Number, n+1)
	}
	if err := e.loop.HostsFree(ctx, release); err != nil {
		return spillway.Plan{}, err
	}
	for _, s := range u.config.Services {
		digest, err := e.builder.SourceDigest(u.tree, s)
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
	release = reconcile.Regroup(release, saved)
	for name, group := range release.Groups {
		if group == 0 {
			release.Groups[name] = release.Number
		}
	}
	return rollout.Plan(saved.Spec, saved.Status, release, r.Strategy, rollout.Present{Now: time.Now()}), nil
}

// Ask stores an intent after checking that it can be acted on.
func (e *engine) Ask(ctx context.Context, app spillway.Ref, in spillway.Intent) (spillway.Intent, error) {
	saved, err := e.store.Load(ctx, app)
	if err != nil {
		return in, err
	}
	if err := e.sensible(saved, in); err != nil {
		return in, err
	}
	in.At = time.Now().UTC()
	return e.loop.Ask(ctx, app, in)
}

// sensible checks an intent against what there is now, so that the person who asked hears at once what
// cannot be. The engine checks again when it acts.
func (e *engine) sensible(saved reconcile.Saved, in spillway.Intent) error {
	st := saved.Status
	switch in.Verb {
	case spillway.VerbRollback, spillway.VerbDeploy:
		target := in.Release
		if in.Verb == spillway.VerbRollback && target == 0 {
			switch {
			case st.Rollout != nil && st.Rollout.Stable != 0:
				target = st.Rollout.Stable
			case len(st.Good) > 0:
				target = st.Good[0]
			case st.Queue != nil || len(saved.Spec.Intents) > 0: // a deploy that has not begun
				return nil
			default:
				return fmt.Errorf("nothing to roll back to: no release served before release %d; name one of: spillway releases: %w", st.Stable, spillway.ErrConflict)
			}
		}
		release, ok := saved.Spec.Releases[target]
		if !ok {
			return fmt.Errorf("release %d: there is none; see: spillway releases: %w", target, spillway.ErrNotFound)
		}
		for name, a := range release.Artefacts {
			if err := e.builder.Exists(a); err != nil {
				return fmt.Errorf("release %d cannot run: service %s: %w", target, name, err)
			}
		}
	case spillway.VerbScale, spillway.VerbRestart:
		release := saved.Spec.Releases[st.Stable]
		if st.Rollout != nil {
			release = saved.Spec.Releases[st.Rollout.Release]
		}
		if _, ok := release.Config.Service(in.Service); !ok && in.Service != "" {
			return fmt.Errorf("service %s: the app has none of that name; it has: %s: %w", in.Service, serviceNames(release.Config), spillway.ErrNotFound)
		}
		if in.Verb == spillway.VerbScale && !in.Auto && (in.Replicas < 1 || in.Replicas > 1000) {
			return fmt.Errorf("%s=%d: a service has 1 to 1000 replicas: %w", in.Service, in.Replicas, spillway.ErrInvalid)
		}
	}
	return nil
}

func serviceNames(a spillway.App) string {
	var names []string
	for _, s := range a.Services {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return fmt.Sprint(names)
}

// Doctor checks the machine, the platform and the proxy.
func (e *engine) Doctor(ctx context.Context) []spillway.Check {
	checks := e.platform.Doctor(ctx)
	info, err := e.proxy.Info(ctx)
	if err != nil {
		return append(checks, spillway.Check{Name: "proxy", State: "fail", Text: err.Error(), Remedy: "the server starts it again by itself; its output is in " + e.options.dir + "/local/daemons/proxy/logs"})
	}
	return append(checks, spillway.Check{Name: "proxy", State: "ok", Text: fmt.Sprintf("pid %d serves on %s", info.PID, info.HTTP)})
}
