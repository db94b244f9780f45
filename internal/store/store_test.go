package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/store"
)

var _ reconcile.Store = (*store.Store)(nil)

var update = flag.Bool("update", false, "write testdata/v1.db anew; only while 1 is the newest format")

func TestAddRelease_NumbersReleaseIntentAndGroups(t *testing.T) {
	s := open(t, t.TempDir())
	given := release("castle")
	given.Groups = map[string]int{"www": 0, "backend": 0}
	first, intent, err := s.AddRelease(t.Context(), given, deploy())
	check(t, err)
	if first.Number != 1 || intent.Seq != 1 || intent.Release != 1 {
		t.Errorf("first: release %d, intent %+v; want release 1, seq 1", first.Number, intent)
	}
	if want := map[string]int{"www": 1, "backend": 1}; !reflect.DeepEqual(first.Groups, want) {
		t.Errorf("groups %v, want %v", first.Groups, want)
	}
	if given.Groups["www"] != 0 {
		t.Error("the caller's groups were changed")
	}
	given.Groups = map[string]int{"www": 0, "backend": 1}
	second, intent, err := s.AddRelease(t.Context(), given, deploy())
	check(t, err)
	if want := map[string]int{"www": 2, "backend": 1}; !reflect.DeepEqual(second.Groups, want) || intent.Seq != 2 {
		t.Errorf("second: groups %v, intent %+v; want %v, seq 2", second.Groups, intent, want)
	}
	staging := given
	staging.App = "castle@staging"
	other, _, err := s.AddRelease(t.Context(), staging, deploy())
	check(t, err)
	if other.Number != 1 {
		t.Errorf("castle@staging begins at release %d, want 1", other.Number)
	}
	apps, err := s.Apps(t.Context())
	check(t, err)
	if want := []spillway.Ref{"castle", "castle@staging"}; !reflect.DeepEqual(apps, want) {
		t.Errorf("apps %v, want %v", apps, want)
	}
}

func TestAddRelease_RefusesAReleaseOfNoApp(t *testing.T) {
	if _, _, err := open(t, t.TempDir()).AddRelease(t.Context(), spillway.Release{}, deploy()); !errors.Is(err, spillway.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestLoad_GivesBackEverythingAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	stored, _, err := s.AddRelease(t.Context(), release("castle"), deploy())
	check(t, err)
	fresh, err := s.Load(t.Context(), "castle")
	check(t, err)
	if fresh.Version != 0 || !reflect.DeepEqual(fresh.Status, rollout.Status{}) {
		t.Errorf("never saved: version %d, status %+v; want nothing", fresh.Version, fresh.Status)
	}
	want := fullStatus()
	check(t, s.Save(t.Context(), "castle", 0, want, nil))
	scale, err := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbScale, Service: "www", Replicas: 4, At: at})
	check(t, err)
	check(t, s.Close())

	s = open(t, dir)
	got, err := s.Load(t.Context(), "castle")
	check(t, err)
	if got.Version != 1 {
		t.Errorf("version %d, want 1", got.Version)
	}
	if !reflect.DeepEqual(got.Status, want) {
		t.Errorf("status\n got %s\nwant %s", text(t, got.Status), text(t, want))
	}
	if !reflect.DeepEqual(got.Spec.Releases, map[int]spillway.Release{1: stored}) {
		t.Errorf("releases %s\nwant %s", text(t, got.Spec.Releases), text(t, stored))
	}
	if !reflect.DeepEqual(got.Spec.Intents, []spillway.Intent{scale}) {
		t.Errorf("open intents %+v, want only %+v: the deploy was acted on", got.Spec.Intents, scale)
	}
}

