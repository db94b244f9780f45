package judge_test

import (
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

func BenchmarkObserve(b *testing.B) {
	for name, a := range map[string]judge.Answer{
		"good":   {Candidate: true, Weight: spillway.Percent(10)},
		"failed": {Weight: spillway.Percent(10), Failed: true},
		"gate":   {Candidate: true, Weight: spillway.Whole, Failed: true},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			s := judge.New(1)
			t := spillway.Trial{Limit: 9999}
			for b.Loop() {
				s = s.Observe(a, t)
			}
		})
	}
}

// BenchmarkLatency is what an answer costs in a trial with "latency < 1x stable": Slow and Observe.
func BenchmarkLatency(b *testing.B) {
	t := spillway.Trial{Latency: []spillway.Slower{{Factor: 100}}}
	for name, took := range map[string]time.Duration{"quick": time.Millisecond, "slow": time.Second} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			s, seen := judge.New(1).Fix([5]time.Duration{50e6, 75e6, 90e6, 95e6, 99e6}), uint64(0)
			for b.Loop() {
				seen |= s.Slow(true, took, t)
				s = s.Observe(judge.Answer{Candidate: true, Weight: spillway.Percent(10), Took: took}, t)
			}
		})
	}
}
