package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Every event is an Event once, and so is what an App was refused for. What is written together is told together: two
// Events that differ by their texts alone would be counted as one.
func TestStore_TellsWhoLooksAtTheCluster(t *testing.T) {
	c, namespace := cluster(t)
	var said []string
	s := state.New(state.Config{Client: c, Namespace: namespace, Recorder: recorder(func(kind, reason, note string) {
		said = append(said, kind+" "+reason+": "+note)
	})})
	deploy(t, s, file)
	happened := []spillway.Event{
		{Kind: spillway.EventStarted, Text: "release 1 begins"}, {Kind: spillway.EventRoute, Text: "route 1"},
		{Kind: spillway.EventTask, Text: "one"}, {Kind: spillway.EventTask, Text: "two"},
		{Kind: spillway.EventFinished, Outcome: spillway.RolledBack, Text: "it failed"},
	}
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, happened); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, happened); !errors.Is(err, spillway.ErrStale) {
		t.Fatal(err)
	}
	mistake := fmt.Errorf("spec:1:1: no services: %w", spillway.ErrInvalid)
	generation := resource(t, c, namespace, "castle").Generation + 1
	for _, mistakes := range []error{mistake, nil} {
		if err := s.Answer(t.Context(), "castle", generation, mistakes); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"Normal Started: release 1 begins", "Normal Task: one; two", "Warning RolledBack: it failed", "Warning Invalid: spec:1:1: no services"}
	if !slices.Equal(said, want) {
		t.Errorf("told %q, want %q", said, want)
	}
}

// TestSave_SaysThatTheSpecIsNotWhatServes: kubectl get app is all that some people look at after a rollback.
func TestSave_SaysThatTheSpecIsNotWhatServes(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, file)
	_, in := deploy(t, s, file+"budget: 5\n")
	save := func(st rollout.Status) string {
		t.Helper()
		st.Phase, st.Intent = spillway.Healthy, in.Seq
		if err := s.Save(t.Context(), "castle", loaded(t, s, "castle").Version, st, nil); err != nil {
			t.Fatal(err)
		}
		return resource(t, c, namespace, "castle").Status.Message
	}
	const want = "release 1 serves after a rollback; the spec is another release, and is deployed again only when it changes"
	if got := save(rollout.Status{Stable: 1, Held: true}); got != want {
		t.Errorf("after a rollback: %q", got)
	}
	for name, st := range map[string]rollout.Status{
		"what the spec says": {Stable: 2, Held: true},
		"no rollback":        {Stable: 1},
		"on the way":         {Stable: 1, Held: true, Rollout: &rollout.Rollout{Release: 2}},
	} {
		if got := save(st); strings.Contains(got, "the spec is another release") {
			t.Errorf("%s: %q", name, got)
		}
	}
	save(rollout.Status{Stable: 1, Held: true})
	app := resource(t, c, namespace, "castle")
	if err := s.Answer(t.Context(), "castle", app.Generation+1, nil); err != nil { // the file of what serves was applied again
		t.Fatal(err)
	}
	if got := resource(t, c, namespace, "castle").Status.Message; got != "" {
		t.Errorf("the spec is what serves: %q", got)
	}
}

// A spec that is refused is no news to kubectl alone: the app may serve on, and its history has to say it.
func TestStore_ListsAnAppWhoseFirstSpecIsRefused(t *testing.T) {
	c, namespace := cluster(t)
	s := state.New(state.Config{Client: c, Namespace: namespace})
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "castle"}}
	app.Spec.Raw = []byte(`{"app":"castle"}`)
	if err := c.Create(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(t.Context(), "castle", app.Generation, fmt.Errorf("spec:1:1: no services: %w", spillway.ErrInvalid)); err != nil {
		t.Fatal(err)
	}
	apps, err := s.Apps(t.Context())
	all, err2 := s.AllRefused(t.Context())
	if len(apps) != 0 || !strings.Contains(all["castle"], "no services") || err != nil || err2 != nil {
		t.Errorf("apps %v (%v), refused %v (%v)", apps, err, all, err2)
	}
	if why, err := s.Refused(t.Context(), "castle"); !strings.Contains(why, "no services") || err != nil {
		t.Errorf("refused for %q, %v", why, err)
	}
	if _, err := s.Load(t.Context(), "castle"); err == nil || !strings.Contains(err.Error(), "no services; if it has a mistake, correct it and apply it again") {
		t.Errorf("status of it: %v", err)
	}
}

