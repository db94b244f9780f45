package metrics

import "time"

// Quick gives c the intervals of the tests.
func Quick(c Config, every, timeout time.Duration) Config {
	c.tune = tuning{every: every, timeout: timeout}
	return c
}
