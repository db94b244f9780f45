package reconcile_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/sim"
)

// platform is ready at once with whatever is wanted, and fails when it is told to.
type platform struct {
	mu      sync.Mutex
	last    map[spillway.Ref]rollout.Desired
	fails   int
	failure error // nil = that the disk is full
	rounds  map[spillway.Ref]int
	moved   chan spillway.Ref
}

func (p *platform) Observe(_ context.Context, app spillway.Ref) (rollout.Observation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rounds[app]++
	d := p.last[app]
	o := rollout.Observation{Served: d.Route}
	for _, w := range d.Groups {
		o.Groups = append(o.Groups, rollout.Group{Group: w.Group, Running: w.Replicas, Ready: w.Replicas})
	}
	return o, nil
}

func (p *platform) Apply(_ context.Context, app spillway.Ref, _ map[int]spillway.Release, d rollout.Desired) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails > 0 {
		p.fails--
		return cmp.Or(p.failure, errors.New("no space left on device"))
	}
	if !reflect.DeepEqual(p.last[app], d) {
		p.moved <- app
	}
	p.last[app] = d
	return nil
}

func (p *platform) Forget(context.Context, spillway.Ref) error { return nil }

func (p *platform) Watch(ctx context.Context, changed func(spillway.Ref)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case app := <-p.moved:
			changed(app)
		}
	}
}

func newLoop(t *testing.T) (*reconcile.Loop, *sim.Store, *platform) {
	store := sim.NewStore()
	p := &platform{last: map[spillway.Ref]rollout.Desired{}, rounds: map[spillway.Ref]int{}, moved: make(chan spillway.Ref, 100)}
	return reconcile.NewLoop(store, p, slog.New(slog.NewTextHandler(io.Discard, nil))), store, p
}

func deploy(t *testing.T, store *sim.Store, app spillway.Ref) {
	t.Helper()
	config := spillway.App{Name: string(app), Services: []spillway.Service{{Name: "www", Host: []string{"a.test"}, Scale: 2}}, Watch: spillway.Duration(time.Minute)}
	r := spillway.Release{App: app, Config: config, Groups: map[string]int{"www": 0}}
	if _, _, err := store.AddRelease(t.Context(), r, spillway.Intent{Verb: spillway.VerbDeploy}); err != nil {
		t.Fatal(err)
	}
}

func phase(t *testing.T, store *sim.Store, app spillway.Ref) rollout.Status {
	t.Helper()
	saved, err := store.Load(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	return saved.Status
}

// pass lets virtual time go by.
func pass(d time.Duration) { <-time.After(d) }

// start runs the loop in the bubble and stops it at the end of the test.
func start(t *testing.T, l *reconcile.Loop) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }() // owned by the test; ends with ctx; waited for in Cleanup
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLoop_TellsAllThatAPlatformRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "shop")
		p.fails, p.failure = 3, errors.Join(spillway.ErrStale, spillway.ErrNotFound, errors.New("you may not create services"))
		var log bytes.Buffer
		start(t, reconcile.NewLoop(store, p, slog.New(slog.NewTextHandler(&log, nil))))
		pass(10 * time.Second)
		synctest.Wait()
		if !strings.Contains(log.String(), "you may not create services") {
			t.Errorf("it is not told: %s", log.String())
		}
		if st := phase(t, store, "shop"); st.Phase != spillway.Healthy {
			t.Errorf("the app is given up: %s", st.Phase)
		}
	})
}

// What is tried again every few seconds does not fill the log.
func TestLoop_TellsTheSameFailureOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "shop")
		p.fails = 1000
		var log bytes.Buffer
		start(t, reconcile.NewLoop(store, p, slog.New(slog.NewTextHandler(&log, nil))))
		pass(10*time.Minute + time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "no space left on device"); n < 9 || n > 12 {
			t.Errorf("it is told %d times in ten minutes:\n%s", n, log.String())
		}
	})
}

