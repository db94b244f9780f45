package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy"
)

const (
	app = spillway.Ref("shop")
	// weight is what the candidate has of the users.
	weight = spillway.Share(1000)
	// engineVariable chooses the engine of the proxy; "general" is that of net/http.
	engineVariable = "SPILLWAY_ENGINE"
)

// candidateUser is a user who has the candidate: the first of those that wrk sends too.
func candidateUser() string {
	for i := range users {
		if user := strconv.Itoa(i); proxy.Bucket(app, user) < weight {
			return user
		}
	}
	panic("no user in a tenth of all buckets")
}

// startSpillway runs the proxy as the server does, and pushes the table that the server would. With a
// directory for profiles, program is the one of ./profiled, and leaves one there.
func startSpillway(program, profiles string, env ...string) func(context.Context, setup) (*process, error) {
	return func(ctx context.Context, s setup) (*process, error) {
		argv := []string{program, "proxy", "--dir", s.dir, "--http", fmt.Sprintf("127.0.0.1:%d", s.port), "--https", fmt.Sprintf("127.0.0.1:%d", s.tlsPort)}
		if profiles != "" {
			argv = append(argv, "--profile", filepath.Join(profiles, s.peer.name+"-"+s.testCase.name+".pprof"))
		}
		p, err := start(s.dir, "spillway", env, argv...)
		if err != nil {
			return nil, err
		}
		if err := pushTable(ctx, s, p); err != nil {
			err = fmt.Errorf("%w: %s", err, p.said())
			p.end()
			return nil, err
		}
		return p, nil
	}
}

// pushTable waits for the control socket and pushes.
func pushTable(ctx context.Context, s setup, p *process) error {
	client := proxy.Dial(filepath.Join(s.dir, "proxy"))
	until := time.Now().Add(10 * time.Second)
	for {
		err := client.Push(ctx, table(s))
		if !errors.Is(err, spillway.ErrUnavailable) || time.Now().After(until) {
			return err
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended: %w", errors.Join(p.err, err))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// table is what the proxy serves: an edge per route, with everything that a canary release has, or, where
// the case is not divided, with one release.
func table(s setup) spillway.Table {
	stable := spillway.Group{Service: "www", Release: 1}
	candidate := spillway.Group{Service: "www", Release: 2}
	t := spillway.Table{
		App: app, Revision: 1, Route: spillway.Route{Generation: 1},
		Endpoints: []spillway.Endpoint{{Replica: "www.1-1", Group: stable, Address: s.backend}},
	}
	backends := []spillway.Backend{{Group: stable, Release: 1, Weight: spillway.Whole}}
	if s.divided {
		backends[0].Weight -= weight
		backends = append(backends, spillway.Backend{Group: candidate, Release: 2, Weight: weight})
		t.Endpoints = append(t.Endpoints, spillway.Endpoint{Replica: "www.2-1", Group: candidate, Address: s.backend})
		t.Cohort = spillway.Cohort{Key: []spillway.KeySource{{Kind: "header", Name: userHeader}}}
		t.Route.Trial = &spillway.Trial{
			ID: 1, Release: 2, Stable: 1, Candidate: []spillway.Group{candidate}, Budget: 20, Margin: spillway.Percent(1), Tolerance: 100,
		}
	}
	for i, host := range s.hosts() {
		e := spillway.Edge{Service: "www", Hosts: []string{host}, Backends: backends}
		if s.routes > 1 {
			e.Service = fmt.Sprintf("www%05d", i)
		}
		if s.routes == 1 {
			e.TLS = &spillway.TLS{Cert: s.cert, Key: s.key}
		}
		t.Route.Edges = append(t.Route.Edges, e)
	}
	return t
}

// checkTrial makes sure that what was measured is what the case says: both releases were asked, all was
// counted, and the candidate was not taken out of the route.
func checkTrial(ctx context.Context, s setup) error {
	if !s.divided {
		return nil
	}
	report, err := proxy.Dial(filepath.Join(s.dir, "proxy")).Report(ctx, app)
	if err != nil {
		return err
	}
	e := report.Evidence
	switch {
	case e == nil:
		return errors.New("no trial was running")
	case e.Tripped || e.Verdict == spillway.Harmful:
		return fmt.Errorf("the candidate was found harmful: %s", e.Reason)
	case e.Requests == 0 || e.Baseline == 0 && s.by != byH2load:
		return fmt.Errorf("the trial saw %d requests at the candidate and %d at stable", e.Requests, e.Baseline)
	}
	return nil
}
