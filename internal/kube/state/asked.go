package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/yaml"
)

// A Wish is what somebody asked of an app by its resource. The zero value asks for nothing.
type Wish struct {
	App spillway.Ref
	// Deploy: File is to be deployed; whatever comes of it, Answer says so for Generation.
	Deploy bool
	// Again: it was refused before, for something that is not in it: see Answer.
	Again bool
	// Destroy: the resource is being deleted, and the app is to be destroyed by an intent.
	Destroy bool
	// Forget: the resource is being deleted and nothing of the app ever ran: Remove is all.
	Forget bool

	File       []byte // the app file, in YAML
	Env        string // "production", "staging": of the file
	Generation int64  // of the spec
	By         string // the field manager that wrote it: "kubectl", "argocd-controller"
}

// Asked is what an App resource asks for that was not acted on.
func Asked(app *v1alpha1.App) Wish {
	wish := Wish{App: v1alpha1.RefOf(app.Name), Env: "production", Generation: app.Generation, By: author(app)}
	if app.DeletionTimestamp != nil {
		wish.By = "kubectl" // or who else: Kubernetes does not say
		switch {
		case !controllerutil.ContainsFinalizer(app, v1alpha1.Finalizer): // it waits for others
			return Wish{}
		case !exists(app):
			wish.Forget = true
		case destroyed(app):
			return Wish{}
		default:
			wish.Destroy = true
		}
		return wish
	}
	wish.Again = app.Generation == app.Status.ObservedGeneration
	if wish.Again && (!open(app) || wish.By == v1alpha1.Manager) {
		return Wish{}
	}
	if _, env, ok := strings.Cut(string(wish.App), "@"); ok {
		wish.Env = env
	}
	var err error
	if wish.File, err = yaml.JSONToYAML(app.Spec.Raw); err != nil {
		wish.File = app.Spec.Raw // which is YAML too
	}
	wish.Deploy = true
	return wish
}

// LookAgain is how often a spec is tried again that was refused for something that is not in it, without a change of it: an
// image may be there by now, or the host of another app be free.
const LookAgain = time.Minute

// invalid is the reason of an App whose spec itself has mistakes.
const invalid = "Invalid"

// open reports whether a spec was refused that may be a release without a change.
func open(app *v1alpha1.App) bool {
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.Accepted)
	return c != nil && c.Status == metav1.ConditionFalse && c.Reason != invalid
}

// destroyed reports whether the app is being destroyed, or was asked to be.
func destroyed(app *v1alpha1.App) bool {
	var saved rollout.Status
	if app.Status.Memory != nil && json.Unmarshal(app.Status.Memory.Raw, &saved) == nil && saved.Destroy {
		return true
	}
	for _, text := range app.Status.Intents {
		var intent spillway.Intent
		if json.Unmarshal(text.Raw, &intent) == nil && intent.Verb == spillway.VerbDestroy && intent.Seq > saved.Intent {
			return true
		}
	}
	return false
}

// author is the field manager that wrote the spec last.
func author(app *v1alpha1.App) string {
	name, at := "kubectl", time.Time{}
	for _, m := range app.ManagedFields {
		if m.FieldsV1 != nil && m.Subresource == "" && strings.Contains(string(m.FieldsV1.GetRawBytes()), `"f:spec"`) && m.Time != nil && !m.Time.Time.Before(at) {
			name, at = m.Manager, m.Time.Time
		}
	}
	if strings.HasPrefix(name, "kubectl") { // kubectl-client-side-apply, kubectl-edit
		return "kubectl"
	}
	return name
}

// Asked is what the resource of an app asks for that was not acted on.
func (s *Store) Asked(ctx context.Context, ref spillway.Ref) (Wish, error) {
	app, _, err := s.read(ctx, ref, false)
	if err != nil || app == nil {
		return Wish{}, err
	}
	return Asked(app), nil
}

