package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// seeing is a platform that sees what a test says.
type seeing struct {
	runner
	rollout.Observation
}

func (s seeing) Observe(context.Context, spillway.Ref) (rollout.Observation, error) {
	return s.Observation, nil
}

// remembered are the records of an app castle of which release 1 serves.
type remembered struct{ records }

func (remembered) Apps(context.Context) ([]spillway.Ref, error) {
	return []spillway.Ref{"castle"}, nil
}

func (remembered) Load(context.Context, spillway.Ref) (reconcile.Saved, error) {
	return reconcile.Saved{Spec: rollout.Spec{App: "castle"}, Status: rollout.Status{Stable: 1, Phase: spillway.Healthy}}, nil
}

// refusing are resources whose spec is refused for a reason; "" = it is not.
type refusing struct {
	wishes
	why string
}

func (r refusing) Refused(context.Context, spillway.Ref) (string, error) { return r.why, nil }

func TestOverview_SaysThatASpecIsRefused(t *testing.T) {
	const why = "the spec that was applied is not accepted: spec:1:1: no services"
	for _, why := range []string{"", why} {
		e := &engine{installation: &installation{store: remembered{}, wishes: refusing{why: why}, platform: seeing{}, proxy: foreign{}}}
		o, err := e.Overview(t.Context(), "castle")
		if err != nil || slices.Contains(o.Problems, why+"; "+correct) != (why != "") {
			t.Errorf("refused for %q: problems %q, %v", why, o.Problems, err)
		}
		if c := e.checkSpecs(t.Context()); (c.State == "warn") != (why != "") || why != "" && (!strings.Contains(c.Text, "app castle: "+why) || c.Remedy == "") {
			t.Errorf("refused for %q: doctor says %+v", why, c)
		}
	}
}
