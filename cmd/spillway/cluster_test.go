package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/kube/counts"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/oci"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// A file that came when nothing answered in time, or the lease went elsewhere, is not refused for ever.
func TestMayPass(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fmt.Errorf("spec:1:1: no services: %w", spillway.ErrInvalid), false},
		{fmt.Errorf("castle: %w", spillway.ErrConflict), false},
		{fmt.Errorf("registry: %w", spillway.ErrUnavailable), true},
		{fmt.Errorf("save: %w", spillway.ErrStale), true},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), true},
		{fmt.Errorf("read: %w", context.Canceled), true},
	} {
		if mayPass(c.err) != c.want {
			t.Errorf("%v: %v", c.err, !c.want)
		}
	}
}

// What is about a cluster is not passed over in silence by a server of one machine.
func TestClusterOptions_NeedTheCluster(t *testing.T) {
	for flag, o := range map[string]clusterOptions{
		"":                    {},
		"--gateway":           {gateway: "edge/public"},
		"--gateway-kind":      {flavour: "traefik"},
		"--gateway-metrics":   {metrics: []string{"http://t:9100/metrics"}},
		"--base-image":        {images: oci.Config{Base: "debian:12"}},
		"--insecure-registry": {images: oci.Config{Insecure: []string{"127.0.0.1:5000"}}},
	} {
		err := o.check()
		if (err == nil) != (flag == "") || err != nil && !strings.Contains(err.Error(), flag+" is about a cluster") {
			t.Errorf("%q: %v", flag, err)
		}
	}
}

// The way back from a rollout leads to what runs: no registry is asked whether its images are there.
func TestSensible_RollbackFromARolloutAsksNoRegistry(t *testing.T) {
	images, err := oci.New(oci.Config{Repository: "registry.castle.test/shop"})
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{installation: &installation{images: images}}
	release := func(n int) spillway.Release {
		return spillway.Release{Number: n, Artefacts: map[string]spillway.Artefact{"www": {Image: "registry.castle.test/shop/castle-www@sha256:" + strings.Repeat("0", 64)}}}
	}
	saved := reconcile.Saved{
		Spec:   rollout.Spec{App: "castle", Releases: map[int]spillway.Release{1: release(1), 2: release(2), 3: release(3)}},
		Status: rollout.Status{Stable: 2, Good: []int{1}, Rollout: &rollout.Rollout{Release: 3, Stable: 2}},
	}
	silent, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.sensible(silent, saved, spillway.Intent{Verb: spillway.VerbRollback}); err != nil {
		t.Errorf("back to what serves: %v", err)
	}
	if err := e.sensible(silent, saved, spillway.Intent{Verb: spillway.VerbRollback, Release: 1}); err == nil {
		t.Error("a release that may be gone is not looked for")
	}
}

