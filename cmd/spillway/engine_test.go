package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestGiven_FollowsTheOrderOfTheBuckets(t *testing.T) {
	edge := spillway.Edge{
		Service: "www", Hosts: []string{"castle.test"},
		Backends: []spillway.Backend{
			{Release: 5, Weight: spillway.Percent(10), Track: "canary"},
			{URLs: []string{"http://10.0.0.1"}, Weight: spillway.Percent(20), Track: "legacy"},
			{Release: 7, Weight: spillway.Percent(65)},
			{Release: 8, Weight: spillway.Percent(5)},
		},
		Rules: []spillway.Rule{
			{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "cookie", Name: "beta"}, Value: "1"}, Track: "canary"},
			{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Gone"}, Value: "1"}, Track: "gone"},
		},
	}
	edges := []spillway.Edge{
		edge,
		{Service: "www", Hosts: []string{"canary.castle.test"}, Only: "canary", Backends: edge.Backends[:1]},
		{Service: "backend", From: spillway.Group{Service: "www", Release: 7}, Backends: edge.Backends[2:3]},
	}
	for bucket, want := range map[spillway.Share]api.WhoEdge{
		0: {Release: 8}, 499: {Release: 8}, 500: {Release: 7}, 6999: {Release: 7}, 7000: {Track: "legacy"}, 8999: {Track: "legacy"},
		9000: {Release: 5, Track: "canary"}, 9999: {Release: 5, Track: "canary"},
	} {
		want.Service, want.Hosts = "www", edge.Hosts
		want.Otherwise = []string{"cookie beta=1: release 5 (track canary)", "host canary.castle.test: release 5 (track canary)"}
		if got := given(edges, bucket); !reflect.DeepEqual(got, []api.WhoEdge{want}) {
			t.Errorf("bucket %d: %+v, want %+v", bucket, got, want)
		}
	}
	closed := []spillway.Edge{{Service: "www", Closed: "recreate: www is being replaced"}}
	if got := given(closed, 0); len(got) != 1 || got[0].Closed == "" {
		t.Errorf("a closed edge: %+v", got)
	}
}

func TestCheckImages_SaysWhatToDoInstead(t *testing.T) {
	r := spillway.Release{App: "shop", Config: spillway.App{Services: []spillway.Service{{Name: "web"}, {Name: "db", Image: "postgres:17"}}}}
	err := checkImages(r)
	for _, says := range []string{"service db is the image postgres:17", "one machine", "nothing was changed", "a server on Kubernetes", "write run"} {
		if !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q in it", err, says)
		}
	}
	r.App = "shop@laptop"
	if err := checkImages(r); err == nil || !strings.Contains(err.Error(), "environments: {laptop: {services: {db: {image: null, run: COMMAND}}}}") {
		t.Errorf("of an environment: %v", err)
	}
	r.Config.Services = r.Config.Services[:1]
	if err := checkImages(r); err != nil {
		t.Errorf("without an image: %v", err)
	}
}

func TestCheckTrack_SaysWhichThereAre(t *testing.T) {
	config := spillway.App{Services: []spillway.Service{{Name: "www", Tracks: []spillway.Track{{Name: "canary"}, {Name: "legacy", URLs: []string{"http://10.0.0.1"}}}}}}
	saved := reconcile.Saved{Status: rollout.Status{Stable: 7}, Spec: rollout.Spec{Releases: map[int]spillway.Release{7: {Number: 7, Config: config}}}}
	for track, says := range map[string]string{"": "", "canary": "", "legacy": "http://10.0.0.1", "beta": "it has: canary"} {
		err := checkTrack(saved, track)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("track %q: %v, want %q", track, err, says)
		}
	}
	if err := checkTrack(reconcile.Saved{}, "canary"); !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), "without --track first") {
		t.Errorf("without a stable release: %v", err)
	}
}

func TestTargetOf_IsTheReleaseThatWillServe(t *testing.T) {
	st := rollout.Status{Stable: 7, Good: []int{6}, Lanes: map[string]rollout.Lane{"canary": {Release: 5, Good: []int{4}}, "beta": {Release: 3}, "empty": {}}}
	for _, tt := range []struct {
		in     spillway.Intent
		try    *rollout.Rollout
		want   int
		failed bool
	}{
		{in: spillway.Intent{Verb: spillway.VerbRollback}, want: 6},
		{in: spillway.Intent{Verb: spillway.VerbRollback, Release: 2}, want: 2},
		{in: spillway.Intent{Verb: spillway.VerbRollback}, try: &rollout.Rollout{Release: 8, Stable: 7}, want: 7},
		{in: spillway.Intent{Verb: spillway.VerbRollback, Track: "canary"}, want: 4},
		{in: spillway.Intent{Verb: spillway.VerbRollback, Track: "canary"}, try: &rollout.Rollout{Release: 8, Stable: 7, Track: "canary", From: 5}, want: 5},
		{in: spillway.Intent{Verb: spillway.VerbRollback, Track: "beta"}, want: 0},
		{in: spillway.Intent{Verb: spillway.VerbRollback, Track: "empty"}, failed: true},
		{in: spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, want: 5},
		{in: spillway.Intent{Verb: spillway.VerbPromote, Track: "canary"}, try: &rollout.Rollout{Release: 8, Track: "canary"}, want: 0},
		{in: spillway.Intent{Verb: spillway.VerbPromote, Track: "empty"}, failed: true},
		{in: spillway.Intent{Verb: spillway.VerbPromote}, want: 0},
	} {
		st.Rollout = tt.try
		got, err := targetOf(reconcile.Saved{Status: st}, tt.in)
		if got != tt.want || (err != nil) != tt.failed {
			t.Errorf("%+v with %+v: %d, %v; want %d", tt.in, tt.try, got, err, tt.want)
		}
	}
}
