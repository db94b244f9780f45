package judge_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// The times of stable are log-normal with this median and this sigma, as in the published table.
const (
	median = 50 * time.Millisecond
	sigma  = 0.8
)

// delay draws a time of stable, which is that of a candidate that is no slower.
func delay(rng *rand.Rand) time.Duration {
	return time.Duration(float64(median) * math.Exp(sigma*rng.NormFloat64()))
}

// stablesTimes are the exact quantiles of delay.
func stablesTimes() (thresholds [5]time.Duration) {
	for i, z := range []float64{0, 0.674490, 1.281552, 1.644854, 2.326348} {
		thresholds[i] = time.Duration(float64(median) * math.Exp(sigma*z))
	}
	return thresholds
}

// slowdown makes a time of the candidate of one of stable.
type slowdown func(rng *rand.Rand, d time.Duration) time.Duration

func times(factor float64) slowdown {
	return func(_ *rand.Rand, d time.Duration) time.Duration { return time.Duration(float64(d) * factor) }
}

// stall makes a share of the requests a second slower.
func stall(share float64) slowdown {
	return func(rng *rand.Rand, d time.Duration) time.Duration {
		if rng.Float64() < share {
			d += time.Second
		}
		return d
	}
}

// playSlow asks requests that nobody fails until n are answered or done says so.
func playSlow(rng *rand.Rand, terms spillway.Trial, weight spillway.Share, slow slowdown, n int, done func(*judge.State) bool) judge.State {
	s := judge.New(9).Fix(stablesTimes())
	for range n {
		a := judge.Answer{Weight: weight, Candidate: rng.IntN(int(spillway.Whole)) < int(weight), Took: delay(rng)}
		if a.Candidate {
			a.Took = slow(rng, a.Took)
		}
		if s.ObserveInPlace(&a, &terms); done(&s) {
			break
		}
	}
	return s
}

// notSlower are the terms of a trial with "latency < 1x stable".
func notSlower() spillway.Trial {
	t := terms()
	t.Latency = []spillway.Slower{{Factor: 100}}
	return t
}

// alone tells when the evidence of latency alone would be enough.
func alone(terms spillway.Trial) func(*judge.State) bool {
	return func(s *judge.State) bool { return s.LatencyAlone(&terms) >= 100 }
}

// slowCells is the published table of mean candidate requests until a slower candidate is caught by the
// five thresholds, averaged (400 runs).
var slowCells = []struct {
	name      string
	slow      slowdown
	published [2]float64 // at a weight of 10 % and of 50 %
	quick     bool
}{
	{"all x1.2", times(1.2), [2]float64{716, 1407}, false},
	{"all x1.5", times(1.5), [2]float64{120, 231}, true},
	{"all x2", times(2), [2]float64{38, 77}, true},
	{"5% +1s", stall(0.05), [2]float64{167, 339}, true},
	{"1% +1s", stall(0.01), [2]float64{2255, 4392}, false},
}

// checkSlow measures them for the evidence of latency alone, which has to agree, and for the joint
// evidence, in which latency has a part of 35 %.
func checkSlow(t *testing.T, runs int, all bool) {
	for _, c := range slowCells {
		for i, weight := range []spillway.Share{spillway.Percent(10), spillway.Percent(50)} {
			if !c.quick && !all {
				continue
			}
			t.Run(fmt.Sprintf("%s at %v", c.name, weight), func(t *testing.T) {
				published, single, joint := c.published[i], 0.0, 0.0
				rng, terms, enough := dice(20), notSlower(), alone(notSlower())
				for range runs {
					first := int64(0)
					s := playSlow(rng, terms, weight, c.slow, math.MaxInt, func(s *judge.State) bool {
						if first == 0 && enough(s) {
							first = s.Candidate.Requests
						}
						return harmful(s) // that is later: it has a part of the weight
					})
					single += float64(first) / float64(runs)
					joint += float64(s.Candidate.Requests) / float64(runs)
				}
				t.Logf("published %5.0f  alone %6.1f (%.2f)  joint %6.1f (%.2f)", published, single, single/published, joint, joint/single)
				if math.Abs(single-published) > 0.15*published {
					t.Errorf("alone it takes %.1f requests, more than 15 %% from %.0f", single, published)
				}
				if joint > 1.3*single {
					t.Errorf("together with errors it takes %.1f requests, more than 1.3 times %.1f", joint, single)
				}
			})
		}
	}
}

func TestObserve_CatchesASlowCandidate(t *testing.T) { checkSlow(t, 400, false) }

