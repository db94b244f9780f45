package state_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// deaf answers every read with an error.
type deaf struct {
	client.Client
	err error
}

func (d deaf) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return d.err
}

func (d deaf) List(context.Context, client.ObjectList, ...client.ListOption) error { return d.err }

func TestStore_SaysWhatIsWrongWithTheCluster(t *testing.T) {
	c, namespace := cluster(t)
	if err := open(t, c, namespace).Check(t.Context()); err != nil {
		t.Error(err)
	}
	resource := v1alpha1.GroupVersion.WithResource("apps").GroupResource()
	unknown := apierrors.NewGenericServerResponse(404, "get", schema.GroupResource{}, "", "404 page not found", 0, true)
	for name, row := range map[string]struct {
		err  error
		want error
		text string
	}{
		"no definitions":     {&meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: v1alpha1.Group, Kind: "App"}}, spillway.ErrUnavailable, "the cluster does not know spillway.dev/v1alpha1 App: run spillway kube install"},
		"definitions gone":   {unknown, spillway.ErrUnavailable, "run spillway kube install"},
		"no right":           {apierrors.NewForbidden(resource, "castle", errors.New("no")), spillway.ErrDenied, "the server may not get apps.spillway.dev in namespace " + namespace},
		"nobody":             {apierrors.NewUnauthorized("no"), spillway.ErrDenied, "does not know who the server is"},
		"server is starting": {apierrors.NewServiceUnavailable("soon"), spillway.ErrUnavailable, "does not answer"},
		"we are starting":    {&cache.ErrCacheNotStarted{}, spillway.ErrUnavailable, "just begun"},
		"slow":               {apierrors.NewTimeoutError("slow", 1), spillway.ErrUnavailable, "does not answer"},
		"cancelled":          {context.Canceled, context.Canceled, ""},
	} {
		s := state.New(state.Config{Client: deaf{c, row.err}, Namespace: namespace})
		if _, err := s.Load(t.Context(), "castle"); !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Apps(t.Context()); !errors.Is(err, row.want) {
			t.Errorf("%s: Apps: %v", name, err)
		}
		if err := s.Check(t.Context()); !errors.Is(err, row.want) {
			t.Errorf("%s: Check: %v", name, err)
		}
	}
}

func TestStore_WriteThatFailsChangesNothingAndSaysWhy(t *testing.T) {
	c, namespace := cluster(t)
	deploy(t, open(t, c, namespace), file)
	denied := apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("apps").GroupResource(), "castle", errors.New("no"))
	s := open(t, &faulty{Client: c, status: denied}, namespace)
	_, _, err := add(t.Context(), s, file+"keep: 3\n", "")
	if !errors.Is(err, spillway.ErrDenied) || !strings.Contains(err.Error(), "update apps/status.spillway.dev") {
		t.Errorf("got %v", err)
	}
	var left v1alpha1.ReleaseList
	if err := c.List(t.Context(), &left, client.InNamespace(namespace)); err != nil || len(left.Items) != 1 {
		t.Errorf("%d releases, %v", len(left.Items), err)
	}
	if app := resource(t, c, namespace, "castle"); strings.Contains(string(app.Spec.Raw), "keep") {
		t.Errorf("the spec is that of a release that is not there: %s", app.Spec.Raw)
	}
}
