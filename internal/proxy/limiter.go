package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// limiterShards keeps requests of different clients from waiting for each other.
	limiterShards = 16
	// limiterClients bounds the memory of all limiters together: so many clients are told apart, about 50 bytes each.
	// When more come at once, some are forgotten, to their advantage.
	limiterClients = 1 << 20
	// limiterLeast is how many clients a limiter tells apart in each shard however many limiters there are.
	limiterLeast = 64
)

// limiter says how many requests a client may make. It is a bucket of tokens for each client, kept as the one time
// at which the bucket will be full again (GCRA): with 10 a second and a burst of 20, each request moves that time by
// 100 ms, and none may move it beyond 2 s from now.
type limiter struct {
	step, most time.Duration
	by         spillway.KeySource
	room       atomic.Int64 // clients in each shard
	shards     [limiterShards]struct {
		mu   sync.Mutex
		full map[uint64]int64 // by client: when its bucket is full again, in ns of the Unix time
	}
}

func newLimiter(r spillway.RateLimit) *limiter {
	step := time.Duration(r.Per) / time.Duration(max(r.Requests, 1))
	return &limiter{step: max(step, 1), most: max(step, 1) * time.Duration(max(r.Burst, 1)), by: r.By}
}

// share divides the room for clients between all limiters.
func (t *ways) share() {
	room := max(limiterClients/limiterShards/max(len(t.limiters), 1), limiterLeast)
	for _, l := range t.limiters {
		l.room.Store(int64(room))
	}
}

// client is what tells the client of a request apart. Of an IPv6 address that is its /64: who has one address there has
// all of them.
func (l *limiter) client(app spillway.Ref, c *call) uint64 {
	if l.by.Kind != "" {
		if key := keyFrom(l.by, c); key != "" {
			return hashKey(app, l.by.Name+"\x00"+key)
		}
	}
	client := c.client.Unmap()
	addr := client.As16()
	if client.Is6() {
		clear(addr[8:])
	}
	return hashKey(app, string(addr[:]))
}

// take counts a request of a client. wait is how long it would have to wait; 0 = it may come in.
func (l *limiter) take(client uint64, now time.Time) (wait time.Duration) {
	s := &l.shards[client%limiterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	at := now.UnixNano()
	full := max(s.full[client], at) + int64(l.step)
	if over := full - at - int64(l.most); over > 0 {
		return time.Duration(over)
	}
	if s.full == nil {
		s.full = map[uint64]int64{}
	}
	if room := int(l.room.Load()); len(s.full) >= room {
		if _, known := s.full[client]; !known {
			forget(s.full, room*3/4, at)
		}
	}
	s.full[client] = full
	return 0
}

// forget makes room: those whose buckets are full go, and then others in no order until most are left.
func forget(full map[uint64]int64, most int, now int64) {
	for client, at := range full {
		if at <= now {
			delete(full, client)
		}
	}
	for client := range full {
		if len(full) <= most {
			return
		}
		delete(full, client)
	}
}
