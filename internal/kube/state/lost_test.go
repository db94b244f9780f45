package state_test

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// TestStore_NothingIsDecidedWithoutTheReleaseThatServes: a server that took over would take the app for empty, and
// delete what serves.
func TestStore_NothingIsDecidedWithoutTheReleaseThatServes(t *testing.T) {
	c, namespace := cluster(t)
	first := open(t, c, namespace)
	r, in := deploy(t, first, file)
	saved := loaded(t, first, "castle")
	if names, err := first.Gone(t.Context(), "castle", rollout.Status{Stable: r.Number}); err != nil || len(names) != 0 {
		t.Errorf("gone is %q, %v; want nothing", names, err)
	}
	if err := first.Save(t.Context(), "castle", saved.Version, rollout.Status{Phase: spillway.Healthy, Stable: r.Number, Intent: in.Seq}, nil); err != nil {
		t.Fatal(err)
	}
	gone := &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "castle-1"}}
	if err := c.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	loaded(t, first, "castle") // from memory
	st := rollout.Status{Stable: r.Number, Rollout: &rollout.Rollout{Release: 2}}
	if names, err := first.Gone(t.Context(), "castle", st); err != nil || !slices.Equal(names, []string{"castle-1", "castle-2"}) {
		t.Errorf("gone is %q, %v", names, err)
	}
	if names, err := first.Gone(t.Context(), "castle", rollout.Status{Lanes: map[string]rollout.Lane{"beta": {Release: 1}, "left": {}}}); err != nil || !slices.Equal(names, []string{"castle-1"}) {
		t.Errorf("gone of a track is %q, %v", names, err)
	}
	var log strings.Builder
	next := state.New(state.Config{Client: c, Namespace: namespace, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 { // it is looked for each time
		if _, err := next.Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "castle-1 is gone") {
			t.Fatalf("the release that serves is gone: %v", err)
		}
	}
	if n := strings.Count(log.String(), "did somebody delete it?"); n != 1 {
		t.Errorf("told %d times in the log:\n%s", n, &log)
	}
	if _, err := next.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbDestroy}); err != nil {
		t.Fatalf("it cannot even be destroyed: %v", err)
	}
	loaded(t, next, "castle")
}

// TestStore_PutsBackWhatServes: who remembers a Release makes it anew, so that the next server knows it; not one that does
// not serve, and none of an App that goes.
func TestStore_PutsBackWhatServes(t *testing.T) {
	c, namespace := cluster(t)
	broken := &faulty{Client: c}
	first := open(t, broken, namespace)
	r, in := deploy(t, first, file)
	if _, _, err := add(t.Context(), first, strings.Replace(file, "run: ./www", "run: ./www -v", 1), ""); err != nil {
		t.Fatal(err)
	}
	saved := loaded(t, first, "castle")
	st := rollout.Status{Phase: spillway.Healthy, Stable: r.Number, Intent: in.Seq}
	if err := first.Save(t.Context(), "castle", saved.Version, st, nil); err != nil {
		t.Fatal(err)
	}
	if names, err := first.PutBack(t.Context(), "castle", st); err != nil || len(names) != 0 {
		t.Errorf("nothing is gone, and %q was put back, %v", names, err)
	}
	remove := func() {
		t.Helper()
		for _, name := range []string{"castle-1", "castle-2"} {
			gone := &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
			if err := c.Delete(t.Context(), gone); client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
		}
	}
	remove()
	broken.status = apierrors.NewInternalError(errors.New("drawn")) // of which a store cannot know whether it was written
	if err := first.AppendEvents(t.Context(), "castle", []spillway.Event{{Text: "something"}}); err == nil {
		t.Fatal("a write that failed went well")
	}
	broken.status = nil
	if names, err := open(t, c, namespace).PutBack(t.Context(), "castle", st); err != nil || len(names) != 0 {
		t.Errorf("a server that never read it put %q back, %v", names, err)
	}
	if names, err := first.PutBack(t.Context(), "castle", st); err != nil || !slices.Equal(names, []string{"castle-1"}) {
		t.Errorf("%q was put back, %v; want castle-1", names, err)
	}
	was, is := saved.Spec.Releases[1], loaded(t, open(t, c, namespace), "castle").Spec.Releases[1]
	if !reflect.DeepEqual(was, is) {
		t.Errorf("it is %+v, and was %+v", is, was)
	}
	remove()
	app := &v1alpha1.App{}
	key := client.ObjectKey{Namespace: namespace, Name: "castle"}
	if err := errors.Join(first.Hold(t.Context(), "castle"), c.Get(t.Context(), key, app), c.Delete(t.Context(), app)); err != nil {
		t.Fatal(err)
	}
	if names, err := first.PutBack(t.Context(), "castle", st); err != nil || len(names) != 0 {
		t.Errorf("the App is being deleted, and %q was put back, %v", names, err)
	}
}

// TestStore_NothingIsDecidedWithoutTheReleaseOfATrack: its users would become stable's without a word.
func TestStore_NothingIsDecidedWithoutTheReleaseOfATrack(t *testing.T) {
	c, namespace := cluster(t)
	first := open(t, c, namespace)
	deploy(t, first, file)
	_, in, err := add(t.Context(), first, file, "beta")
	if err != nil {
		t.Fatal(err)
	}
	st := rollout.Status{Phase: spillway.Healthy, Stable: 1, Intent: in.Seq, Lanes: map[string]rollout.Lane{"beta": {Release: 2}}}
	if err := first.Save(t.Context(), "castle", 0, st, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "castle-2"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, c, namespace).Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "castle-2 is gone") {
		t.Errorf("the release of a track is gone: %v", err)
	}
}

// TestStore_WithdrawsWhatWasNeverARelease: an App with a mistake in its spec is no app yet, and has to be got rid of all
// the same.
func TestStore_WithdrawsWhatWasNeverARelease(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tower"}, Spec: apiextensions.JSON{Raw: []byte(`{"app":"tower","services":{"www":{"run":"./www","wacth":"1s"}}}`)}}
	if err := c.Create(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(t.Context(), "tower", 1, fmt.Errorf("spec:1:1: unknown key: %w", spillway.ErrInvalid)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), "tower"); !errors.Is(err, spillway.ErrNotFound) {
		t.Fatalf("it is an app: %v", err)
	}
	deploy(t, s, file)
	if all, err := s.AllRefused(t.Context()); err != nil || len(all) != 1 || !strings.HasSuffix(all["tower"], "unknown key") {
		t.Errorf("refused are %q, %v", all, err)
	}
	if err := s.Withdraw(t.Context(), "tower"); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(app), app); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
	if err := s.Withdraw(t.Context(), "tower"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if err := s.Withdraw(t.Context(), "castle"); !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("one that has a release: %v", err)
	}
	loaded(t, s, "castle")
}
