//go:build kube

package state_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/sim/storetest"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// applySpec is what kubectl apply --server-side and GitOps tools do.
func applySpec(t *testing.T, c client.Client, namespace, name, manager, text string, options ...client.ApplyOption) error {
	t.Helper()
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(text), &spec); err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("App"))
	u.SetNamespace(namespace)
	u.SetName(name)
	return c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), append(options, client.FieldOwner(manager))...)
}

func wish(t *testing.T, s *state.Store, app spillway.Ref) state.Wish {
	t.Helper()
	w, err := s.Asked(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const two = file + "  backend:\n    run: ./backend\nbudget: 5\n"

func TestStore_AppliedResourceIsADeploy(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	if err := applySpec(t, c, namespace, "castle", "argocd-controller", two); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "no release yet") {
		t.Errorf("Load: %v", err)
	}
	if apps, err := s.Apps(t.Context()); err != nil || len(apps) > 0 {
		t.Errorf("Apps: %v, %v", apps, err)
	}
	w := wish(t, s, "castle")
	if !w.Deploy || w.By != "argocd-controller" || w.Env != "production" || w.Generation != 1 {
		t.Fatalf("asked %+v", w)
	}
	if config, err := appfile.ParseEnvironment("App castle", w.File, w.Env); err != nil || len(config.Services) != 2 {
		t.Errorf("%v: %s", err, w.File)
	}
	deploy(t, s, string(w.File))
	if w := wish(t, s, "castle"); w.Deploy {
		t.Errorf("asked again: %+v", w)
	}
	app := resource(t, c, namespace, "castle")
	if app.Status.ObservedGeneration != 1 || !meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.Accepted) {
		t.Errorf("status %+v", app.Status)
	}
	// The same again is nothing new, and what leaves the file leaves the spec.
	if err := applySpec(t, c, namespace, "castle", "argocd-controller", two); err != nil {
		t.Fatal(err)
	}
	if w := wish(t, s, "castle"); w.Deploy {
		t.Errorf("the same spec asks for %+v", w)
	}
	if err := applySpec(t, c, namespace, "castle", "argocd-controller", file); err != nil {
		t.Fatal(err)
	}
	if w := wish(t, s, "castle"); !w.Deploy || strings.Contains(string(w.File), "backend") {
		t.Errorf("asked %+v", w)
	}
	// The command line says something else: no, and nothing is stored.
	_, _, err := add(t.Context(), s, file+"keep: 3\n", "")
	if !errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), "is kept by argocd-controller") {
		t.Errorf("got %v", err)
	}
	if take := "spillway export app | kubectl apply -n " + namespace + " --server-side --force-conflicts --field-manager=spillway -f -"; !strings.Contains(err.Error(), take) {
		t.Errorf("%v does not say %s", err, take)
	}
	if saved := loaded(t, s, "castle"); len(saved.Spec.Releases) != 1 {
		t.Errorf("releases %v", numbers(saved.Spec.Releases))
	}
	if r, _, err := add(t.Context(), s, file+"keep: 3\n", "canary"); err != nil || r.Number != 2 {
		t.Errorf("a track: release %d, %v", r.Number, err)
	}
	if w := wish(t, s, "castle"); !w.Deploy {
		t.Error("a deploy to a track answered the spec")
	}
}

// What the error of a spec that is kept says to do is enough for the next deploy.
func TestStore_SpecIsTakenOver(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	if err := applySpec(t, c, namespace, "castle.staging", "kubectl", file); err != nil {
		t.Fatal(err)
	}
	add := func(text string) error {
		_, _, err := s.AddRelease(t.Context(), spillway.Release{App: "castle@staging", Config: spillway.App{Name: "castle"}, File: text, Groups: map[string]int{"www": 0}}, spillway.Intent{Verb: spillway.VerbDeploy})
		return err
	}
	if err := add(file); err != nil {
		t.Fatal(err)
	}
	if err := add(two); err == nil || !strings.Contains(err.Error(), "spillway export app --env staging | kubectl apply -n "+namespace+" ") {
		t.Errorf("got %v", err)
	}
	if err := applySpec(t, c, namespace, "castle.staging", v1alpha1.Manager, two, client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	if err := add(two + "keep: 3\n"); err != nil {
		t.Error(err)
	}
}

func TestStore_DeployWritesTheSpec(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, two)
	deploy(t, s, file)
	app := resource(t, c, namespace, "castle")
	if strings.Contains(string(app.Spec.Raw), "backend") || app.Generation != app.Status.ObservedGeneration || wish(t, s, "castle").Deploy {
		t.Errorf("generation %d, observed %d, spec %s", app.Generation, app.Status.ObservedGeneration, app.Spec.Raw)
	}
	if err := applySpec(t, c, namespace, "castle", "kubectl", two); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `"spillway"`) {
		t.Errorf("another manager: %v", err)
	}
	if err := applySpec(t, c, namespace, "castle", "kubectl", file); err != nil {
		t.Errorf("another manager with the same: %v", err)
	}
	if wish(t, s, "castle").Deploy {
		t.Error("the same spec is a deploy")
	}
	if err := applySpec(t, c, namespace, "castle", "kubectl", two, client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	if w := wish(t, s, "castle"); !w.Deploy || w.By != "kubectl" {
		t.Errorf("asked %+v", w)
	}
}

