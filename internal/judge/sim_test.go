package judge_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// The tables of this file are measured, with fixed seeds. The short counts run always; build with the
// tag sim for the full ones.

// world says for request i the candidate's weight and the error rates of both releases.
type world func(i int) (weight spillway.Share, candidate, stable float64)

// steady is a world in which nothing changes.
func steady(weight spillway.Share, candidate, stable float64) world {
	return func(int) (spillway.Share, float64, float64) { return weight, candidate, stable }
}

// play asks requests of a world until n are answered or done says so.
func play(rng *rand.Rand, s judge.State, terms spillway.Trial, w world, n int, done func(*judge.State) bool) judge.State {
	for i := range n {
		weight, candidate, stable := w(i)
		a := judge.Answer{Weight: weight, Candidate: rng.IntN(int(spillway.Whole)) < int(weight)}
		rate := stable
		if a.Candidate {
			rate = candidate
		}
		a.Failed = rate > 0 && rng.Float64() < rate
		if s.ObserveInPlace(&a, &terms); done(&s) {
			break
		}
	}
	return s
}

func harmful(s *judge.State) bool { return s.Cause != "" }

func dice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 20261121)) }

// terms are those of a trial that says nothing special.
func terms() spillway.Trial {
	return spillway.Trial{ID: 9, Release: 7, Stable: 6, Budget: 20, Margin: spillway.Percent(1), Tolerance: 100}
}

// powerCell is a row of the table of candidate requests until a candidate is harmful. bound is the
// published two-sample Wald bound, mean the published mean of the conditional mixture alone.
type powerCell struct {
	weight      int // percent
	p0, p1      float64
	bound, mean float64
	quick       bool
}

var powerCells = []powerCell{
	{10, 0.001, 1, 1.4, 3.0, true},
	{10, 0.001, 0.10, 22.5, 32.8, true},
	{10, 0.001, 0.05, 50.1, 71.5, true},
	{10, 0.001, 0.002, 13611, 18185, false},
	{10, 0.01, 1, 1.6, 3.3, true},
	{10, 0.01, 0.10, 41.1, 57.3, true},
	{10, 0.01, 0.05, 135, 180, true},
	{10, 0.01, 0.02, 1345, 1814, false},
	{50, 0.001, 1, 3.3, 8.0, true},
	{50, 0.001, 0.10, 69, 83, true},
	{50, 0.001, 0.05, 148, 173, true},
	{50, 0.001, 0.002, 27065, 33612, false},
	{50, 0.01, 1, 3.5, 8.3, true},
	{50, 0.01, 0.10, 103, 119, true},
	{50, 0.01, 0.05, 308, 364, true},
	{50, 0.01, 0.02, 2671, 3383, false},
}

// waldBound is the least mean number of candidate requests that any test takes to tell p1 from an
// unknown p0 at weight w with alpha = 1 % (Wald 1945, by the mutual information of release and outcome).
func waldBound(p0, p1, w float64) float64 {
	divergence := func(p, q float64) float64 {
		d := 0.0
		if p > 0 {
			d += p * math.Log(p/q)
		}
		if p < 1 {
			d += (1 - p) * math.Log((1-p)/(1-q))
		}
		return d
	}
	m := w*p1 + (1-w)*p0
	return w * math.Log(1/0.01) / (w*divergence(p1, m) + (1-w)*divergence(p0, m))
}

func (c powerCell) String() string {
	return fmt.Sprintf("%g%%_to_%g%%_at_%d%%", 100*c.p0, 100*c.p1, c.weight)
}

// check measures the mean number of candidate requests until the verdict over so many trials.
func (c powerCell) check(t *testing.T, runs int) {
	rng, sum := dice(1), int64(0)
	for range runs {
		s := play(rng, judge.New(9), terms(), steady(spillway.Percent(c.weight), c.p1, c.p0), math.MaxInt, harmful)
		sum += s.Candidate.Requests
	}
	mean, bound := float64(sum)/float64(runs), waldBound(c.p0, c.p1, float64(c.weight)/100)
	t.Logf("%-22v bound %8.1f  published %8.1f  mean %8.1f  ratio %.2f", c, bound, c.mean, mean, mean/bound)
	if math.Abs(bound-c.bound) > 0.02*c.bound+0.1 {
		t.Errorf("bound is %.2f, the table says %.1f", bound, c.bound)
	}
	if math.Abs(mean-c.mean) > 0.1*c.mean {
		t.Errorf("mean is %.1f, more than 10 %% from %.1f", mean, c.mean)
	}
	switch {
	case bound >= 10 && mean > 1.5*bound:
		t.Errorf("mean is %.1f, more than 1.5 times the bound %.1f", mean, bound)
	// At 50 % each error carries a factor of 2 at most, so a test that looks at errors only takes
	// 7 of them, whatever the bound says. Good answers would halve that, but those of sticky users
	// come in clusters and so are no evidence.
	case bound < 10 && c.weight < 50 && mean > bound+3:
		t.Errorf("mean is %.1f, more than the bound %.1f and 3", mean, bound)
	}
}

