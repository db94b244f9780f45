//go:build kube

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/sim"
)

// TestAutoscaling_ADeployDuringAScaleUpKeepsTheCount is one long story, because each of its moments needs the one
// before: load makes the autoscaler add replicas, a canary begins meanwhile, the load ends, everything is restarted,
// the canary is promoted. Nothing is taken away before the watch is over, and then it is.
func TestAutoscaling_ADeployDuringAScaleUpKeepsTheCount(t *testing.T) {
	s := begin(t, 8)
	s.deploy(nil)
	s.rests(1)
	s.until("an autoscaler that is not frozen", func() bool { h, _ := s.autoscaler(1); return h != nil && !frozen(h) })
	if owner := s.owner(1); owner != kube.SizeManager {
		t.Errorf("spec.replicas of a new Deployment is %s's", owner)
	}

	stop := s.load(20) // 200m, so 4 replicas of 100m at 50 %
	s.until("a scale-up", func() bool { return s.count(1) >= 2 })
	s.deploy([]spillway.StepSpec{{Weight: spillway.Percent(40)}, {Pause: true}})
	seen := s.watch()
	s.until("the pause at 40 %", func() bool { return s.status().Phase == spillway.Paused })
	s.until("the size that 60 % of the load need", func() bool { return s.count(1) >= 3 })
	s.until("a candidate that follows it", func() bool { return s.count(2) >= spillway.Percent(40).Of(s.count(1)) })
	if h, _ := s.autoscaler(1); h == nil || !frozen(h) {
		t.Error("stable's autoscaler is not frozen in the rollout")
	}
	if h, _ := s.autoscaler(2); h != nil {
		t.Error("a candidate with a part of the users has an autoscaler")
	}
	s.passes(20 * time.Second)
	if n := s.count(1); n >= 8 {
		t.Errorf("a canary under load drove stable to its maximum of %d", n)
	}
	if owner := s.owner(1); owner == kube.SizeManager || owner == kube.Manager {
		t.Errorf("spec.replicas of a Deployment with an autoscaler is %s's", owner)
	}

	stop()
	s.ask(spillway.Intent{Verb: spillway.VerbRestart, Service: "www"}) // applies the Deployment again
	s.passes(40 * time.Second)                                         // longer than the cluster waits before it takes replicas away
	before := s.count(1)
	s.ask(spillway.Intent{Verb: spillway.VerbPromote})
	s.until("100 %", func() bool { return s.status().Phase == spillway.Promoting })
	s.until("an autoscaler of the candidate", func() bool { h, _ := s.autoscaler(2); return h != nil })
	if n := s.count(2); n < before {
		t.Errorf("the candidate has %d replicas with all users, and stable had %d", n, before)
	}
	s.rests(2)
	for _, fall := range seen() {
		t.Error(fall)
	}
	s.until("a scale-down after the watch", func() bool { return s.count(2) == 1 })
	s.until("the end of the old replicas", func() bool { return s.count(1) == 0 })
}

// TestAutoscaling_AtItsMaximumIsToldInWords: a size that the load needs and the file does not allow.
func TestAutoscaling_AtItsMaximumIsToldInWords(t *testing.T) {
	s := begin(t, 2)
	s.deploy(nil)
	s.rests(1)
	defer s.load(30)()
	s.until("a problem that names the maximum", func() bool {
		o, err := s.platform.Observe(s.ctx, s.ref)
		if err != nil {
			t.Fatal(err)
		}
		return len(o.Groups) == 1 && o.Groups[0].Chosen == 2 && o.Groups[0].Scaling == "its autoscaler wants more than its maximum of 2 replicas (max size reached); raise max in scale of www, or its limits"
	})
	s.ask(spillway.Intent{Verb: spillway.VerbScale, Service: "www", Replicas: 2})
	s.until("the smallest number that scale chose", func() bool { h, _ := s.autoscaler(1); return *h.Spec.MinReplicas == 2 })
}

// story is an app with an autoscaler in a namespace of its own, under the real loop.
type story struct {
	t        *testing.T
	ctx      context.Context
	client   client.Client
	platform *kube.Platform
	store    *sim.Store
	loop     *reconcile.Loop
	ref      spillway.Ref
	image    string
	address  string
	max      int
	ns       string
}

