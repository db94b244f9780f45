package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// exportRounds bounds how many decisions a first release takes until it is at rest.
const exportRounds = 10000

// An Export is an app file as the objects of its first release.
type Export struct {
	Release   spillway.Release // with the images of its services; its number and groups are filled in
	Namespace string           // "" = none is written, and who applies it says which
	Gateway   Gateway          // that public services are attached to
	Comments  map[string]string
}

// objects are those of the release at rest, with its release commands before them.
func (e Export) objects() ([]client.Object, error) {
	release := e.Release
	release.Number, release.Groups = 1, map[string]int{}
	for _, s := range release.Config.Services {
		release.Groups[s.Name] = 1
	}
	desired, err := atRest(release)
	if err != nil {
		return nil, err
	}
	r := rendering{ref: release.App, namespace: e.Namespace, gateway: e.Gateway, releases: map[int]spillway.Release{1: release}, desired: desired}
	objects, err := r.objects()
	for _, o := range objects {
		if d, ok := o.(*appsv1.Deployment); ok && r.scales(d) {
			d.Spec.Replicas = nil // applied again, it would reset what the autoscaler chose
		}
	}
	return objects, err
}

// WriteApp writes the App whose spec is the file of the release, as YAML.
func (e Export) WriteApp(w io.Writer) error {
	spec, err := yaml.YAMLToJSON([]byte(e.Release.File))
	if err != nil {
		return fmt.Errorf("the app file cannot be the spec of an App: %w: %w", err, spillway.ErrInvalid)
	}
	metadata := map[string]string{"name": v1alpha1.Name(e.Release.App)}
	if e.Namespace != "" {
		metadata["namespace"] = e.Namespace
	}
	text, err := yaml.Marshal(map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "App", "metadata": metadata, "spec": json.RawMessage(spec)})
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// Write writes the objects as YAML. Comments are put above what runs a service.
func (e Export) Write(w io.Writer) error {
	objects, err := e.objects()
	if err != nil {
		return err
	}
	return writeYAML(w, objects, func(o client.Object) string {
		switch o := o.(type) {
		case *appsv1.Deployment:
			return e.Comments[o.Labels[ServiceLabel]]
		case *batchv1.Job:
			return "# The release command. Before a release it runs alone, and has to succeed."
		}
		return ""
	})
}

// atRest asks the engine for a first release in a world where all goes well, until everybody has it.
func atRest(release spillway.Release) (rollout.Desired, error) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // any time does
	spec := rollout.Spec{App: release.App, Releases: map[int]spillway.Release{1: release}, Intents: []spillway.Intent{
		{Seq: 1, Verb: spillway.VerbDeploy, Release: 1, At: now, Force: true},
	}}
	var status rollout.Status
	var seen rollout.Observation
	var tasks []rollout.Task
	for range exportRounds {
		d := rollout.Decide(spec, status, seen, now)
		for _, t := range d.Desired.Tasks {
			if !slices.Contains(tasks, t) {
				tasks = append(tasks, t)
			}
		}
		status, spec.Intents = d.Status, nil
		if status.Stable == 1 && status.Rollout == nil {
			d.Desired.Tasks = tasks
			return d.Desired, nil
		}
		seen, now = fulfilled(d.Desired, now), now.Add(time.Second)
	}
	return rollout.Desired{}, fmt.Errorf("release 1 of %s does not come to rest: phase %s after %d decisions", release.App, status.Phase, exportRounds)
}

// fulfilled is the world in which everything is as it is wanted.
func fulfilled(d rollout.Desired, now time.Time) rollout.Observation {
	seen := rollout.Observation{Served: d.Route}
	for _, w := range d.Groups {
		seen.Groups = append(seen.Groups, rollout.Group{Group: w.Group, Running: w.Replicas, Ready: w.Replicas})
	}
	for _, t := range d.Tasks {
		seen.Tasks = append(seen.Tasks, rollout.TaskState{Task: t, Done: true})
	}
	for _, w := range d.Watch {
		seen.Readings = append(seen.Readings, rollout.Reading{Rollout: w.Rollout, Gate: w.Gate.Text, OK: true, At: now})
	}
	return seen
}