func TestStore_MistakesOfASpecAreInItsCondition(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	if err := applySpec(t, c, namespace, "castle.staging", "kubectl", file+"    sclae: 3\nenvironments: {staging: {watch: 1m}}\n"); err != nil {
		t.Fatal(err)
	}
	w := wish(t, s, "castle@staging")
	_, mistakes := appfile.ParseEnvironment("App castle.staging", w.File, w.Env)
	if mistakes == nil || w.Env != "staging" {
		t.Fatalf("no mistake in %s for %s", w.File, w.Env)
	}
	if err := s.Answer(t.Context(), w.App, w.Generation, mistakes); err != nil {
		t.Fatal(err)
	}
	if wish(t, s, "castle@staging").Deploy {
		t.Error("asked again")
	}
	app := resource(t, c, namespace, "castle.staging")
	accepted := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.Accepted)
	if accepted == nil || accepted.Status != "False" || !strings.Contains(accepted.Message, "did you mean scale?") || !strings.Contains(app.Status.Message, "sclae") {
		t.Errorf("%+v: %s", accepted, app.Status.Message)
	}
	if _, err := s.Load(t.Context(), "castle@staging"); !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "sclae") {
		t.Errorf("Load: %v", err)
	}
	// An app that runs says so too, as long as nothing else goes on.
	deploy(t, s, file)
	if err := applySpec(t, c, namespace, "castle", "kubectl", file+"    sclae: 3\n", client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Answer(t.Context(), "castle", wish(t, s, "castle").Generation, mistakes), s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1, Phase: spillway.Healthy}, nil)); err != nil {
		t.Fatal(err)
	}
	if message := resource(t, c, namespace, "castle").Status.Message; !strings.Contains(message, "sclae") {
		t.Errorf("it says %q", message)
	}
	if err := c.Delete(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	if w := wish(t, s, "castle@staging"); w.Destroy || w.Forget {
		t.Errorf("it needs nobody to go, and asked %+v", w)
	}
}

func TestStore_NameOfTheResourceIsTheApp(t *testing.T) {
	c, namespace := cluster(t)
	if err := applySpec(t, c, namespace, "tower", "kubectl", file); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "the name of the resource must be the app of its spec, castle, or castle.ENVIRONMENT; it is tower") {
		t.Errorf("got %v", err)
	}
	if err := applySpec(t, c, namespace, "castle.production", "kubectl", file); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "production is the environment without a name") {
		t.Errorf("got %v", err)
	}
}

func TestStore_ReleaseNeverChanges(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, file)
	release := &v1alpha1.Release{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "castle-1"}, release); err != nil {
		t.Fatal(err)
	}
	release.Spec.Raw = []byte(strings.Replace(string(release.Spec.Raw), `"ann"`, `"bob"`, 1))
	if err := c.Update(t.Context(), release); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "a release never changes") {
		t.Errorf("got %v", err)
	}
}

func TestStore_SaysWhichRightIsMissing(t *testing.T) {
	c, namespace := cluster(t)
	deploy(t, open(t, c, namespace), file)
	config := rest.CopyConfig(access(t))
	config.Impersonate = rest.ImpersonationConfig{UserName: "nobody-at-all"}
	_, err := open(t, connect(t, config), namespace).Load(t.Context(), "castle")
	if !errors.Is(err, spillway.ErrDenied) || !strings.Contains(err.Error(), "may not get apps.spillway.dev in namespace "+namespace) {
		t.Errorf("got %v", err)
	}
}

