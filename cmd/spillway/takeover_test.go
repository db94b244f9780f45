package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/store"
)

// idle is an engine on a real store and builder, with a loop that does not run and no proxy.
func idle(t *testing.T) *engine {
	t.Helper()
	dir, log := stateDir(t), slog.New(slog.DiscardHandler)
	stored, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stored.Close() })
	builder, err := pipeline.NewBuilder(filepath.Join(dir, "builds"), log)
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{store: stored, builder: builder, proxy: proxy.Dial(filepath.Join(dir, "proxy")), log: log}
	in.loop = reconcile.NewLoop(stored, nil, log)
	e := &engine{installation: in}
	in.api = api.NewServer(api.Config{Engine: e, Log: log, Dir: dir})
	return e
}

const twoEnvironments = `app: castle
services:
  www: {run: ./www, host: castle.localhost, env: {LEVEL: info}, tracks: {canary: {share: 10%}}}
environments:
  staging: {services: {www: {host: stg.castle.localhost, env: {LEVEL: debug}, tracks: null}}}
  split: {services: {www: {host: split.localhost, build: {dir: ., command: "true"}}}}
`

// sent is a request with the source of the castle.
func sent(t *testing.T, env string) api.DeployRequest {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{appFile: twoEnvironments, "www": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var packed bytes.Buffer
	if _, err := pipeline.Pack(&packed, dir); err != nil {
		t.Fatal(err)
	}
	return api.DeployRequest{Source: &packed, File: appFile, Env: env, Commit: "1a2b3c4d"}
}

// makeStable makes a release the one that serves, with every intent acted on.
func makeStable(t *testing.T, e *engine, app spillway.Ref, n int) {
	t.Helper()
	saved, err := e.store.Load(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.store.Save(t.Context(), app, saved.Version, rollout.Status{Stable: n, Intent: 100}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDeploy_FromAnEnvironmentTakesArtefactsAndOwnSettings(t *testing.T) {
	e := idle(t)
	quiet := func(string) {}
	if _, err := e.Deploy(t.Context(), sent(t, "staging"), quiet); err != nil {
		t.Fatal(err)
	}
	take := api.DeployRequest{App: "castle", From: "staging"}
	if _, err := e.Deploy(t.Context(), take, quiet); !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), "nothing serves in castle@staging yet") {
		t.Errorf("before it serves: %v", err)
	}
	makeStable(t, e, "castle@staging", 1)
	built := func(line string) { t.Errorf("something was built: %s", line) }
	result, err := e.Deploy(t.Context(), take, built)
	if err != nil || result.App != "castle" || result.Release != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	there, err := e.store.(*store.Store).Release(t.Context(), "castle@staging", 1)
	if err != nil {
		t.Fatal(err)
	}
	here, err := e.store.(*store.Store).Release(t.Context(), "castle", 1)
	if err != nil {
		t.Fatal(err)
	}
	if here.Artefacts["www"] != there.Artefacts["www"] || here.Source != there.Source || here.Source.Commit != "1a2b3c4d" || here.File != twoEnvironments {
		t.Errorf("taken over was %+v of %+v", here, there)
	}
	if www := here.Config.Services[0]; www.Env["LEVEL"] != "info" || www.Host[0] != "castle.localhost" || len(www.Tracks) != 1 {
		t.Errorf("the settings are not those of production: %+v", www)
	}
	if www := there.Config.Services[0]; www.Env["LEVEL"] != "debug" || www.Host[0] != "stg.castle.localhost" {
		t.Errorf("the settings of staging are %+v", www)
	}
	plan, err := e.Plan(t.Context(), take)
	if err != nil || plan.Release != 2 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	for name, tt := range map[string]struct {
		r    api.DeployRequest
		kind error
		says string
	}{
		"an environment without a release": {api.DeployRequest{App: "castle", From: "test"}, spillway.ErrNotFound, "it has been to: production, staging"},
		"another app":                      {api.DeployRequest{App: "barn", From: "test"}, spillway.ErrNotFound, "there is no app barn"},
		"no such release":                  {api.DeployRequest{App: "castle", From: "staging", Release: 7}, spillway.ErrNotFound, "castle@staging has no release 7; there are: 1"},
		"not in the file":                  {api.DeployRequest{App: "castle", From: "staging", Env: "qa"}, spillway.ErrInvalid, "there is no environment"},
		"another build":                    {api.DeployRequest{App: "castle", From: "staging", Env: "split"}, spillway.ErrConflict, "spillway deploy --env split"},
		"a track":                          {api.DeployRequest{App: "castle", From: "staging", Track: "canary"}, spillway.ErrConflict, "deploy without --track first"},
		"not the newest":                   {api.DeployRequest{App: "castle", From: "staging", IfRelease: 5}, spillway.ErrConflict, "the newest release of castle is 1, not 5"},
	} {
		if _, err := e.Deploy(t.Context(), tt.r, built); !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	if err := os.RemoveAll(there.Artefacts["www"].Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Deploy(t.Context(), take, built); !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "release 1 of castle@staging cannot run") {
		t.Errorf("without the artefact: %v", err)
	}
	makeStable(t, e, "castle", 1)
	if _, err := e.Ask(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("a release whose artefact is gone was accepted: %v", err)
	}
}

func TestReleases_AreThoseThatCanBeDeployedOrRun(t *testing.T) {
	e := idle(t)
	for range 3 {
		r := sent(t, "")
		r.Note = "again"
		if _, err := e.Deploy(t.Context(), r, func(string) {}); err != nil {
			t.Fatal(err)
		}
		release, err := e.store.(*store.Store).Release(t.Context(), "castle", 1)
		if err != nil {
			t.Fatal(err)
		}
		release.Artefacts["www"] = spillway.Artefact{Digest: "sha256:gone", Source: "sha256:gone", Dir: "/nowhere"}
		if _, _, err := e.store.AddRelease(t.Context(), release, spillway.Intent{Verb: spillway.VerbDeploy}); err != nil {
			t.Fatal(err)
		}
	}
	makeStable(t, e, "castle", 4)
	list, err := e.Releases(t.Context(), "castle")
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range list {
		got = append(got, r.Number)
	}
	if want := []int{5, 4, 3, 1}; !slices.Equal(got, want) {
		t.Errorf("releases %v, want %v: 4 serves, 2 and 6 are without their artefact", got, want)
	}
}