func TestCheckJudge_SaysThatNobodyIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		options     clusterOptions
		state, says string
	}{
		"nobody told it":    {clusterOptions{gateway: "edge/public"}, "warn", "no release is judged"},
		"metrics":           {clusterOptions{gateway: "edge/public", metrics: []string{"http://t:9100/metrics"}}, "ok", ""},
		"a Prometheus":      {clusterOptions{gateway: "edge/public", prometheus: "http://p:9090"}, "ok", ""},
		"without a gateway": {clusterOptions{}, "ok", "a person judges"},
	} {
		got := c.options.checkJudge()
		if got.State != c.state || !strings.Contains(got.Text, c.says) || (got.Text == "") != (c.says == "") || (got.State == "warn") != strings.Contains(got.Remedy, "--gateway-metrics URL") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestCheckSources_SaysWhoDoesNotAnswer(t *testing.T) {
	const metric = "traefik_service_requests_total"
	good, bad, blank := counts.Source{URL: "http://a/metrics", Counts: true, Metric: metric}, counts.Source{URL: "http://b/metrics", Problem: "connection refused", Metric: metric}, counts.Source{URL: "http://c/metrics", Metric: metric}
	for _, c := range []struct {
		options clusterOptions
		sources []counts.Source
		state   string
		says    []string
		remedy  string
	}{
		{clusterOptions{}, []counts.Source{good}, "ok", []string{"releases are judged by the gateway's metrics at http://a/metrics"}, ""},
		{clusterOptions{prometheus: "http://a"}, []counts.Source{good}, "ok", []string{"Prometheus", "http://a/metrics"}, ""},
		{clusterOptions{}, []counts.Source{bad}, "fail", []string{"rollouts hold", "http://b/metrics: connection refused"}, "kube upgrade --gateway-metrics URL"},
		{clusterOptions{prometheus: "http://b"}, []counts.Source{bad}, "fail", []string{"http://b/metrics: connection refused"}, "kube upgrade --prometheus URL"},
		{clusterOptions{}, []counts.Source{good, bad}, "warn", []string{"by a part of the gateway, http://a/metrics", "not by http://b/metrics: connection refused"}, "may reach it"},
		{clusterOptions{}, []counts.Source{good, blank}, "ok", []string{"http://a/metrics, http://c/metrics"}, ""},
		{clusterOptions{flavour: "traefik"}, []counts.Source{blank}, "warn", []string{"http://c/metrics answers", metric}, "it is not traefik (--gateway-kind)"},
	} {
		got := c.options.checkSources(c.sources)
		for _, text := range c.says {
			if !strings.Contains(got.Text, text) {
				t.Errorf("%+v does not say %q: %s", c.sources, text, got.Text)
			}
		}
		if got.State != c.state || !strings.Contains(got.Remedy, c.remedy) || (got.Remedy == "") != (c.state == "ok") {
			t.Errorf("%+v: %+v", c.sources, got)
		}
	}
}

func TestForeign_SaysWhatThereIsInstead(t *testing.T) {
	p := new(kube.Platform)
	for _, c := range []struct {
		gateway string
		ask     func(foreign) error
		says    []string
	}{
		{"edge/public", func(f foreign) error { _, err := f.Routes(t.Context(), "castle@staging"); return err }, []string{"the gateway edge/public is not Spillway's own proxy", "spillway routes -f spillway.yaml", "kubectl get httproutes", "spillway.dev/app=castle.staging"}},
		{"", func(f foreign) error { _, err := f.Routes(t.Context(), "castle"); return err }, []string{"there is no gateway", "kubectl get services"}},
		{"edge/public", func(f foreign) error { _, err := f.Explain(t.Context(), "castle", spillway.RouteQuery{}); return err }, []string{"spillway routes test URL -f spillway.yaml", "spillway status -a castle"}},
		{"edge/public", func(f foreign) error { _, err := f.Hold(t.Context(), "castle", 0); return err }, []string{"requests cannot be held", "503", "spillway pause"}},
	} {
		err := c.ask(foreign{clusterOptions{gateway: c.gateway}, p})
		for _, text := range c.says {
			if !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), text) {
				t.Errorf("%v; want %q in it", err, text)
			}
		}
	}
}

func TestWriteWho_SaysThatNobodyIsBound(t *testing.T) {
	for _, o := range []clusterOptions{{}, {gateway: "edge/public"}} {
		who := someone()
		who.Loose, who.Doubt = o.loose(), "gateway public does not take HTTPRoute castle-www"
		var b strings.Builder
		if err := writeWho(&b, who, who.At); err != nil || !strings.Contains(b.String(), "nobody is bound by it here") || !strings.Contains(b.String(), o.gateway) || !strings.Contains(b.String(), "at the moment it may be something else: gateway public") {
			t.Errorf("%v\n%s", err, &b)
		}
	}
}

