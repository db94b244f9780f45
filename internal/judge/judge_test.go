package judge_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// observe gives a state n times the same answer.
func observe(s judge.State, terms spillway.Trial, n int, a judge.Answer) judge.State {
	for range n {
		s = s.Observe(a, terms)
	}
	return s
}

func TestObserve_CatchesADeadCandidate(t *testing.T) {
	tests := []struct {
		weight spillway.Share
		budget int
		want   int64 // failures until harmful
		cause  judge.Cause
	}{
		{spillway.Percent(1), 20, 3, judge.WorseThanStable},
		{spillway.Percent(5), 20, 3, judge.WorseThanStable},
		{spillway.Percent(10), 20, 3, judge.WorseThanStable},
		{spillway.Percent(25), 20, 5, judge.WorseThanStable},
		{spillway.Percent(50), 20, 8, judge.WorseThanStable},
		{spillway.Percent(75), 20, 19, judge.WorseThanStable},
		{spillway.Percent(90), 20, 20, judge.BudgetSpent},
		{spillway.Whole, 20, 12, judge.AboveLimit},
		{0, 20, 12, judge.AboveLimit},
		{spillway.Percent(1), 3, 3, judge.WorseThanStable},
		{spillway.Percent(50), 3, 3, judge.BudgetSpent},
		{spillway.Whole, 3, 3, judge.BudgetSpent},
		{spillway.Percent(10), 1, 1, judge.BudgetSpent},
		{spillway.Percent(90), 0, 20, judge.BudgetSpent}, // 0 stands for the default
	}
	for _, test := range tests {
		terms := terms()
		terms.Budget = test.budget
		s := judge.New(9)
		for !harmful(&s) {
			s = s.Observe(judge.Answer{Candidate: true, Weight: test.weight, Failed: true}, terms)
		}
		if s.Candidate.Failures != test.want || s.Cause != test.cause {
			t.Errorf("weight %v, budget %d: %s after %d failures, want %s after %d",
				test.weight, test.budget, s.Cause, s.Candidate.Failures, test.cause, test.want)
		}
	}
}

// A release that worked for a long time and then dies is caught too: what was good before is not held
// against the evidence for ever.
func TestObserve_CatchesACandidateThatDiesLate(t *testing.T) {
	tests := []struct {
		weight spillway.Share
		rate   float64 // of both releases, before
		most   int64   // failures after the death
	}{
		{spillway.Percent(1), 0.001, 10},
		{spillway.Percent(10), 0.001, 12},
		{spillway.Percent(10), 0.01, 20},
		{spillway.Percent(50), 0.001, 40},
		{spillway.Whole, 0, 16},
		{spillway.Whole, 0.01, 40},
	}
	for _, test := range tests {
		never := func(*judge.State) bool { return false }
		s := play(dice(7), judge.New(9), terms(), steady(test.weight, test.rate, test.rate), 50_000, never)
		if harmful(&s) {
			t.Fatalf("weight %v: harmful before it died", test.weight)
		}
		before := s.Candidate.Failures
		s = play(dice(8), s, terms(), steady(test.weight, 1, test.rate), 50_000, harmful)
		if after := s.Candidate.Failures - before; !harmful(&s) || after > test.most {
			t.Errorf("weight %v, %g %% before: harmful %v after %d failures, want at most %d", test.weight, 100*test.rate, harmful(&s), after, test.most)
		}
	}
}

func TestObserve_StaysHarmful(t *testing.T) {
	s := observe(judge.New(9), terms(), 3, judge.Answer{Candidate: true, Weight: 500, Failed: true})
	cause, reason := s.Cause, s.Evidence(terms()).Chance
	s = observe(s, terms(), 5000, judge.Answer{Candidate: true, Weight: 500})
	s = observe(s, terms(), 5000, judge.Answer{Weight: 500, Failed: true})
	if e := s.Evidence(terms()); s.Cause != cause || e.Verdict != spillway.Harmful || e.Chance != reason {
		t.Errorf("cause %q verdict %s chance %q after good answers, want %q harmful %q", s.Cause, e.Verdict, e.Chance, cause, reason)
	}
}

