package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/sim/storetest"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func open(t *testing.T, c client.Client, namespace string) *state.Store {
	t.Helper()
	return state.New(state.Config{Client: c, Namespace: namespace, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

func TestStore_KeepsThePromisesOfAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) reconcile.Store {
		c, namespace := cluster(t)
		return open(t, c, namespace)
	})
}

const file = "app: castle\nservices:\n  www:\n    run: ./www\n    scale: 2\n"

func deploy(t *testing.T, s *state.Store, text string) (spillway.Release, spillway.Intent) {
	t.Helper()
	release, intent, err := add(t.Context(), s, text, "")
	if err != nil {
		t.Fatal(err)
	}
	return release, intent
}

func add(ctx context.Context, s *state.Store, text, track string) (spillway.Release, spillway.Intent, error) {
	return s.AddRelease(ctx, spillway.Release{App: "castle", Config: spillway.App{Name: "castle"}, File: text, By: "ann", Groups: map[string]int{"www": 0},
		Source: spillway.Source{Commit: "0123456789abcdef", Dirty: true}}, spillway.Intent{Verb: spillway.VerbDeploy, Track: track})
}

func resource(t *testing.T, c client.Client, namespace, name string) *v1alpha1.App {
	t.Helper()
	app := &v1alpha1.App{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, app); err != nil {
		t.Fatal(err)
	}
	return app
}

func loaded(t *testing.T, s *state.Store, app spillway.Ref) reconcile.Saved {
	t.Helper()
	saved, err := s.Load(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

func numbers(releases map[int]spillway.Release) []int { return slices.Sorted(maps.Keys(releases)) }

func TestStore_TwoStoresNeverGiveANumberTwice(t *testing.T) {
	c, namespace := cluster(t)
	const each = 8
	var mu sync.Mutex
	var releases []int
	var intents []int64
	var wait sync.WaitGroup
	for range 2 {
		s := open(t, c, namespace)
		for range 2 {
			wait.Go(func() {
				for range each / 2 {
					r, in, err := add(t.Context(), s, file, "")
					if err != nil {
						t.Error(err)
						return
					}
					pause, err := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbPause})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					releases, intents = append(releases, r.Number), append(intents, in.Seq, pause.Seq)
					mu.Unlock()
				}
			})
		}
	}
	wait.Wait()
	slices.Sort(releases)
	slices.Sort(intents)
	if len(slices.Compact(slices.Clone(releases))) != 2*each {
		t.Errorf("release numbers %v, want %d different ones", releases, 2*each)
	}
	for i, seq := range intents {
		if seq != int64(i+1) {
			t.Fatalf("intents are numbered %v, want 1 to %d", intents, 4*each)
		}
	}
	saved := loaded(t, open(t, c, namespace), "castle")
	if !slices.Equal(numbers(saved.Spec.Releases), releases) {
		t.Errorf("releases %v are there, %v were given", numbers(saved.Spec.Releases), releases)
	}
	for _, in := range saved.Spec.Intents {
		if in.Verb == spillway.VerbDeploy && saved.Spec.Releases[in.Release].Groups["www"] != in.Release {
			t.Errorf("intent %d deploys release %d, whose groups are %v", in.Seq, in.Release, saved.Spec.Releases[in.Release].Groups)
		}
	}
}

