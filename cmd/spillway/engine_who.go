package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/proxy"
)

// Who says which release a user had at a time: the bucket of the key in the route that was served then.
func (e *engine) Who(ctx context.Context, app spillway.Ref, q api.WhoQuery) (api.Who, error) {
	present := q.At.IsZero()
	if present {
		q.At = time.Now()
	}
	who := api.Who{App: app, Key: q.Key, At: q.At, Bucket: proxy.Bucket(app, q.Key), Edges: []api.WhoEdge{}}
	if e.images != nil {
		who.Loose = e.options.cluster.loose()
	}
	route, ok, err := e.store.Newest(ctx, app, spillway.EventRoute, q.At)
	if err != nil || !ok {
		return who, err
	}
	who.Since = route.At
	who.Edges = given(route.Edges, who.Bucket)
	if observed, err := e.platform.Observe(ctx, app); err == nil && present && observed.NoData {
		who.Doubt = cmp.Or(observed.Silence, "the proxy does not answer")
	}
	return who, nil
}

// given says what the public edges of a route give a bucket, and what requests that fit a rule.
func given(edges []spillway.Edge, bucket spillway.Share) []api.WhoEdge {
	list := []api.WhoEdge{}
	for _, e := range edges {
		if e.From != (spillway.Group{}) || e.Only != "" || e.Protocol == spillway.TCP { // no account comes that way
			continue
		}
		w := api.WhoEdge{Service: e.Service, Hosts: e.Hosts, Closed: e.Closed}
		if strings.HasSuffix(e.Target, "@"+spillway.StableTrack) {
			w.Service = e.Target // it has a line of its own beside that of the service
		}
		if b, ok := backendOf(e, bucket); ok {
			w.Release, w.Track = b.Release, b.Track
		}
		for _, rule := range e.Rules {
			if b, ok := backendFor(e, rule.Track); ok {
				w.Otherwise = append(w.Otherwise, fmt.Sprintf("%s %s=%s: %s", rule.Kind, rule.Name, rule.Value, backendWords(b)))
			}
		}
		for _, only := range edges { // hosts that always reach one track, or the dark colour
			if only.Service != e.Service || only.Only == "" || len(only.Backends) == 0 {
				continue
			}
			for _, host := range only.Hosts {
				w.Otherwise = append(w.Otherwise, fmt.Sprintf("host %s: %s", host, backendWords(only.Backends[0])))
			}
		}
		list = append(list, w)
	}
	return list
}

// backendOf is the backend that has a bucket: the last one has the lowest buckets.
func backendOf(e spillway.Edge, bucket spillway.Share) (spillway.Backend, bool) {
	top := spillway.Share(0)
	for i := len(e.Backends) - 1; i >= 0; i-- {
		if top += e.Backends[i].Weight; bucket < top {
			return e.Backends[i], true
		}
	}
	return spillway.Backend{}, false
}

func backendFor(e spillway.Edge, track string) (spillway.Backend, bool) {
	for _, b := range e.Backends {
		if b.Track == track {
			return b, true
		}
	}
	return spillway.Backend{}, false
}

// backendWords is "release 8 (track canary)", "release 6 (green)" or "the servers of track legacy".
func backendWords(b spillway.Backend) string {
	switch {
	case len(b.URLs) > 0:
		return "the servers of track " + b.Track
	case b.Track != "":
		return fmt.Sprintf("%s (track %s)", release(b.Release), b.Track)
	case b.Color != "":
		return fmt.Sprintf("%s (%s)", release(b.Release), b.Color)
	default:
		return release(b.Release)
	}
}