// A server remembers what it read: whoever deletes the resource of what serves hears of it all the same.
func TestOverview_NamesTheReleaseInUseThatWasDeleted(t *testing.T) {
	in := &installation{log: slog.New(slog.DiscardHandler), store: fifth{}, platform: still{}, proxy: foreign{platform: new(kube.Platform)}}
	in.gone = func(_ context.Context, _ spillway.Ref, st rollout.Status) ([]string, error) {
		return []string{fmt.Sprintf("castle-%d", st.Stable)}, nil
	}
	o, err := (&engine{installation: in}).Overview(t.Context(), "castle")
	if err != nil || len(o.Problems) != 1 || !strings.Contains(o.Problems[0], "Release castle-5 is in use and gone") || !strings.Contains(o.Problems[0], "spillway deploy") {
		t.Errorf("problems: %q, %v", o.Problems, err)
	}
	in.gone = func(context.Context, spillway.Ref, rollout.Status) ([]string, error) {
		return nil, spillway.ErrUnavailable
	}
	if o, err := (&engine{installation: in}).Overview(t.Context(), "castle"); err != nil || len(o.Problems) != 0 {
		t.Errorf("the cluster does not answer: %q, %v", o.Problems, err)
	}
}

// Who leads puts back what it remembers, and says so in the history; what it cannot put back stays a problem.
func TestOverview_PutsTheReleaseInUseBack(t *testing.T) {
	in := &installation{log: slog.New(slog.DiscardHandler), store: fifth{}, platform: still{}, proxy: foreign{platform: new(kube.Platform)}, facts: make(chan spillway.Event, 1)}
	in.leads.Store(true)
	gone := []string{"castle-5", "castle-6"}
	in.gone = func(context.Context, spillway.Ref, rollout.Status) ([]string, error) { return gone, nil }
	in.putBack = func(context.Context, spillway.Ref, rollout.Status) ([]string, error) {
		gone = []string{"castle-6"}
		return []string{"castle-5"}, spillway.ErrDenied
	}
	o, err := (&engine{installation: in}).Overview(t.Context(), "castle")
	if err != nil || len(o.Problems) != 1 || !strings.Contains(o.Problems[0], "Release castle-6 is in use and gone") {
		t.Errorf("problems: %q, %v", o.Problems, err)
	}
	if e := <-in.facts; e.App != "castle" || e.Kind != spillway.EventProblem || !strings.Contains(e.Text, "castle-5") || !strings.Contains(e.Text, "it was put back") {
		t.Errorf("told is %+v", e)
	}
}

// A Release that is deleted is put back when it is in use, not one that was pruned; and again until it could be done.
func TestFollowLost_PutsBackWhatIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &installation{log: slog.New(slog.DiscardHandler), store: fifth{}, facts: make(chan spillway.Event, 9)}
		tries := 0
		in.putBack = func(_ context.Context, app spillway.Ref, st rollout.Status) ([]string, error) {
			if tries++; tries < 3 {
				return nil, spillway.ErrUnavailable
			}
			return []string{fmt.Sprintf("%s-%d", app, st.Stable)}, nil
		}
		in.lost = func(ctx context.Context, gone func(spillway.Ref, int)) error {
			gone("castle", 4)
			gone("castle", 5)
			<-ctx.Done()
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := in.followLost(ctx); err != nil || tries != 3 || len(in.facts) != 1 {
			t.Errorf("tried %d times and told %d facts, %v; want 3 and 1", tries, len(in.facts), err)
		}
	})
}

// fifth is a store of one app whose release 5 serves.
type fifth struct{ records }

func (fifth) Load(context.Context, spillway.Ref) (reconcile.Saved, error) {
	return reconcile.Saved{Spec: rollout.Spec{App: "castle"}, Status: rollout.Status{Stable: 5}}, nil
}

// An app of which a Release in use was deleted is not decided about by the next server, and can be destroyed all the same:
// by the command line, and by kubectl.
func TestAsk_DestroysAnAppWhoseReleaseIsGone(t *testing.T) {
	stored := &halved{}
	log := slog.New(slog.DiscardHandler)
	in := &installation{log: log, store: stored, wishes: unwanted{}, loop: reconcile.NewLoop(stored, still{}, log)}
	e := &engine{installation: in}
	if _, err := e.Ask(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbPause}); !errors.Is(err, spillway.ErrUnavailable) || len(stored.asked) != 0 {
		t.Errorf("asked for %q of an app that cannot be read: %v", stored.asked, err)
	}
	_, err := e.Ask(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbDestroy})
	if _, again := e.fulfilOne(t.Context(), "castle"); err != nil || again != nil || !slices.Equal(stored.asked, []spillway.Verb{spillway.VerbDestroy, spillway.VerbDestroy}) {
		t.Errorf("asked for %q: %v, %v", stored.asked, err, again)
	}
}

