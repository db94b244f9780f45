package api_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func TestDeploy_TellsTheBuildLineByLine(t *testing.T) {
	told := make(chan string)
	want := api.DeployResult{App: castle, Release: 3, Intent: 4, Event: 5, URLs: []string{"http://castle.localhost:8080/"}}
	e := &engine{deploy: func(ctx context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
		text, err := io.ReadAll(r.Source)
		if err != nil {
			return api.DeployResult{}, err
		}
		for _, line := range []string{string(text), r.By, ""} {
			log(line)
			select { // the next only when this one arrived
			case got := <-told:
				if got != line {
					t.Errorf("told %q, want %q", got, line)
				}
			case <-ctx.Done():
				return api.DeployResult{}, ctx.Err()
			}
		}
		return want, nil
	}}
	got, err := start(t, e).tcp(t).Deploy(t.Context(), api.DeployRequest{Source: strings.NewReader("source")}, func(l string) { told <- l })
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestDeploy_AnErrorAfterTheFirstLineArrives(t *testing.T) {
	fields := spillway.FieldErrors{{File: "spillway.yaml", Line: 1, Column: 1, Path: "app", Problem: "is missing"}}
	e := &engine{deploy: func(_ context.Context, _ api.DeployRequest, log func(string)) (api.DeployResult, error) {
		log("building")
		return api.DeployResult{}, fields
	}}
	var got spillway.FieldErrors
	_, err := start(t, e).socket(t).Deploy(t.Context(), api.DeployRequest{Source: strings.NewReader("source")}, func(string) {})
	if !errors.As(err, &got) || !reflect.DeepEqual(got, fields) {
		t.Errorf("got %v, want the field errors", err)
	}
}

func TestDeploy_ARefusalReachesWhoStillSendsTheSource(t *testing.T) {
	e := &engine{err: spillway.ErrConflict} // the source is not read at all
	source := strings.NewReader(strings.Repeat("x", 8<<20))
	_, err := start(t, e).socket(t).Deploy(t.Context(), api.DeployRequest{Source: source}, nil)
	if !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

func TestDeploy_MayTellBeforeItHasReadTheSource(t *testing.T) {
	e := &engine{deploy: func(_ context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
		log("receiving")
		n, err := io.Copy(io.Discard, r.Source)
		return api.DeployResult{Release: int(n)}, err
	}}
	source := strings.NewReader(strings.Repeat("x", 4<<20))
	got, err := start(t, e).tcp(t).Deploy(t.Context(), api.DeployRequest{Source: source}, func(string) {})
	if err != nil || got.Release != 4<<20 {
		t.Errorf("%d bytes of the source arrived, %v; want %d", got.Release, err, 4<<20)
	}
}

func TestDeploy_ASourceLeftUnreadDoesNotHarmTheNextRequest(t *testing.T) {
	client := start(t, &engine{err: spillway.ErrConflict}).socket(t)
	for _, source := range []string{"", strings.Repeat("x", 1000), strings.Repeat("x", 1<<20), ""} {
		_, deploy := client.Deploy(t.Context(), api.DeployRequest{Source: strings.NewReader(source)}, nil)
		_, ask := client.Ask(t.Context(), castle, spillway.Intent{Verb: spillway.VerbPause})
		if !errors.Is(deploy, spillway.ErrConflict) || !errors.Is(ask, spillway.ErrConflict) {
			t.Errorf("%d bytes: deploy %v, then ask %v; want ErrConflict from both", len(source), deploy, ask)
		}
	}
}

func TestDeploy_TheBuildEndsWhenTheCallerHangsUp(t *testing.T) {
	ended := make(chan error, 1)
	e := &engine{deploy: func(ctx context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
		_, _ = io.Copy(io.Discard, r.Source)
		log("building")
		<-ctx.Done()
		ended <- ctx.Err()
		return api.DeployResult{}, ctx.Err()
	}}
	ctx, hangUp := context.WithCancel(t.Context())
	_, err := start(t, e).tcp(t).Deploy(ctx, api.DeployRequest{Source: strings.NewReader("source")}, func(string) { hangUp() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	soon(t, "the end of the build", ended)
}

func TestFollow_TellsWhatIsThereAndWhatComes(t *testing.T) {
	e := &engine{}
	e.add(2500) // more than one page
	server := start(t, e)
	var last int64
	enough := errors.New("enough")
	err := server.socket(t).Follow(t.Context(), castle, 5, func(event spillway.Event) error {
		if event.ID != max(last, 5)+1 {
			t.Fatalf("event %d after %d", event.ID, last)
		}
		last = event.ID
		if last == 2500 {
			e.add(3)
		}
		if last == 2503 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func TestFollow_ComesBackToARestartedServerAndMissesNothing(t *testing.T) {
	e := &engine{}
	e.add(2)
	dir := shortDir(t)
	server := startIn(t, e, dir)
	heard := make(chan int64, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	client := server.socket(t)
	go func() { // owned by the test, ended by cancel, which it waits for
		ended <- client.Follow(ctx, castle, 0, func(event spillway.Event) error { heard <- event.ID; return nil })
	}()
	for want := int64(1); want <= 2; want++ {
		if got := soon(t, "an event", heard); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	server.stop()
	e.add(2)
	startIn(t, e, dir)
	for want := int64(3); want <= 4; want++ {
		if got := soon(t, "an event after the restart", heard); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	cancel()
	if err := soon(t, "the end", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollow_EndsWhenTheAppIsGone(t *testing.T) {
	e := &engine{}
	e.add(1)
	client := start(t, e).socket(t)
	err := client.Follow(t.Context(), castle, 0, func(spillway.Event) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.err = spillway.ErrNotFound
		return nil
	})
	if !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestFollow_TheServerStopsLookingWhenTheReaderHangsUp(t *testing.T) {
	e := &engine{heard: make(chan context.Context, 1)}
	e.add(1)
	server := start(t, e)
	ctx, hangUp := context.WithCancel(t.Context())
	err := server.tcp(t).Follow(ctx, castle, 0, func(spillway.Event) error { hangUp(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	look := soon(t, "a look at the events", e.heard)
	soon(t, "the end of the request", look.Done())
	server.stop() // which waits for every request
}

// events reads server-sent events: fields of each, until n have arrived or the stream ends.
func readEvents(t *testing.T, server running, target, lastID string, n int) []map[string]string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.address+target, nil)
	check(t, err)
	r.Header.Set("Authorization", "Bearer "+server.token(t))
	r.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	a, err := http.DefaultClient.Do(r)
	check(t, err)
	defer a.Body.Close()
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("answers %d, %v", a.StatusCode, a.Header)
	}
	var events []map[string]string
	event := map[string]string{}
	for lines := bufio.NewScanner(a.Body); len(events) < n && lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		switch {
		case lines.Text() == "" && len(event) > 0:
			events = append(events, event)
			event = map[string]string{}
		case ok && name != "":
			event[name] = value
		}
	}
	return events
}

func TestServerSentEvents_ResumeAfterTheLastOneHeard(t *testing.T) {
	e := &engine{}
	e.add(5)
	server := start(t, e)
	for _, tt := range []struct {
		target, last string
		want         []string
	}{
		{"/v1/apps/castle@staging/events", "", []string{"1", "2", "3", "4", "5"}},
		{"/v1/apps/castle@staging/events?since=3", "", []string{"4", "5"}},
		{"/v1/apps/castle@staging/events?since=1&tail=1", "3", []string{"4", "5"}},
		{"/v1/apps/castle@staging/events?tail=2&follow=1", "", []string{"4", "5"}},
	} {
		var ids []string
		for _, event := range readEvents(t, server, tt.target, tt.last, len(tt.want)) {
			ids = append(ids, event["id"])
			if !strings.Contains(event["data"], `"id":`+event["id"]+`,`) || !strings.Contains(event["data"], `"text":"step\n`) {
				t.Errorf("data %s", event["data"])
			}
		}
		if !reflect.DeepEqual(ids, tt.want) {
			t.Errorf("%s after %q: %v, want %v", tt.target, tt.last, ids, tt.want)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.address+"/v1/apps/castle@staging/events", nil)
	check(t, err)
	r.Header.Set("Authorization", "Bearer "+server.token(t))
	r.Header.Set("Last-Event-ID", "x")
	a, err := http.DefaultClient.Do(r)
	check(t, err)
	check(t, a.Body.Close())
	if a.StatusCode != 400 {
		t.Errorf("Last-Event-ID x answers %d, want 400", a.StatusCode)
	}
}

func TestServerSentEvents_SayWhyTheyEnd(t *testing.T) {
	e := &engine{}
	e.add(1)
	server := start(t, e)
	e.heard = nil
	got := readEventsUntilGone(t, server, e)
	if len(got) != 2 || got[1]["event"] != "failed" || !strings.Contains(got[1]["data"], `"kind":"not found"`) {
		t.Errorf("got %v, want an event and the failure", got)
	}
}

// readEventsUntilGone takes the app away after the first look.
func readEventsUntilGone(t *testing.T, server running, e *engine) []map[string]string {
	t.Helper()
	gone := make(chan struct{})
	looked := make(chan context.Context, 1)
	e.heard = looked
	go func() { // owned by the test, ended by the first look, which it waits for
		defer close(gone)
		<-looked
		<-looked // the second look comes when the first was answered
		e.mu.Lock()
		defer e.mu.Unlock()
		e.err = spillway.ErrNotFound
	}()
	events := readEvents(t, server, "/v1/apps/castle@staging/events", "", 2)
	<-gone
	return events
}

func TestLogs_FollowUntilTheReaderHangsUp(t *testing.T) {
	ended := make(chan struct{})
	e := &engine{logs: func(ctx context.Context, _ spillway.LogQuery, line func(spillway.LogLine) error) error {
		defer close(ended)
		if err := line(spillway.LogLine{Text: "one"}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	ctx, hangUp := context.WithCancel(t.Context())
	err := start(t, e).socket(t).Logs(ctx, castle, spillway.LogQuery{Follow: true}, func(spillway.LogLine) error { hangUp(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	soon(t, "the end of the reading", ended)
}

func TestLogs_AnErrorOnTheWayArrives(t *testing.T) {
	e := &engine{logs: func(_ context.Context, _ spillway.LogQuery, line func(spillway.LogLine) error) error {
		if err := line(spillway.LogLine{Text: "one"}); err != nil {
			return err
		}
		return spillway.ErrNotFound
	}}
	var lines []string
	err := start(t, e).socket(t).Logs(t.Context(), castle, spillway.LogQuery{}, func(l spillway.LogLine) error {
		lines = append(lines, l.Text)
		return nil
	})
	if !errors.Is(err, spillway.ErrNotFound) || !reflect.DeepEqual(lines, []string{"one"}) {
		t.Errorf("got %v after %v", err, lines)
	}
}

func TestLogs_FollowSaysThatTheServerStopped(t *testing.T) {
	reading := make(chan struct{})
	e := &engine{logs: func(ctx context.Context, _ spillway.LogQuery, line func(spillway.LogLine) error) error {
		err := line(spillway.LogLine{Text: "one"})
		close(reading)
		<-ctx.Done()
		return errors.Join(err, ctx.Err())
	}}
	server := start(t, e)
	stopped := make(chan struct{})
	go func() { // owned by the test, ended when the server stopped, which it waits for
		defer close(stopped)
		<-reading
		server.stop()
	}()
	err := server.socket(t).Logs(t.Context(), castle, spillway.LogQuery{Follow: true}, func(spillway.LogLine) error { return nil })
	if !errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	<-stopped
}
