package judge_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// traefik are the bounds that Traefik has if nobody says otherwise; fine are closer.
var (
	traefik = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, 1200 * time.Millisecond, 5 * time.Second}
	fine    = []time.Duration{10e6, 20e6, 30e6, 40e6, 50e6, 75e6, 100e6, 150e6, 200e6, 300e6, 500e6, 1e9, 2e9}
)

// histogram is n answers that take 50 ms in the median, log-normally, times a slowdown.
func histogram(rng *rand.Rand, bounds []time.Duration, n int, slowdown float64) judge.Times {
	t := judge.Times{Bounds: bounds, Counts: make([]int64, len(bounds)+1)}
	for range n {
		took, i := time.Duration(slowdown*float64(delay(rng))), 0
		for i < len(bounds) && took > bounds[i] {
			i++
		}
		t.Counts[i]++
	}
	return t
}

func TestTimes_Usual(t *testing.T) {
	h := judge.Times{Bounds: traefik, Counts: []int64{94, 2, 3, 0, 1}}
	want := [5]time.Duration{traefik[0], traefik[0], traefik[0], traefik[1], traefik[2]}
	if got := h.Usual(); got != want {
		t.Errorf("usual times %v, want %v", got, want)
	}
	h.Counts[0]--
	if got := h.Usual(); got != [5]time.Duration{} {
		t.Errorf("99 answers have usual times %v", got)
	}
	if _, ok := h.Plus(judge.Times{Bounds: fine, Counts: make([]int64, len(fine)+1)}); ok {
		t.Error("histograms with other bounds are added")
	}
}

// TestObserveBatch_JudgesLatency: 83 requests a second read every 2 s, at a weight of 10 %.
func TestObserveBatch_JudgesLatency(t *testing.T) {
	p95 := limitAt(1.644854)
	for _, test := range []struct {
		name   string
		bounds []time.Duration
		gate   spillway.Slower
		slow   float64
		want   bool
	}{
		{"as slow", fine, spillway.Slower{Factor: 100}, 1, false},
		{"twice as slow", fine, spillway.Slower{Factor: 100}, 2, true},
		{"twice as slow, coarse", traefik, spillway.Slower{Factor: 100}, 2, true},
		{"within the factor", fine, spillway.Slower{Factor: 200}, 1.5, false},
		{"within the factor, coarse", traefik, spillway.Slower{Factor: 150}, 1.4, false},
		{"beyond the factor", fine, spillway.Slower{Factor: 150}, 3, true},
		{"p95 within its limit", fine, spillway.Slower{Quantile: 95, Limit: p95}, 0.9, false},
		{"p95 beyond its limit", fine, spillway.Slower{Quantile: 95, Limit: p95}, 2.5, true},
		{"a limit beyond all bounds", traefik, spillway.Slower{Quantile: 95, Limit: spillway.Duration(time.Minute)}, 1e6, false},
	} {
		rng, caught, runs := dice(81), 0, 30
		if !test.want {
			runs = 60
		}
		for range runs {
			s := judge.New(9).Fix(histogram(rng, test.bounds, 1000, 1).Usual())
			for n := 0; n < 150 && s.Cause == ""; n++ {
				s = s.ObserveBatch(judge.Batch{
					Candidate: judge.Tally{Requests: 17}, Stable: judge.Tally{Requests: 149}, Weight: spillway.Percent(10),
					CandidateTimes: histogram(rng, test.bounds, 17, test.slow), StableTimes: histogram(rng, test.bounds, 149, 1),
				}, gated(test.gate))
			}
			if s.Cause != "" && s.Cause != judge.SlowerThanStable {
				t.Errorf("%s: cause %s", test.name, s.Cause)
			}
			if s.Cause != "" {
				caught++
			}
		}
		if test.want != (caught == runs) || !test.want && caught > 1 {
			t.Errorf("%s: %d of %d are harmful, want all: %v", test.name, caught, runs, test.want)
		}
	}
}
