package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// follower watches one change of release until it is decided. It looks at the server again and again:
// events tell what happened and how it ended, the overview what the people who watch want to see.
type follower struct {
	cli     *cli
	client  *api.Client
	app     spillway.Ref
	release int       // the release that is to serve
	track   string    // the users it is to have; "" = stable's
	intent  int64     // what asked for it
	since   int64     // the newest event that is known
	leaving int64     // a rollout whose end is the way to release: a rollback out of it; 0 = none
	began   time.Time // of the command
	asked   time.Time // when the server took the request; zero = not known yet
	acked   time.Time // when the proxy acknowledged the route that gives the release its users

	screen  live
	told    time.Time                 // when the last line was
	waiting string                    // the last that was told
	hush    time.Duration             // silence after which it is told; doubles each time until an event
	stable  int                       // what serves when the release does not
	wait    *spillway.Wait            // what it was seen to wait for at the last look
	problem string                    // the last one of a replica of the release
	seen    *spillway.RolloutOverview // the last of the rollout, for the numbers in the report
}

// ending is how the change ended.
type ending struct {
	outcome spillway.Outcome
	reason  string
	ignored bool           // there was nothing to do, reason says why
	waits   *spillway.Wait // it has not begun, and will not soon
}

// errDetached: the user stopped watching; the change goes on.
var errDetached = errors.New("detached")

func (c *cli) newFollower(client *api.Client, app spillway.Ref, release int, intent, since int64) *follower {
	return &follower{
		cli: c, client: client, app: app, release: release, intent: intent, since: since, began: time.Now(),
		told: time.Now(), hush: c.hush,
		screen: live{out: c.stderr, on: isTerminal(c.stderr) && !c.json && c.getenv("TERM") != "dumb"},
	}
}

// follow blocks until the change has ended, ctx ends (errDetached), or the server stays away.
func (f *follower) follow(ctx context.Context) (ending, error) {
	defer f.screen.clear()
	ticker := time.NewTicker(f.cli.every)
	defer ticker.Stop()
	var away time.Time // since when the server does not answer
	for {
		end, err := f.look(ctx)
		switch {
		case ctx.Err() != nil:
			return ending{}, errDetached
		case err == nil && end != nil:
			return *end, nil
		case err == nil:
			away = time.Time{}
		case !errors.Is(err, spillway.ErrUnavailable):
			return ending{}, fmt.Errorf("follow %s of %s: %w", release(f.release), f.app, err)
		case away.IsZero():
			away = time.Now()
			f.screen.line("the server does not answer; waiting for it (what it runs goes on)")
		case time.Since(away) > f.cli.patience:
			return ending{}, fmt.Errorf("the server has been away for %s: %w", span(f.cli.patience), err)
		}
		select {
		case <-ctx.Done():
			return ending{}, errDetached
		case <-ticker.C:
		}
	}
}

// look reads what is new once. It returns nil while nothing is decided.
func (f *follower) look(ctx context.Context) (*ending, error) {
	o, err := f.client.Overview(ctx, f.app)
	if err != nil {
		return nil, err
	}
	f.remember(o)
	// The overview was read first: an event that decides it is then read now or in the next round.
	events, err := f.client.Events(ctx, f.app, spillway.EventQuery{Since: f.since})
	if err != nil {
		return nil, err
	}
	var end *ending
	for _, e := range events {
		f.since = e.ID
		if err := f.tell(e); err != nil {
			return nil, err
		}
		f.clock(e)
		if end = f.decided(e); end != nil && !f.again(ctx, *end) {
			return end, nil
		}
	}
	if len(events) == 0 {
		if end = f.settled(o); end != nil {
			return end, nil
		}
	}
	f.screen.draw(rolloutBlock(o, f.release, time.Since(f.began)), f.paint)
	f.tellWaiting(o)
	return nil, nil
}