// checkErrorsBesideLatency measures what gates on latency cost the verdict about errors.
func checkErrorsBesideLatency(t *testing.T, runs int, all bool) {
	for _, c := range powerCells {
		if !c.quick && !all {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			rng, sum, terms := dice(21), int64(0), notSlower()
			for range runs {
				s := play(rng, judge.New(9), terms, steady(spillway.Percent(c.weight), c.p1, c.p0), math.MaxInt, harmful)
				sum += s.Candidate.Requests
			}
			mean := float64(sum) / float64(runs)
			t.Logf("published %8.1f  mean %8.1f (%.2f)", c.mean, mean, mean/c.mean)
			if mean > 1.2*c.mean+1 {
				t.Errorf("mean is %.1f, more than 1.2 times %.1f", mean, c.mean)
			}
		})
	}
}

func TestObserve_CatchesErrorsBesideLatency(t *testing.T) { checkErrorsBesideLatency(t, 500, false) }

// fairPaces are trials of a candidate that keeps its gates.
var fairPaces = []struct {
	name   string
	weight spillway.Share
	gate   spillway.Slower
	slow   slowdown
}{
	{"the same at 10%", spillway.Percent(10), spillway.Slower{Factor: 100}, times(1)},
	{"the same at 50%", spillway.Percent(50), spillway.Slower{Factor: 100}, times(1)},
	{"the same p95 at 10%", spillway.Percent(10), spillway.Slower{Quantile: 95, Factor: 100}, times(1)},
	{"1.5 times, gate 1.5x", spillway.Percent(25), spillway.Slower{Factor: 150}, times(1.5)},
	{"p99 at its limit, no comparison", spillway.Whole, spillway.Slower{Quantile: 99, Limit: limitAt(2.326348)}, times(1)},
	{"p95 at its limit", spillway.Percent(10), spillway.Slower{Limit: limitAt(1.644854)}, times(1)},
}

// limitAt is the time of stable z standard deviations above its median.
func limitAt(z float64) spillway.Duration {
	return spillway.Duration(float64(median) * math.Exp(sigma*z))
}

// checkFairPaces measures how often such a candidate is called slow, by latency alone at the full alpha.
func checkFairPaces(t *testing.T, runs, requests int) {
	for _, f := range fairPaces {
		t.Run(f.name, func(t *testing.T) {
			terms, rng, blamed := terms(), dice(22), 0
			terms.Latency = []spillway.Slower{f.gate}
			for range runs {
				if s := playSlow(rng, terms, f.weight, f.slow, requests, alone(terms)); alone(terms)(&s) {
					blamed++
				}
			}
			t.Logf("%d of %d (%.2f %%)", blamed, runs, 100*float64(blamed)/float64(runs))
			if blamed > mostOf(runs, 0.01) {
				t.Errorf("%d of %d candidates that keep the gate are slow: more than 1 %%", blamed, runs)
			}
		})
	}
}

func TestObserve_SeldomBlamesAFairPace(t *testing.T) { checkFairPaces(t, 150, 4000) }

// slowCrowd plays sticky users: each belongs to one release, 5 % of them are slow always, on either
// side, and each asks about ten requests. With blind set the judge is not told who was slow before.
func slowCrowd(rng *rand.Rand, weight spillway.Share, requests int, blind bool) judge.State {
	type user struct {
		candidate bool
		factor    float64
		seen      uint64
	}
	born := func() user {
		u := user{candidate: rng.IntN(int(spillway.Whole)) < int(weight), factor: 1}
		if rng.IntN(20) == 0 {
			u.factor = 20
		}
		return u
	}
	users := make([]user, 50)
	for i := range users {
		users[i] = born()
	}
	terms := notSlower()
	s := judge.New(9).Fix(stablesTimes())
	for range requests {
		u := &users[rng.IntN(len(users))]
		a := judge.Answer{Candidate: u.candidate, Weight: weight, Took: time.Duration(u.factor * float64(delay(rng))), SlowRepeat: u.seen}
		if !blind {
			u.seen |= s.Slow(a.Candidate, a.Took, terms)
		}
		if s.ObserveInPlace(&a, &terms); harmful(&s) {
			break
		}
		if rng.IntN(10) == 0 {
			*u = born()
		}
	}
	return s
}

// checkSlowCrowd holds slow users to the promise, and shows that it takes SlowRepeat to keep it.
func checkSlowCrowd(t *testing.T, runs, requests int) {
	for _, weight := range []spillway.Share{spillway.Percent(10), spillway.Percent(50)} {
		t.Run(weight.String(), func(t *testing.T) {
			checkFair(t, runs, func(rng *rand.Rand) judge.State { return slowCrowd(rng, weight, requests, false) })
		})
		t.Run(weight.String()+" blind", func(t *testing.T) {
			rng, blamed := dice(23), 0
			for range runs {
				if s := slowCrowd(rng, weight, requests, true); harmful(&s) {
					blamed++
				}
			}
			t.Logf("%d of %d", blamed, runs)
			if blamed < runs/10 {
				t.Errorf("only %d of %d blamed when every slow answer counts: the world does not show the effect", blamed, runs)
			}
		})
	}
}

func TestObserve_CountsTheFirstSlowAnswerOfAUser(t *testing.T) { checkSlowCrowd(t, 100, 4000) }