func TestStore_ReleaseThatWasNeverFinishedDoesNotCount(t *testing.T) {
	c, namespace := cluster(t)
	deploy(t, open(t, c, namespace), file)
	broken := open(t, &faulty{Client: c, status: errors.New("the power is gone")}, namespace)
	if _, _, err := add(t.Context(), broken, file+"keep: 3\n", ""); err == nil {
		t.Fatal("a release was added without its intent")
	}
	var left v1alpha1.ReleaseList
	s := open(t, c, namespace)
	orphan := &v1alpha1.Release{}
	orphan.Namespace, orphan.Name = namespace, "castle-2"
	orphan.Labels = map[string]string{v1alpha1.AppLabel: "castle"}
	orphan.Spec.Raw = []byte(`{"ref":"castle","number":2}`)
	if err := client.IgnoreAlreadyExists(c.Create(t.Context(), orphan)); err != nil { // as a crash leaves it
		t.Fatal(err)
	}
	if saved := loaded(t, s, "castle"); len(saved.Spec.Releases) != 1 || len(saved.Spec.Intents) != 1 {
		t.Errorf("it counts: releases %v, %d intents", numbers(saved.Spec.Releases), len(saved.Spec.Intents))
	}
	if r, in := deploy(t, s, file); r.Number != 3 || in.Seq != 2 {
		t.Errorf("the next is release %d with intent %d, want 3 and 2", r.Number, in.Seq)
	}
	if _, err := s.Prune(t.Context(), "castle", func(reconcile.Saved) []int { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.List(t.Context(), &left, client.InNamespace(namespace)); err != nil || len(left.Items) != 2 {
		t.Errorf("%d releases are left, %v; want 1 and 3", len(left.Items), err)
	}
}

func TestStore_ReadsItsOwnWritesBehindALateCache(t *testing.T) {
	c, namespace := cluster(t)
	late := &lateCache{Client: c}
	s := state.New(state.Config{Client: late, Live: c, Namespace: namespace})
	deploy(t, s, file)
	loaded(t, s, "castle")
	late.freeze(resource(t, c, namespace, "castle"))
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1, Intent: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if saved := loaded(t, s, "castle"); saved.Version != 1 || saved.Status.Stable != 1 || len(saved.Spec.Intents) != 0 {
		t.Errorf("read the old version %d, stable %d, %d intents", saved.Version, saved.Status.Stable, len(saved.Spec.Intents))
	}
	// Another store writes, which the cache does not show yet: nothing is overwritten.
	other := open(t, c, namespace)
	if err := other.Save(t.Context(), "castle", 1, rollout.Status{Stable: 2, Intent: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), "castle", 1, rollout.Status{Stable: 3, Intent: 1}, nil); !errors.Is(err, spillway.ErrStale) {
		t.Errorf("save on a version that is gone: %v, want ErrStale", err)
	}
	if saved := loaded(t, s, "castle"); saved.Version != 2 || saved.Status.Stable != 2 {
		t.Errorf("after ErrStale: version %d, stable %d; want 2, 2", saved.Version, saved.Status.Stable)
	}
	if in, err := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbPause}); err != nil || in.Seq != 2 {
		t.Errorf("intent %d, %v", in.Seq, err)
	}
	for range 2 { // past the cache, and from it
		if apps, err := s.Apps(t.Context()); err != nil || !slices.Equal(apps, []spillway.Ref{"castle"}) {
			t.Errorf("Apps: %v, %v", apps, err)
		}
	}
	if err := s.Remove(t.Context(), "castle"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("the cache brought it back: %v", err)
	}
	if apps, err := s.Apps(t.Context()); err != nil || len(apps) != 0 {
		t.Errorf("Apps after Remove: %v, %v", apps, err)
	}
}

func TestStore_LooksAgainAfterAWriteWithoutAnAnswer(t *testing.T) {
	c, namespace := cluster(t)
	late := &lateCache{Client: &unanswered{Client: c}}
	s := state.New(state.Config{Client: late, Live: c, Namespace: namespace})
	deploy(t, open(t, c, namespace), file)
	loaded(t, s, "castle")
	late.freeze(resource(t, c, namespace, "castle"))
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, nil); !errors.Is(err, spillway.ErrUnavailable) {
		t.Fatalf("the answer came: %v", err)
	}
	if saved := loaded(t, s, "castle"); saved.Version != 1 {
		t.Errorf("version %d is what the cache has, 1 was written", saved.Version)
	}
}