func TestStore_ServerThatIsGoneIsUnavailable(t *testing.T) {
	config := rest.CopyConfig(access(t))
	c := connect(t, config) // it asks for nothing yet
	config.Host = "https://127.0.0.1:1"
	away := connect(t, config)
	for _, s := range []*state.Store{open(t, away, "x")} {
		if _, err := s.Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("got %v", err)
		}
	}
	if _, _, err := add(t.Context(), open(t, c, "spillway-no-such-namespace"), file, ""); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "there is no namespace") {
		t.Errorf("got %v", err)
	}
}

// cached is a client that reads apps from a cache, and releases never.
func cached(t *testing.T, namespace string) (client.Client, cache.Cache) {
	t.Helper()
	config := access(t)
	plain := connect(t, config)
	apps, err := cache.New(config, cache.Options{Scheme: plain.Scheme(), DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- apps.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(config, client.Options{Scheme: plain.Scheme(), Cache: &client.CacheOptions{Reader: apps}})
	if err != nil {
		t.Fatal(err)
	}
	return c, apps
}

func TestStore_KeepsThePromisesOfAStoreBehindACache(t *testing.T) {
	storetest.Run(t, func(t *testing.T) reconcile.Store {
		c, namespace := cluster(t)
		client, _ := cached(t, namespace)
		return state.New(state.Config{Client: client, Live: c, Namespace: namespace, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	})
}

func TestStore_SeesWhatOthersWriteBehindACache(t *testing.T) {
	c, namespace := cluster(t)
	reader, apps := cached(t, namespace)
	s := state.New(state.Config{Client: reader, Live: c, Namespace: namespace})
	for version := range int64(50) { // each round must see the one before
		if version == 0 {
			deploy(t, s, file)
		}
		saved := loaded(t, s, "castle")
		if saved.Version != version {
			t.Fatalf("version %d, want %d", saved.Version, version)
		}
		if err := s.Save(t.Context(), "castle", version, rollout.Status{Stable: 1, Rollouts: version}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := applySpec(t, c, namespace, "castle", "kubectl", two, client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	told, ended := make(chan spillway.Ref, 100), make(chan error, 1)
	go func() { ended <- state.Watch(ctx, apps, func(app spillway.Ref) { told <- app }) }()
	for !wish(t, s, "castle").Deploy {
		select {
		case <-told:
		case <-ctx.Done():
			t.Fatal("the cache never showed the new spec")
		}
	}
	if err := c.Delete(t.Context(), resource(t, c, namespace, "castle")); err != nil {
		t.Fatal(err)
	}
	for !wish(t, s, "castle").Destroy {
		select {
		case <-told:
		case <-ctx.Done():
			t.Fatal("the cache never showed that the App is being deleted")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRules_AreEnough(t *testing.T) {
	storetest.Run(t, func(t *testing.T) reconcile.Store {
		c, namespace := cluster(t)
		return open(t, restricted(t, c, namespace), namespace)
	})
	c, namespace := cluster(t)
	s := open(t, restricted(t, c, namespace), namespace)
	if err := errors.Join(s.Check(t.Context()), applySpec(t, c, namespace, "castle", "kubectl", file)); err != nil {
		t.Fatal(err)
	}
	deploy(t, s, file)
	deploy(t, s, file)
	if _, err := s.Prune(t.Context(), "castle", func(reconcile.Saved) []int { return []int{1} }); err != nil {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), resource(t, c, namespace, "castle")); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "castle"); err != nil {
		t.Error(err)
	}
}

// restricted is the client of somebody who has the rights of Rules and no others.
func restricted(t *testing.T, c client.Client, namespace string) client.Client {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "store"}
	who := "store-of-" + namespace
	for _, o := range []client.Object{
		&rbac.Role{ObjectMeta: meta, Rules: state.Rules()},
		&rbac.RoleBinding{
			ObjectMeta: meta, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: "store"},
			Subjects: []rbac.Subject{{Kind: "User", APIGroup: rbac.GroupName, Name: who}},
		},
	} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	config := rest.CopyConfig(access(t))
	config.Impersonate = rest.ImpersonationConfig{UserName: who}
	limited := connect(t, config)
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) { // until the API server knows the role
		err := limited.List(t.Context(), &v1alpha1.AppList{}, client.InNamespace(namespace))
		if err == nil {
			return limited
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
