package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// round is what the app looks like at one look of a follower, and what has happened until then.
type round struct {
	overview spillway.Overview
	events   []spillway.Event
}

// actor is an api.Engine in memory that plays a script: each look at the overview is the next round,
// and the last one stays.
type actor struct {
	mu sync.Mutex

	info     api.Info
	apps     []spillway.Ref
	rounds   []round                   // before anybody asked for anything, and after each script
	scripts  map[spillway.Verb][]round // what follows when a verb is asked for
	deployed api.DeployResult
	deploys  []round // what follows a deploy
	build    []string
	buildErr error
	planned  spillway.Plan
	releases []spillway.Release
	replicas []spillway.Replica
	lines    []spillway.LogLine
	checks   []spillway.Check
	whose    api.Who
	ways     []spillway.RouteLine
	answer   spillway.RouteAnswer
	tested   []spillway.RouteQuery
	askErr   error
	gone     bool // the app does not exist (any more)

	events  []spillway.Event
	intents []spillway.Intent
	request api.DeployRequest // the last
	packed  []string          // names in its source
}

var _ api.Engine = (*actor)(nil)

func (e *actor) Info(context.Context) api.Info { return e.info }

func (e *actor) Apps(context.Context) ([]spillway.Ref, error) { return e.apps, nil }

func (e *actor) known(app spillway.Ref) error {
	if e.gone || !slices.Contains(e.apps, app) {
		return fmt.Errorf("there is no app %s: %w", app, spillway.ErrNotFound)
	}
	return nil
}

func (e *actor) Overview(_ context.Context, app spillway.Ref) (spillway.Overview, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.known(app); err != nil {
		return spillway.Overview{}, err
	}
	now := e.rounds[0]
	e.happen(now.events)
	e.rounds[0].events = nil
	if len(e.rounds) > 1 {
		e.rounds = e.rounds[1:]
	} else if e.gone = now.overview.App == ""; e.gone {
		return spillway.Overview{}, e.known(app)
	}
	now.overview.App = app
	return now.overview, nil
}

func (e *actor) happen(events []spillway.Event) {
	for _, event := range events {
		event.ID = int64(len(e.events) + 1)
		e.events = append(e.events, event)
	}
}

func (e *actor) Releases(_ context.Context, app spillway.Ref) ([]spillway.Release, error) {
	return e.releases, e.known(app)
}

func (e *actor) Replicas(_ context.Context, app spillway.Ref) ([]spillway.Replica, error) {
	return e.replicas, e.known(app)
}

func (e *actor) Events(_ context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(e.events), func(event spillway.Event) bool { return event.ID <= q.Since })
	if q.Tail > 0 {
		list = list[max(0, len(list)-q.Tail):]
	}
	return list, e.known(app)
}

func (e *actor) Logs(ctx context.Context, _ spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	for _, l := range e.lines {
		if (q.Release == 0 || q.Release == l.Group.Release) && (q.Service == "" || q.Service == l.Group.Service) {
			if err := line(l); err != nil {
				return err
			}
		}
	}
	if q.Follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (e *actor) Deploy(_ context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.unpack(r); err != nil {
		return api.DeployResult{}, err
	}
	for _, line := range e.build {
		log(line)
	}
	if e.buildErr != nil {
		return api.DeployResult{}, e.buildErr
	}
	e.deployed.Event = int64(len(e.events))
	if len(e.deploys) > 0 {
		e.rounds = e.deploys
	}
	return e.deployed, nil
}

// unpack reads the names in the source of a request.
func (e *actor) unpack(r api.DeployRequest) error {
	e.request, e.packed = r, nil
	if r.From != "" {
		return nil
	}
	unzipped, err := gzip.NewReader(r.Source)
	if err != nil {
		return err
	}
	for files := tar.NewReader(unzipped); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e.packed = append(e.packed, h.Name)
	}
}

func (e *actor) Plan(_ context.Context, r api.DeployRequest) (spillway.Plan, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.planned, e.unpack(r)
}

func (e *actor) Ask(_ context.Context, app spillway.Ref, in spillway.Intent) (spillway.Intent, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := errors.Join(e.known(app), e.askErr); err != nil {
		return in, err
	}
	in.Seq = int64(len(e.intents) + 1)
	e.intents = append(e.intents, in)
	if script, ok := e.scripts[in.Verb]; ok {
		e.rounds = slices.Clone(script)
	}
	return in, nil
}

func (e *actor) Who(_ context.Context, app spillway.Ref, q api.WhoQuery) (api.Who, error) {
	who := e.whose
	who.App, who.Key = app, q.Key
	if !q.At.IsZero() {
		who.At = q.At
	}
	return who, e.known(app)
}

func (e *actor) Routes(_ context.Context, app spillway.Ref) ([]spillway.RouteLine, error) {
	return e.ways, e.known(app)
}

// Hold finds three requests that have waited for 30 s at most.
func (e *actor) Hold(_ context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error) {
	h := spillway.Hold{Since: at, For: spillway.Duration(30 * time.Second), Waiting: 3}
	if wait > 0 {
		h = spillway.Hold{Since: at, For: spillway.Duration(wait)}
	}
	return h, e.known(app)
}

func (e *actor) TestRoute(_ context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tested = append(e.tested, q)
	return e.answer, e.known(app)
}

func (e *actor) Doctor(context.Context) []spillway.Check { return e.checks }
