package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// MostBytes is how large a release may be, as JSON.
const MostBytes = 1 << 20

// releases are those that an App lists, as far as they are there. They are shared between all who load the app
// and must not be changed; the map is the caller's own.
func (s *Store) releases(ctx context.Context, app *v1alpha1.App) (map[int]spillway.Release, error) {
	ref := v1alpha1.RefOf(app.Name)
	s.mu.Lock()
	known, all := map[int]*spillway.Release{}, true
	if h := s.shelf[ref]; h != nil && h.uid == app.UID && h.releases != nil {
		all = false
		maps.Copy(known, h.releases)
	}
	s.mu.Unlock()
	if all {
		if err := s.listReleases(ctx, app, known); err != nil {
			return nil, err
		}
	}
	list := map[int]spillway.Release{}
	for _, n := range app.Status.Releases {
		release, seen := known[n]
		if !seen && !all {
			var err error
			if release, err = s.getRelease(ctx, ref, n); err != nil {
				return nil, err
			}
		}
		if release != nil {
			list[n] = *release
		} else if !seen && s.misses(app, n) {
			s.log.Warn("a release is not there any more; did somebody delete it?", "app", ref, "release", n)
		}
		known[n] = release
	}
	maps.DeleteFunc(known, func(n int, _ *spillway.Release) bool { return !slices.Contains(app.Status.Releases, n) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.shelf[ref]; h != nil && h.uid == app.UID {
		h.releases = known
		maps.DeleteFunc(h.missed, func(n int, _ bool) bool { return known[n] != nil })
	}
	return list, nil
}

// misses reports whether a release that is not there is news: one that serves is looked for again and again.
func (s *Store) misses(app *v1alpha1.App, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.shelf[v1alpha1.RefOf(app.Name)]
	if h == nil || h.uid != app.UID {
		return true
	}
	news := !h.missed[n]
	if h.missed == nil {
		h.missed = map[int]bool{}
	}
	h.missed[n] = true
	return news
}

// listReleases reads every Release of an App past the cache.
func (s *Store) listReleases(ctx context.Context, app *v1alpha1.App, into map[int]*spillway.Release) error {
	objects, err := s.objects(ctx, v1alpha1.RefOf(app.Name))
	if err != nil {
		return err
	}
	for i := range objects {
		release, err := releaseOf(&objects[i])
		if err != nil {
			return err
		}
		into[release.Number] = release
	}
	return nil
}

func (s *Store) objects(ctx context.Context, ref spillway.Ref) ([]v1alpha1.Release, error) {
	var list v1alpha1.ReleaseList
	err := s.live.List(ctx, &list, client.InNamespace(s.namespace), client.MatchingLabels{v1alpha1.AppLabel: v1alpha1.Label(ref)})
	if err != nil {
		return nil, fmt.Errorf("read the releases of %s: %w", ref, s.explain(err, "list", releases))
	}
	return list.Items, nil
}

// getRelease is nil when there is none.
func (s *Store) getRelease(ctx context.Context, ref spillway.Ref, number int) (*spillway.Release, error) {
	var object v1alpha1.Release
	err := s.live.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: releaseName(ref, number)}, &object)
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read release %d of %s: %w", number, ref, s.explain(err, "get", releases))
	}
	return releaseOf(&object)
}

func releaseOf(object *v1alpha1.Release) (*spillway.Release, error) {
	var release spillway.Release
	if err := json.Unmarshal(object.Spec.Raw, &release); err != nil {
		return nil, fmt.Errorf("the Release %s cannot be read: %w", object.Name, err)
	}
	return &release, nil
}

// releaseName is "castle-7", or "castle.staging-7".
func releaseName(ref spillway.Ref, number int) string {
	return fmt.Sprintf("%s-%d", v1alpha1.Name(ref), number)
}