func begin(t *testing.T, most int) *story {
	t.Helper()
	s := &story{t: t, ctx: t.Context(), client: connect(t), store: sim.NewStore(), ref: "burner", max: most}
	if _, err := s.client.RESTMapper().RESTMapping(schema.GroupKind{Group: "metrics.k8s.io", Kind: "PodMetrics"}); err != nil {
		t.Fatalf("there is no metrics-server, which autoscalers ask; KUBE_WITH=metrics test/kube/up.sh adds it to the cluster of make kube-up: %v", err)
	}
	s.image = push(s.ctx, t, "burn")
	s.address = gatewayAddress(s.ctx, t, s.client)
	s.platform, s.ns = newPlatform(t, "")
	s.loop = reconcile.NewLoop(s.store, s.platform, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))).Dividing(reconcile.PublicEdges)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.loop.Run(ctx) }() // owned by the test; ends with ctx; waited for in Cleanup
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// deploy rolls a new release out, in one switch or by steps.
func (s *story) deploy(steps []spillway.StepSpec) {
	s.t.Helper()
	www := spillway.Service{
		Name: "www", Host: []string{s.ns + ".test"}, Run: spillway.Command{Exec: []string{"/program"}}, Scale: 1, Max: s.max,
		Targets: spillway.Targets{CPU: spillway.Percent(50)}, Limits: spillway.Limits{CPU: 100}, Strategy: spillway.BlueGreen,
		Health: spillway.DefaultProbe(), Stop: spillway.DefaultStop(), Env: map[string]string{"COST": "10", "AT": time.Now().String()},
	}
	www.Stop.Drain = spillway.Duration(2 * time.Second)
	if steps != nil {
		www.Strategy, www.Steps = spillway.Canary, steps
	}
	app := spillway.App{Name: string(s.ref), Watch: spillway.Duration(15 * time.Second), Deadline: spillway.Duration(3 * time.Minute), Services: []spillway.Service{www}}
	release := spillway.Release{App: s.ref, Config: app, Created: time.Now(), Artefacts: map[string]spillway.Artefact{"www": {Image: s.image, Digest: s.image}}}
	if _, _, _, err := s.loop.Deploy(s.ctx, release, spillway.Intent{Verb: spillway.VerbDeploy, At: time.Now()}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) ask(in spillway.Intent) {
	s.t.Helper()
	in.At = time.Now()
	if _, err := s.store.AddIntent(s.ctx, s.ref, in); err != nil {
		s.t.Fatal(err)
	}
	s.loop.Wake(s.ref)
}

func (s *story) status() rollout.Status {
	saved, err := s.store.Load(s.ctx, s.ref)
	if err != nil {
		s.t.Fatal(err)
	}
	return saved.Status
}

// rests waits until a release is stable and nothing is under way.
func (s *story) rests(release int) {
	s.t.Helper()
	s.until(fmt.Sprintf("release %d to be stable", release), func() bool {
		st := s.status()
		return st.Stable == release && st.Rollout == nil && st.Phase == spillway.Healthy
	})
}

// until waits up to three minutes: an autoscaler looks every few seconds at figures that are some seconds old.
func (s *story) until(what string, holds func() bool) {
	s.t.Helper()
	began := time.Now()
	for end := time.After(3 * time.Minute); !holds(); {
		select {
		case <-end:
			s.t.Fatalf("waited in vain for %s: %+v", what, s.status())
		case <-time.After(200 * time.Millisecond):
		}
	}
	s.t.Logf("%s after %s: %d and %d replicas", what, time.Since(began).Round(time.Second), s.count(1), s.count(2))
}

func (s *story) passes(d time.Duration) { <-time.After(d) }

func (s *story) deployment(release int) *apps.Deployment {
	d := &apps.Deployment{}
	if err := s.client.Get(s.ctx, client.ObjectKey{Namespace: s.ns, Name: fmt.Sprintf("%s-www-%d", s.ref, release)}, d); client.IgnoreNotFound(err) != nil {
		s.t.Error(err)
	}
	return d
}

// count is the number of replicas that the Deployment of a release asks for; 0 = there is none.
func (s *story) count(release int) int {
	if d := s.deployment(release); d.Spec.Replicas != nil {
		return int(*d.Spec.Replicas)
	}
	return 0
}

// owner is the field manager of the number of replicas.
func (s *story) owner(release int) string {
	for _, entry := range s.deployment(release).ManagedFields {
		if owns(entry.FieldsV1.Raw, "f:spec", "f:replicas") {
			return entry.Manager
		}
	}
	return "nobody"
}

func (s *story) autoscaler(release int) (*autoscaling.HorizontalPodAutoscaler, error) {
	h := &autoscaling.HorizontalPodAutoscaler{}
	err := s.client.Get(s.ctx, client.ObjectKey{Namespace: s.ns, Name: fmt.Sprintf("%s-www-%d", s.ref, release)}, h)
	if err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return h, nil
}

func frozen(h *autoscaling.HorizontalPodAutoscaler) bool {
	down := h.Spec.Behavior.ScaleDown
	return down != nil && down.SelectPolicy != nil && *down.SelectPolicy == autoscaling.DisabledPolicySelect
}

// watch records the number of replicas of release 1 until the rollout of release 2 has ended, and gives the times at
// which it fell.
func (s *story) watch() func() []string {
	var falls []string
	done := make(chan bool)
	go func() { // owned by the test; ends with the rollout or the test; waited for by the function that it gives
		defer close(done)
		for most := 0; s.ctx.Err() == nil && s.status().Stable != 2; <-time.After(100 * time.Millisecond) {
			n := s.count(1)
			if n < most && s.status().Stable != 2 {
				falls = append(falls, fmt.Sprintf("the number of stable's replicas fell from %d to %d in the rollout", most, n))
			}
			most = max(most, n)
		}
	}()
	return func() []string { <-done; return falls }
}

// load sends so many requests a second, each of 10 ms of processor time, until stop is called.
func (s *story) load(rate int) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	slots := make(chan bool, 2*rate) // no more are open: a queue would go on when the load has ended
	wg.Go(func() {                   // owned by the test; ends with stop, which waits for it
		for tick := time.NewTicker(time.Second / time.Duration(rate)); ctx.Err() == nil; <-tick.C {
			select {
			case slots <- true:
				wg.Go(func() { // ends with its answer
					get(ctx, s.address, s.ns+".test", "/")
					<-slots
				})
			default:
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// owns reports whether the fields of a manager have the one of a path.
func owns(fields []byte, path ...string) bool {
	var at map[string]json.RawMessage
	if json.Unmarshal(fields, &at) != nil {
		return false
	}
	under, ok := at[path[0]]
	return ok && (len(path) == 1 || owns(under, path[1:]...))
}