// halved is a store of an app that cannot be read, and keeps what is asked of it.
type halved struct {
	records
	asked []spillway.Verb
}

func (h *halved) Load(context.Context, spillway.Ref) (reconcile.Saved, error) {
	return reconcile.Saved{}, fmt.Errorf("its resource Release castle-1 is gone: %w", spillway.ErrUnavailable)
}

func (h *halved) AddIntent(_ context.Context, _ spillway.Ref, in spillway.Intent) (spillway.Intent, error) {
	h.asked = append(h.asked, in.Verb)
	return in, nil
}

// unwanted is the resource of an app that kubectl deletes.
type unwanted struct{ wishes }

func (unwanted) Hold(context.Context, spillway.Ref) error { return nil }

func (unwanted) Asked(_ context.Context, app spillway.Ref) (state.Wish, error) {
	return state.Wish{App: app, Destroy: true}, nil
}

// A spec that is refused for what is not in it is tried again, and one with a mistake is not.
func TestFulfil_TriesAgainWhatIsRefusedForSomethingElse(t *testing.T) {
	for file, tries := range map[string]int{"app: castle\nservices:\n  db: {image: \"postgres:17\", port: 5432}\n": 3, "app: castle\nservices: {}\n": 1} {
		synctest.Test(t, func(t *testing.T) {
			log := slog.New(slog.DiscardHandler)
			asked := &applied{file: file}
			in := &installation{log: log, store: &pruned{}, wishes: asked, images: new(oci.Registry), loop: reconcile.NewLoop(&pruned{}, still{}, log)}
			in.fits = func(spillway.App) error { return nil }
			in.taken = func(context.Context, spillway.Release) error {
				return fmt.Errorf("its host is another app's: %w", spillway.ErrConflict)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			told := make(chan spillway.Ref, 1)
			told <- "castle"
			go (&engine{installation: in}).fulfilAll(ctx, told) // ends with ctx; the bubble waits for it
			<-time.After(2*state.LookAgain + 2*againAfter)
			synctest.Wait()
			if asked.answers != tries {
				t.Errorf("%q is answered %d times, want %d", file, asked.answers, tries)
			}
		})
	}
}

// Who applied a spec hears that its registry does not answer: it may be a mistake in the name of the image.
func TestFulfil_SaysThatARegistryDoesNotAnswer(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	images, err := oci.New(oci.Config{Temp: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	asked := &applied{file: "app: castle\nservices:\n  db: {image: \"127.0.0.1:1/some/db:17\", port: 5432}\n"}
	in := &installation{log: log, store: &pruned{}, wishes: asked, images: images, loop: reconcile.NewLoop(&pruned{}, still{}, log)}
	in.fits = func(spillway.App) error { return nil }
	refused, err := (&engine{installation: in}).fulfilOne(t.Context(), "castle")
	if !refused || err != nil || asked.answers != 1 || !strings.Contains(fmt.Sprint(asked.last), "127.0.0.1:1") {
		t.Errorf("refused %v, %v; answered %d times, with %v", refused, err, asked.answers, asked.last)
	}
}

// applied is the resource of an app with a file that nobody changes.
type applied struct {
	wishes
	file    string
	answers int
	last    error // answer
}

func (*applied) Hold(context.Context, spillway.Ref) error { return nil }

func (a *applied) Asked(_ context.Context, app spillway.Ref) (state.Wish, error) {
	return state.Wish{App: app, Deploy: true, Again: a.answers > 0, File: []byte(a.file), Env: "production", By: "kubectl", Generation: 1}, nil
}

func (a *applied) Answer(_ context.Context, _ spillway.Ref, _ int64, mistakes error) error {
	a.answers, a.last = a.answers+1, mistakes
	return nil
}
