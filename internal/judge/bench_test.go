package judge_test

import (
	"testing"

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