func TestObserve_WaitsForThreeFailures(t *testing.T) {
	s := observe(judge.New(9), terms(), 2, judge.Answer{Candidate: true, Weight: 100, Failed: true})
	if s.Peak < 100 || harmful(&s) {
		t.Errorf("peak %.0f, harmful %v after two failures at 1 %%, want proof and no verdict", s.Peak, harmful(&s))
	}
}

func TestObserve_KeepsTheTolerance(t *testing.T) {
	for _, test := range []struct {
		tolerance int
		want      bool
	}{{0, true}, {100, true}, {300, false}, {1_000_000, false}} {
		terms := terms()
		terms.Tolerance = test.tolerance
		s := play(dice(9), judge.New(9), terms, steady(spillway.Percent(10), 0.02, 0.01), 60_000, harmful)
		if harmful(&s) != test.want {
			t.Errorf("twice stable's rate, tolerance %d: harmful %v, want %v", test.tolerance, harmful(&s), test.want)
		}
	}
}

func TestObserve_IgnoresRepeatsAsEvidence(t *testing.T) {
	for _, weight := range []spillway.Share{0, 100, spillway.Whole} {
		again := judge.Answer{Candidate: true, Weight: weight, Failed: true, Repeat: true}
		s := observe(judge.New(9), terms(), 19, again)
		if harmful(&s) || s.Candidate.Failures != 19 || s.Peak > 1 {
			t.Errorf("weight %v: %+v: want 19 failures that prove nothing", weight, s)
		}
		if s = observe(s, terms(), 1, again); s.Cause != judge.BudgetSpent {
			t.Errorf("weight %v: cause %q after 20 failures of one user, want %q", weight, s.Cause, judge.BudgetSpent)
		}
	}
}

func TestObserve_ToleratesExtremeTerms(t *testing.T) {
	for _, terms := range []spillway.Trial{
		{},
		{Limit: spillway.Whole, Margin: spillway.Whole, Tolerance: 1, Budget: 1},
		{Limit: 1, Margin: 1, Tolerance: 1 << 40, Budget: 1 << 40},
		{Limit: -1, Margin: -1, Tolerance: -1, Budget: -1},
	} {
		for _, weight := range []spillway.Share{-1, 0, 1, 9999, spillway.Whole, spillway.Whole + 1} {
			s := judge.New(1)
			for i := range 2000 {
				s = s.Observe(judge.Answer{Candidate: i%3 > 0, Weight: weight, Failed: i%5 > 0}, terms)
				e := s.Evidence(terms)
				if e.Needs < 0 || s.Peak != s.Peak || s.Peak < 0 {
					t.Fatalf("terms %+v weight %d: %+v of %+v", terms, weight, e, s)
				}
			}
			if _, err := json.Marshal(s); err != nil {
				t.Errorf("terms %+v weight %d: %v", terms, weight, err)
			}
		}
	}
}

func TestObserve_StaysFiniteAfterAMillionErrors(t *testing.T) {
	candidate, stable := judge.New(1), judge.New(1)
	for range 1_000_000 {
		candidate = candidate.Observe(judge.Answer{Candidate: true, Weight: 1, Failed: true}, terms())
		stable = stable.Observe(judge.Answer{Weight: 9999, Failed: true}, terms())
	}
	for _, s := range []judge.State{candidate, stable} {
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	}
	if harmful(&stable) {
		t.Error("stable's errors make the candidate harmful")
	}
}