func TestStore_RemoveLetsEverythingGoAndEventIDsRise(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, file)
	fact := []spillway.Event{{Kind: spillway.EventReplica, At: time.Unix(1, 0).UTC(), Text: "x"}}
	if err := s.AppendEvents(t.Context(), "castle", fact); err != nil {
		t.Fatal(err)
	}
	before, err := s.LastEvent(t.Context(), "castle")
	if err != nil || before == 0 {
		t.Fatalf("last event %d, %v", before, err)
	}
	if err := s.Remove(t.Context(), "castle"); err != nil {
		t.Fatal(err)
	}
	var apps v1alpha1.AppList
	var releases v1alpha1.ReleaseList
	if err := errors.Join(c.List(t.Context(), &apps, client.InNamespace(namespace)), c.List(t.Context(), &releases, client.InNamespace(namespace))); err != nil {
		t.Fatal(err)
	}
	if len(apps.Items)+len(releases.Items) > 0 {
		t.Errorf("%d apps and %d releases are left", len(apps.Items), len(releases.Items))
	}
	deploy(t, s, file)
	if err := s.AppendEvents(t.Context(), "castle", fact); err != nil {
		t.Fatal(err)
	}
	if events, err := s.Events(t.Context(), "castle", spillway.EventQuery{Since: before}); err != nil || len(events) != 1 {
		t.Errorf("who follows from %d on sees %v, %v", before, events, err)
	}
}

func TestStore_DeletedResourceAsksToBeDestroyed(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, file)
	if err := c.Delete(t.Context(), resource(t, c, namespace, "castle")); err != nil {
		t.Fatal(err)
	}
	wish, err := s.Asked(t.Context(), "castle")
	if err != nil || !wish.Destroy || wish.Deploy || wish.App != "castle" {
		t.Fatalf("asked %+v, %v", wish, err)
	}
	if _, _, err := add(t.Context(), s, file, ""); !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("a deploy into an app that goes: %v, want ErrConflict", err)
	}
	in, err := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbDestroy, By: wish.By})
	if err != nil {
		t.Fatal(err)
	}
	if wish, err := s.Asked(t.Context(), "castle"); err != nil || wish.Destroy {
		t.Errorf("asked again: %+v, %v", wish, err)
	}
	if err := s.Save(t.Context(), "castle", 0, rollout.Status{Intent: in.Seq, Destroy: true}, nil); err != nil {
		t.Fatal(err)
	}
	if wish, err := s.Asked(t.Context(), "castle"); err != nil || wish.Destroy {
		t.Errorf("asked while it goes: %+v, %v", wish, err)
	}
	if err := s.Remove(t.Context(), "castle"); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "castle"}, &v1alpha1.App{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the App is still there: %v", err)
	}
}

func TestStore_FreeLeavesNobodyToWaitFor(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, file)
	if err := s.Free(t.Context()); err != nil {
		t.Fatal(err)
	}
	app := resource(t, c, namespace, "castle")
	if len(app.Finalizers) > 0 || len(loaded(t, s, "castle").Spec.Releases) != 1 {
		t.Errorf("finalizers %v", app.Finalizers)
	}
	if deploy(t, s, file); len(resource(t, c, namespace, "castle").Finalizers) != 1 {
		t.Error("the next deploy does not hold the App")
	}
	if err := s.Free(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c, namespace) // a server is there again
	if err := s.Hold(t.Context(), "castle"); err != nil || len(resource(t, c, namespace, "castle").Finalizers) != 1 {
		t.Errorf("the next server does not hold the App (%v)", err)
	}
}

func TestStore_PrunesWhatIsNotUsedAndNeverGivesItsNumberAgain(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	for range 4 {
		deploy(t, s, file)
	}
	dropped, err := s.Prune(t.Context(), "castle", func(saved reconcile.Saved) []int {
		if len(saved.Spec.Intents) != 4 {
			t.Errorf("%d intents, want 4", len(saved.Spec.Intents))
		}
		return []int{1, 3, 4, 9}
	})
	if err != nil || !slices.Equal(dropped, []int{1, 3}) {
		t.Errorf("dropped %v, %v; want 1 and 3: the newest stays", dropped, err)
	}
	if got := numbers(loaded(t, s, "castle").Spec.Releases); !slices.Equal(got, []int{2, 4}) {
		t.Errorf("left %v", got)
	}
	if _, err := s.Release(t.Context(), "castle", 3); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("release 3: %v", err)
	}
	if r, _ := deploy(t, s, file); r.Number != 5 {
		t.Errorf("release %d, want 5", r.Number)
	}
	if all, err := s.Releases(t.Context(), "castle"); err != nil || len(all) != 3 || all[0].Number != 5 {
		t.Errorf("%d releases, %v", len(all), err)
	}
}

