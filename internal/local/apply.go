package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Apply remembers what is wanted of the app, brings a changed route to the data plane, and leaves the
// rest to Run. It returns when the route is acknowledged; an error means that the data plane may serve an
// older one, and Run goes on trying.
func (p *Platform) Apply(ctx context.Context, ref spillway.Ref, releases map[int]spillway.Release, d rollout.Desired) error {
	want := wanted{Version: format, Desired: d, Releases: map[int]spillway.Release{}}
	want.Desired.Watch = nil // somebody else's work
	for _, w := range d.Groups {
		rel, ok := releases[w.Release]
		if _, has := rel.Config.Service(w.Group.Service); !ok || !has {
			return fmt.Errorf("apply %s: %s is wanted as of release %d, which is not given or has no such service: %w", ref, w.Group, w.Release, spillway.ErrInvalid)
		}
		want.Releases[w.Release] = rel
	}
	for _, t := range d.Tasks {
		rel, ok := releases[t.Release]
		if svc, _ := rel.Config.Service(t.Service); !ok || svc.Release.Zero() {
			return fmt.Errorf("apply %s: the release command of %s is wanted as of release %d, which is not given or has none: %w", ref, t.Service, t.Release, spillway.ErrInvalid)
		}
		want.Releases[t.Release] = rel
	}
	for {
		a, err := p.appFor(ref, want)
		if err != nil || a == nil {
			return err
		}
		changed, ok, err := a.remember(want)
		if err != nil {
			return fmt.Errorf("apply %s: %w", ref, err)
		}
		if !ok {
			continue // it has just been removed
		}
		if !changed {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, routerTimeout)
		defer cancel() //nolint:gocritic // this turn is the last
		return a.push(ctx)
	}
}

// appFor finds or makes the app. It is nil when there is none and nothing is wanted of it.
func (p *Platform) appFor(ref spillway.Ref, want wanted) (*app, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.apps[ref]; a != nil || want.destroyed() {
		return a, nil
	}
	if ref == "" || strings.ContainsAny(string(ref), "/\x00") || strings.HasPrefix(string(ref), ".") {
		return nil, fmt.Errorf("apply %q: not the name of an app: %w", ref, spillway.ErrInvalid)
	}
	a := newApp(p, ref)
	if err := os.MkdirAll(a.runs(), 0o700); err != nil {
		return nil, err
	}
	p.apps[ref] = a
	select {
	case p.added <- struct{}{}:
	default:
	}
	return a, nil
}

// remember stores what is wanted. route reports whether the data plane has to be told; ok is false when the
// app is gone.
func (a *app) remember(want wanted) (route, ok bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.removed {
		return false, false, nil
	}
	same, err := sameJSON(want, a.want)
	if err != nil {
		return false, true, err
	}
	if !same {
		if err := saveJSON(filepath.Join(a.dir, "desired.json"), want); err != nil {
			return false, true, err
		}
		a.want, a.asked, a.idle = want, true, false
		a.nudge(a.wake)
	}
	if err := a.listen(time.Now()); err != nil {
		return false, true, err
	}
	return a.tableChanged(), true, nil
}

// listenerName names the private address at which a group reaches a service: "www.4>backend".
func listenerName(service string, from spillway.Group) string { return from.String() + ">" + service }

func parseListener(name string) (spillway.EdgeListener, bool) {
	from, service, _ := strings.Cut(name, ">")
	g, ok := parseGroup(from)
	return spillway.EdgeListener{Service: service, From: g}, ok
}

// listen gives every private edge an address: those of the route, and those that a wanted group or task
// will need, because its processes are told the address when they start, maybe before the route reaches
// them. An address stays until its group is gone.
func (a *app) listen(now time.Time) error {
	var names []string
	need := func(release int, g spillway.Group) {
		svc, _ := a.want.Releases[release].Config.Service(g.Service)
		for _, name := range svc.Needs {
			names = append(names, listenerName(name, g))
		}
	}
	for _, w := range a.want.Desired.Groups {
		need(w.Release, w.Group)
	}
	for i, g := range a.taskGroups() {
		need(a.want.Desired.Tasks[i].Release, g)
	}
	for _, e := range a.want.Desired.Route.Edges {
		if e.From != (spillway.Group{}) {
			names = append(names, listenerName(e.Service, e.From))
		}
	}
	slices.Sort(names)
	changed := false
	for _, name := range slices.Compact(names) {
		if a.state.Listeners[name] != 0 {
			continue
		}
		port, err := a.p.ports.take(now)
		if err != nil {
			return err
		}
		a.state.Listeners[name] = port
		changed = true
	}
	if !changed {
		return nil
	}
	return a.saveState()
}
