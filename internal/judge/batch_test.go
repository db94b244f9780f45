package judge_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// batchOf is a batch of one answer.
func batchOf(a judge.Answer) (b judge.Batch) {
	b.Weight = a.Weight
	tally := judge.Tally{Requests: 1}
	if a.Failed {
		tally.Failures = 1
	}
	if a.Candidate {
		b.Candidate = tally
	} else {
		b.Stable = tally
	}
	return b
}

func TestObserveBatch_OfOneAnswerIsObserve(t *testing.T) {
	rng, weights := dice(71), []spillway.Share{0, 500, spillway.Percent(50), spillway.Whole}
	for _, tolerance := range []int{0, 100, 200} {
		terms := terms()
		terms.Tolerance = tolerance
		one, batched := judge.New(9), judge.New(9)
		for range 3000 {
			a := judge.Answer{Candidate: rng.IntN(2) == 0, Weight: weights[rng.IntN(len(weights))], Failed: rng.IntN(5) == 0}
			one, batched = one.Observe(a, terms), batched.ObserveBatch(batchOf(a), terms)
			if !alike(one, batched) {
				t.Fatalf("after %+v:\nbatch   %+v\nanswers %+v", a, batched, one)
			}
		}
	}
}

// alike compares what batches change; evidence to 9 digits.
func alike(a, b judge.State) bool {
	near := func(x, y float64) bool { return math.Abs(x-y) <= 1e-9*max(x, y) }
	ok := a.Candidate == b.Candidate && a.Stable == b.Stable && a.Sample == b.Sample && a.Baseline == b.Baseline && a.Cause == b.Cause &&
		a.Comparison.Errors == b.Comparison.Errors && a.Gate.Tally == b.Gate.Tally && a.Gate.Good == b.Gate.Good && near(a.Peak, b.Peak)
	for i := range a.Comparison.Terms {
		ok = ok && near(a.Comparison.Terms[i], b.Comparison.Terms[i])
	}
	for i := range a.Gate.Terms {
		ok = ok && near(a.Gate.Terms[i], b.Gate.Terms[i])
	}
	return ok
}

// TestObserveBatch_Formula: 3 errors of the candidate and 2 of stable in a batch at 10 % are, for r = 1000,
// 0.85 times 1000^3 / 100.9^5, and 5/6 of what begins anew.
func TestObserveBatch_Formula(t *testing.T) {
	b := judge.Batch{Candidate: judge.Tally{Requests: 10, Failures: 3}, Stable: judge.Tally{Requests: 90, Failures: 2}, Weight: spillway.Percent(10)}
	s := judge.New(9).ObserveBatch(b, terms())
	if got, want := s.Comparison.Terms[8], 0.85*math.Pow(1000, 3)/math.Pow(100.9, 5)+0.05*5/6; math.Abs(got-want) > 1e-9 {
		t.Errorf("term %v, want %v", got, want)
	}
	b.Weight = 0
	s = judge.New(9).ObserveBatch(b, terms())
	if got, want := s.Gate.Terms[0], 0.08*math.Pow(4.0/3, 3)*math.Pow(2.0/3, 7)+0.02*3/4; math.Abs(got-want) > 1e-9 {
		t.Errorf("term of the gate %v, want %v", got, want)
	}
	if s.Comparison.Errors != 0 || s.Sample.Requests != 0 || s.Candidate.Requests != 10 {
		t.Errorf("a batch without weight compares: %+v", s)
	}
}

// TestObserveBatch_AgreesWithAnswers plays trials answer by answer and in batches at once. What the batches
// call harmful the answers do, and what the answers do the batches do at most a few batches later.
func TestObserveBatch_AgreesWithAnswers(t *testing.T) {
	const size = 166
	for _, test := range []struct {
		name   string
		world  world
		cause  judge.Cause
		within int // batches that it may take longer
	}{
		{"dead at 5%", steady(500, 1, 0.001), judge.WorseThanStable, 0},
		{"dead at 50%", steady(spillway.Percent(50), 1, 0.001), judge.WorseThanStable, 0},
		{"10% at 10%", steady(spillway.Percent(10), 0.1, 0.001), judge.WorseThanStable, 1},
		{"dead at 100%", steady(spillway.Whole, 1, 0), judge.AboveLimit, 0},
		{"dead, without a weight", steady(0, 1, 0), judge.AboveLimit, 0},
		{"dies after 100 batches", func(i int) (spillway.Share, float64, float64) {
			if i < 100*size {
				return spillway.Percent(10), 0.01, 0.01
			}
			return spillway.Percent(10), 1, 0.01
		}, judge.WorseThanStable, 1},
	} {
		rng := dice(72)
		for run := range 100 {
			one, batched, late := judge.New(9), judge.New(9), -1
			for i := 0; batched.Cause == "" && i < 400*size; {
				var b judge.Batch
				for range size {
					weight, candidate, stable := test.world(i)
					i++
					a := judge.Answer{Weight: weight, Candidate: rng.IntN(int(spillway.Whole)) < int(weight) || weight == 0}
					a.Failed = rng.Float64() < stable
					if a.Candidate {
						a.Failed = rng.Float64() < candidate
					}
					one = one.Observe(a, terms())
					single := batchOf(a)
					b.Weight = single.Weight
					b.Candidate.Requests += single.Candidate.Requests
					b.Candidate.Failures += single.Candidate.Failures
					b.Stable.Requests += single.Stable.Requests
					b.Stable.Failures += single.Stable.Failures
				}
				batched = batched.ObserveBatch(b, terms())
				if one.Cause != "" {
					late++
				}
			}
			if one.Cause != test.cause || batched.Cause != test.cause || late > test.within {
				t.Fatalf("%s, run %d: answers say %q, batches %q, %d batches later", test.name, run, one.Cause, batched.Cause, late)
			}
		}
	}
}

