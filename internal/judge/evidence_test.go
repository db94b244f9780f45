package judge_test

import (
	"math"
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

func TestEvidence_SaysWhatItMeans(t *testing.T) {
	good, bad := judge.Answer{Candidate: true, Weight: 500}, judge.Answer{Candidate: true, Weight: 500, Failed: true}
	base, baseBad := judge.Answer{Weight: 500}, judge.Answer{Weight: 500, Failed: true}
	chosen := judge.Answer{Candidate: true}
	whole, wholeGood := judge.Answer{Candidate: true, Weight: spillway.Whole, Failed: true}, judge.Answer{Candidate: true, Weight: spillway.Whole}
	back := func(t *spillway.Trial) { t.Budget, t.Limit = math.MaxInt32, spillway.Whole }
	type batch struct {
		n int
		a judge.Answer
	}
	tests := []struct {
		name    string
		change  func(*spillway.Trial)
		batches []batch
		verdict spillway.Verdict
		chance  string
		needs   int64
		reason  string
	}{
		{"nothing", nil, nil, spillway.NoTraffic, "", 332,
			"release 7 has not answered any request yet"},
		{"only stable", nil, []batch{{50, base}}, spillway.NoTraffic, "", 332,
			"release 7 has not answered any request yet"},
		{"dead", nil, []batch{{57, base}, {3, bad}}, spillway.Harmful, "1 in 1575", 0,
			"3 of 3 requests failed on release 7, 0 of 57 on release 6: 1 in 1575 chance if it were no worse"},
		{"dead, tolerant", func(t *spillway.Trial) { t.Tolerance = 200 }, []batch{{57, base}, {3, bad}}, spillway.Harmful, "1 in 293", 0,
			"3 of 3 requests failed on release 7, 0 of 57 on release 6: 1 in 293 chance if it were less than 2x as bad"},
		{"both", nil, []batch{{57, base}, {3, baseBad}, {1, bad}}, spillway.Undecided, "", 0,
			"1 of 1 requests failed on release 7, 3 of 60 on release 6: no harm shown"},
		{"first answers", nil, []batch{{1000, base}, {100, good}}, spillway.Undecided, "", 232,
			"0 of 100 requests failed on release 7, 0 of 1000 on release 6: no harm shown; certified after about 232 more good requests"},
		{"good", nil, []batch{{6000, base}, {332, good}}, spillway.Certified, "", 0,
			"0 of 332 requests failed on release 7, 0 of 6000 on release 6: 1 point more failures than on release 6 are ruled out"},
		{"not quite", nil, []batch{{6000, base}, {331, good}}, spillway.Undecided, "", 1,
			"0 of 331 requests failed on release 7, 0 of 6000 on release 6: no harm shown; certified after about 1 more good requests"},
		{"no margin", func(t *spillway.Trial) { t.Margin = 0 }, []batch{{6000, base}, {3000, good}}, spillway.Undecided, "", 0,
			"0 of 3000 requests failed on release 7, 0 of 6000 on release 6: no harm shown"},
		{"wide margin", func(t *spillway.Trial) { t.Margin = spillway.Whole }, []batch{{1, base}, {1, good}}, spillway.Certified, "", 0,
			"0 of 1 requests failed on release 7, 0 of 1 on release 6: 100 points more failures than on release 6 are ruled out"},
		{"chosen", nil, []batch{{1000, base}, {5000, chosen}}, spillway.Undecided, "", 332,
			"0 of 5000 requests failed on release 7, 0 of 1000 on release 6: no harm shown; its requests were chosen by header or cookie, so it cannot be compared"},
		{"dead at 100 %", nil, []batch{{12, whole}}, spillway.Harmful, "1 in 128", 0,
			"12 of 12 requests failed on release 7, without requests of release 6 to compare: 1 in 128 chance if no more than 50 % failed"},
		{"dead first release", func(t *spillway.Trial) { t.Stable = 0 }, []batch{{12, whole}}, spillway.Harmful, "1 in 128", 0,
			"12 of 12 requests failed on release 7, without another release to compare: 1 in 128 chance if no more than 50 % failed"},
		{"budget", func(t *spillway.Trial) { t.Budget = 2 }, []batch{{1, good}, {2, bad}}, spillway.Harmful, "1 in 97", 0,
			"2 of 3 requests failed on release 7: more than half, and its budget is 2"},
		{"over its budget, as stable is", nil, append([]batch{{1000, base}, {100, good}}, slices.Repeat([]batch{{19, baseBad}, {1, bad}}, 20)...), spillway.Undecided, "", 0,
			"20 of 120 requests failed on release 7, 380 of 1380 on release 6: its budget is 20, and it is not shown to be worse than release 6"},
		{"over its budget, with nothing beside it", nil, append([]batch{{40, wholeGood}}, slices.Repeat([]batch{{1, wholeGood}, {1, whole}}, 20)...), spillway.Undecided, "", 5360,
			"20 of 80 requests failed on release 7, 0 of 0 on release 6: its budget is 20, and there is nothing to compare it with; certified after about 5360 more good requests"},
		{"a way back", back, []batch{{77, wholeGood}, {70, whole}}, spillway.Undecided, "", 18065,
			"70 of 147 requests failed on release 7, 0 of 0 on release 6: a way back is not held to a budget, so whether that is too many is for a person to say"},
		{"a good way back", back, []batch{{147, wholeGood}}, spillway.Undecided, "", 185,
			"0 of 147 requests failed on release 7, 0 of 0 on release 6: no harm shown; certified after about 185 more good requests"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			terms := terms()
			if test.change != nil {
				test.change(&terms)
			}
			s := judge.New(9)
			for _, b := range test.batches {
				s = observe(s, terms, b.n, b.a)
			}
			e := s.Evidence(terms)
			if e.Verdict != test.verdict || e.Chance != test.chance || e.Needs != test.needs || e.Reason != test.reason {
				t.Errorf("got  %s, chance %q, needs %d: %s\nwant %s, chance %q, needs %d: %s",
					e.Verdict, e.Chance, e.Needs, e.Reason, test.verdict, test.chance, test.needs, test.reason)
			}
			if s.Verdict(terms) != e.Verdict {
				t.Errorf("Verdict says %s and Evidence %s", s.Verdict(terms), e.Verdict)
			}
			if e.Trial != 9 || e.Margin != terms.Margin || !e.At.IsZero() || e.Tripped {
				t.Errorf("%+v: want trial 9, its margin, and neither time nor trip", e)
			}
		})
	}
}