func TestStore_SaysWhyASpecIsRefused(t *testing.T) {
	c, namespace := cluster(t)
	s := state.New(state.Config{Client: c, Namespace: namespace})
	deploy(t, s, file)
	generation := resource(t, c, namespace, "castle").Generation + 1
	refused := func(mistakes error) string {
		t.Helper()
		if err := s.Answer(t.Context(), "castle", generation, mistakes); err != nil {
			t.Fatal(err)
		}
		why, err := s.Refused(t.Context(), "castle")
		if err != nil {
			t.Fatal(err)
		}
		return why
	}
	const want = "the spec that was applied is not accepted: spec:1:1: no services; spec:2:1: no host"
	if got := refused(fmt.Errorf("spec:1:1: no services\nspec:2:1: no host: %w", spillway.ErrInvalid)); got != want {
		t.Errorf("refused for %q, want %q", got, want)
	}
	events, err := s.Events(t.Context(), "castle", spillway.EventQuery{Tail: 1})
	if err != nil || len(events) != 1 || events[0].Kind != spillway.EventProblem || events[0].Text != want {
		t.Errorf("the history has %+v, %v; want %q", events, err, want)
	}
	if got := refused(nil); got != "" {
		t.Errorf("accepted, and refused for %q", got)
	}
}

// What stands against a spec and is not in it may go: the spec is asked for until it is a release, and told of once.
func TestAnswer_AsksAgainForWhatHasNoMistake(t *testing.T) {
	c, namespace := cluster(t)
	told := 0
	s := state.New(state.Config{Client: c, Namespace: namespace, Recorder: recorder(func(_, _, _ string) { told++ })})
	deploy(t, s, file)
	app := resource(t, c, namespace, "castle")
	app.Spec.Raw = []byte(`{"app":"castle","services":{"www":{"image":"registry.test/www:2"}}}`)
	if err := c.Update(t.Context(), app, client.FieldOwner("kubectl")); err != nil {
		t.Fatal(err)
	}
	answer := func(mistakes error) state.Wish {
		t.Helper()
		w, err := s.Asked(t.Context(), "castle")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Answer(t.Context(), "castle", max(w.Generation, app.Generation), mistakes); err != nil {
			t.Fatal(err)
		}
		if w, err = s.Asked(t.Context(), "castle"); err != nil {
			t.Fatal(err)
		}
		return w
	}
	gone := fmt.Errorf("service www: the registry has no registry.test/www:2: %w", spillway.ErrNotFound)
	before := told
	if w := answer(gone); !w.Deploy || !w.Again || w.By != "kubectl" {
		t.Errorf("an image that is not there yet: it asks for %+v", w)
	}
	first := resource(t, c, namespace, "castle")
	if w := answer(gone); !w.Deploy || resource(t, c, namespace, "castle").ResourceVersion != first.ResourceVersion || told != before+1 {
		t.Errorf("the same answer is written again, and told %d times; it asks for %+v", told-before, w)
	}
	if why, err := s.Refused(t.Context(), "castle"); err != nil || !strings.HasSuffix(why, "www:2; it is looked at again every minute") {
		t.Errorf("it says %q, %v", why, err)
	}
	if w := answer(fmt.Errorf("spec:1:1: no services: %w", spillway.ErrInvalid)); w.Deploy {
		t.Errorf("with a mistake in it it asks for %+v", w)
	}
	if w := answer(nil); w.Deploy {
		t.Errorf("accepted, it asks for %+v", w)
	}
}

// What stands against a spec that was replaced while it was looked at is no fact of the app.
func TestAnswer_IsNotOfASpecThatWasReplaced(t *testing.T) {
	c, namespace := cluster(t)
	s := state.New(state.Config{Client: c, Namespace: namespace})
	deploy(t, s, file)
	app := resource(t, c, namespace, "castle")
	app.Generation += 2 // of two who applied one after the other; on a real API server only one counts
	app.Spec.Raw = []byte(`{"app":"castle"}`)
	if err := c.Update(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	generation := resource(t, c, namespace, "castle").Generation
	if err := s.Answer(t.Context(), "castle", generation-1, spillway.ErrConflict); err != nil {
		t.Fatal(err)
	}
	if events, err := s.Events(t.Context(), "castle", spillway.EventQuery{}); err != nil || len(events) != 0 {
		t.Errorf("the history has %+v, %v", events, err)
	}
	if w, err := s.Asked(t.Context(), "castle"); err != nil || !w.Deploy || w.Again {
		t.Errorf("the newer one is not asked for: %+v, %v", w, err)
	}
}
