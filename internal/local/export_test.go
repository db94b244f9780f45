package local

import (
	"strings"
	"time"
)

// Quick gives c the intervals of the tests: everything that the app file does not say is short.
func Quick(c Config) Config {
	c.tune = tuning{
		probeMin: 10 * time.Millisecond, probeMax: 40 * time.Millisecond,
		backoff: 40 * time.Millisecond, backoffMax: 300 * time.Millisecond,
		settled: 300 * time.Millisecond, wrongPort: 200 * time.Millisecond,
		refresh: 200 * time.Millisecond, drain: 10 * time.Millisecond, logs: 10 * time.Millisecond,
		segment: 64 << 10, segments: 1000,
	}
	return c
}

// FewSegments bounds the logs of c to n segments of the given size.
func FewSegments(c Config, n int, size int64) Config {
	c.tune.segments, c.tune.segment = n, size
	return c
}

// Delay is the back-off of c before the next start after n failures.
func Delay(c Config, n int) time.Duration { return c.tune.delay(n) }

// ParseSocketAddress reads an address of /proc/net/tcp.
func ParseSocketAddress(s string) string {
	a, ok := parseSocketAddress(s)
	if !ok {
		return "invalid"
	}
	return a.String()
}

// Processes finds those that carry a mark of an app in p's directory, whatever is recorded of them.
func Processes(p *Platform, app string) (pids []int) {
	for pid, mark := range marks(p.id) {
		if strings.Contains(mark, "/"+app+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}