func TestLoad_SeesReleasesAddedAfterItsLastReading(t *testing.T) {
	s := open(t, t.TempDir())
	for n := 1; n <= 3; n++ {
		_, _, err := s.AddRelease(t.Context(), release("castle"), deploy())
		check(t, err)
		saved, err := s.Load(t.Context(), "castle")
		check(t, err)
		if len(saved.Spec.Releases) != n || saved.Spec.Releases[n].Number != n {
			t.Fatalf("after release %d: %d releases", n, len(saved.Spec.Releases))
		}
		delete(saved.Spec.Releases, 1) // the map is the caller's own
	}
}

func TestSave_RefusesAnOldVersionAndChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	check(t, s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, events(1)))
	err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 2}, events(1))
	if !errors.Is(err, spillway.ErrStale) {
		t.Fatalf("got %v, want ErrStale", err)
	}
	saved, err := s.Load(t.Context(), "castle")
	check(t, err)
	history, err := s.Events(t.Context(), "castle", spillway.EventQuery{})
	check(t, err)
	if saved.Version != 1 || saved.Status.Stable != 1 || len(history) != 1 {
		t.Errorf("version %d, stable %d, %d events; want 1, 1, 1", saved.Version, saved.Status.Stable, len(history))
	}
}

func TestUnknownApp_IsNotFound(t *testing.T) {
	s := open(t, t.TempDir())
	_, load := s.Load(t.Context(), "castle")
	_, add := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbPause})
	_, list := s.Events(t.Context(), "castle", spillway.EventQuery{})
	_, releases := s.Releases(t.Context(), "castle")
	_, one := s.Release(t.Context(), "castle", 1)
	for name, err := range map[string]error{
		"load": load, "add intent": add, "events": list, "releases": releases, "release": one,
		"save":          s.Save(t.Context(), "castle", 0, rollout.Status{}, nil),
		"append events": s.AppendEvents(t.Context(), "castle", events(1)),
	} {
		if !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "castle") {
			t.Errorf("%s: got %v, want ErrNotFound naming castle", name, err)
		}
	}
	check(t, s.Remove(t.Context(), "castle"))
}

func TestRemove_ForgetsTheAppButNeverRepeatsAnEventID(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	add(t, s, "shop")
	check(t, s.AppendEvents(t.Context(), "castle", events(5)))
	_, err := s.Load(t.Context(), "castle")
	check(t, err)
	check(t, s.Remove(t.Context(), "castle"))
	if apps, _ := s.Apps(t.Context()); !reflect.DeepEqual(apps, []spillway.Ref{"shop"}) {
		t.Errorf("apps %v, want only shop", apps)
	}
	if _, err := s.Load(t.Context(), "castle"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("load of the removed app: %v, want ErrNotFound", err)
	}

	again := release("castle")
	again.Note = "second life"
	_, _, err = s.AddRelease(t.Context(), again, deploy())
	check(t, err)
	check(t, s.AppendEvents(t.Context(), "castle", events(1)))
	saved, err := s.Load(t.Context(), "castle")
	check(t, err)
	if len(saved.Spec.Releases) != 1 || saved.Spec.Releases[1].Note != "second life" {
		t.Errorf("releases %+v, want only that of the second life", saved.Spec.Releases)
	}
	history, err := s.Events(t.Context(), "castle", spillway.EventQuery{})
	check(t, err)
	if len(history) != 1 || history[0].ID != 6 {
		t.Errorf("events %+v, want one with ID 6", history)
	}
}