// AddRelease numbers and stores a release together with the intent to deploy it. It fills in and returns
// release.Number, intent.Seq and intent.Release, and replaces each 0 in release.Groups (a changed service) by the new
// number. An app that was not there is there from then on. The app file of a release for stable becomes the spec of
// the App. ErrConflict when another manager keeps the spec and it says something else, or when the App is being
// deleted.
func (s *Store) AddRelease(ctx context.Context, release spillway.Release, intent spillway.Intent) (spillway.Release, spillway.Intent, error) {
	stored, asked, err := s.addRelease(ctx, release, intent)
	if err != nil {
		return spillway.Release{}, spillway.Intent{}, fmt.Errorf("add a release of %s: %w", release.App, err)
	}
	return stored, asked, nil
}

func (s *Store) addRelease(ctx context.Context, release spillway.Release, intent spillway.Intent) (spillway.Release, spillway.Intent, error) {
	if release.App == "" {
		return release, intent, fmt.Errorf("it names no app: %w", spillway.ErrInvalid)
	}
	if err := small(release); err != nil {
		return release, intent, err
	}
	var file []byte
	if intent.Track == "" {
		var err error
		if file, err = specOf(release.File); err != nil {
			return release, intent, err
		}
	}
	app, err := s.prepare(ctx, release.App, file)
	if err != nil {
		return release, intent, err
	}
	for try := range tries {
		stored, err := s.createRelease(ctx, app, release)
		if err != nil {
			return release, intent, err
		}
		var asked spillway.Intent
		app, asked, err = s.commit(ctx, stored, intent, file)
		if err == nil {
			s.writeSpec(ctx, app, file)
			return stored, asked, nil
		}
		if !refused(err) { // it may be listed, or will be: who made it does not take it back, and Prune does if it never counts
			return release, intent, err
		}
		if undo := s.deleteRelease(ctx, release.App, stored.Number); undo != nil {
			s.log.Warn("a release that does not count is left behind", "app", release.App, "release", stored.Number, "error", undo)
		}
		if !errors.Is(err, errPassed) {
			return release, intent, err
		}
		if err := pause(ctx, try); err != nil {
			return release, intent, err
		}
		if app, _, err = s.read(ctx, release.App, true); err != nil {
			return release, intent, err
		} else if app == nil {
			return release, intent, noApp(release.App)
		}
	}
	return release, intent, fmt.Errorf("others deploy %s all the time: %w", release.App, spillway.ErrUnavailable)
}

// small is ErrInvalid when a release does not fit into one object.
func small(release spillway.Release) error {
	size := func(v any) int {
		text, _ := json.Marshal(v) // plain data
		return len(text)
	}
	all := size(release)
	if all <= MostBytes {
		return nil
	}
	parts := map[string]int{"its app file": size(release.File), "its note": size(release.Note), "its artefacts": size(release.Artefacts)}
	for _, service := range release.Config.Services {
		parts["env of service "+service.Name] = size(service.Env)
	}
	config := release.Config
	config.Services = nil
	parts["its routes"] = size(config.Routes)
	largest := slices.MaxFunc(slices.Sorted(maps.Keys(parts)), func(a, b string) int { return parts[a] - parts[b] })
	return fmt.Errorf("it has %d KiB, and Kubernetes keeps at most %d KiB in one object; the largest part of it is %s, with %d KiB: %w",
		all>>10, MostBytes>>10, largest, parts[largest]>>10, spillway.ErrInvalid)
}

// createRelease gives a release the first number that is free, and creates its object.
func (s *Store) createRelease(ctx context.Context, app *v1alpha1.App, release spillway.Release) (spillway.Release, error) {
	groups := release.Groups
	for number := app.Status.NewestRelease + 1; ; number++ {
		release.Number, release.Groups = number, maps.Clone(groups) // the caller's own stay as they are
		for service, n := range release.Groups {
			if n == 0 {
				release.Groups[service] = number
			}
		}
		object, err := s.object(app, release)
		if err != nil {
			return release, err
		}
		err = s.client.Create(ctx, object, client.FieldOwner(v1alpha1.Manager))
		if apierrors.IsAlreadyExists(err) { // of a deploy that crashed, or that is not finished yet
			continue
		}
		return release, s.explain(err, "create", releases)
	}
}

