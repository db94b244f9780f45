package state

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	exact "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/yaml"
)

// specOf is the JSON of an app file, as kubectl makes it of the same text; nil when there is no text.
func specOf(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := yaml.YAMLToJSON([]byte(file))
	if err != nil {
		return nil, fmt.Errorf("the app file cannot be the spec of an App: %w: %w", err, spillway.ErrInvalid)
	}
	return text, nil
}

// same reports whether two documents say the same.
func same(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func deleting(app spillway.Ref) error {
	return fmt.Errorf("app %s is being deleted; deploy it again when it is gone: %w", app, spillway.ErrConflict)
}

// prepare makes sure that there is an App that can take a release, and that the file can become its spec. An App that
// it makes has a spec with nothing to run until writeSpec: a crash leaves nothing that acts.
func (s *Store) prepare(ctx context.Context, ref spillway.Ref, file []byte) (*v1alpha1.App, error) {
	checked := false
	for try := range tries {
		app, _, err := s.read(ctx, ref, true)
		switch {
		case err != nil:
			return nil, err
		case app != nil && app.DeletionTimestamp != nil:
			return nil, deleting(ref)
		}
		if !checked && file != nil && (app == nil || !same(app.Spec.Raw, file)) {
			if _, err := s.apply(ctx, ref, file, client.DryRunAll); err != nil {
				return nil, err
			}
			checked = true
		}
		switch {
		case app == nil:
			name, _, _ := strings.Cut(string(ref), "@")
			_, err = s.apply(ctx, ref, fmt.Appendf(nil, `{"app":%q}`, name))
		case !controllerutil.ContainsFinalizer(app, v1alpha1.Finalizer):
			_, err = s.hold(ctx, app)
		default:
			return app, nil
		}
		if err != nil && !apierrors.IsConflict(err) && !absent(err) {
			return nil, err
		}
		if err := pause(ctx, try); err != nil {
			return nil, err
		}
	}
	return nil, busy(ref)
}

// apply makes a document the spec of an App by server-side apply, and gives the generation that it then has.
func (s *Store) apply(ctx context.Context, ref spillway.Ref, spec []byte, options ...client.ApplyOption) (int64, error) {
	var content map[string]any
	if err := exact.Unmarshal(spec, &content); err != nil {
		return 0, fmt.Errorf("the app file is not a mapping: %w: %w", err, spillway.ErrInvalid)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": content}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("App"))
	u.SetNamespace(s.namespace)
	u.SetName(v1alpha1.Name(ref))
	u.SetFinalizers([]string{v1alpha1.Finalizer})
	err := s.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), append(options, client.FieldOwner(v1alpha1.Manager))...)
	if owners := conflicting(err); len(owners) > 0 {
		return 0, fmt.Errorf("the spec of App %s is kept by %s and says something else than this file; change it there, or take it over and deploy again: %s: %w",
			v1alpha1.Name(ref), strings.Join(owners, ", "), takeOver(ref, s.namespace), spillway.ErrConflict)
	}
	if err != nil {
		return 0, s.explain(err, "patch", apps)
	}
	return u.GetGeneration(), nil
}

// takeOver is the command that makes the app file here the spec of an App and Spillway its owner. What Spillway wrote
// asks for no deploy.
func takeOver(ref spillway.Ref, namespace string) string {
	environment := ""
	if _, env, ok := strings.Cut(string(ref), "@"); ok {
		environment = " --env " + env
	}
	return fmt.Sprintf("spillway export app%s | kubectl apply -n %s --server-side --force-conflicts --field-manager=%s -f -", environment, namespace, v1alpha1.Manager)
}

// conflicting are the managers that own what a server-side apply wanted to change.
func conflicting(err error) []string {
	if !apierrors.IsConflict(err) {
		return nil
	}
	var owners []string
	for _, cause := range details(err).Causes { // conflict with "argocd-controller" using spillway.dev/v1alpha1
		if _, rest, ok := strings.Cut(cause.Message, `"`); ok {
			name, _, _ := strings.Cut(rest, `"`)
			owners = append(owners, name)
		}
	}
	slices.Sort(owners)
	return slices.Compact(owners)
}

// writeSpec makes the file of a release that is stored the spec of its App. When that fails the release is rolled out
// all the same, and the history says what differs: the spec stays of a generation that was looked at.
func (s *Store) writeSpec(ctx context.Context, app *v1alpha1.App, file []byte) {
	if file == nil || same(app.Spec.Raw, file) {
		return
	}
	ref := v1alpha1.RefOf(app.Name)
	generation, err := s.apply(ctx, ref, file)
	if err == nil {
		_, err = s.change(ctx, ref, func(app *v1alpha1.App) error {
			accept(app, generation)
			return nil
		})
	}
	if err == nil {
		return
	}
	text := fmt.Sprintf("the spec of the App is not the file of release %d: %s", app.Status.NewestRelease, spillway.Text(err))
	if kept := s.AppendEvents(ctx, ref, []spillway.Event{{Kind: spillway.EventProblem, At: time.Now().UTC(), Release: app.Status.NewestRelease, Text: text}}); kept != nil {
		s.log.Warn(text, "app", ref, "error", kept)
	}
}
