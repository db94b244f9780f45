package state_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
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

// tooLate is what a client says whose request was not answered within its own limit.
var tooLate = &url.Error{Op: "Put", URL: "https://cluster.test", Err: context.DeadlineExceeded}

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
		"no answer in time":  {tooLate, spillway.ErrUnavailable, "does not answer"},
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

// An answer that is lost says nothing of the write: the release counts if it is listed, and who cannot know takes
// nothing back that may be listed yet.
func TestStore_TakesNoReleaseBackThatMayCount(t *testing.T) {
	for name, lost := range map[string]error{"the API server gave up": nil, "this server gave up": tooLate, "the connection broke": errors.New("http2: client connection lost")} {
		c, namespace := cluster(t)
		s := open(t, &unanswered{Client: c, err: lost}, namespace)
		release, intent, err := add(t.Context(), s, file, "")
		if err != nil || release.Number != 1 || intent.Seq != 1 {
			t.Errorf("%s: release %d, intent %d, %v", name, release.Number, intent.Seq, err)
		}
		saved := loaded(t, open(t, c, namespace), "castle")
		if !slices.Equal(numbers(saved.Spec.Releases), []int{1}) || len(saved.Spec.Intents) != 1 || saved.Spec.Intents[0].Release != 1 {
			t.Errorf("%s: releases %v, intents %+v", name, numbers(saved.Spec.Releases), saved.Spec.Intents)
		}
	}

	c, namespace := cluster(t)
	if _, _, err := add(t.Context(), open(t, &faulty{Client: c, status: tooLate}, namespace), file, ""); !errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("it is not known whether it was done: %v", err)
	}
	var left v1alpha1.ReleaseList
	if err := c.List(t.Context(), &left, client.InNamespace(namespace)); err != nil || len(left.Items) != 1 {
		t.Errorf("%d releases, %v; the write that lists it may be on its way", len(left.Items), err)
	}
}
