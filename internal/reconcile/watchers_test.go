package reconcile_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

func TestWatchers_TellEachOfABurstOnceAndForgetWhoWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w reconcile.Watchers
		w.Changed("early") // nobody watches yet
		ctx, cancel := context.WithCancel(t.Context())
		told, ended, hold := []spillway.Ref{}, make(chan error, 1), make(chan struct{})
		// Owned by this test, ended by cancel and waited for below.
		go func() {
			ended <- w.Watch(ctx, func(app spillway.Ref) {
				told = append(told, app)
				<-hold
			})
		}()
		synctest.Wait()
		w.Changed("shop")
		synctest.Wait() // it is being told
		for range 3 {
			w.Changed("castle")
			w.Changed("shop")
			w.Changed("")
		}
		close(hold)
		synctest.Wait()
		if want := []spillway.Ref{"shop", "castle", "shop"}; !slices.Equal(told, want) {
			t.Errorf("told of %v, want %v", told, want)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		w.Changed("late")
		if len(told) != 3 {
			t.Errorf("who went was told of %v", told)
		}
	})
}
