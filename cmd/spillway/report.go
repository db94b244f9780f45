package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// lastLines is how many lines of a failed release's output its report shows.
const lastLines = 10

// conclude tells how a followed change ended and gives the error that carries its exit code.
func (f *follower) conclude(end ending, err error, where []string) error {
	switch {
	case errors.Is(err, errDetached):
		return f.tellDetached()
	case err != nil:
		return err
	case end.ignored:
		return f.concludeIgnored(end)
	case end.waits != nil:
		return f.concludeWaiting(*end.waits)
	}
	took := time.Since(f.began)
	if end.outcome != spillway.Succeeded {
		end.reason = f.reason(end)
	}
	if f.cli.json {
		line := &deployEnd{App: f.app, Release: f.release, Outcome: end.outcome, Reason: end.reason, Seconds: took.Seconds(), URLs: where, Track: f.track, Switched: f.switched().Seconds()}
		if f.seen != nil && f.seen.Evidence != nil {
			line.Spent = f.seen.Evidence.Failures
		}
		if err := f.cli.printJSON(deployLine{End: line}); err != nil {
			return err
		}
	}
	if end.outcome != spillway.Succeeded {
		return f.concludeBad(end, took)
	}
	if !f.cli.json {
		after := span(took)
		if f.switched() > 0 {
			after = moment(f.switched()) + " (route acknowledged)"
		}
		text := fmt.Sprintf("%s of %s %s after %s  %s", f.cli.outStyle.green(release(f.release)), f.app, audience(f.track), after, strings.Join(where, "  "))
		f.cli.print("%s", strings.TrimRight(text, " "))
		if f.stable != 0 {
			f.cli.print("undo: %s", f.cli.hint("rollback", f.app, f.track))
		}
	}
	return nil
}

// switched is how long it took from asking until the proxy had acknowledged the route; 0 = not seen.
func (f *follower) switched() time.Duration {
	if f.acked.IsZero() || f.seen != nil && f.seen.Strategy == spillway.Recreate { // its route is there before its replicas
		return 0
	}
	return f.acked.Sub(f.asked)
}

// moment is a length of time of which milliseconds matter: "41ms", and from a second on as span.
func moment(d time.Duration) string {
	if d < time.Second {
		return max(d, time.Millisecond).Truncate(time.Millisecond).String()
	}
	return span(d)
}

// concludeWaiting: it begins by itself, but not soon.
func (f *follower) concludeWaiting(w spillway.Wait) error {
	if f.cli.json {
		return f.cli.printJSON(deployLine{End: &deployEnd{App: f.app, Release: f.release, Track: f.track, Reason: "waits: " + w.Reason, Waits: &w, Seconds: time.Since(f.began).Seconds()}})
	}
	f.cli.print("%s of %s waits %s", release(f.release), f.app, waitWords(w, time.Now()))
	f.cli.print("it then begins by itself; drop it: %s", f.cli.hint("cancel", f.app, f.track))
	return nil
}

// reason is why a release did not make it: as the app remembers it, else as the event told it. It also
// looks at what serves now.
func (f *follower) reason(end ending) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // the command's own may have ended
	defer cancel()
	o, err := f.client.Overview(ctx, f.app)
	if err != nil {
		return end.reason
	}
	f.remember(o)
	if o.Last == nil || o.Last.Release != f.release || o.Last.Track != f.track {
		return end.reason
	}
	if f.seen != nil && o.Last.Evidence != nil {
		f.seen.Evidence = o.Last.Evidence // the final count, not the one last looked at
	}
	return cmp.Or(o.Last.Reason, end.reason)
}

// concludeIgnored: the engine had nothing to do.
func (f *follower) concludeIgnored(end ending) error {
	if f.cli.json {
		line := &deployEnd{App: f.app, Release: f.release, Reason: end.reason}
		if err := f.cli.printJSON(deployLine{End: line}); err != nil {
			return err
		}
	}
	return exitError{exitFailed, fmt.Errorf("nothing was done: %s; what runs: spillway status", end.reason)}
}

// concludeBad reports a release that did not make it: why, on what evidence, what it cost, what it
// wrote last, who serves now and where to look next.
func (f *follower) concludeBad(end ending, took time.Duration) error {
	code := outcomeCode(end.outcome)
	if f.cli.json {
		return exitError{code: code}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s %s after %s", release(f.release), f.app, outcomeWords(end.outcome), span(took))
	if end.reason != "" {
		fmt.Fprintf(&b, "\n  why:   %s", clean(end.reason))
	}
	if f.problem != "" && end.outcome == spillway.Failed && !strings.Contains(end.reason, f.problem) {
		fmt.Fprintf(&b, "\n  seen:  %s", clean(f.problem))
	}
	if f.seen != nil && f.seen.Stable != 0 {
		fmt.Fprintf(&b, "\n  cost:  %s", spent(f.seen))
	}
	if f.stable != 0 {
		fmt.Fprintf(&b, "\n  now:   %s serves everybody", release(f.stable))
		if f.track != "" {
			b.WriteString(" that track " + f.track + " has not")
		}
	} else {
		fmt.Fprintf(&b, "\n  now:   nothing serves; there is no earlier release")
	}
	own := end.outcome == spillway.RolledBack || end.outcome == spillway.Failed
	if own {
		f.writeLastLines(&b)
		fmt.Fprintf(&b, "\n  next:  %s --release %d    all that it wrote"+
			"\n         %-30s what happened, in order"+
			"\n         %-30s when it is mended", f.cli.hint("logs", f.app, ""), f.release, f.cli.hint("events", f.app, ""), f.cli.hint("deploy", f.app, f.track))
	} else {
		fmt.Fprintf(&b, "\n  next:  %s", f.cli.hint("status", f.app, ""))
	}
	return exitError{code, errors.New(b.String())}
}

// writeLastLines adds what the release wrote last, when it can be had.
func (f *follower) writeLastLines(b *strings.Builder) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // the command's own may have ended
	defer cancel()
	var lines []string
	f.client.Logs(ctx, f.app, spillway.LogQuery{Release: f.release, Lines: lastLines}, func(l spillway.LogLine) error {
		if l.Stream != spillway.StreamNote {
			lines = append(lines, fmt.Sprintf("\n    %s  %s", l.Replica, clean(l.Text)))
		}
		return nil
	})
	if len(lines) > 0 {
		b.WriteString("\n  last lines:" + strings.Join(lines, ""))
	}
}

// tellDetached says that a change goes on without a watcher.
func (f *follower) tellDetached() error {
	if f.cli.json {
		return f.cli.printJSON(deployLine{End: &deployEnd{App: f.app, Release: f.release, Reason: "not watched", Seconds: time.Since(f.began).Seconds()}})
	}
	f.cli.say("%s is still being deployed; watch it: %s --watch; stop it: %s", release(f.release), f.cli.hint("status", f.app, ""), f.cli.hint("abort", f.app, ""))
	return nil
}