func TestObserve_TakesFewRequests(t *testing.T) {
	for _, c := range powerCells {
		if c.quick {
			t.Run(c.String(), func(t *testing.T) { c.check(t, 1000) })
		}
	}
}

// fairWorlds are trials of a candidate that is exactly as good as stable.
var fairWorlds = []struct {
	name  string
	limit spillway.Share
	world world
}{
	{"constant 0.1% at 10%", 0, steady(spillway.Percent(10), 0.001, 0.001)},
	{"constant 1% at 10%", 0, steady(spillway.Percent(10), 0.01, 0.01)},
	{"constant 1% at 50%", 0, steady(spillway.Percent(50), 0.01, 0.01)},
	{"constant 5% at 1%", 0, steady(spillway.Percent(1), 0.05, 0.05)},
	{"shared outage", 0, func(i int) (spillway.Share, float64, float64) {
		p := 0.01
		if i >= 3000 && i < 5000 {
			p = 0.2
		}
		return spillway.Percent(10), p, p
	}},
	{"shared outage at once", 0, func(i int) (spillway.Share, float64, float64) {
		p := 0.01
		if i < 2000 {
			p = 0.2
		}
		return spillway.Percent(25), p, p
	}},
	{"daily wave", 0, func(i int) (spillway.Share, float64, float64) {
		p := 0.01 * (1 + math.Sin(float64(i)/500))
		return spillway.Percent(25), p, p
	}},
	{"ramp to 100%", 0, ramp(0.01)},
	{"ramp to 100%, rate at the limit", spillway.Percent(2), ramp(0.02)},
	{"all at the limit", spillway.Percent(2), steady(spillway.Whole, 0.02, 0)},
	{"all, little under the budget's half", 0, steady(spillway.Whole, 0.3, 0)},
}

// ramp is the weights 5, 10, 25, 50 and then 100 %, 2,000 requests each.
func ramp(p float64) world {
	return func(i int) (spillway.Share, float64, float64) {
		weights := []int{5, 10, 25, 50, 100}
		return spillway.Percent(weights[min(i/2000, len(weights)-1)]), p, p
	}
}

// mostOf is the number of false verdicts that 99 of 100 measurements of so many trials stay within when
// the true rate is exactly the promised one.
func mostOf(runs int, rate float64) int {
	p, sum := math.Pow(1-rate, float64(runs)), 0.0
	for k := 0; ; k++ {
		if sum += p; sum >= 0.99 {
			return k
		}
		p *= float64(runs-k) / float64(k+1) * rate / (1 - rate)
	}
}

// checkFair measures how often a fair candidate is called harmful.
func checkFair(t *testing.T, runs int, trial func(rng *rand.Rand) judge.State) {
	t.Helper()
	rng, blamed := dice(2), 0
	for range runs {
		if s := trial(rng); harmful(&s) {
			blamed++
		}
	}
	t.Logf("%d of %d (%.2f %%)", blamed, runs, 100*float64(blamed)/float64(runs))
	if blamed > mostOf(runs, 0.01) {
		t.Errorf("%d of %d fair candidates are harmful: more than 1 %%", blamed, runs)
	}
}

// checkFairWorlds runs every fair world.
func checkFairWorlds(t *testing.T, runs, requests int) {
	for _, w := range fairWorlds {
		t.Run(w.name, func(t *testing.T) {
			terms := terms()
			terms.Limit = w.limit
			checkFair(t, runs, func(rng *rand.Rand) judge.State {
				return play(rng, judge.New(9), terms, w.world, requests, harmful)
			})
		})
	}
}

func TestObserve_SeldomBlamesAFairCandidate(t *testing.T) { checkFairWorlds(t, 150, 12_000) }

// crowd plays sticky users: each belongs to one release, 2 % of them fail always, and each asks about
// ten requests. With blind set the judge is not told who failed before.
func crowd(rng *rand.Rand, weight spillway.Share, requests int, blind bool) judge.State {
	type user struct{ candidate, broken, failed bool }
	born := func() user {
		return user{candidate: rng.IntN(int(spillway.Whole)) < int(weight), broken: rng.IntN(50) == 0}
	}
	users := make([]user, 50)
	for i := range users {
		users[i] = born()
	}
	s, terms := judge.New(9), terms()
	for range requests {
		u := &users[rng.IntN(len(users))]
		s.ObserveInPlace(&judge.Answer{Candidate: u.candidate, Weight: weight, Failed: u.broken, Repeat: u.failed && !blind}, &terms)
		if harmful(&s) {
			break
		}
		if u.failed = u.broken; rng.IntN(10) == 0 {
			*u = born()
		}
	}
	return s
}