func TestStore_StaysSmallWhateverItIsTold(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	deploy(t, s, file)
	edges := make([]spillway.Edge, 400)
	for i := range edges {
		edges[i] = spillway.Edge{Service: "www", Hosts: []string{fmt.Sprintf("%d.%s.test", i, strings.Repeat("x", 100))}}
	}
	at := time.Unix(100, 0).UTC()
	version := int64(0)
	save := func(st rollout.Status, events ...spillway.Event) error {
		err := s.Save(t.Context(), "castle", version, st, events)
		if err == nil {
			version++
		}
		return err
	}
	if err := save(rollout.Status{}, spillway.Event{Kind: spillway.EventRoute, At: at, Edges: edges}, spillway.Event{Kind: spillway.EventRoute, At: at.Add(time.Second), Edges: edges[:3]}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var many []spillway.Event
		for i := range 50 {
			many = append(many, spillway.Event{Kind: spillway.EventProblem, At: at.Add(time.Minute), Text: fmt.Sprint(i, strings.Repeat("é", 10_000))})
		}
		evidence := &spillway.Evidence{Reason: strings.Repeat("r", 300<<10)}
		if err := save(rollout.Status{Stable: 1, Phase: spillway.Progressing, Rollout: &rollout.Rollout{Release: 1, Reason: strings.Repeat("r", 300<<10), Evidence: evidence}}, many...); err != nil {
			t.Fatal(err)
		}
	}
	app := resource(t, c, namespace, "castle")
	text, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 950<<10 || len(app.Status.Events) < 10 {
		t.Errorf("the App has %d KiB and %d events", len(text)>>10, len(app.Status.Events))
	}
	last, err := s.LastEvent(t.Context(), "castle")
	if err != nil {
		t.Fatal(err)
	}
	if newest, err := s.Events(t.Context(), "castle", spillway.EventQuery{Tail: 1}); err != nil || len(newest) != 1 || newest[0].ID != last || len(newest[0].Text) > 5<<10 {
		t.Errorf("the newest event is not kept: %d, %v", len(newest), err)
	}
	if route, ok, err := s.Newest(t.Context(), "castle", spillway.EventRoute, at.Add(time.Hour)); err != nil || !ok || len(route.Edges) != 3 {
		t.Errorf("who was given what is forgotten: %v, %v", ok, err)
	}
	if err := save(rollout.Status{Prepared: make([]spillway.Group, 50_000)}); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "the memory of the engine") {
		t.Errorf("a memory that does not fit: %v", err)
	}
}

func TestStore_ReleaseThatIsTooLargeSaysWhatIsLarge(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	release := spillway.Release{App: "castle", Config: spillway.App{Name: "castle", Services: []spillway.Service{{Name: "www", Env: map[string]string{"A": strings.Repeat("a", 1100<<10)}}}}}
	_, _, err := s.AddRelease(t.Context(), release, spillway.Intent{})
	if !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "env of service www, with 1100 KiB") {
		t.Errorf("got %v", err)
	}
	if apps, err := s.Apps(t.Context()); err != nil || len(apps) > 0 {
		t.Errorf("it left %v, %v", apps, err)
	}
}

