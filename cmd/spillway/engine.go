package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/rollout"
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
		info.HTTP, info.HTTPS, info.Proxy = p.HTTP, p.HTTPS, p.PID
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
	fresh, note := observed.Silence == kube.Unasked, ""
	if observed.NoData && e.standing != nil && !e.leads.Load() {
		text, led := e.standing(ctx)
		observed.Silence = text + "; " + observed.Silence
		if led && fresh {
			note = observed.Silence
		}
	}
	o := rollout.Describe(saved.Spec, saved.Status, observed, time.Now())
	if note != "" { // another server leads, and this one will know in a moment: nobody has to do anything
		o.Note = note
		o.Problems = slices.DeleteFunc(o.Problems, func(p string) bool { return p == note })
	}
	o.Uncounted = e.daemon == nil
	if e.gone != nil {
		o.Problems = append(o.Problems, e.goneProblems(ctx, app, saved.Status)...)
	}
	if why := e.refused(ctx, app); why != "" {
		o.Problems = append(o.Problems, why+"; "+correct)
	}
	report, err := e.proxy.Report(ctx, app)
	if err != nil {
		return o, nil // the overview says NoData, or the app is new
	}
	o.Hold = report.Hold
	for _, s := range o.Services {
		for i := range s.Groups {
			s.Groups[i].Traffic = report.Counts[s.Groups[i].Group.String()]
		}
	}
	for i, t := range o.Tracks {
		o.Tracks[i].Traffic = trackTraffic(saved.Spec.Releases[o.Stable], saved.Spec.Releases[t.Release], t.Name, report.Counts)
	}
	return o, nil
}

// trackTraffic is what a track was given of the service that has most requests in stable: its own replicas, or its
// servers. It stands beside stable's figures of the same service.
func trackTraffic(stable, release spillway.Release, track string, counts map[string]spillway.Traffic) spillway.Traffic {
	requests := func(s spillway.Service) int64 {
		g, _ := stable.Group(s.Name)
		return counts[g.String()].Requests
	}
	services := slices.SortedStableFunc(slices.Values(stable.Config.Services), func(a, b spillway.Service) int { return cmp.Compare(requests(b), requests(a)) })
	for _, s := range services {
		if _, has := s.Track(track); !has {
			continue
		}
		g, _ := release.Group(s.Name)
		if t, ok := counts[spillway.Backend{Group: g, Track: track}.Name(s.Name)]; ok && g.Release != 0 {
			return t
		}
		if t, ok := counts[s.Name+"@"+track]; ok {
			return t
		}
	}
	return spillway.Traffic{}
}

// Releases is the history of an app, newest first: those that could be deployed, and those in use.
func (e *engine) Releases(ctx context.Context, app spillway.Ref) ([]spillway.Release, error) {
	saved, err := e.store.Load(ctx, app)
	if err != nil {
		return nil, err
	}
	used := inUse(saved)
	var list []spillway.Release
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(saved.Spec.Releases))) {
		if r := saved.Spec.Releases[n]; used[n] || e.images != nil || e.whole(ctx, r) == nil {
			list = append(list, r)
		}
	}
	return list, nil
}

// Replicas are the running copies of an app.
func (e *engine) Replicas(ctx context.Context, app spillway.Ref) ([]spillway.Replica, error) {
	if _, err := e.store.Load(ctx, app); err != nil {
		return nil, err
	}
	return e.platform.Replicas(ctx, app)
}

// Events is what happened to an app.
func (e *engine) Events(ctx context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error) {
	return e.store.Events(ctx, app, q)
}

func serviceNames(a spillway.App) string {
	var names []string
	for _, s := range a.Services {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Doctor checks the machine, the platform and the proxy.
func (e *engine) Doctor(ctx context.Context) []spillway.Check {
	checks := e.platform.Doctor(ctx)
	if e.daemon == nil { // users come by a gateway, which the platform has looked at
		judge := e.options.cluster.checkJudge()
		if judge.Text == "" {
			judge = e.options.cluster.checkSources(e.judge.Sources(ctx))
		}
		return append(checks, judge, e.leader(ctx), e.checkApps(ctx), e.checkSpecs(ctx))
	}
	info, err := e.proxy.Info(ctx)
	if err != nil {
		return append(checks, spillway.Check{Name: "proxy", State: "fail", Text: err.Error(), Remedy: "the server starts it again by itself; its output is in " + e.options.dir + "/local/daemons/proxy/logs"})
	}
	checks = append(checks, spillway.Check{Name: "proxy", State: "ok", Text: fmt.Sprintf("pid %d serves on %s%s", info.PID, info.HTTP, after(" and ", info.HTTPS)+seenText(info))})
	checks = append(checks, descriptorCheck(info)...)
	checks = append(checks, e.checkApps(ctx))
	return append(checks, e.certificateChecks(ctx, info.HTTPS)...)
}

// checkApps looks for apps of which nobody knows what they are: nothing is decided for those, and nobody takes a new host.
func (e *engine) checkApps(ctx context.Context) spillway.Check {
	c := spillway.Check{Name: "apps", State: "ok"}
	refs, err := e.store.Apps(ctx)
	if err != nil {
		c.State, c.Text, c.Remedy = "fail", spillway.Text(err), "see the server's log"
		return c
	}
	var unread []string
	for _, app := range refs {
		if _, err := e.store.Load(ctx, app); err != nil && !errors.Is(err, spillway.ErrNotFound) { // it was destroyed in this moment
			unread = append(unread, fmt.Sprintf("app %s: %s", app, spillway.Text(err)))
		}
	}
	c.Text = fmt.Sprintf("%d deployed, each can be read", len(refs))
	if len(unread) > 0 {
		c.State, c.Text = "fail", strings.Join(unread, "; ")
		c.Remedy = "what runs of them serves on; put back what is missing, or end an app with spillway destroy. Until then no app takes a new host"
	}
	return c
}

// fewFiles is a limit of open files that a shell gives, and that a few hundred clients use up.
const fewFiles = 1 << 10

// descriptorCheck says how many clients the proxy has file descriptors for; nothing when it does not say.
func descriptorCheck(info proxy.Info) []spillway.Check {
	if info.Files == 0 {
		return nil
	}
	c := spillway.Check{Name: "descriptors", State: "ok", Text: fmt.Sprintf("the proxy may open %d files, which is enough for %d connections of clients at once", info.Files, info.Most)}
	if info.Files <= fewFiles {
		c.State, c.Text, c.Remedy = "warn", c.Text+"; more are closed at once", proxy.MoreFiles
	}
	return []spillway.Check{c}
}
