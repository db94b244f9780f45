package state_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// flaky is a client whose writes sometimes do not arrive, and sometimes arrive and are not answered.
type flaky struct {
	client.Client
	draw *rand.Rand
}

func (f flaky) write(do func() error) error {
	gone := apierrors.NewServiceUnavailable("drawn")
	switch f.draw.IntN(8) {
	case 0:
		return gone
	case 1:
		if err := do(); err != nil {
			return err
		}
		return gone
	}
	return do()
}

func (f flaky) Create(ctx context.Context, o client.Object, options ...client.CreateOption) error {
	return f.write(func() error { return f.Client.Create(ctx, o, options...) })
}

func (f flaky) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	return f.write(func() error { return f.Client.Delete(ctx, o, options...) })
}

func (f flaky) Patch(ctx context.Context, o client.Object, p client.Patch, options ...client.PatchOption) error {
	return f.write(func() error { return f.Client.Patch(ctx, o, p, options...) })
}

func (f flaky) Apply(ctx context.Context, o runtime.ApplyConfiguration, options ...client.ApplyOption) error {
	return f.write(func() error { return f.Client.Apply(ctx, o, options...) })
}

func (f flaky) Status() client.SubResourceWriter { return flakyStatus{f.Client.Status(), f} }

type flakyStatus struct {
	client.SubResourceWriter
	f flaky
}

func (s flakyStatus) Update(ctx context.Context, o client.Object, options ...client.SubResourceUpdateOption) error {
	return s.f.write(func() error { return s.SubResourceWriter.Update(ctx, o, options...) })
}

// TestStore_SurvivesWritesThatAreLost deploys, asks, saves and prunes while writes fail, with stores that forget all they
// know now and then. What was answered must be there, and nothing may be half there.
func TestStore_SurvivesWritesThatAreLost(t *testing.T) {
	const steps = 150
	for seed := range uint64(seeds) {
		c, namespace := cluster(t)
		draw := rand.New(rand.NewPCG(seed, 1))
		through := flaky{c, draw}
		s := open(t, through, namespace)
		model := struct {
			releases []int // that were answered and not pruned
			highest  int
			seqs     []int64 // of intents that were answered
			version  int64   // of the last save that was answered
		}{}
		for range steps {
			switch draw.IntN(6) {
			case 0:
				s = open(t, through, namespace) // another process
			case 1:
				if r, in, err := add(t.Context(), s, file, ""); err == nil {
					if r.Number <= model.highest {
						t.Fatalf("seed %d: release %d after %d", seed, r.Number, model.highest)
					}
					model.releases, model.highest = append(model.releases, r.Number), r.Number
					model.seqs = append(model.seqs, in.Seq)
				}
			case 2:
				if in, err := s.AddIntent(t.Context(), "castle", spillway.Intent{Verb: spillway.VerbPause}); err == nil {
					model.seqs = append(model.seqs, in.Seq)
				}
			case 3:
				saved, err := s.Load(t.Context(), "castle")
				if errors.Is(err, spillway.ErrNotFound) {
					continue
				}
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err) // reads do not fail here
				}
				if saved.Version < model.version {
					t.Fatalf("seed %d: version %d was answered and %d is read", seed, model.version, saved.Version)
				}
				if err := s.Save(t.Context(), "castle", saved.Version, rollout.Status{Stable: 1}, []spillway.Event{{Text: "x"}}); err == nil {
					model.version = saved.Version + 1
				}
			case 4:
				var oldest []int
				_, _ = s.Prune(t.Context(), "castle", func(saved reconcile.Saved) []int {
					oldest = numbers(saved.Spec.Releases)
					oldest = oldest[:max(0, len(oldest)-4)]
					return oldest
				})
				model.releases = slices.DeleteFunc(model.releases, func(n int) bool { return slices.Contains(oldest, n) })
			}
			sound(t, seed, c, namespace, model.releases)
		}
		unique := slices.Clone(model.seqs)
		slices.Sort(unique)
		if len(slices.Compact(unique)) != len(model.seqs) {
			t.Fatalf("seed %d: an intent's number was given twice: %v", seed, model.seqs)
		}
		for try := 0; ; try++ {
			if err := s.Remove(t.Context(), "castle"); err == nil {
				break
			} else if try > 100 {
				t.Fatal(err)
			}
		}
		var left v1alpha1.ReleaseList
		if err := c.List(t.Context(), &left, client.InNamespace(namespace)); err != nil || len(left.Items) > 0 {
			t.Fatalf("seed %d: %d releases are left, %v", seed, len(left.Items), err)
		}
	}
}

// sound looks at what is stored with the eyes of a store that knows nothing yet.
func sound(t *testing.T, seed uint64, c client.Client, namespace string, answered []int) {
	t.Helper()
	saved, err := state.New(state.Config{Client: c, Namespace: namespace}).Load(t.Context(), "castle")
	if errors.Is(err, spillway.ErrNotFound) && len(answered) == 0 {
		return
	}
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	there := numbers(saved.Spec.Releases)
	for _, n := range answered {
		if !slices.Contains(there, n) {
			t.Fatalf("seed %d: release %d was answered and is not there: %v", seed, n, there)
		}
	}
	app := &v1alpha1.App{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "castle"}, app); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(app.Status.Releases, there) {
		t.Fatalf("seed %d: %v are listed, %v are there", seed, app.Status.Releases, there)
	}
	last := int64(0)
	for _, in := range saved.Spec.Intents {
		if in.Seq <= last || in.Verb == spillway.VerbDeploy && in.Release > app.Status.NewestRelease {
			t.Fatalf("seed %d: intents %+v", seed, saved.Spec.Intents)
		}
		last = in.Seq
	}
}