// tellWaiting says off a terminal what a silent rollout waits for, so that the log of a pipeline shows
// it: after 5 s, 10 s, 20 s …, and then every minute.
func (f *follower) tellWaiting(o spillway.Overview) {
	r := o.Rollout
	if f.screen.on || f.cli.json || r == nil || r.Waiting == "" || r.Waiting == f.waiting || time.Since(f.told) < f.hush {
		return
	}
	f.waiting, f.hush = r.Waiting, min(2*f.hush, time.Minute)
	f.line(time.Now(), "waiting: "+r.Waiting)
}

// line shows a text with the time since the beginning.
func (f *follower) line(t time.Time, text string) {
	f.told = time.Now()
	f.screen.line("%s  %s", f.cli.errStyle.dim(fmt.Sprintf("%7s", "+"+span(t.Sub(f.began)))), clean(text))
}

// decided says whether an event ends the change.
func (f *follower) decided(e spillway.Event) *ending {
	if f.leaving != 0 && e.Rollout == f.leaving && e.Kind == spillway.EventFinished {
		return &ending{outcome: spillway.Succeeded}
	}
	if e.Release != f.release || e.Track != f.track && e.Kind != spillway.EventIgnored {
		return nil
	}
	switch e.Kind {
	case spillway.EventServing:
		return &ending{outcome: spillway.Succeeded}
	case spillway.EventFinished:
		return &ending{outcome: e.Outcome, reason: e.Text}
	case spillway.EventIgnored:
		return &ending{ignored: true, reason: e.Text}
	default:
		return nil
	}
}

// settled says whether the app came to rest with the release, should its events have been missed.
func (f *follower) settled(o spillway.Overview) *ending {
	if o.Intent < f.intent {
		return nil
	}
	if rolloutOf(o, f.track) == nil && !waits(o, f.track) && holds(o, f.track) == f.release {
		return &ending{outcome: spillway.Succeeded}
	}
	before := f.wait
	f.wait = waitOf(o, f.release, f.track)
	if f.wait == nil || f.leaving != 0 {
		return nil
	}
	now := time.Now()
	// When no rollout runs, and its own time has come, it is a freeze window that keeps it. Seen twice, because
	// the first time it may just be about to begin.
	frozen := o.Rollout == nil && !f.wait.At.After(now) && f.wait.Reason != "its turn" && before != nil && before.Reason == f.wait.Reason
	if frozen || f.wait.At.After(now.Add(soon)) {
		return &ending{waits: f.wait}
	}
	return nil
}

// again reports whether a deploy to a track that made way for one to stable waits to begin once more.
func (f *follower) again(ctx context.Context, end ending) bool {
	if f.track == "" || end.outcome != spillway.Superseded {
		return false
	}
	o, err := f.client.Overview(ctx, f.app)
	return err == nil && (waitOf(o, f.release, f.track) != nil || rolloutOf(o, f.track) != nil && o.Rollout.Release == f.release)
}

// clock notes when the change was asked for, and when the proxy had acknowledged it.
func (f *follower) clock(e spillway.Event) {
	switch {
	case f.asked.IsZero() && e.Kind == spillway.EventAsked && e.Release == f.release:
		f.asked = e.At
	case f.asked.IsZero() || !f.acked.IsZero() || e.At.Before(f.asked):
	case e.Kind == spillway.EventServing && e.Release == f.release && e.Track == f.track,
		e.Kind == spillway.EventRoute && f.track == "" && hasEverybody(e.Edges, f.release):
		f.acked = e.At
	}
}

// hasEverybody reports whether a route gives a release all users that no track has.
func hasEverybody(edges []spillway.Edge, release int) bool {
	given := false
	for _, e := range edges {
		for _, b := range e.Backends {
			if e.From != (spillway.Group{}) || e.Only != "" || b.Track != "" || b.Weight == 0 {
				continue
			}
			if b.Release != release {
				return false
			}
			given = true
		}
	}
	return given
}