// Answer notes what came of the spec of a generation: nil, that it is a release, else the mistakes in it (ErrInvalid), or
// what else stands against it, which Asked gives again. The same answer again is nothing new, and what stands against a spec
// that was replaced meanwhile is of no use. An error that may go away in a moment is no answer: ask again later.
func (s *Store) Answer(ctx context.Context, ref spillway.Ref, generation int64, mistakes error) error {
	refused := told{kind: "Warning", action: "Deploy"}
	app, err := s.change(ctx, ref, func(app *v1alpha1.App) error {
		refused.note = ""
		accepted := meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.Accepted)
		switch observed := app.Status.ObservedGeneration; {
		case generation < observed, mistakes == nil && accepted && generation == observed, mistakes != nil && generation < app.Generation:
			return errSame
		case mistakes == nil:
			accept(app, generation)
			return nil
		}
		reason, text := refusalFor(mistakes)
		if c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.Accepted); c != nil && !accepted && generation == app.Status.ObservedGeneration && c.Reason == reason && c.Message == text {
			return errSame
		}
		refused.reason, refused.note = reason, text
		return refuse(app, generation, reason, text)
	})
	if err != nil {
		return fmt.Errorf("answer %s: %w", ref, err)
	}
	if refused.note != "" && s.recorder != nil {
		s.recorder.Eventf(app, nil, refused.kind, refused.reason, refused.action, "%s", cut(refused.note, 1000))
	}
	return nil
}

// refusalFor is why a spec is refused, in a word and in words.
func refusalFor(mistakes error) (reason, text string) {
	text = spillway.Text(mistakes)
	switch {
	case errors.Is(mistakes, spillway.ErrInvalid):
		return invalid, cut(text, longest)
	case errors.Is(mistakes, spillway.ErrConflict):
		reason = "Conflict"
	default:
		reason = "Refused"
	}
	const again = "; it is looked at again every minute" // see LookAgain
	return reason, cut(text, longest-len(again)) + again
}

// refuse notes that the spec of a generation is no release.
func refuse(app *v1alpha1.App, generation int64, reason, text string) error {
	app.Status.ObservedGeneration = generation
	set(app, v1alpha1.Accepted, false, reason, text)
	set(app, v1alpha1.Stalled, true, reason, text)
	app.Status.Message = refusal(text)
	if !exists(app) { // it has no history
		set(app, v1alpha1.Ready, false, "NeverDeployed", "the spec was not accepted")
		return nil
	}
	fact := spillway.Event{At: time.Now().UTC(), Kind: spillway.EventProblem, Text: refusalOf(text)}
	return appendEvents(app, []spillway.Event{fact})
}

// Refused says in a sentence that the newest spec of an app is no release, and why, by its condition Accepted; "" = it is
// one, or nobody has looked at it yet.
func (s *Store) Refused(ctx context.Context, ref spillway.Ref) (string, error) {
	app, _, err := s.read(ctx, ref, false)
	if err != nil || app == nil {
		return "", err
	}
	return refusedFor(app), nil
}

// AllRefused are the apps of which Refused says something, with that; those too that have never been a release.
func (s *Store) AllRefused(ctx context.Context) (map[spillway.Ref]string, error) {
	var list v1alpha1.AppList
	reader, _ := s.lister()
	if err := reader.List(ctx, &list, client.InNamespace(s.namespace)); err != nil {
		return nil, fmt.Errorf("list the apps: %w", s.explain(err, "list", apps))
	}
	all := map[spillway.Ref]string{}
	for i := range list.Items {
		if why := refusedFor(&list.Items[i]); why != "" {
			all[v1alpha1.RefOf(list.Items[i].Name)] = why
		}
	}
	return all, nil
}

func refusedFor(app *v1alpha1.App) string {
	if app.DeletionTimestamp != nil || app.Status.ObservedGeneration < app.Generation || !meta.IsStatusConditionFalse(app.Status.Conditions, v1alpha1.Accepted) {
		return ""
	}
	return refusalOf(message(app, v1alpha1.Accepted))
}

// accept notes that the spec of a generation is what was deployed.
func accept(app *v1alpha1.App, generation int64) {
	app.Status.ObservedGeneration = max(app.Status.ObservedGeneration, generation)
	set(app, v1alpha1.Accepted, true, "Deployed", "the spec is a release")
	meta.RemoveStatusCondition(&app.Status.Conditions, v1alpha1.Stalled)
	if strings.HasPrefix(app.Status.Message, refusal("")) || strings.HasSuffix(app.Status.Message, aside) {
		app.Status.Message = ""
	}
}

// refusal is the message of an App whose spec has mistakes: the first of them.
func refusal(mistakes string) string {
	first, _, _ := strings.Cut(mistakes, "\n")
	return "spec not accepted: " + first
}

// refusalOf is the fact in the history of an app whose spec has mistakes: all of them.
func refusalOf(mistakes string) string {
	return "the spec that was applied is not accepted: " + strings.ReplaceAll(mistakes, "\n", "; ")
}

// set is one condition of the generation that was looked at.
func set(app *v1alpha1.App, kind string, holds bool, reason, message string) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, ObservedGeneration: app.Status.ObservedGeneration, Reason: reason, Message: message}
	if holds {
		c.Status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&app.Status.Conditions, c)
}