// checkCrowd holds sticky users to the promise, and shows that it takes Answer.Repeat to keep it.
func checkCrowd(t *testing.T, runs, requests int) {
	for _, weight := range []spillway.Share{spillway.Percent(10), spillway.Percent(50)} {
		t.Run(weight.String(), func(t *testing.T) {
			checkFair(t, runs, func(rng *rand.Rand) judge.State { return crowd(rng, weight, requests, false) })
		})
		t.Run(weight.String()+" blind", func(t *testing.T) {
			rng, blamed := dice(3), 0
			for range runs {
				if s := crowd(rng, weight, requests, true); harmful(&s) {
					blamed++
				}
			}
			t.Logf("%d of %d", blamed, runs)
			if blamed < runs/10 {
				t.Errorf("only %d of %d blamed when every request counts: the world does not show the effect", blamed, runs)
			}
		})
	}
}

func TestObserve_CountsTheFirstErrorOfAUser(t *testing.T) { checkCrowd(t, 150, 12_000) }

func TestObserve_GoesOnAfterRestore(t *testing.T) {
	rng := dice(4)
	straight, restored := judge.New(9), judge.New(9)
	w := func(i int) (spillway.Share, float64, float64) {
		return spillway.Percent([]int{1, 10, 50, 100}[i%4]), 0.02, 0.02
	}
	for range 200 {
		seed := rng.Uint64()
		never := func(*judge.State) bool { return false }
		straight = play(dice(seed), straight, terms(), w, 50, never)
		text, err := json.Marshal(restored)
		if err != nil {
			t.Fatal(err)
		}
		restored = judge.State{}
		if err := json.Unmarshal(text, &restored); err != nil {
			t.Fatal(err)
		}
		restored = play(dice(seed), restored, terms(), w, 50, never)
		if straight != restored {
			t.Fatalf("after a restore\n%+v\nwithout\n%+v", restored, straight)
		}
	}
}

// certificateCells is the published table of candidate requests until a good candidate is certified,
// at a weight of 10 %.
var certificateCells = []struct {
	margin spillway.Share
	p0     float64
	mean   float64
	quick  bool
}{
	{50, 0.001, 926, false},
	{50, 0.01, 3127, false},
	{100, 0.001, 391, true},
	{100, 0.01, 966, true},
	{200, 0.001, 176, true},
	{200, 0.01, 324, true},
	{500, 0.001, 64, true},
	{500, 0.01, 90, true},
}

func certified(terms spillway.Trial) func(*judge.State) bool {
	return func(s *judge.State) bool { return s.Verdict(terms) == spillway.Certified }
}

// decided stops a trial at its first verdict.
func decided(terms spillway.Trial) func(*judge.State) bool {
	return func(s *judge.State) bool { return harmful(s) || certified(terms)(s) }
}

// checkCertificates measures how long a good candidate takes to be certified, and how often one that is
// worse by exactly the margin ever is when it is looked at after every answer.
func checkCertificates(t *testing.T, runs int, all bool) {
	for _, c := range certificateCells {
		if !c.quick && !all {
			continue
		}
		t.Run(fmt.Sprintf("%v_above_%g%%", c.margin, 100*c.p0), func(t *testing.T) {
			terms := terms()
			terms.Margin = c.margin
			rng, sum, n := dice(5), int64(0), 0
			for range runs {
				s := play(rng, judge.New(9), terms, steady(spillway.Percent(10), c.p0, c.p0), math.MaxInt, decided(terms))
				if !harmful(&s) { // one in a hundred may be, and then is never certified
					sum, n = sum+s.Candidate.Requests, n+1
				}
			}
			mean := float64(sum) / float64(n)
			t.Logf("published %5.0f  mean %5.0f", c.mean, mean)
			if math.Abs(mean-c.mean) > 0.25*c.mean {
				t.Errorf("mean is %.0f, more than 25 %% from %.0f", mean, c.mean)
			}
		})
	}
}

// checkMisses measures how often a candidate that is worse by the margin is ever certified.
func checkMisses(t *testing.T, runs, requests int, weights []int) {
	for _, weight := range weights {
		for _, margin := range []int{1, 5, 20, 50} {
			for _, p0 := range []float64{0, 0.001, 0.01, 0.2} {
				t.Run(fmt.Sprintf("%d%%_above_%g%%_at_%d%%", margin, 100*p0, weight), func(t *testing.T) {
					terms := terms()
					terms.Margin, terms.Tolerance = spillway.Percent(margin), 100_000 // harm is not the question here
					terms.Budget = math.MaxInt
					rng, missed := dice(6), 0
					for range runs {
						p1 := p0 + float64(margin)/100
						s := play(rng, judge.New(9), terms, steady(spillway.Percent(weight), p1, p0), requests/margin, certified(terms))
						if certified(terms)(&s) {
							missed++
						}
					}
					t.Logf("%d of %d (%.2f %%)", missed, runs, 100*float64(missed)/float64(runs))
					if missed > mostOf(runs, 0.05) {
						t.Errorf("%d of %d certified: more than 5 %%", missed, runs)
					}
				})
			}
		}
	}
}

func TestEvidence_CertifiesSoon(t *testing.T) { checkCertificates(t, 150, false) }

func TestEvidence_SeldomCertifiesAWorseCandidate(t *testing.T) {
	checkMisses(t, 200, 8_000, []int{10, 50})
}
