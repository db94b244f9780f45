package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	pollInterval      = 150 * time.Millisecond // between looks at the history for a follower
	heartbeatInterval = 15 * time.Second       // so that both ends notice when the other is gone
	lineTimeout       = 30 * time.Second       // for a reader that does not read
	pageSize          = 1000                   // events read at once
)

// The media types of a stream.
const (
	mediaLines  = "application/x-ndjson"
	mediaEvents = "text/event-stream"
)

// eventLine is one line of the history: an event, or at the end why there are no more.
type eventLine struct {
	spillway.Event
	Error *Error `json:"error,omitempty"`
}

// logLine is one line of the log: what a replica wrote, or at the end why there are no more.
type logLine struct {
	spillway.LogLine
	Error *Error `json:"error,omitempty"`
}

// stream writes values one by one, each of which arrives at once. It may be used by several goroutines,
// as a build may tell of several services.
type stream struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	media   string
	began   bool
}

func newStream(w http.ResponseWriter, media string) *stream {
	return &stream{w: w, control: http.NewResponseController(w), media: media}
}

// begin sends the head of the answer, if that was not done.
func (s *stream) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put("")
}

// send sends one value. id is its ID as a server-sent event, 0 = none.
func (s *stream) send(id int64, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.media == mediaEvents {
		return s.put(fmt.Sprintf("id: %d\ndata: %s\n\n", id, text))
	}
	return s.put(string(text) + "\n")
}

// fail sends why the stream ends. As a server-sent event it is of the type "failed".
func (s *stream) fail(e Error) error {
	text, err := json.Marshal(failure{e})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.media == mediaEvents {
		return s.put(fmt.Sprintf("event: failed\ndata: %s\n\n", text))
	}
	return s.put(string(text) + "\n")
}

// heartbeat sends what readers ignore.
func (s *stream) heartbeat() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.media == mediaEvents {
		return s.put(": heartbeat\n\n")
	}
	return s.put("\n")
}

// put writes and flushes. The caller holds the lock.
func (s *stream) put(text string) error {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", s.media)
		s.w.Header().Set("X-Accel-Buffering", "no") // a proxy in between must not collect lines
		s.w.WriteHeader(http.StatusOK)
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(lineTimeout)) // not supported means: it cannot block
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.control.Flush()
}

// close leaves the connection as it was for its next request.
func (s *stream) close() { _ = s.control.SetWriteDeadline(time.Time{}) }

// history tells events, and with follow those that come.
func (s *Server) history(c *call) (any, error) {
	q, follow, media := c.query.events(), c.query.flag("follow"), mediaLines
	if strings.Contains(c.r.Header.Get("Accept"), mediaEvents) {
		follow, media = true, mediaEvents // a browser that reads events comes back whenever they end
	}
	if last := c.r.Header.Get("Last-Event-ID"); last != "" {
		id, err := strconv.ParseInt(last, 10, 64)
		if err != nil || id < 0 {
			c.query.mistake("since", strconv.Quote(last)+" in the header Last-Event-ID is not the ID of an event", "")
		}
		q.Since, q.Tail = id, 0
	}
	if err := c.query.err(); err != nil {
		return nil, err
	}
	out := newStream(c.w, media)
	if follow {
		return s.end(c, out, s.follow(c.r.Context(), c.app, q, out))
	}
	_, err := s.tell(c.r.Context(), c.app, &q, out)
	return s.end(c, out, err)
}

// tell sends the events that a query selects, and moves the query on to those after them.
func (s *Server) tell(ctx context.Context, app spillway.Ref, q *spillway.EventQuery, out *stream) (told int, err error) {
	events, err := s.engine.Events(ctx, app, *q)
	if err != nil {
		return 0, err
	}
	for _, e := range events {
		if err := out.send(e.ID, eventLine{Event: e}); err != nil {
			return 0, err
		}
		q.Since = e.ID
	}
	return len(events), nil
}

// follow tells events until ctx ends. It looks again and again: simple, the same for every store, and
// soon enough for people.
func (s *Server) follow(ctx context.Context, app spillway.Ref, q spillway.EventQuery, out *stream) error {
	poll, heartbeat := time.NewTicker(pollInterval), time.NewTicker(heartbeatInterval)
	defer poll.Stop()
	defer heartbeat.Stop()
	q.Limit = pageSize
	for {
		told, err := s.tell(ctx, app, &q, out)
		if err != nil {
			return err
		}
		if err := out.begin(); err != nil {
			return err
		}
		if told == pageSize {
			continue // there may be more at once
		}
		q.Tail = 0 // from here on everything
		select {
		case <-ctx.Done():
			return nil
		case <-heartbeat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
		case <-poll.C:
		}
	}
}

// logs tells what replicas wrote.
func (s *Server) logs(c *call) (any, error) {
	q := c.query.logs()
	if err := c.query.err(); err != nil {
		return nil, err
	}
	out := newStream(c.w, mediaLines)
	err := s.engine.Logs(c.r.Context(), c.app, q, func(l spillway.LogLine) error {
		return out.send(0, logLine{LogLine: l})
	})
	return s.end(c, out, err)
}
