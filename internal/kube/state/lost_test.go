package state_test

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
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
	if err := first.Save(t.Context(), "castle", saved.Version, rollout.Status{Phase: spillway.Healthy, Stable: r.Number, Intent: in.Seq}, nil); err != nil {
		t.Fatal(err)
	}
	gone := &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "castle-1"}}
	if err := c.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	next := open(t, c, namespace)
	if _, err := next.Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "castle-1 is gone") {
		t.Fatalf("the release that serves is gone: %v", err)
	}
	if _, err := next.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbDestroy}); err != nil {
		t.Fatalf("it cannot even be destroyed: %v", err)
	}
	loaded(t, next, "castle")
}
