package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// pruned is a store of one app that counts how often releases of it are to be forgotten.
type pruned struct {
	records
	times int
}

func (p *pruned) Apps(context.Context) ([]spillway.Ref, error) { return []spillway.Ref{"castle"}, nil }

func (p *pruned) Load(context.Context, spillway.Ref) (reconcile.Saved, error) {
	return reconcile.Saved{}, spillway.ErrNotFound
}

func (p *pruned) Prune(context.Context, spillway.Ref, func(reconcile.Saved) []int) ([]int, error) {
	p.times++
	return nil, nil
}

func (p *pruned) Releases(context.Context, spillway.Ref) ([]spillway.Release, error) { return nil, nil }

// still is a platform on which nothing ever changes.
type still struct{ runner }

func (still) Observe(context.Context, spillway.Ref) (rollout.Observation, error) {
	return rollout.Observation{}, nil
}

func (still) Watch(ctx context.Context, _ func(spillway.Ref)) error { <-ctx.Done(); return nil }

// Of several servers of a cluster one forgets releases: it alone knows the newest of them.
func TestDecide_WhoDoesNotLeadRemovesNothing(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	builds, err := pipeline.NewBuilder(filepath.Join(t.TempDir(), "builds"), log)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		stored, leads := &pruned{}, make(chan struct{})
		in := &installation{log: log, store: stored, builder: builds, platform: still{}, loop: reconcile.NewLoop(stored, still{}, log)}
		in.engine = &engine{installation: in}
		in.asked = func(ctx context.Context, _ func(spillway.Ref)) error { <-ctx.Done(); return nil }
		in.lost = func(ctx context.Context, _ func(spillway.Ref, int)) error { <-ctx.Done(); return nil }
		in.lead = func(ctx context.Context, run func(context.Context) error) error {
			select {
			case <-leads:
				return run(ctx)
			case <-ctx.Done():
				return nil
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in.runCluster(func(name string, run func(context.Context) error) {
			if name == "loop" || name == "builds" { // the others do not look at releases
				go run(ctx) // ends with ctx; the bubble waits for it
			}
		})
		synctest.Wait()
		if stored.times != 0 {
			t.Error("a server that does not lead forgets releases")
		}
		close(leads)
		synctest.Wait()
		if stored.times != 1 {
			t.Errorf("the one that leads looked %d times for releases to forget, want 1", stored.times)
		}
	})
}

// slow is a store that lists its apps when the cluster answers: never.
type slow struct{ records }

func (slow) Apps(ctx context.Context) ([]spillway.Ref, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A server that loses the lease before the cluster has told it what there is waits to lead again, as any other.
func TestDecide_GoesOnWhenTheLeaseIsLostAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, led := slog.New(slog.DiscardHandler), 0
		in := &installation{log: log, store: slow{}, loop: reconcile.NewLoop(slow{}, still{}, log)}
		in.engine = &engine{installation: in}
		in.asked = func(ctx context.Context, _ func(spillway.Ref)) error { <-ctx.Done(); return nil }
		in.lost = func(ctx context.Context, _ func(spillway.Ref, int)) error { <-ctx.Done(); return nil }
		in.lead = func(ctx context.Context, run func(context.Context) error) error {
			led++
			leading, lose := context.WithTimeout(ctx, 6*time.Second)
			defer lose()
			if err := run(leading); ctx.Err() != nil || err != nil { // as kube.Lead
				return err
			}
			return kube.ErrNotLeader
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- in.decide(ctx) }() // ends with ctx; waited for below
		<-time.After(time.Minute)
		cancel()
		if err := <-ended; err != nil || led < 2 {
			t.Errorf("it led %d times, and ended with %v", led, err)
		}
	})
}
