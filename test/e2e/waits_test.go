package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// waiting deploys an app, and gives it a change that is not deployed yet.
func waiting(t *testing.T, in *installation, top ...string) *app {
	t.Helper()
	a := newApp(t, "later")
	in.deploy(a).want(t, 0)
	in.healthy(a.Name, 1, 30*time.Second)
	a.Top = top
	return a.bump()
}

// waits checks that a release waits, with a reason, and that users do not notice.
func (in *installation) waits(a *app, release int, reason string) {
	in.t.Helper()
	o := in.status(a.Name, 10*time.Second, fmt.Sprintf("release %d to wait", release), func(o spillway.Overview) bool {
		return len(o.Waits) == 1 && o.Waits[0].Release == release
	})
	if o.Rollout != nil || o.Stable == release {
		in.t.Errorf("release %d was to wait; %s", release, describe(o))
	}
	in.spillway("status", "--app", a.Name).want(in.t, 0).tells(in.t, reason)
}

// A deploy for later is told at once, is seen in status, and can be cancelled or begun by hand.
func TestWaits_UntilATime(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := waiting(t, in)
	in.deploy(a, "--at", "+1h").want(t, 0).tells(t, "wait", "spillway cancel")
	in.waits(a, 2, "from now; drop it: spillway cancel")
	in.spillway("cancel", "--app", a.Name).want(t, 0)
	if o := in.healthy(a.Name, 1, 10*time.Second); len(o.Waits) > 0 {
		t.Errorf("after cancel there waits %+v", o.Waits)
	}
	in.deploy(a.bump(), "--at", "+3s").want(t, 0)
	in.healthy(a.Name, 3, 30*time.Second)
	in.deploy(a.bump(), "--at", "yesterday").want(t, 2).tells(t, "yesterday", "--at")
}

// In a freeze window no deploy begins unless it is forced; the way back is always open.
func TestWaits_InAFreezeWindow(t *testing.T) {
	t.Parallel()
	in := install(t)
	day := func(days int) string { return time.Now().UTC().AddDate(0, 0, days).Format("2006-01-02") }
	a := waiting(t, in, fmt.Sprintf(`freeze: ["%s 00:00 - %s 00:00"]`, day(-1), day(2)))
	in.spillway("plan", a.write()).want(t, 10).tells(t, "freeze")
	in.deploy(a).want(t, 0).tells(t, "wait", "spillway cancel")
	in.waits(a, 2, day(2))
	in.deploy(a.bump(), "--now").want(t, 0)
	in.healthy(a.Name, 3, 30*time.Second)
	in.spillway("rollback", "--app", a.Name).want(t, 0)
	in.healthy(a.Name, 1, 30*time.Second)
}

// A delay is time to think again.
func TestWaits_ForTheDelayOfTheApp(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := waiting(t, in, "delay: 1h")
	in.deploy(a).want(t, 0).tells(t, "wait", "spillway cancel")
	in.waits(a, 2, "from now; drop it: spillway cancel")
	in.spillway("cancel", "--app", a.Name).want(t, 0)
	a.Top = []string{"delay: 2s"}
	began := time.Now()
	in.deploy(a.bump()).want(t, 0)
	in.healthy(a.Name, 3, 30*time.Second)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it took %v, want the delay of 2 s at least", took)
	}
}

// A rollback goes back from what serves, also past a deploy for later, and says when it is done.
func TestWaits_ARollbackGoesPastIt(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := waiting(t, in)
	a.Watch = "0s"
	in.deploy(a).want(t, 0)
	in.healthy(a.Name, 2, 30*time.Second)
	in.deploy(a.bump(), "--at", "+1h", "--detach").want(t, 0)
	in.waits(a, 3, "from now")
	in.spillway("rollback", "--app", a.Name).want(t, 0).tells(t, "release 1 of later serves everybody")
	if o := in.healthy(a.Name, 1, 30*time.Second); len(o.Waits) > 0 {
		t.Errorf("after the rollback there waits %+v", o.Waits)
	}
}
