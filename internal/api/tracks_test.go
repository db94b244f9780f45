package api_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

func TestClient_SendsWhatADeployAsksFor(t *testing.T) {
	e := &engine{}
	client := start(t, e).socket(t)
	sent := []api.DeployRequest{
		{File: "spillway.yaml", Env: "staging", Track: "canary", NotBefore: at, Force: true, Source: strings.NewReader("tar")},
		{File: "spillway.yaml", App: "castle", From: "staging", Release: 8, Track: "stable"},
	}
	for _, r := range sent {
		_, err := client.Plan(t.Context(), r)
		check(t, err)
	}
	want := slices.Clone(sent)
	want[0].Source, want[0].By = nil, e.plans[0].By
	want[1].Track, want[1].By = "", e.plans[1].By
	if !reflect.DeepEqual(e.plans, want) {
		t.Errorf("the engine was asked for\n%+v, want\n%+v", e.plans, want)
	}
}

func TestServer_RefusesAHalfDeployFromAnEnvironment(t *testing.T) {
	client := start(t, &engine{}).socket(t)
	for says, r := range map[string]api.DeployRequest{
		"?app: is missing":             {From: "staging"},
		"?from: is missing":            {App: "castle"},
		"not the name of a track":      {Track: "can ary"},
		"not the name of an app":       {App: "Castle", From: "staging"},
		"not the name of an environme": {Env: "Staging"},
	} {
		if _, err := client.Plan(t.Context(), r); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v; want ErrInvalid with %q", r, err, says)
		}
	}
	if _, err := client.Ask(t.Context(), castle, spillway.Intent{Verb: spillway.VerbPause, Track: "a/b"}); !errors.Is(err, spillway.ErrInvalid) {
		t.Errorf("an intent for track a/b: %v, want ErrInvalid", err)
	}
}

func TestWho_TellsTheUserAtATime(t *testing.T) {
	client := start(t, &engine{}).socket(t)
	who, err := client.Who(t.Context(), castle, api.WhoQuery{Key: "a b&c", At: at})
	check(t, err)
	if who.Key != "a b&c" || !who.At.Equal(at) || len(who.Edges) != 1 {
		t.Errorf("got %+v", who)
	}
	if _, err := client.Who(t.Context(), castle, api.WhoQuery{}); !errors.Is(err, spillway.ErrInvalid) {
		t.Errorf("without a key: %v, want ErrInvalid", err)
	}
}

func TestRoutes_TellWhatTheProxyDoes(t *testing.T) {
	client := start(t, &engine{}).socket(t)
	lines, err := client.Routes(t.Context(), castle)
	check(t, err)
	if len(lines) != 1 || lines[0].Host != "castle.test" {
		t.Errorf("got %+v", lines)
	}
	answer, err := client.TestRoute(t.Context(), castle, spillway.RouteQuery{Method: "GET", URL: "http://castle.test/a?b"})
	check(t, err)
	if answer.Asked != "GET http://castle.test/a?b" || answer.Bucket != 1448 {
		t.Errorf("got %+v", answer)
	}
	if _, err := client.Routes(t.Context(), "nobody"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("an app that there is not: %v, want ErrNotFound", err)
	}
}
