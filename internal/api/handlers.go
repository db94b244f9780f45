package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/spillway-dev/spillway"
)

// call is one request on its way through an action.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	by    string       // who asks
	app   spillway.Ref // of {ref} in the path; "" when there is none
	query query
}

// serve makes a handler of a route.
func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{w: w, r: r, by: caller(r.Context()), query: parseQuery(r.URL.RawQuery, rt.params)}
		err := c.query.err()
		if ref := r.PathValue("ref"); ref != "" && err == nil {
			c.app, err = parseRef(ref)
		}
		var answer any
		if err == nil {
			answer, err = rt.serve(s, c)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if answer == (streamed{}) {
			return
		}
		s.write(w, r, max(rt.status, http.StatusOK), answer)
	})
}

func (s *Server) info(c *call) (any, error) { return s.engine.Info(c.r.Context()), nil }

func (s *Server) apps(c *call) (any, error) {
	refs, err := s.engine.Apps(c.r.Context())
	if err != nil {
		return nil, err
	}
	overviews := []spillway.Overview{}
	for _, ref := range refs {
		o, err := s.engine.Overview(c.r.Context(), ref)
		if errors.Is(err, spillway.ErrNotFound) {
			continue // it went in the meantime
		}
		if err != nil {
			return nil, err
		}
		overviews = append(overviews, o)
	}
	return overviews, nil
}

func (s *Server) overview(c *call) (any, error) { return s.engine.Overview(c.r.Context(), c.app) }

func (s *Server) replicas(c *call) (any, error) {
	return list(s.engine.Replicas(c.r.Context(), c.app))
}

func (s *Server) releases(c *call) (any, error) {
	return list(s.engine.Releases(c.r.Context(), c.app))
}

func (s *Server) release(c *call) (any, error) {
	n, err := strconv.Atoi(c.r.PathValue("release"))
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is not the number of a release: %w", c.r.PathValue("release"), spillway.ErrInvalid)
	}
	releases, err := s.engine.Releases(c.r.Context(), c.app)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(releases, func(r spillway.Release) bool { return r.Number == n })
	if i < 0 {
		return nil, fmt.Errorf("%s has no release %d: %w", c.app, n, spillway.ErrNotFound)
	}
	return releases[i], nil
}

func (s *Server) who(c *call) (any, error) {
	q := WhoQuery{Key: c.query.text("key"), At: c.query.time("at")}
	if q.Key == "" {
		c.query.mistake("key", "is missing", "say what the header or cookie of the user carries")
	}
	if err := c.query.err(); err != nil {
		return nil, err
	}
	return s.engine.Who(c.r.Context(), c.app, q)
}

func (s *Server) routeLines(c *call) (any, error) {
	return list(s.engine.Routes(c.r.Context(), c.app))
}

func (s *Server) testRoute(c *call) (any, error) {
	var q spillway.RouteQuery
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, fmt.Errorf("the body is not a request like {\"method\": \"GET\", \"url\": \"http://shop.example.com/\"}: %w: %w", err, spillway.ErrInvalid)
	}
	return s.engine.TestRoute(c.r.Context(), c.app, q)
}

func (s *Server) hold(c *call) (any, error) {
	var r HoldRequest
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("the body is not a hold like {\"for\": \"30s\"}: %w: %w", err, spillway.ErrInvalid)
	}
	return s.engine.Hold(c.r.Context(), c.app, time.Duration(r.For))
}

func (s *Server) doctor(c *call) (any, error) {
	return list(s.engine.Doctor(c.r.Context()), nil)
}

func (s *Server) openAPI(*call) (any, error) { return openAPI(s.routes), nil }

func (s *Server) ask(c *call) (any, error) {
	var intent spillway.Intent
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&intent); err != nil {
		return nil, fmt.Errorf("the body is not an intent like {\"verb\": \"promote\"}: %w: %w", err, spillway.ErrInvalid)
	}
	if err := checkIntent(intent); err != nil {
		return nil, err
	}
	intent.Seq, intent.By, intent.At = 0, c.by, time.Now().UTC()
	return s.engine.Ask(c.r.Context(), c.app, intent)
}

// deployRequest is what a deploy or a plan asks for, with the source still to be read.
func (c *call) deployRequest() (DeployRequest, error) {
	r := c.query.deploy()
	if err := c.query.err(); err != nil {
		return r, err
	}
	r.By, r.Source = c.by, http.MaxBytesReader(c.w, c.r.Body, maxSource)
	return r, nil
}

func (s *Server) plan(c *call) (any, error) {
	r, err := c.deployRequest()
	if err != nil {
		return nil, err
	}
	return s.engine.Plan(c.r.Context(), r)
}

// deploy tells the output of the build while it runs. The build ends when the caller hangs up.
func (s *Server) deploy(c *call) (any, error) {
	r, err := c.deployRequest()
	if err != nil {
		return nil, err
	}
	// Without it the first line written would end the reading of the source. What then stays unread of
	// the source stands in the way of a next request, so there is none.
	c.w.Header().Set("Connection", "close")
	if err := http.NewResponseController(c.w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	out := newStream(c.w, mediaLines)
	result, err := s.engine.Deploy(ctx, r, func(line string) {
		if out.send(0, DeployLine{Log: line}) != nil {
			cancel() // nobody reads any more
		}
	})
	if err == nil {
		err = out.send(0, DeployLine{Result: &result})
	}
	return s.end(c, out, err)
}

// end ends a stream: an error before the first line is an answer of its own, a later one is the last line.
func (s *Server) end(c *call, out *stream, err error) (any, error) {
	defer out.close()
	if err == nil {
		err = out.begin()
	}
	if !out.began {
		return nil, err
	}
	if err == nil || c.r.Context().Err() != nil {
		return streamed{}, nil // a caller that hung up, or whose server stops, finds out by itself
	}
	e, _ := wire(err)
	if e.Kind == kindInternal {
		s.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
	}
	if err := out.fail(e); err != nil {
		s.log.Debug("the answer did not arrive", "path", c.r.URL.Path, "error", err)
	}
	return streamed{}, nil
}

// list makes an empty list of none, for readers who expect [] and not null.
func list[T any](items []T, err error) (any, error) {
	if items == nil {
		items = []T{}
	}
	return items, err
}
