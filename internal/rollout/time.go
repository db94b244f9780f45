package rollout

import (
	"time"

	"github.com/spillway-dev/spillway"
)

// Timeless is a copy of a status without what grows by itself: Now, and the times that are sums of differences to it.
func (s Status) Timeless() Status {
	s = s.clone()
	s.Now = time.Time{}
	if s.Rollout != nil {
		s.Rollout.Elapsed, s.Rollout.Held, s.Rollout.Silent = 0, 0, 0
	}
	if s.Standby != nil {
		s.Standby.Left = 0
	}
	drain := map[string]spillway.Duration{}
	for group := range s.Drain {
		drain[group] = 0
	}
	s.Drain = drain
	return s
}