// fairBatch is a batch of so many answers with the same error rate on both sides. Only the errors are diced.
func fairBatch(rng *rand.Rand, size int, weight spillway.Share, rate float64) judge.Batch {
	w := float64(weight) / float64(spillway.Whole)
	b := judge.Batch{Weight: weight}
	b.Candidate.Requests = int64(math.Round(w * float64(size)))
	b.Stable.Requests = int64(size) - b.Candidate.Requests
	for i := skip(rng, rate); i < size; i += 1 + skip(rng, rate) {
		if rng.Float64() < w && b.Candidate.Failures < b.Candidate.Requests || b.Stable.Failures == b.Stable.Requests {
			b.Candidate.Failures++
		} else {
			b.Stable.Failures++
		}
	}
	return b
}

// skip is the number of good answers before the next error.
func skip(rng *rand.Rand, rate float64) int {
	return int(min(math.Log(1-rng.Float64())/math.Log1p(-rate), 1e9))
}

// TestObserveBatch_RarelyAccusesAnIdenticalRelease: 83 requests a second read every 2 s, the weight climbing
// from 5 to 50 %, then all of it for the watch: 20 minutes.
func TestObserveBatch_RarelyAccusesAnIdenticalRelease(t *testing.T) {
	const runs, size, batches = 500, 166, 600
	climb := []spillway.Share{spillway.Percent(5), spillway.Percent(10), spillway.Percent(25), spillway.Percent(50), spillway.Whole}
	for _, rate := range []float64{0.0005, 0.01, 0.2} {
		rng, accused := dice(73), 0
		for range runs {
			s := judge.New(9)
			for i := 0; i < batches && s.Cause == ""; i++ {
				s = s.ObserveBatch(fairBatch(rng, size, climb[i*len(climb)/batches], rate), terms())
			}
			if s.Cause != "" {
				accused++
			}
		}
		t.Logf("error rate %g: %d of %d accused (%.2f %%)", rate, accused, runs, 100*float64(accused)/runs)
		if accused > runs/100 {
			t.Errorf("error rate %g: %d of %d identical releases are harmful, more than 1 %%", rate, accused, runs)
		}
	}
}

// TestObserveBatch_CatchesADeadRelease: 83 requests a second, 5 % of them to a release that fails all.
func TestObserveBatch_CatchesADeadRelease(t *testing.T) {
	rng, took := dice(74), map[int]int{}
	for range 1000 {
		s, n := judge.New(9), 0
		for s.Cause == "" {
			n++
			b := fairBatch(rng, 166, 500, 0.001)
			b.Candidate = judge.Tally{}
			for range 166 {
				if rng.Float64() < 0.05 {
					b.Candidate.Requests++
				}
			}
			b.Candidate.Failures = b.Candidate.Requests
			s = s.ObserveBatch(b, terms())
		}
		took[n]++
	}
	t.Logf("batches until it is harmful: %v", took)
	if took[1] < 950 || took[1]+took[2] != 1000 {
		t.Errorf("a dead release takes more than two batches: %v", took)
	}
}

func TestObserveBatch_TakesNoTimeForManyAnswers(t *testing.T) {
	b := judge.Batch{Candidate: judge.Tally{Requests: 1e6, Failures: 1e6}, Stable: judge.Tally{Requests: 1e9, Failures: 9e8}, Weight: 500}
	began, s := time.Now(), judge.New(9)
	for range 1000 {
		s = s.ObserveBatch(b, terms())
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("1000 batches took %v", took)
	}
	for _, v := range append(s.Comparison.Terms[:], s.Peak) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("evidence is %v", v)
		}
	}
}