// object is a release as a resource.
func (s *Store) object(app *v1alpha1.App, release spillway.Release) (*v1alpha1.Release, error) {
	spec, err := document(release)
	return &v1alpha1.Release{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.namespace, Name: releaseName(release.App, release.Number),
			Labels:          map[string]string{v1alpha1.AppLabel: v1alpha1.Label(release.App), "app.kubernetes.io/managed-by": v1alpha1.Manager},
			Annotations:     map[string]string{v1alpha1.SourceAnnotation: source(release.Source)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "App", Name: app.Name, UID: app.UID}},
		},
		Spec: spec,
	}, err
}

// source is where a release came from in a few letters.
func source(from spillway.Source) string {
	words := []string{from.Commit[:min(12, len(from.Commit))]}
	if from.Commit == "" {
		_, digest, _ := strings.Cut(from.Digest, ":")
		words[0] = digest[:min(12, len(digest))]
	} else if from.Dirty {
		words = append(words, "dirty")
	}
	return strings.Join(words, " ")
}

// errPassed: a higher number was listed before this one, which must not follow it.
var errPassed = errors.New("a later release was faster")

// commit lists a release and stores the intent to deploy it, in one write.
func (s *Store) commit(ctx context.Context, release spillway.Release, intent spillway.Intent, file []byte) (*v1alpha1.App, spillway.Intent, error) {
	intent.Release = release.Number
	app, err := s.change(ctx, release.App, func(app *v1alpha1.App) error {
		st := &app.Status
		switch {
		case slices.Contains(st.Releases, release.Number): // a write that was answered with an error counted
			return errSame
		case app.DeletionTimestamp != nil:
			return deleting(release.App)
		case st.NewestRelease >= release.Number:
			return errPassed
		}
		st.NewestRelease = release.Number
		st.Releases = append(st.Releases, release.Number)
		if same(app.Spec.Raw, file) {
			accept(app, app.Generation)
		}
		return addIntent(app, &intent)
	})
	if err != nil && !refused(err) { // the answer may be all that is lost
		if now, _, lost := s.read(ctx, release.App, true); lost == nil && now != nil && slices.Contains(now.Status.Releases, release.Number) {
			return now, intent, nil
		}
	}
	return app, intent, err
}

func addIntent(app *v1alpha1.App, intent *spillway.Intent) error {
	app.Status.NewestIntent++
	intent.Seq = app.Status.NewestIntent
	text, err := document(intent)
	app.Status.Intents = append(app.Status.Intents, text)
	return err
}

// AddIntent numbers and stores an intent. ErrNotFound when there is no such app.
func (s *Store) AddIntent(ctx context.Context, ref spillway.Ref, intent spillway.Intent) (spillway.Intent, error) {
	if _, err := s.existing(ctx, ref); err != nil {
		return spillway.Intent{}, fmt.Errorf("add an intent to %s: %w", ref, err)
	}
	_, err := s.change(ctx, ref, func(app *v1alpha1.App) error {
		if !exists(app) {
			return noApp(ref)
		}
		return addIntent(app, &intent)
	})
	if err != nil {
		return spillway.Intent{}, fmt.Errorf("add an intent to %s: %w", ref, err)
	}
	return intent, nil
}

func (s *Store) deleteRelease(ctx context.Context, ref spillway.Ref, number int) error {
	object := &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: releaseName(ref, number)}}
	if err := s.client.Delete(ctx, object); err != nil && !absent(err) {
		return fmt.Errorf("delete the Release %s: %w", object.Name, s.explain(err, "delete", releases))
	}
	return nil
}