// TestLoop_SaysNothingOfAWriteThatCameTooLate: the next round knows what was written meanwhile.
func TestLoop_SaysNothingOfAWriteThatCameTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "shop")
		p.fails, p.failure = 2, spillway.ErrStale
		var log bytes.Buffer
		start(t, reconcile.NewLoop(store, p, slog.New(slog.NewTextHandler(&log, nil))))
		pass(10 * time.Second)
		synctest.Wait()
		if strings.Contains(log.String(), "level=WARN") || phase(t, store, "shop").Phase != spillway.Healthy {
			t.Errorf("%s: %s", phase(t, store, "shop").Phase, log.String())
		}
	})
}

// unready is a platform whose replicas are not ready.
type unready struct{ *platform }

func (u unready) Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error) {
	o, err := u.platform.Observe(ctx, app)
	for i := range o.Groups {
		o.Groups[i].Ready = 0
	}
	return o, err
}

func TestLoop_TimeWithoutAServerIsNotTheCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "shop")
		for range 3 {
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			l := reconcile.NewLoop(store, unready{p}, slog.New(slog.DiscardHandler))
			go func() { done <- l.Run(ctx) }() // owned by the test; ends with ctx; waited for below
			pass(25 * time.Second)
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			pass(50 * time.Second) // nobody is there
		}
		r := phase(t, store, "shop").Rollout
		if spent := time.Duration(r.Elapsed); spent < 40*time.Second || spent > 75*time.Second {
			t.Errorf("%s of the deadline are spent in 75s with a server and 150s without", spent)
		}
	})
}

// TestLoop_WhatIsRefusedForGoodEndsAtTheDeadline: only the first round comes after a time without a server.
func TestLoop_WhatIsRefusedForGoodEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "shop")
		p.fails = 1 << 30
		start(t, reconcile.NewLoop(store, unready{p}, slog.New(slog.DiscardHandler)))
		pass(15 * time.Minute)
		synctest.Wait()
		if st := phase(t, store, "shop"); st.Phase != spillway.RollingBack || st.Rollout.Outcome != spillway.Failed {
			t.Errorf("it is %s after 15 minutes: %+v", st.Phase, st.Rollout)
		}
	})
}

// TestLoop_AShortTimeWithoutAServerDoesNotCountEither: a moment alone is not saved, but that it does not count is.
func TestLoop_AShortTimeWithoutAServerDoesNotCountEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "shop")
		for _, there := range []time.Duration{400 * time.Millisecond, 2 * time.Second} {
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			l := reconcile.NewLoop(store, unready{p}, slog.New(slog.DiscardHandler))
			go func() { done <- l.Run(ctx) }() // owned by the test; ends with ctx; waited for below
			for range there / (100 * time.Millisecond) {
				pass(100 * time.Millisecond)
				l.Wake("shop")
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			pass(3 * time.Second) // nobody is there
		}
		if spent := time.Duration(phase(t, store, "shop").Rollout.Elapsed); spent > 2500*time.Millisecond {
			t.Errorf("%s of the deadline are spent in 2.4s with a server and 3s without", spent)
		}
	})
}

func TestLoop_BringsAReleaseUpAndLooksAgainWhenTimeIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		deploy(t, store, "a")
		start(t, l)
		pass(time.Second)
		if st := phase(t, store, "a"); st.Stable != 1 || st.Phase != spillway.Healthy {
			t.Fatalf("after a second: %s, stable %d", st.Phase, st.Stable)
		}
		deploy(t, store, "a")
		l.Wake("a")
		pass(30 * time.Second)
		if st := phase(t, store, "a"); st.Phase != spillway.Promoting {
			t.Fatalf("in the watch: %s", st.Phase)
		}
		pass(time.Minute)
		if st := phase(t, store, "a"); st.Stable != 2 {
			t.Fatalf("after the watch: stable %d in %s", st.Stable, st.Phase)
		}
	})
}

func TestLoop_TriesAgainAfterAFailureAndKeepsOtherAppsGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, p := newLoop(t)
		p.fails = 6
		deploy(t, store, "a")
		deploy(t, store, "b")
		start(t, l)
		pass(time.Minute)
		for _, app := range []spillway.Ref{"a", "b"} {
			if st := phase(t, store, app); st.Stable != 1 {
				t.Errorf("%s: stable %d in %s", app, st.Stable, st.Phase)
			}
		}
		at := p.rounds["a"]
		pass(time.Hour)
		if p.rounds["a"] != at {
			t.Errorf("at rest it was looked at %d more times in an hour", p.rounds["a"]-at)
		}
	})
}

