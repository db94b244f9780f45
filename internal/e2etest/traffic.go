package e2etest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/load"
)

// Traffic is load on an app, counted as users see it.
type Traffic struct {
	T     *testing.T // that is told what failed; it may be changed to a subtest while nobody waits
	loads []*load.Load
	stop  context.CancelFunc
	ended sync.WaitGroup
	began time.Time

	mu       sync.Mutex
	failures []load.Failure // the first of them
}

// Seen is what became of a load.
type Seen struct {
	Requests, Failures int64
	Classes            map[load.Class]int64
	Releases           map[string]load.Release // by X-Spillway-Release
	Rate               float64                 // requests per second
}

// String is one line for a log.
func (s Seen) String() string {
	return fmt.Sprintf("%d requests at %.0f/s, %d failed %v", s.Requests, s.Rate, s.Failures, s.Classes)
}

// Send starts load until End, or the end of the test. The plans name the URL and the host; OnFailure is not theirs.
func Send(t *testing.T, plans ...load.Plan) *Traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &Traffic{T: t, stop: cancel, began: time.Now()}
	t.Cleanup(func() { tr.End() })
	for _, p := range plans {
		p.OnFailure = tr.note
		l, err := load.New(p)
		if err != nil {
			t.Fatal(err)
		}
		tr.loads = append(tr.loads, l)
		tr.ended.Go(func() { l.Run(ctx) }) // ends with stop; waited for by End
	}
	return tr
}

func (tr *Traffic) note(f load.Failure) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.failures) < 20 {
		tr.failures = append(tr.failures, f)
	}
}

// Forget takes failures off the list that were to be expected.
func (tr *Traffic) Forget() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.failures = nil
}

// First is when the first request failed that is known; zero = none has.
func (tr *Traffic) First() time.Time {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.failures) == 0 {
		return time.Time{}
	}
	return tr.failures[0].At
}

// Counts gives the sums so far.
func (tr *Traffic) Counts() Seen {
	s := Seen{Classes: map[load.Class]int64{}, Releases: map[string]load.Release{}}
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

// P99 is how long the first plan's requests took so far, but for the slowest 1 %.
func (tr *Traffic) P99() time.Duration { return tr.loads[0].Counts().P99 }

// End stops the load and gives what became of it. It may be called again.
func (tr *Traffic) End() Seen {
	s := tr.Counts()
	tr.stop()
	tr.ended.Wait()
	last := tr.Counts()
	last.Rate = s.Rate
	return last
}

// Flawless ends the load and fails the test when a request failed, or when there were fewer a second than promised: a
// load that does not press proves nothing.
func (tr *Traffic) Flawless(rate float64) Seen {
	tr.T.Helper()
	s := tr.End()
	tr.T.Logf("load: %v", s)
	if s.Failures > 0 {
		tr.T.Errorf("%d of %d requests failed, want none; the first:", s.Failures, s.Requests)
		tr.TellFailures()
	}
	if s.Rate < rate {
		tr.T.Errorf("the load was %.0f requests a second, want at least %.0f", s.Rate, rate)
	}
	return s
}

// TellFailures logs the first failures that are known.
func (tr *Traffic) TellFailures() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, f := range tr.failures {
		tr.T.Logf("  %s %s status %d release %q after %v: %v", f.At.UTC().Format("15:04:05.000"), f.Class, f.Status, f.Release, f.Took, f.Err)
	}
}

// Answered waits until the load has n more answers.
func (tr *Traffic) Answered(n int64) {
	tr.T.Helper()
	want := tr.Counts().Requests + n
	Await(tr.T, time.Minute, fmt.Sprintf("%d more answers", n), func() bool { return tr.Counts().Requests >= want })
}