// A dead release never fails more requests than the budget, however many wait at once and whatever
// order they are answered in; and it is never left neither admitted nor judged.
func TestAdmit_BoundsTheHarmOfADeadCandidate(t *testing.T) {
	rng := dice(10)
	for range 3000 {
		terms := terms()
		terms.Budget = []int{1, 2, 3, 20, 50}[rng.IntN(5)]
		weight := spillway.Share(rng.IntN(int(spillway.Whole) + 1))
		var waiting []bool // of each request in flight, whether it is of a user who saw an error before
		s := judge.New(9)
		for !harmful(&s) || len(waiting) > 0 {
			admitted := s.Admit(terms, len(waiting))
			if !admitted && len(waiting) == 0 {
				t.Fatalf("weight %v, budget %d: not admitted and not harmful: %+v", weight, terms.Budget, s)
			}
			if admitted && (len(waiting) == 0 || rng.IntN(4) > 0) {
				waiting = append(waiting, rng.IntN(3) == 0)
				continue
			}
			i := rng.IntN(len(waiting))
			s = s.Observe(judge.Answer{Candidate: true, Weight: weight, Failed: true, Repeat: waiting[i]}, terms)
			waiting = append(waiting[:i], waiting[i+1:]...)
		}
		if s.Candidate.Failures > int64(terms.Budget) {
			t.Fatalf("weight %v: %d requests failed with a budget of %d", weight, s.Candidate.Failures, terms.Budget)
		}
	}
}

func TestAdmit_MakesRoomWithGoodAnswers(t *testing.T) {
	terms := terms()
	terms.Budget = 2
	s := judge.New(9)
	if !s.Admit(terms, 1) || s.Admit(terms, 2) {
		t.Error("a new release with a budget of 2 may have two requests at once, not three")
	}
	s = observe(s, terms, 5, judge.Answer{Candidate: true, Weight: 500})
	if !s.Admit(terms, 6) || s.Admit(terms, 7) {
		t.Error("after 5 good answers it may have seven requests at once, not eight")
	}
}

func TestState_KeepsEverythingInJSON(t *testing.T) {
	rng := dice(11)
	for range 500 {
		s := play(rng, judge.New(rng.Int64()), terms(), randomWorld(rng), rng.IntN(500), func(*judge.State) bool { return false })
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back judge.State
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if back != s {
			t.Fatalf("wrote %+v\nread  %+v", s, back)
		}
	}
}

// randomWorld has any weight and any rates.
func randomWorld(rng *rand.Rand) world {
	return steady(spillway.Share(rng.IntN(int(spillway.Whole)+1)), rng.Float64(), rng.Float64())
}

func TestState_ReadsVersion1(t *testing.T) {
	text, err := os.ReadFile("testdata/state_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var s judge.State
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	s = observe(s, terms(), 2, judge.Answer{Candidate: true, Weight: 1000, Failed: true})
	want := "4 of 5 requests failed on release 7, 1 of 57 on release 6: 1 in 314 chance if it were no worse"
	if e := s.Evidence(terms()); e.Reason != want {
		t.Errorf("reason %q, want %q", e.Reason, want)
	}
}

func TestState_RefusesAnotherVersion(t *testing.T) {
	s := judge.New(3)
	err := json.Unmarshal([]byte(`{"version": 2, "trial": 9}`), &s)
	if !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "version 2") || s != judge.New(3) {
		t.Errorf("error %v, state %+v: want a refusal that names version 2 and changes nothing", err, s)
	}
}

func TestObserve_DoesNotAllocate(t *testing.T) {
	s, terms := judge.New(9), terms()
	for _, a := range []judge.Answer{
		{Candidate: true, Weight: 500},
		{Weight: 500, Failed: true},
		{Candidate: true, Weight: spillway.Whole, Failed: true},
	} {
		n := testing.AllocsPerRun(100, func() {
			s = s.Observe(a, terms)
			s.Verdict(terms)
			s.Admit(terms, 1)
		})
		if n != 0 {
			t.Errorf("%+v: %v allocations", a, n)
		}
	}
}