func TestLoop_ForgetsADestroyedAppAndTakesItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		deploy(t, store, "a")
		start(t, l)
		pass(time.Second)
		if _, err := store.AddIntent(t.Context(), "a", spillway.Intent{Verb: spillway.VerbDestroy}); err != nil {
			t.Fatal(err)
		}
		l.Wake("a")
		pass(10 * time.Second)
		if _, err := store.Load(t.Context(), "a"); !errors.Is(err, spillway.ErrNotFound) {
			t.Fatalf("still there: %v", err)
		}
		deploy(t, store, "a")
		l.Wake("a")
		pass(time.Second)
		if st := phase(t, store, "a"); st.Stable != 1 {
			t.Fatalf("deployed again: stable %d in %s", st.Stable, st.Phase)
		}
	})
}

func TestDeploy_StoresNothingWhenTheSameServesOrIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		start(t, l)
		deployed := func(n int) (same bool) {
			t.Helper()
			config := spillway.App{Name: "a", Services: []spillway.Service{{Name: "www", Host: []string{"a.test"}, Scale: n}}, Watch: spillway.Duration(time.Minute)}
			config.Services[0].Env = map[string]string{"N": strconv.Itoa(n)}
			_, _, same, err := l.Deploy(t.Context(), spillway.Release{App: "a", Config: config}, spillway.Intent{Verb: spillway.VerbDeploy})
			if err != nil {
				t.Fatal(err)
			}
			return same
		}
		deployed(1)
		pass(time.Second)
		if !deployed(1) {
			t.Error("what serves was stored again")
		}
		deployed(2)
		if deployed(1) {
			t.Error("a change back to what serves was not stored, though something else waits")
		}
		pass(time.Second)
		deployed(3)
		pass(10 * time.Second)
		if st := phase(t, store, "a"); st.Phase != spillway.Promoting {
			t.Fatalf("want the watch, got %s", st.Phase)
		}
		if !deployed(3) {
			t.Error("what is watched was stored again")
		}
		if st := phase(t, store, "a"); st.Phase != spillway.Promoting {
			t.Errorf("the watch ended: %s", st.Phase)
		}
	})
}

func TestDeploy_TheSameAgainStoresNothingWhileItServesOrIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		start(t, l)
		service := spillway.Service{Name: "www", Host: []string{"a.test"}, Scale: 2, Strategy: spillway.Canary}
		content := func(greeting string) spillway.Release {
			service.Env = map[string]string{"GREETING": greeting}
			config := spillway.App{Name: "a", Services: []spillway.Service{service}, Watch: spillway.Duration(time.Minute)}
			return spillway.Release{App: "a", Config: config}
		}
		deploy := func(greeting string, wantNumber int, wantSame bool) {
			t.Helper()
			r, _, same, err := l.Deploy(t.Context(), content(greeting), spillway.Intent{Verb: spillway.VerbDeploy})
			if err != nil || r.Number != wantNumber || same != wantSame {
				t.Fatalf("release %d, same %v, %v; want %d, %v", r.Number, same, err, wantNumber, wantSame)
			}
			pass(time.Second)
		}
		deploy("one", 1, false)
		deploy("one", 1, true) // it serves
		deploy("two", 2, false)
		if st := phase(t, store, "a"); st.Phase != spillway.Progressing {
			t.Fatalf("without traffic a canary waits: %s", st.Phase)
		}
		deploy("two", 2, true) // it is on its way
		if _, err := l.Ask(t.Context(), "a", spillway.Intent{Verb: spillway.VerbAbort}); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		deploy("two", 3, false) // it was taken back: asked for anew
		deploy("one", 4, false)
	})
}

