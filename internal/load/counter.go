package load

import (
	"maps"
	"math"
	"sync"
	"time"
)

// Class says how a request failed.
type Class string

// The classes of failure. A redirect is a success, and is not followed.
const (
	Status5xx   Class = "5xx"          // answered with 500 or above
	StatusOther Class = "other status" // answered with 400 to 499
	Refused     Class = "refused"      // nobody listens
	Reset       Class = "reset"        // the connection ended before the whole answer was there
	Timeout     Class = "timeout"      // no whole answer within Plan.Timeout
	Other       Class = "other"        // anything else: not HTTP, no such host
)

// Failure is one request that failed.
type Failure struct {
	At      time.Time // when it was known
	Class   Class
	Status  int    // 0 = no answer
	Release string // X-Spillway-Release of the answer; "" = none
	Err     error  // why there is no whole answer; nil for a status
	Took    time.Duration
}

// Counts is what has come back.
type Counts struct {
	Requests int64              // answered or failed
	Failures int64              // sum of Classes
	Classes  map[Class]int64    // only those that happened
	Releases map[string]Release // by X-Spillway-Release; "" = answers without it, and requests without an answer
	// P50 and P99 are latencies of all requests, failed ones included, from when they were due; up to
	// 2 % above the exact value, and 0 without requests.
	P50, P99 time.Duration
}

// Release is what one release answered.
type Release struct {
	Requests int64
	Failures int64
}

// counter adds up. The zero value is ready. Its latencies are a histogram of buckets that grow by 2 %.
type counter struct {
	mu     sync.Mutex
	sum    Counts
	bucket [1024]int64
}

// growth is the ratio of two neighbouring buckets: 1024 of them reach from 1 µs to over 10 minutes.
const growth = 1.02

// add counts one request; class "" is a success.
func (c *counter) add(class Class, release string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sum.Requests == 0 {
		c.sum.Classes, c.sum.Releases = map[Class]int64{}, map[string]Release{}
	}
	r := c.sum.Releases[release]
	r.Requests++
	c.sum.Requests++
	if class != "" {
		r.Failures++
		c.sum.Failures++
		c.sum.Classes[class]++
	}
	c.sum.Releases[release] = r
	i := int(math.Ceil(math.Log(max(1, float64(took)/float64(time.Microsecond))) / math.Log(growth)))
	c.bucket[min(i, len(c.bucket)-1)]++
}

func (c *counter) counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sum
	s.Classes = maps.Clone(s.Classes)
	s.Releases = maps.Clone(s.Releases)
	s.P50, s.P99 = c.quantile(0.50), c.quantile(0.99)
	return s
}

// quantile gives the upper end of the bucket that holds the request at that rank: 0.99 of 100 is the 99th.
func (c *counter) quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(c.sum.Requests)))
	for i, n := range c.bucket {
		if rank -= n; n > 0 && rank <= 0 {
			return time.Duration(math.Pow(growth, float64(i)) * float64(time.Microsecond))
		}
	}
	return 0
}