func TestEvents_SelectsBySinceTailAndLimit(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	check(t, s.AppendEvents(t.Context(), "castle", events(20)))
	for _, c := range []struct {
		query       spillway.EventQuery
		first, last int64
	}{
		{spillway.EventQuery{}, 1, 20},
		{spillway.EventQuery{Since: 15}, 16, 20},
		{spillway.EventQuery{Limit: 3}, 1, 3},
		{spillway.EventQuery{Since: 4, Limit: 3}, 5, 7},
		{spillway.EventQuery{Tail: 2}, 19, 20},
		{spillway.EventQuery{Tail: 5, Since: 18}, 19, 20},
		{spillway.EventQuery{Tail: 5, Limit: 2}, 19, 20},
		{spillway.EventQuery{Since: 20}, 0, 0},
	} {
		got, err := s.Events(t.Context(), "castle", c.query)
		check(t, err)
		if c.first == 0 && len(got) == 0 {
			continue
		}
		if len(got) != int(c.last-c.first)+1 || got[0].ID != c.first || got[len(got)-1].ID != c.last || got[0].App != "castle" {
			t.Errorf("%+v: got %+v, want %d to %d", c.query, got, c.first, c.last)
		}
	}
	if last, err := s.LastEvent(t.Context(), "castle"); last != 20 || err != nil {
		t.Errorf("last event %d, %v; want 20", last, err)
	}
	if last, err := s.LastEvent(t.Context(), "nobody"); last != 0 || err != nil {
		t.Errorf("last event of nobody %d, %v; want 0", last, err)
	}
}

func TestAppendEvents_KeepsTheNewest(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	check(t, s.AppendEvents(t.Context(), "castle", events(store.KeptEvents+5)))
	got, err := s.Events(t.Context(), "castle", spillway.EventQuery{Limit: 1 << 30})
	check(t, err)
	if len(got) != store.KeptEvents || got[0].ID != 6 {
		t.Errorf("%d events kept from ID %d, want %d from 6", len(got), got[0].ID, store.KeptEvents)
	}
}

func TestReleases_AreReadNewestFirstAndByNumber(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	add(t, s, "castle")
	list, err := s.Releases(t.Context(), "castle")
	check(t, err)
	if len(list) != 2 || list[0].Number != 2 || list[1].Number != 1 {
		t.Errorf("releases %s, want 2, 1", text(t, list))
	}
	one, err := s.Release(t.Context(), "castle", 1)
	if err != nil || !reflect.DeepEqual(one, list[1]) {
		t.Errorf("release 1: %v, %s", err, text(t, one))
	}
	if _, err := s.Release(t.Context(), "castle", 9); !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "castle has no release 9") {
		t.Errorf("release 9: %v, want ErrNotFound", err)
	}
}

func TestSave_OnAFullDiskIsUnavailableAndChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	check(t, s.FillDisk(t.Context()))
	err := s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, events(1000))
	const want = "save castle: disk full: database or disk is full (13); free some space, nothing was changed: unavailable"
	if !errors.Is(err, spillway.ErrUnavailable) || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	saved, err := s.Load(t.Context(), "castle")
	if err != nil || saved.Version != 0 || saved.Status.Stable != 0 {
		t.Errorf("after the failure: version %d, status %+v, %v; want nothing saved", saved.Version, saved.Status, err)
	}
	check(t, s.FreeDisk(t.Context()))
	check(t, s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 1}, events(1000)))
}

func TestSave_UnderAnEndedContextChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	add(t, s, "castle")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, "castle", 0, rollout.Status{Stable: 1}, events(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	check(t, s.Save(t.Context(), "castle", 0, rollout.Status{Stable: 2}, events(1)))
}

func TestStore_ManyAtOnceNeitherLoseNorRepeatANumber(t *testing.T) {
	const writers, each = 8, 10
	s := open(t, t.TempDir())
	add(t, s, "castle")
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range each {
				_, err := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbPause, At: at})
				_, loaded := s.Load(t.Context(), "castle")
				_, read := s.Events(t.Context(), "castle", spillway.EventQuery{})
				if err := errors.Join(err, loaded, read, s.AppendEvents(t.Context(), "castle", events(1))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	saved, err := s.Load(t.Context(), "castle")
	check(t, err)
	for i, intent := range saved.Spec.Intents {
		if intent.Seq != int64(i+1) {
			t.Fatalf("intent %d has seq %d", i, intent.Seq)
		}
	}
	history, err := s.Events(t.Context(), "castle", spillway.EventQuery{Since: writers*each - 1})
	check(t, err)
	if len(saved.Spec.Intents) != 1+writers*each || len(history) != 1 {
		t.Errorf("%d intents, %d events after the last but one; want %d and 1", len(saved.Spec.Intents), len(history), 1+writers*each)
	}
}

