package state_test

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// behind is a cache that has an App as it was once.
type behind struct {
	client.Client
	was *v1alpha1.App
}

func (b behind) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	if app, ok := into.(*v1alpha1.App); ok {
		*app = *b.was.DeepCopy()
		return nil
	}
	return b.Client.Get(ctx, key, into, options...)
}

func (b behind) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	if list, ok := into.(*v1alpha1.AppList); ok {
		list.Items = []v1alpha1.App{*b.was.DeepCopy()}
		return nil
	}
	return b.Client.List(ctx, into, options...)
}

func TestAnew_ALeaderSeesWhatTheOneBeforeWrote(t *testing.T) {
	c, namespace := cluster(t)
	first := open(t, c, namespace)
	deploy(t, first, file)
	late := behind{c, resource(t, c, namespace, "castle")}
	second := state.New(state.Config{Client: late, Live: c, Namespace: namespace})
	if _, err := second.Apps(t.Context()); err != nil { // somebody asks who stands by
		t.Fatal(err)
	}
	loaded(t, second, "castle")
	if err := first.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if saved := loaded(t, second, "castle"); saved.Version != 0 {
		t.Fatalf("version %d: the cache is not behind", saved.Version)
	}
	second.Anew()
	if apps, err := second.Apps(t.Context()); err != nil || len(apps) != 1 {
		t.Fatal(apps, err)
	}
	if saved := loaded(t, second, "castle"); saved.Version != 1 || saved.Status.Stable != 1 {
		t.Errorf("who leads decides on version %d, want 1", saved.Version)
	}
}
