package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestEngine_RefusesAnAutoscalerOnOneMachine(t *testing.T) {
	release := spillway.Release{App: "shop@laptop", Config: spillway.App{Name: "shop", Services: []spillway.Service{
		{Name: "db", Scale: 1}, {Name: "web", Scale: 2, Max: 12, Targets: spillway.Targets{CPU: spillway.Percent(60)}},
	}}}
	err := checkScaling(release)
	if !errors.Is(err, spillway.ErrInvalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"size of web", "nothing was changed", "scale: {min: 2, max: 12}", "environments: {laptop: {services: {web: {scale: 2}}}}"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nsays nothing of %s", err, want)
		}
	}
	if got := sizeText(release.Config.Services[1]); got != "2 to 12 by cpu 60%" {
		t.Error(got)
	}
	release.Config.Services = release.Config.Services[:1]
	if err := checkScaling(release); err != nil {
		t.Error(err)
	}
}
