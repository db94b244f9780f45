package judge

import (
	"math"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// The worked examples of the comments.

func TestComparison_WorkedExample(t *testing.T) {
	c := Comparison{Errors: 1 << 40} // so many that beginning anew weighs nothing
	c.Terms[len(ratios)-1] = 1
	for range 3 {
		c = c.observe(true, spillway.Percent(10), 1)
	}
	if got := c.Terms[len(ratios)-1]; math.Abs(got-973.5) > 1 {
		t.Errorf("three errors at 10 %% multiply the evidence for 1000 by %.1f, want 974", got)
	}
}

func TestGate_WorkedExample(t *testing.T) {
	g := Gate{Tally: Tally{Failures: 1 << 40}}
	g.Terms[len(odds)-1] = 1
	g = g.observe(true, 0.5)
	if got := g.Terms[len(odds)-1]; math.Abs(got-1.97) > 0.01 {
		t.Errorf("a failure multiplies the evidence for 98.5 %% by %.3f, want 1.97", got)
	}
	g = g.observe(false, 0.5).observe(true, 0.5)
	if got := g.Terms[len(odds)-1]; math.Abs(got-1.97*1.97/32) > 0.01 {
		t.Errorf("two failures and a good answer make it %.4f, want 1.97 x 1.97 / 32", got)
	}
}

func TestPace_WorkedExample(t *testing.T) {
	p := Pace{Gate: spillway.Slower{Quantile: 95, Limit: spillway.Duration(300 * time.Millisecond)}}
	p.Comparison.Errors = 1 << 40
	for i := range ratios {
		p.Comparison.Terms[i] = 1
	}
	for _, step := range []struct {
		took time.Duration
		want float64
	}{{301 * time.Millisecond, 13.56}, {300 * time.Millisecond, 13.56 / 2.95}} {
		p.observe(&Answer{Candidate: true, Took: step.took}, 300*time.Millisecond)
		if got := p.Comparison.Terms[6]; math.Abs(got-step.want) > 0.01 {
			t.Errorf("after an answer in %v the evidence for %g is %.3f, want %.3f", step.took, ratios[6], got, step.want)
		}
	}
}

// Ville's inequality needs the evidence to have an expectation of at most 1 under every fair candidate:
// here the one-step expectations, exactly.
func TestEvidence_CannotBeExpectedToGrow(t *testing.T) {
	for _, w := range []spillway.Share{1, 500, 5000, 9900} {
		for _, tolerance := range []float64{1, 2, 10} {
			for _, ratio := range []float64{0, 0.5, 1, tolerance} { // the candidate's rate by stable's
				c := newComparison()
				hit := fraction(w) * ratio / (1 + fraction(w)*(ratio-1))
				before := c.value(tolerance) + partLater // all that has not begun yet
				after := hit*c.observe(true, w, tolerance).value(tolerance) +
					(1-hit)*c.observe(false, w, tolerance).value(tolerance) + partLater/2 // of the first half has begun
				if after > before+1e-12 {
					t.Errorf("weight %v, tolerance %g, ratio %g: %.6f becomes %.6f", w, tolerance, ratio, before, after)
				}
			}
		}
	}
	for _, limit := range []float64{0.0001, 0.02, 0.5, 0.99} {
		for _, rate := range []float64{0, limit / 2, limit} {
			g := newGate()
			before := g.value() + gateLater
			// A good answer is booked at the next failure: two failures around it show its factor.
			failed, good := g.observe(true, limit).value()-gateLater/2, 0.0
			for i, o := range odds {
				p := o * limit / (1 - limit + o*limit)
				good += g.Terms[i] * (1 - p) / (1 - limit) / float64(len(odds))
			}
			if after := rate*failed + (1-rate)*good + gateLater; after > before+1e-12 {
				t.Errorf("limit %g, rate %g: %.6f becomes %.6f", limit, rate, before, after)
			}
		}
	}
	if sum := partFromStart + partLater + gateFromStart + gateLater; math.Abs(sum-1) > 1e-12 {
		t.Errorf("the parts sum to %g, want 1", sum)
	}
	if sum := partErrors + partLatency + gateFromStart + gateLater; math.Abs(sum-1) > 1e-12 {
		t.Errorf("with latency the parts sum to %g, want 1", sum)
	}
	s := New(9)
	for _, latency := range [][]spillway.Slower{nil, {{Factor: 100}}, {{Factor: 100}, {Quantile: 99, Limit: 1}}} {
		if worse, broken, slow := s.parts(&spillway.Trial{Latency: latency}); worse+broken+slow > 1 {
			t.Errorf("%d gates on latency: the evidence begins at %g, want at most 1", len(latency), worse+broken+slow)
		}
	}
}
