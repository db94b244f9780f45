package reconcile

import (
	"reflect"
	"time"

	"github.com/spillway-dev/spillway/internal/rollout"
)

// unsaved is how much time may go by before it is worth a save of its own: as much as between two rounds of an app that
// waits. It is below what one decision takes as time that went by: what is not saved is added up again from Status.Now, and
// nothing of it is lost. Only after a server died it is waited for once more.
const unsaved = 20 * time.Second

// OnlyTime reports whether a status differs from an earlier one in nothing but that a moment has gone by.
// It need not be saved: deciding from the earlier one again later gives the same, since every time in it is the sum of
// differences to Now. Whatever else is wanted of the platform is another Wants or Route, and not only time.
func OnlyTime(earlier, later rollout.Status) bool {
	if earlier.Now.IsZero() || later.Now.IsZero() || later.Now.Sub(earlier.Now) >= unsaved || later.Now.Before(earlier.Now) {
		return false
	}
	return reflect.DeepEqual(earlier.Timeless(), later.Timeless())
}