func TestDeploy_AHostBelongsToOneApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		start(t, l)
		deploy(t, store, "a")
		other := spillway.Release{App: "b", Config: spillway.App{Name: "b", Services: []spillway.Service{{Name: "www", Host: []string{"a.test"}}}}}
		if _, _, _, err := l.Deploy(t.Context(), other, spillway.Intent{Verb: spillway.VerbDeploy}); !errors.Is(err, spillway.ErrConflict) {
			t.Errorf("deploy of a second app with the host: %v, want ErrConflict", err)
		}
	})
}

func TestAsk_ARollbackTakesNoHostFromAnotherApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		start(t, l)
		release := func(app spillway.Ref, host string) {
			t.Helper()
			config := spillway.App{Name: string(app), Services: []spillway.Service{{Name: "www", Host: []string{host}, Scale: 1, Env: map[string]string{"HOST": host}}}}
			if _, _, _, err := l.Deploy(t.Context(), spillway.Release{App: app, Config: config}, spillway.Intent{Verb: spillway.VerbDeploy}); err != nil {
				t.Fatal(err)
			}
			pass(10 * time.Second)
		}
		release("a", "one.test")
		release("a", "two.test")
		if st := phase(t, store, "a"); st.Stable != 2 {
			t.Fatalf("stable is %d, want 2", st.Stable)
		}
		release("b", "one.test")
		for _, target := range []int{0, 1} {
			if _, err := l.Ask(t.Context(), "a", spillway.Intent{Verb: spillway.VerbRollback, Release: target}); !errors.Is(err, spillway.ErrConflict) {
				t.Errorf("rollback to %d: %v, want ErrConflict", target, err)
			}
		}
		if _, err := l.Ask(t.Context(), "a", spillway.Intent{Verb: spillway.VerbRestart}); err != nil {
			t.Errorf("restart: %v", err)
		}
	})
}

func TestDeploy_IsRefusedWhileTheAppIsBeingDestroyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, store, _ := newLoop(t)
		deploy(t, store, "a")
		saved, err := store.Load(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		saved.Status.Destroy = true
		if err := store.Save(t.Context(), "a", saved.Version, saved.Status, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := l.Deploy(t.Context(), spillway.Release{App: "a", Config: saved.Spec.Releases[1].Config}, spillway.Intent{}); !errors.Is(err, spillway.ErrConflict) {
			t.Errorf("%v, want ErrConflict: the release would go with the app", err)
		}
	})
}

// slow is a platform whose rounds take a while, or for ever for one app, and that remembers how many ran at once.
type slow struct {
	*platform
	takes time.Duration
	hangs spillway.Ref

	mu        sync.Mutex
	now, most int
}

func (s *slow) Observe(ctx context.Context, app spillway.Ref) (rollout.Observation, error) {
	if app == s.hangs {
		<-ctx.Done()
		return rollout.Observation{}, ctx.Err()
	}
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	pass(s.takes)
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return s.platform.Observe(ctx, app)
}

func TestLoop_RoundsWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		for i := range 20 {
			deploy(t, store, spillway.Ref("shop"+strconv.Itoa(i)))
		}
		s := &slow{platform: p, takes: 10 * time.Millisecond}
		start(t, reconcile.NewLoop(store, s, slog.New(slog.DiscardHandler)).AtOnce(3))
		pass(2 * time.Minute)
		synctest.Wait()
		if s.most != 3 {
			t.Errorf("%d rounds ran at once, want 3", s.most)
		}
		for i := range 20 {
			if st := phase(t, store, spillway.Ref("shop"+strconv.Itoa(i))); st.Phase != spillway.Healthy {
				t.Errorf("shop%d is %s", i, st.Phase)
			}
		}
	})
}

func TestLoop_ARoundThatHangsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := newLoop(t)
		deploy(t, store, "hung")
		deploy(t, store, "shop")
		start(t, reconcile.NewLoop(store, &slow{platform: p, hangs: "hung"}, slog.New(slog.DiscardHandler)).AtOnce(1))
		pass(2 * time.Minute)
		synctest.Wait()
		if st := phase(t, store, "shop"); st.Phase != spillway.Healthy {
			t.Errorf("shop is %s", st.Phase)
		}
	})
}
