package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
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

func (remembered) Load(context.Context, spillway.Ref) (reconcile.Saved, error) {
	return reconcile.Saved{Spec: rollout.Spec{App: "castle"}, Status: rollout.Status{Stable: 1, Phase: spillway.Healthy}}, nil
}

// refusing are resources whose spec is refused for a reason; "" = it is not.
type refusing struct {
	wishes
	why string
}

func (r refusing) Refused(context.Context, spillway.Ref) (string, error) { return r.why, nil }

func (r refusing) AllRefused(context.Context) (map[spillway.Ref]string, error) {
	if r.why == "" {
		return nil, nil
	}
	return map[spillway.Ref]string{"castle": r.why}, nil
}

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

// partly are the records of apps of which one cannot be read, and one is destroyed in this moment.
type partly struct{ records }

func (partly) Apps(context.Context) ([]spillway.Ref, error) {
	return []spillway.Ref{"castle", "gone", "lost"}, nil
}

func (partly) Load(_ context.Context, app spillway.Ref) (reconcile.Saved, error) {
	return reconcile.Saved{}, map[spillway.Ref]error{"gone": spillway.ErrNotFound, "lost": fmt.Errorf("release 2 of lost is in use and gone: %w", spillway.ErrUnavailable)}[app]
}

func TestCheckApps_NamesThoseThatCannotBeRead(t *testing.T) {
	c := (&engine{installation: &installation{store: partly{}}}).checkApps(t.Context())
	if c.State != "fail" || c.Text != "app lost: release 2 of lost is in use and gone" || !strings.Contains(c.Remedy, "spillway destroy") {
		t.Errorf("%+v", c)
	}
}

func TestOverview_ThatAServerStandsByIsANote(t *testing.T) {
	unknown := seeing{Observation: rollout.Observation{NoData: true, Silence: kube.Unasked, Groups: []rollout.Group{{Group: spillway.Group{Service: "www", Release: 1}, Running: 1, Ready: 1}}}}
	broken := unknown
	broken.Silence = "gateway gw does not take HTTPRoute castle-www"
	for name, tt := range map[string]struct {
		seen seeing
		led  bool
		note bool
	}{
		"another leads":                {unknown, true, true},
		"none leads":                   {unknown, false, false},
		"the gateway refuses what was": {broken, true, false},
	} {
		e := &engine{installation: &installation{store: remembered{}, platform: tt.seen, proxy: foreign{}}}
		e.standing = func(context.Context) (string, bool) { return "this server stands by", tt.led }
		o, err := e.Overview(t.Context(), "castle")
		if err != nil {
			t.Fatal(err)
		}
		text := "this server stands by; " + tt.seen.Silence
		if (o.Note == text) != tt.note || slices.Contains(o.Problems, text) == tt.note || o.Silence != text {
			t.Errorf("%s: note %q, problems %q, silence %q", name, o.Note, o.Problems, o.Silence)
		}
	}
}

func TestServicesTable_HasNoWeightThatIsNotKnown(t *testing.T) {
	o := castleAt(7, 1)
	o.NoData = true
	if unweighed(o) {
		t.Error("what was seen last is not shown")
	}
	for _, s := range o.Services {
		for i := range s.Groups {
			s.Groups[i].Weight = 0
		}
	}
	for _, row := range servicesTable(o).rows[1:] {
		if row[4] != "" {
			t.Errorf("the weight is told as %s", row[4])
		}
	}
	o.NoData = false
	if unweighed(o) {
		t.Error("a weight of 0 that is served is not shown")
	}
}
