package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	reconnectFirst = 200 * time.Millisecond // wait before the first try to come back; doubles
	reconnectMost  = 2 * time.Second
	// silence is how long a stream that beats may say nothing until it counts as gone.
	silence = 3 * heartbeatInterval
)

var errSilent = errors.New("it said nothing for too long")

// Deploy sends the source and asks for its release; log gets the output of the build, line by line. It
// returns when the release and the intent are stored, not when it serves. It reads r.Source, which it
// does not close. When the server goes away on the way, it is not known whether they were stored.
func (c *Client) Deploy(ctx context.Context, r DeployRequest, log func(string)) (DeployResult, error) {
	answer, err := c.do(ctx, http.MethodPost, "/v1/deploy?"+deployQuery(r), "application/gzip", sourceOf(r))
	if err != nil {
		return DeployResult{}, err
	}
	defer answer.Body.Close()
	var result *DeployResult
	err = lines(ctx, c, answer.Body, func(line DeployLine) error {
		switch {
		case line.Error != nil:
			return line.Error
		case line.Result != nil:
			result = line.Result
		default:
			log(line.Log)
		}
		return nil
	})
	if err == nil && result == nil {
		err = c.broken(ctx, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return DeployResult{}, err
	}
	return *result, nil
}

// Events gives those with ID > since, oldest first, at most limit (0 = 1000); with tail > 0 only the
// newest tail.
func (c *Client) Events(ctx context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error) {
	answer, err := c.do(ctx, http.MethodGet, appPath(app, "/events?"+eventsQuery(q)), "", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var events []spillway.Event
	err = lines(ctx, c, answer.Body, func(line eventLine) error {
		if line.Error != nil {
			return line.Error
		}
		events = append(events, line.Event)
		return nil
	})
	return events, err
}

// Follow calls tell for each event with ID > since, and for those that come, until ctx ends or tell
// fails, and returns the error of whichever did. When the server goes away after it had answered once,
// Follow comes back to it and misses nothing.
func (c *Client) Follow(ctx context.Context, app spillway.Ref, since int64, tell func(spillway.Event) error) error {
	var failed error // of tell
	hear := func(e spillway.Event) error {
		if failed = tell(e); failed == nil {
			since = e.ID
		}
		return failed
	}
	wait, answered := reconnectFirst, false
	for {
		connected, err := c.followOnce(ctx, app, since, hear)
		answered = answered || connected
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return ctx.Err()
		case !answered || !errors.Is(err, spillway.ErrUnavailable):
			return err
		}
		if connected {
			wait = reconnectFirst
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		wait = min(2*wait, reconnectMost)
	}
}

// followOnce follows until the stream ends. It never returns without an error.
func (c *Client) followOnce(ctx context.Context, app spillway.Ref, since int64, hear func(spillway.Event) error) (connected bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	answer, err := c.do(ctx, http.MethodGet, appPath(app, "/events?follow=1&"+eventsQuery(spillway.EventQuery{Since: since})), "", nil)
	if err != nil {
		return false, c.silent(ctx, err)
	}
	defer answer.Body.Close()
	err = lines(ctx, c, alarmed{answer.Body, watchdog}, func(line eventLine) error {
		if line.Error != nil {
			return line.Error
		}
		return hear(line.Event)
	})
	if err == nil {
		err = c.broken(ctx, io.EOF) // the server stopped; it may come back
	}
	return true, c.silent(ctx, err)
}

// silent turns the end that a watchdog made into a server that went away.
func (c *Client) silent(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return c.broken(context.WithoutCancel(ctx), errSilent)
	}
	return err
}

// alarmed puts off a watchdog with everything that is read.
type alarmed struct {
	io.Reader
	watchdog *time.Timer
}

// Read reads, and puts off the watchdog.
func (a alarmed) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.watchdog.Reset(silence)
	}
	return n, err
}

// Logs calls line for each line until all are told, or with q.Follow until ctx ends or line fails, and
// returns the error of whichever did.
func (c *Client) Logs(ctx context.Context, app spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	v := url.Values{}
	set(v, "service", q.Service)
	set(v, "replica", q.Replica)
	setNumber(v, "release", int64(q.Release))
	setNumber(v, "lines", int64(q.Lines))
	setFlag(v, "follow", q.Follow)
	answer, err := c.do(ctx, http.MethodGet, appPath(app, "/logs?"+v.Encode()), "", nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	err = lines(ctx, c, answer.Body, func(l logLine) error {
		if l.Error != nil {
			return l.Error
		}
		return line(l.LogLine)
	})
	if err == nil && q.Follow {
		return c.broken(ctx, io.EOF)
	}
	return err
}

// lines calls each for every line of an answer, without the empty ones, until one fails. An answer that
// ended too early is an error.
func lines[T any](ctx context.Context, c *Client, body io.Reader, each func(T) error) error {
	reader := bufio.NewReader(body)
	for {
		text, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return nil
		}
		if err != nil {
			return c.broken(ctx, err)
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue // a heartbeat
		}
		var line T
		if err := json.Unmarshal(text, &line); err != nil {
			return c.stranger(err.Error())
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

func eventsQuery(q spillway.EventQuery) string {
	v := url.Values{}
	setNumber(v, "since", q.Since)
	setNumber(v, "tail", int64(q.Tail))
	setNumber(v, "limit", int64(q.Limit))
	return v.Encode()
}
