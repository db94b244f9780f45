package proxy

import (
	"math/bits"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	slots    = 6 // of a minute
	slotTime = 10 * time.Second
	fine     = 8         // classes per power of two: percentiles are right to 1/8
	classes  = 28 * fine // up to 2^27 microseconds, a bit over two minutes
)

// tally counts the answers of one group since the process started, and their times of the last minute.
type tally struct {
	mu       sync.Mutex
	requests int64
	failures int64
	first    time.Time              // when the first one was counted
	times    [slots][classes]uint32 // until the first byte of an answer, by class
	slot     int64                  // number of the newest slot since 1970
}

// add counts an answer that began after d.
func (t *tally) add(d time.Duration, failed bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests == 0 {
		t.first = now
	}
	t.requests++
	if failed {
		t.failures++
	}
	t.forget(now)
	t.times[t.slot%slots][class(d)]++
}

// fail counts an answer that began well as failed after all.
func (t *tally) fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures++
}

// forget empties the slots that are older than a minute.
func (t *tally) forget(now time.Time) {
	slot := now.UnixNano() / int64(slotTime)
	for i := max(t.slot+1, slot-slots+1); i <= slot; i++ {
		t.times[i%slots] = [classes]uint32{}
	}
	t.slot = max(t.slot, slot)
}

// traffic is the tally as it is reported.
func (t *tally) traffic(now time.Time) spillway.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum, n := t.minute(now)
	return spillway.Traffic{
		Requests: t.requests, Failures: t.failures, Rate: t.rate(n, now),
		P50: percentile(&sum, n, 50), P95: percentile(&sum, n, 95), P99: percentile(&sum, n, 99),
	}
}

// minuteOf is minute for who does not hold t.mu.
func (t *tally) minuteOf(now time.Time) (sum [classes]uint64, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.minute(now)
}

// minute adds up the times of the last minute: n in all. t.mu is held.
func (t *tally) minute(now time.Time) (sum [classes]uint64, n uint64) {
	t.forget(now)
	for s := range t.times {
		for c, k := range t.times[s] {
			sum[c] += uint64(k)
			n += uint64(k)
		}
	}
	return sum, n
}

// rate is how many requests a second n in the slots are: over the time that the slots cover, 50 to 60 s,
// or since the first request, but for a second at least. Worked example: 90 requests, the first one 30 s
// ago, are 3 a second. t.mu is held.
func (t *tally) rate(n uint64, now time.Time) float64 {
	begin := time.Unix(0, (t.slot-slots+1)*int64(slotTime))
	if t.first.After(begin) {
		begin = t.first
	}
	return float64(n) / max(now.Sub(begin).Seconds(), 1)
}

// percentile is the upper end, in microseconds, of the class in which the p-th of 100 parts ends.
func percentile(sum *[classes]uint64, n uint64, p uint64) int64 {
	if n == 0 {
		return 0
	}
	seen := uint64(0)
	for c, k := range sum {
		if seen += k; seen*100 >= n*p {
			return classEnd(c)
		}
	}
	return classEnd(classes - 1)
}

// class sorts a time: below 8 us by the microsecond, above into 8 classes per power of two.
// 1000 us is 1111101000 in binary: 10 bits, and 111 after the leading one: class (10 - 3) * 8 + 7 = 63.
func class(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < fine {
		return int(us)
	}
	n := bits.Len64(us)
	return min((n-3)*fine+int(us>>(n-4))-fine, classes-1)
}

// classEnd is the largest number of microseconds in a class: of 63 it is 1023.
func classEnd(c int) int64 {
	if c < fine {
		return int64(c)
	}
	shift := c/fine - 1
	return int64(c%fine+fine+1)<<shift - 1
}