func TestStore_SaysHowAnAppIs(t *testing.T) {
	c, namespace := cluster(t)
	s := state.New(state.Config{Client: c, Namespace: namespace, Recorder: recorder(func(kind, reason, note string) {
		if reason == "RolledBack" && (kind != "Warning" || note != "it failed") {
			t.Errorf("told %s %s %s", kind, reason, note)
		}
	})})
	deploy(t, s, file)
	moments := []struct {
		status    rollout.Status
		events    []spillway.Event
		message   string
		weight    string
		condition map[string]bool
	}{
		{rollout.Status{Phase: spillway.Progressing, Stable: 1, Rollout: &rollout.Rollout{Release: 2, Step: 1, Routed: true, Steps: []rollout.Step{{Weight: 500}, {Weight: 2500}, {Weight: spillway.Whole}}}}, nil,
			"release 2 is at 25%, step 2 of 3", "25%", map[string]bool{"Ready": true, "Progressing": true, "Reconciling": true, "Degraded": false}},
		{rollout.Status{Phase: spillway.RollingBack, Stable: 1, Rollout: &rollout.Rollout{Release: 2, Step: 1, Routed: true, Reason: "errors", Steps: []rollout.Step{{Weight: 500}, {Weight: 2500}}}}, nil,
			"release 2 goes back: errors", "0%", map[string]bool{"Progressing": true}},
		{rollout.Status{Phase: spillway.Healthy, Stable: 1, Last: &rollout.Result{Release: 2, Outcome: spillway.RolledBack, Reason: "errors"}}, []spillway.Event{{Kind: spillway.EventFinished, Outcome: spillway.RolledBack, Text: "it failed"}},
			"release 2: rolled-back, errors", "", map[string]bool{"Ready": true, "Progressing": false, "Degraded": false}},
		{rollout.Status{Phase: spillway.Degraded, Stable: 1}, []spillway.Event{{Kind: spillway.EventHealth, Text: "1 of 2 replicas of www are ready"}},
			"1 of 2 replicas of www are ready", "", map[string]bool{"Ready": false, "Degraded": true}},
		{rollout.Status{Phase: spillway.Degraded, Stable: 1, Held: true}, nil,
			"1 of 2 replicas of www are ready", "", map[string]bool{"Ready": false, "Degraded": true}},
		{rollout.Status{Phase: spillway.Destroying, Destroy: true, Last: &rollout.Result{Release: 2, Outcome: spillway.Succeeded}}, nil,
			"the app is being destroyed: what runs of it is stopped, then it is forgotten", "", map[string]bool{"Ready": false, "Degraded": false}},
	}
	for i, m := range moments {
		if err := s.Save(t.Context(), "castle", int64(i), m.status, m.events); err != nil {
			t.Fatal(err)
		}
		st := resource(t, c, namespace, "castle").Status
		if st.Message != m.message || st.Weight != m.weight || st.Phase != m.status.Phase || st.Stable != m.status.Stable {
			t.Errorf("%d: phase %s, stable %d, weight %q: %s; want %q: %s", i, st.Phase, st.Stable, st.Weight, st.Message, m.weight, m.message)
		}
		for kind, want := range m.condition {
			if got := meta.IsStatusConditionTrue(st.Conditions, kind); got != want {
				t.Errorf("%d: %s is %v", i, kind, got)
			}
		}
		if at := meta.FindStatusCondition(st.Conditions, v1alpha1.Reconciling); at != nil && m.status.Rollout == nil {
			t.Errorf("%d: still reconciling", i)
		}
	}
}

func TestStore_EventsAreSelected(t *testing.T) {
	c, namespace := cluster(t)
	s := open(t, c, namespace)
	if _, err := s.Events(t.Context(), "castle", spillway.EventQuery{}); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("events of nothing: %v", err)
	}
	if err := s.AppendEvents(t.Context(), "castle", []spillway.Event{{}}); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("append to nothing: %v", err)
	}
	deploy(t, s, file)
	for i := range 130 {
		if err := s.AppendEvents(t.Context(), "castle", []spillway.Event{{Kind: spillway.EventReplica, At: time.Unix(int64(i), 0).UTC(), Text: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	texts := func(q spillway.EventQuery) (list []string) {
		events, err := s.Events(t.Context(), "castle", q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			list = append(list, e.Text)
		}
		return list
	}
	last, _ := s.LastEvent(t.Context(), "castle")
	if all := texts(spillway.EventQuery{}); len(all) != state.KeptEvents || all[0] != "30" {
		t.Errorf("%d are kept, from %v on", len(all), all[:1])
	}
	if got := texts(spillway.EventQuery{Since: last - 5, Limit: 2}); !reflect.DeepEqual(got, []string{"125", "126"}) {
		t.Errorf("since and limit: %v", got)
	}
	if got := texts(spillway.EventQuery{Since: last - 5, Tail: 2}); !reflect.DeepEqual(got, []string{"128", "129"}) {
		t.Errorf("since and tail: %v", got)
	}
	if e, ok, err := s.Newest(t.Context(), "castle", spillway.EventReplica, time.Unix(99, 0)); err != nil || !ok || e.Text != "99" || e.App != "castle" {
		t.Errorf("newest: %+v, %v, %v", e, ok, err)
	}
}