// remember keeps what the report at the end wants to say.
func (f *follower) remember(o spillway.Overview) {
	if o.Stable != f.release || f.track != "" {
		f.stable = o.Stable
	}
	if r := rolloutOf(o, f.track); r != nil && r.Release == f.release {
		f.seen = r
	}
	for _, s := range o.Services {
		for _, g := range s.Groups {
			if g.Group.Release == f.release && g.Problem != "" {
				f.problem = g.Problem
			}
		}
	}
}

// tell shows an event as it happens.
func (f *follower) tell(e spillway.Event) error {
	if f.cli.json {
		return f.cli.printJSON(deployLine{Event: &e})
	}
	if e.Kind == spillway.EventRoute { // the steps tell people the same
		return nil
	}
	f.hush = f.cli.hush
	f.line(e.At, e.Text)
	return nil
}

// paint colours a line of the block: the heading, and the judge's verdict.
func (f *follower) paint(i int, line string) string {
	s := f.cli.errStyle
	switch {
	case i == 0:
		return s.bold(line)
	case strings.Contains(line, string(spillway.Harmful)):
		return s.red(line)
	case strings.Contains(line, string(spillway.Certified)):
		return s.green(line)
	default:
		return line
	}
}

// rolloutBlock is the live picture of a rollout: one line of heading, one a service, one each for the
// judge, the budget and what is waited for.
func rolloutBlock(o spillway.Overview, wanted int, since time.Duration) []string {
	r := o.Rollout
	if r == nil {
		if o.Queue == wanted {
			return []string{fmt.Sprintf("%s of %s waits for its turn · %s", release(wanted), o.App, span(since))}
		}
		return []string{fmt.Sprintf("%s of %s: %s · %s", release(wanted), o.App, o.Phase, span(since))}
	}
	lines := []string{fmt.Sprintf("%s%s of %s · %s · %s · step %d of %d · %s",
		release(r.Release), trackWords(r.Track), o.App, o.Phase, r.Strategy, r.Step, r.Steps, span(since))}
	width := 0
	for _, s := range o.Services {
		width = max(width, len(s.Name))
	}
	for _, s := range o.Services {
		lines = append(lines, fmt.Sprintf("  %-*s  %s", width, s.Name, serviceLine(s, r)))
	}
	if r.Stable != 0 {
		weight := weightWords(r)
		lines = append(lines,
			fmt.Sprintf("  %s %s", bar(r.Served, 20), weight),
			"  judge    "+verdict(r.Evidence),
			"  budget   "+spent(r))
	}
	var gates strings.Builder
	writeGates(&gates, r.Gates, style{})
	for line := range strings.Lines(gates.String()) {
		lines = append(lines, "  "+strings.TrimSpace(line))
	}
	return append(lines, waitingLines(o)...)
}

// waitingLines says what a rollout waits for, and that the proxy is silent.
func waitingLines(o spillway.Overview) []string {
	var lines []string
	waiting := o.Rollout.Waiting
	if o.Rollout.Left > 0 {
		if waiting != "" {
			waiting += ", "
		}
		waiting += span(time.Duration(o.Rollout.Left)) + " left"
	}
	if waiting != "" {
		lines = append(lines, "  waiting  "+waiting)
	}
	if o.NoData {
		lines = append(lines, "  "+cmp.Or(clean(o.Silence), "the proxy does not answer; the numbers are the last known"))
	}
	return lines
}

// serviceLine shows the replicas of a service: those of stable, those of the candidate, the weight.
func serviceLine(s spillway.ServiceOverview, r *spillway.RolloutOverview) string {
	var parts []string
	for _, g := range s.Groups {
		role := g.Role
		if role == "both" {
			role = "unchanged"
		}
		text := fmt.Sprintf("%s %d/%d ready", role, g.Ready, g.Want)
		if role == "candidate" && r.Stable != 0 {
			text += fmt.Sprintf("  %s %s", bar(g.Weight, 10), g.Weight)
		}
		if g.Problem != "" {
			text += " (" + g.Problem + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "  ")
}
