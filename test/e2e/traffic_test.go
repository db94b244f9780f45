package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/load"
)

// traffic is load on an app, counted as users see it.
type traffic struct {
	t     *testing.T
	loads []*load.Load
	stop  context.CancelFunc
	ended sync.WaitGroup
	began time.Time

	mu       sync.Mutex
	failures []load.Failure // the first of them
}

// seen is what became of a load.
type seen struct {
	Requests, Failures int64
	Classes            map[load.Class]int64
	Releases           map[string]load.Release
	Rate               float64 // requests per second
}

func (s seen) String() string {
	return fmt.Sprintf("%d requests at %.0f/s, %d failed %v", s.Requests, s.Rate, s.Failures, s.Classes)
}

// keepAlive are users with connections that stay open; a request each is that of a new user.
func keepAlive(method string, rate float64) load.Plan {
	return load.Plan{Method: method, Rate: rate, Workers: 8}
}

// newConnections are users each of whom opens a connection for one request.
func newConnections(method string, rate float64) load.Plan {
	p := keepAlive(method, rate)
	p.Header = http.Header{"Connection": {"close"}}
	return p
}

// loadWith are users with open connections who send these header fields.
func loadWith(header http.Header, rate float64) load.Plan {
	p := keepAlive("GET", rate)
	p.Header = header
	return p
}

// send starts load on a host until end, or the end of the test.
func (in *installation) send(host string, plans ...load.Plan) *traffic {
	in.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{t: in.t, stop: cancel, began: time.Now()}
	in.t.Cleanup(func() { tr.end() })
	for _, p := range plans {
		if p.URL == "" {
			p.URL = "http://" + in.http + "/"
		}
		if p.Method == http.MethodPost && p.Body == "" {
			p.Body = "x=1"
		}
		p.Host, p.OnFailure = host, tr.note
		l, err := load.New(p)
		if err != nil {
			in.t.Fatal(err)
		}
		tr.loads = append(tr.loads, l)
		tr.ended.Go(func() { l.Run(ctx) }) // ends with stop; waited for by end
	}
	return tr
}

func (tr *traffic) note(f load.Failure) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.failures) < 20 {
		tr.failures = append(tr.failures, f)
	}
}

// counts gives the sums so far.
func (tr *traffic) counts() seen {
	s := seen{Classes: map[load.Class]int64{}, Releases: map[string]load.Release{}}
	for _, l := range tr.loads {
		c := l.Counts()
		s.Requests += c.Requests
		s.Failures += c.Failures
		for class, n := range c.Classes {
			s.Classes[class] += n
		}
		for name, r := range c.Releases {
			have := s.Releases[name]
			s.Releases[name] = load.Release{Requests: have.Requests + r.Requests, Failures: have.Failures + r.Failures}
		}
	}
	s.Rate = float64(s.Requests) / time.Since(tr.began).Seconds()
	return s
}

// end stops the load and gives what became of it. It may be called again.
func (tr *traffic) end() seen {
	s := tr.counts()
	tr.stop()
	tr.ended.Wait()
	last := tr.counts()
	last.Rate = s.Rate
	return last
}

// flawless ends the load and fails the test when a request failed, or when there were fewer a second than
// promised: a load that does not press proves nothing.
func (tr *traffic) flawless(rate float64) seen {
	tr.t.Helper()
	s := tr.end()
	tr.t.Logf("load: %v", s)
	if s.Failures > 0 {
		tr.t.Errorf("%d of %d requests failed, want none; the first:", s.Failures, s.Requests)
		tr.tellFailures()
	}
	if s.Rate < rate {
		tr.t.Errorf("the load was %.0f requests a second, want at least %.0f", s.Rate, rate)
	}
	return s
}

func (tr *traffic) tellFailures() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, f := range tr.failures {
		tr.t.Logf("  %s %s status %d release %q after %v: %v", f.At.UTC().Format("15:04:05.000"), f.Class, f.Status, f.Release, f.Took, f.Err)
	}
}

// answered waits until the load has n more answers.
func (tr *traffic) answered(n int64) {
	tr.t.Helper()
	want := tr.counts().Requests + n
	await(tr.t, 30*time.Second, fmt.Sprintf("%d more answers", n), func() bool { return tr.counts().Requests >= want })
}
