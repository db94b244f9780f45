package load

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
)

// Plan says what to send. URL is all that it needs.
type Plan struct {
	URL    string
	Host   string      // Host header; "" = that of the URL
	Method string      // "" = GET
	Body   string      // sent with every request
	Header http.Header // sent with every request; not changed

	Rate    float64 // requests per second; 0 = as fast as the workers can
	Workers int     // requests under way at most, each worker with one connection of its own; 0 = 1
	Total   int64   // stop after this many; 0 = when the context ends
	// Cookies makes each worker one user, who keeps the cookies that it is given. Without, every request
	// is that of a new user.
	Cookies bool
	Timeout time.Duration // for a whole answer; 0 = 10 s

	// OnFailure is told of each failure before it is counted, by several workers at once. It may be nil.
	OnFailure func(Failure)
}

// Load is a plan under way.
type Load struct {
	plan    Plan
	taken   atomic.Int64 // requests that a worker has taken on
	counter counter
}

// New checks a plan. It sends nothing. A mistake in the plan is an ErrInvalid.
func New(p Plan) (*Load, error) {
	r, err := http.NewRequest(p.Method, p.URL, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("load: %w: %w", err, spillway.ErrInvalid)
	}
	if u := r.URL; u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("load: %q is not a URL like http://127.0.0.1:8080/: %w", p.URL, spillway.ErrInvalid)
	}
	if p.Rate < 0 || p.Workers < 0 || p.Total < 0 || p.Timeout < 0 {
		return nil, fmt.Errorf("load: rate, workers, total and timeout cannot be negative: %w", spillway.ErrInvalid)
	}
	if p.Workers == 0 {
		p.Workers = 1
	}
	if p.Timeout == 0 {
		p.Timeout = 10 * time.Second
	}
	return &Load{plan: p}, nil
}

// Run sends requests until ctx ends or Total is reached, and returns when the last answer is in. A request
// that the end of ctx cut short is not counted. Run may be called once.
func (l *Load) Run(ctx context.Context) {
	began := time.Now()
	var workers sync.WaitGroup
	for range l.plan.Workers {
		workers.Go(func() { l.work(ctx, began) })
	}
	workers.Wait()
}

// Counts gives the counts so far. It may be called at any time.
func (l *Load) Counts() Counts { return l.counter.counts() }

// work sends the requests that nobody else has taken, one after the other.
func (l *Load) work(ctx context.Context, began time.Time) {
	u := newUser(l.plan)
	defer u.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		n := l.taken.Add(1) - 1
		if l.plan.Total > 0 && n >= l.plan.Total {
			return
		}
		due := time.Now()
		if l.plan.Rate > 0 {
			due = began.Add(time.Duration(float64(n) / l.plan.Rate * float64(time.Second)))
			timer.Reset(time.Until(due))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		a := u.ask(ctx)
		if a.err != nil && ctx.Err() != nil {
			return
		}
		l.record(a, due)
	}
}

// record counts an answer to a request that was due at a time.
func (l *Load) record(a answer, due time.Time) {
	now := time.Now()
	class := classify(a)
	if class != "" && l.plan.OnFailure != nil {
		l.plan.OnFailure(Failure{At: now, Class: class, Status: a.status, Release: a.release, Err: a.err, Took: now.Sub(due)})
	}
	l.counter.add(class, a.release, now.Sub(due))
}
