package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
)

// quiet is an engine of which only the events are asked: there are none.
type quiet struct {
	Engine
	looks int
}

func (q *quiet) Events(context.Context, spillway.Ref, spillway.EventQuery) ([]spillway.Event, error) {
	q.looks++
	return nil, nil
}

// This test is inside the package because a quarter of a minute of real silence is too long for a test,
// and time in a bubble does not pass for real sockets.
func TestFollow_BeatsWhenNothingHappens(t *testing.T) {
	for accept, beat := range map[string]string{mediaLines: "\n", mediaEvents: ": heartbeat\n\n"} {
		synctest.Test(t, func(t *testing.T) {
			e := &quiet{}
			s := NewServer(Config{Engine: e, Log: slog.New(slog.DiscardHandler)})
			ctx, cancel := context.WithTimeout(t.Context(), 2*heartbeatInterval+time.Second)
			defer cancel()
			r := httptest.NewRequestWithContext(withCaller(ctx, "test"), "GET", "/v1/apps/castle/events?follow=1", nil)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			s.mux.ServeHTTP(w, r) // returns when ctx ends
			if got := w.Body.String(); got != beat+beat {
				t.Errorf("%s: got %q, want two heartbeats", accept, got)
			}
			if want := int(31 * time.Second / pollInterval); e.looks < want/2 || e.looks > want+5 {
				t.Errorf("%d looks in 31 s, want about %d", e.looks, want)
			}
		})
	}
}

// deaf never answers and never ends.
type deaf struct{}

func (deaf) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestClient_TakesASilentServerForGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{http: &http.Client{Transport: deaf{}}, base: "http://localhost", place: "here"}
		begin := time.Now()
		err := c.Follow(t.Context(), "castle", 0, nil)
		if !errors.Is(err, spillway.ErrUnavailable) || time.Since(begin) != silence {
			t.Errorf("%v after %v, want ErrUnavailable after %v", err, time.Since(begin), silence)
		}
	})
}

// The bound of a deploy is too large to be reached by a real one here.
func TestWire_ASourceThatIsTooLargeIsAMistakeOfTheCaller(t *testing.T) {
	e, status := wire(fmt.Errorf("unpack: %w", &http.MaxBytesError{Limit: maxSource}))
	if e.Kind != "invalid" || status != http.StatusRequestEntityTooLarge || !strings.Contains(e.Text, "larger than 512Mi") {
		t.Errorf("got %+v, %d", e, status)
	}
}

func TestGuard_KnowsTheAddressThatItListensOn(t *testing.T) {
	for listen, want := range map[string]bool{"10.0.0.5:7300": true, "0.0.0.0:7300": false, "[::]:7300": false, ":7300": false} {
		host, _, _ := net.SplitHostPort(listen)
		if got := slices.Contains(newGuard(tokens{}, listen, nil).hosts, host); got != want {
			t.Errorf("%s: %q is admitted: %t, want %t", listen, host, got, want)
		}
	}
}

func TestOpenAPI_DescribesEveryRoute(t *testing.T) {
	s := NewServer(Config{})
	text, err := json.Marshal(openAPI(s.routes))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In, Description string
				Required              bool
				Schema                struct{ Type string }
			}
			Responses map[string]any
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(text, &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Fatalf("version %q, %v", document.OpenAPI, err)
	}
	described, ids := 0, map[string]bool{}
	for _, operations := range document.Paths {
		described += len(operations)
	}
	if described != len(s.routes) {
		t.Errorf("%d operations for %d routes", described, len(s.routes))
	}
	for _, r := range s.routes {
		o, ok := document.Paths[r.path][strings.ToLower(r.method)]
		if !ok || o.OperationID == "" || ids[o.OperationID] || len(o.Responses) != 2 {
			t.Errorf("%s %s is described as %+v", r.method, r.path, o)
		}
		ids[o.OperationID] = true
		if want := strings.Count(r.path, "{") + len(r.params); len(o.Parameters) != want {
			t.Errorf("%s %s has %d parameters, want %d", r.method, r.path, len(o.Parameters), want)
		}
		for _, p := range o.Parameters {
			known := []string{"string", "integer", "boolean"}
			if p.Required != (p.In == "path") || p.In == "query" && p.Description == "" || !slices.Contains(known, p.Schema.Type) {
				t.Errorf("%s %s: parameter %+v", r.method, r.path, p)
			}
		}
		// What the table says is what the server has: the path leads to this route and no other.
		request := httptest.NewRequest(r.method, strings.NewReplacer("{ref}", "castle", "{release}", "1").Replace(r.path), nil)
		if _, pattern := s.mux.Handler(request); pattern != r.method+" "+r.path {
			t.Errorf("%s %s leads to %q", r.method, r.path, pattern)
		}
	}
	for _, part := range strings.Split(string(text), `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if document.Components.Schemas[name] == nil {
			t.Errorf("the schema %s is missing", name)
		}
	}
	for _, name := range []string{"Overview", "Release", "Intent", "Plan", "Failure", "EventLine", "LogLine", "DeployLine"} {
		if document.Components.Schemas[name] == nil {
			t.Errorf("no schema %s", name)
		}
	}
}

func TestOpenAPI_SchemasAreThoseOfTheTypes(t *testing.T) {
	s := schemas{}
	s.of(reflect.TypeFor[spillway.PlanStep]())
	got, err := json.Marshal(s["PlanStep"])
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"properties":{"hold":{"type":"string"},"manual":{"type":"boolean"},"served":{"type":"string"},"text":{"type":"string"},"weight":{"type":"string"}},` +
		`"required":["weight","text"],"type":"object"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{"castle", "castle@staging", "castle@production", "@", "a@b@c", "-a", "a-", "Ä", "a/b", strings.Repeat("a", 41)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := parseRef(text)
		if err != nil {
			if !errors.Is(err, spillway.ErrInvalid) || ref != "" {
				t.Fatalf("%q: %q, %v", text, ref, err)
			}
			return
		}
		if again, err := parseRef(string(ref)); err != nil || again != ref {
			t.Fatalf("%q became %q, which becomes %q, %v", text, ref, again, err)
		}
		if strings.Trim(string(ref), "abcdefghijklmnopqrstuvwxyz0123456789-@") != "" || strings.HasSuffix(string(ref), "@production") {
			t.Fatalf("%q became %q", text, ref)
		}
	})
}

func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"", "file=a.yaml&env=staging&dirty=1", "if_release=-1", "note=%zz", "a=1;b=2", "dirty=&dirty=1", "file=../x", "env=production"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q := parseQuery(raw, deployParams())
		r := q.deploy()
		if q.err() != nil {
			if !errors.Is(q.err(), spillway.ErrInvalid) {
				t.Fatalf("%q: %v", raw, q.err())
			}
			return
		}
		// What was accepted means the same when the client writes it.
		again := parseQuery(deployQuery(r), deployParams())
		if r2 := again.deploy(); r2 != r || again.err() != nil {
			t.Fatalf("%q: %+v became %+v, %v", raw, r, r2, again.err())
		}
		if strings.HasPrefix(r.File, "/") || slices.Contains(strings.Split(r.File, "/"), "..") {
			t.Fatalf("%q: file %q leaves the source", raw, r.File)
		}
	})
}