// at has a zone and no monotonic reading, so that it compares equal after its way through the file.
var at = time.Date(2026, 2, 3, 4, 5, 6, 789_000_001, time.UTC)

func deploy() spillway.Intent {
	return spillway.Intent{Verb: spillway.VerbDeploy, By: "uid 0 (root)", At: at}
}

func release(app spillway.Ref) spillway.Release {
	return spillway.Release{
		App: app,
		Config: spillway.App{
			Name: "castle", Budget: 20, Watch: spillway.DefaultWatch, Deadline: spillway.DefaultDeadline,
			Services: []spillway.Service{{
				Name: "www", Run: spillway.Command{Shell: "./www --title '<b>&amp;</b>'"}, Host: []string{"www.castle.localhost"},
				Env: map[string]string{"A": "1"}, Health: spillway.DefaultProbe(), Scale: 2, Strategy: spillway.Canary,
				Steps: spillway.DefaultSteps(), Surge: spillway.Count{Share: spillway.Percent(25)}, Stop: spillway.DefaultStop(),
			}},
		},
		Source:    spillway.Source{Commit: strings.Repeat("ab", 20), Dirty: true, Digest: "sha256:1"},
		Artefacts: map[string]spillway.Artefact{"www": {Digest: "sha256:2", Dir: "/a", Source: "sha256:3"}},
		Groups:    map[string]int{"www": 0},
		Created:   at,
		By:        "uid 0 (root)",
	}
}

// fullStatus has something in every part that is easy to lose: floats, bytes, text that HTML would escape.
func fullStatus() rollout.Status {
	memory := json.RawMessage(`{"e":[0.1,1e-300,2.5e+17,0.30000000000000004],"why":"p < 0.01 && a > b"}`)
	www := spillway.Group{Service: "www", Release: 1}
	return rollout.Status{
		Phase: spillway.Progressing, Stable: 1, Good: []int{}, Intent: 1, Rollouts: 2,
		Rollout: &rollout.Rollout{
			ID: 2, Release: 2, Stable: 1, Strategy: spillway.Canary, Reason: "a <b> & c", Began: at,
			Steps:    []rollout.Step{{Weight: spillway.Percent(5), Hold: spillway.Duration(time.Minute), Certify: true}},
			Evidence: &spillway.Evidence{Trial: 2, Margin: 2000, Verdict: spillway.Undecided, Requests: 7, At: at},
			Memory:   []byte{0, 1, 255},
		},
		Sizes: map[string]int{"www": 3},
		Route: spillway.Route{
			Generation: 9,
			Edges:      []spillway.Edge{{Service: "www", Hosts: []string{"a.example.com"}, Backends: []spillway.Backend{{Group: www, Release: 1, Weight: spillway.Whole}}}},
			Trial:      &spillway.Trial{ID: 2, Release: 2, Stable: 1, Candidate: []spillway.Group{www}, Memory: memory},
		},
		Drain: map[string]spillway.Duration{"www.1": spillway.Duration(1500 * time.Millisecond)},
		Now:   at,
	}
}

func events(n int) []spillway.Event {
	list := make([]spillway.Event, n)
	for i := range list {
		list[i] = spillway.Event{At: at, Kind: spillway.EventReplica, Text: fmt.Sprintf("replica www.1-%d crashed", i)}
	}
	return list
}

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	check(t, err)
	t.Cleanup(func() { _ = s.Close() }) // tests that close it themselves check that
	return s
}

func add(t *testing.T, s *store.Store, app spillway.Ref) {
	t.Helper()
	_, _, err := s.AddRelease(t.Context(), release(app), deploy())
	check(t, err)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	check(t, err)
	return string(b)
}

func read(t *testing.T, elements ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elements...))
	check(t, err)
	return string(b)
}
