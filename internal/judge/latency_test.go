package judge_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/judge"
)

// around are thresholds that are easy to read: 50, 75, 90, 95 and 99 ms.
var around = [5]time.Duration{50 * time.Millisecond, 75 * time.Millisecond, 90 * time.Millisecond, 95 * time.Millisecond, 99 * time.Millisecond}

// gated are terms with these gates on latency.
func gated(gates ...spillway.Slower) spillway.Trial {
	t := terms()
	t.Latency = gates
	return t
}

// slowAnswer is one of the candidate at 5 %, slower than all of around.
func slowAnswer() judge.Answer {
	return judge.Answer{Candidate: true, Weight: 500, Took: time.Second}
}

func TestObserve_KeepsTheToleranceOfLatency(t *testing.T) {
	for _, test := range []struct {
		factor   int
		slowdown float64
		want     bool
	}{{100, 1.4, true}, {150, 1.4, false}, {150, 2, true}, {300, 2, false}} {
		s := playSlow(dice(24), gated(spillway.Slower{Factor: test.factor}), spillway.Percent(10), times(test.slowdown), 20_000, harmful)
		if harmful(&s) != test.want {
			t.Errorf("%g times as long, gate %d: harmful %v, want %v", test.slowdown, test.factor, harmful(&s), test.want)
		}
	}
}

func TestObserve_KeepsAnAbsoluteLimitOfLatency(t *testing.T) {
	p95 := limitAt(1.644854)
	for _, test := range []struct {
		name   string
		weight spillway.Share
		gate   spillway.Slower
		slow   slowdown
		want   bool
	}{
		{"p95 twice the limit at 10%", spillway.Percent(10), spillway.Slower{Quantile: 95, Limit: p95}, times(2), true},
		{"p95 twice the limit, nothing to compare", spillway.Whole, spillway.Slower{Quantile: 95, Limit: p95}, times(2), true},
		{"no quantile named", spillway.Whole, spillway.Slower{Limit: p95}, times(2), true},
		{"within the limit", spillway.Whole, spillway.Slower{Quantile: 95, Limit: p95}, times(0.9), false},
		{"p99 at the p95 of stable", spillway.Whole, spillway.Slower{Quantile: 99, Limit: p95}, times(1), true},
		{"p50 at the p95 of stable", spillway.Whole, spillway.Slower{Quantile: 50, Limit: p95}, times(1.5), false},
	} {
		s := playSlow(dice(25), gated(test.gate), test.weight, test.slow, 10_000, harmful)
		if harmful(&s) != test.want {
			t.Errorf("%s: harmful %v, want %v", test.name, harmful(&s), test.want)
		}
	}
}

// A candidate that becomes slow after a long good time is caught in the requests that it takes to make
// up for the terms that have begun anew since, not for all of that time.
func TestObserve_CatchesACandidateThatSlowsDownLate(t *testing.T) {
	for _, gate := range []spillway.Slower{{Factor: 100}, {Quantile: 95, Limit: limitAt(1.644854)}} {
		terms, rng := gated(gate), dice(26)
		s := playSlow(rng, terms, spillway.Percent(25), times(1), 40_000, harmful)
		if harmful(&s) {
			t.Fatalf("%+v: harmful before it slowed down", gate)
		}
		begin := s.Candidate.Requests
		for !harmful(&s) && s.Candidate.Requests < begin+1000 {
			a := judge.Answer{Weight: spillway.Percent(25), Candidate: rng.IntN(4) == 0, Took: delay(rng)}
			if a.Candidate {
				a.Took *= 3
			}
			s.ObserveInPlace(&a, &terms)
		}
		t.Logf("%+v: %d requests", gate, s.Candidate.Requests-begin)
		if s.Candidate.Requests-begin > 150 {
			t.Errorf("%+v: three times as slow after %d good answers: caught after %d, want at most 150", gate, begin, s.Candidate.Requests-begin)
		}
	}
}

func TestObserve_WaitsForFiveSlowAnswers(t *testing.T) {
	s := judge.New(9).Fix(around)
	for _, terms := range []spillway.Trial{gated(spillway.Slower{Factor: 100}), gated(spillway.Slower{Limit: spillway.Duration(time.Millisecond)})} {
		four := observe(s, terms, 4, slowAnswer())
		if four.Peak < 100 || harmful(&four) {
			t.Errorf("peak %.0f, harmful %v after four slow answers at 5 %%, want proof and no verdict", four.Peak, harmful(&four))
		}
		if five := observe(four, terms, 1, slowAnswer()); five.Cause != judge.SlowerThanStable {
			t.Errorf("cause %q after five slow answers, want %q", five.Cause, judge.SlowerThanStable)
		}
	}
}

// What says nothing about latency leaves no trace in its evidence.
func TestObserve_LeavesOutWhatSaysNothingAboutLatency(t *testing.T) {
	relative, absolute := spillway.Slower{Factor: 100}, spillway.Slower{Limit: spillway.Duration(time.Millisecond)}
	for _, test := range []struct {
		name   string
		gate   spillway.Slower
		known  bool
		change func(*judge.Answer)
	}{
		{"no time", relative, true, func(a *judge.Answer) { a.Took = 0 }},
		{"no time, absolute", absolute, true, func(a *judge.Answer) { a.Took = 0 }},
		{"thresholds not known", relative, false, func(*judge.Answer) {}},
		{"chosen by header", relative, true, func(a *judge.Answer) { a.Weight = 0 }},
		{"all of the users", relative, true, func(a *judge.Answer) { a.Weight = spillway.Whole }},
		{"stable's own, absolute", absolute, true, func(a *judge.Answer) { a.Candidate = false }},
		{"all repeats", relative, true, func(a *judge.Answer) { a.SlowRepeat = math.MaxUint64 }},
		{"all repeats, absolute", absolute, true, func(a *judge.Answer) { a.SlowRepeat = math.MaxUint64 }},
		{"quick", relative, true, func(a *judge.Answer) { a.Took = time.Millisecond }},
		{"a gate that says nothing", spillway.Slower{Quantile: 95}, true, func(*judge.Answer) {}},
		{"a quantile that is none", spillway.Slower{Quantile: 42, Factor: 100}, true, func(*judge.Answer) {}},
	} {
		s, a := judge.New(9), slowAnswer()
		if test.known {
			s = s.Fix(around)
		}
		test.change(&a)
		if s = observe(s, gated(test.gate), 100, a); s.Peak != 0 || harmful(&s) {
			t.Errorf("%s: peak %g, cause %q after 100 answers, want none", test.name, s.Peak, s.Cause)
		}
	}
}

func TestSlow_TellsTheTermsApart(t *testing.T) {
	s := judge.New(9).Fix(around)
	all, p95 := spillway.Slower{Factor: 100}, spillway.Slower{Quantile: 95, Factor: 200}
	limit := spillway.Slower{Quantile: 99, Limit: spillway.Duration(80 * time.Millisecond)}
	for _, test := range []struct {
		name      string
		candidate bool
		took      time.Duration
		gates     []spillway.Slower
		want      uint64
	}{
		{"nothing to judge", true, time.Second, nil, 0},
		{"no time", true, 0, []spillway.Slower{all}, 0},
		{"at the median", true, 50 * time.Millisecond, []spillway.Slower{all}, 0},
		{"above p90", true, 91 * time.Millisecond, []spillway.Slower{all}, 0b00111},
		{"above all", true, time.Second, []spillway.Slower{all}, 0b11111},
		{"stable above all", false, time.Second, []spillway.Slower{all}, 0b11111},
		{"candidate within twice p95", true, 190 * time.Millisecond, []spillway.Slower{p95}, 0},
		{"candidate above it", true, 191 * time.Millisecond, []spillway.Slower{p95}, 1},
		{"stable above p95", false, 96 * time.Millisecond, []spillway.Slower{p95}, 1},
		{"candidate above the limit", true, 81 * time.Millisecond, []spillway.Slower{limit}, 1},
		{"stable has no limit", false, 81 * time.Millisecond, []spillway.Slower{limit}, 0},
		{"three gates", true, 81 * time.Millisecond, []spillway.Slower{p95, limit, all}, 0b0001110},
		{"one twice", true, 81 * time.Millisecond, []spillway.Slower{limit, limit}, 1},
		{"more than fit", true, time.Second, []spillway.Slower{{Factor: 100}, {Factor: 101}, {Factor: 102}, {Factor: 103}}, 0xffff},
	} {
		if got := s.Slow(test.candidate, test.took, gated(test.gates...)); got != test.want {
			t.Errorf("%s: %b, want %b", test.name, got, test.want)
		}
	}
}

// The bits that a proxy keeps for its users have to mean the same when a gate begins to count later, or
// no longer counts.
func TestSlow_KeepsTheMeaningOfTerms(t *testing.T) {
	all, p95 := spillway.Slower{Factor: 100}, spillway.Slower{Quantile: 95, Factor: 200}
	s := judge.New(9).Fix(around)
	s = s.Observe(slowAnswer(), gated(p95))
	for _, test := range []struct {
		gates []spillway.Slower
		want  uint64
	}{
		{[]spillway.Slower{all, p95}, 0b111111},
		{[]spillway.Slower{all}, 0b111110},
		{[]spillway.Slower{p95}, 0b000001},
	} {
		if got := s.Slow(true, time.Second, gated(test.gates...)); got != test.want {
			t.Errorf("%+v: %b, want %b", test.gates, got, test.want)
		}
	}
}

func TestFix_OnlyOnce(t *testing.T) {
	s := judge.New(9).Fix([5]time.Duration{}).Fix(around).Fix([5]time.Duration{1, 2, 3, 4, 5})
	if s.Thresholds != around {
		t.Errorf("thresholds %v, want the first that were known", s.Thresholds)
	}
}

// A trial without gates on latency judges as if there were no times.
func TestObserve_WithoutGatesOnLatencyIgnoresTimes(t *testing.T) {
	rng := dice(27)
	timed, untimed := judge.New(9), judge.New(9)
	for range 20_000 {
		a := judge.Answer{Candidate: rng.IntN(10) == 0, Weight: 1000, Failed: rng.IntN(50) == 0}
		untimed = untimed.Observe(a, terms())
		a.Took, a.SlowRepeat = delay(rng), rng.Uint64()
		timed = timed.Observe(a, terms())
	}
	if timed != untimed {
		t.Errorf("with times\n%+v\nwithout\n%+v", timed, untimed)
	}
}

func TestState_OfTheVersionBeforeLearnsLatency(t *testing.T) {
	text, err := os.ReadFile("testdata/state_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var s judge.State
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	terms := gated(spillway.Slower{Factor: 100})
	if s = observe(s.Fix(around), terms, 5, slowAnswer()); s.Cause != judge.SlowerThanStable {
		t.Errorf("cause %q, want %q", s.Cause, judge.SlowerThanStable)
	}
}

func TestState_ReadsLatency(t *testing.T) {
	text, err := os.ReadFile("testdata/state_v1_latency.json")
	if err != nil {
		t.Fatal(err)
	}
	var s judge.State
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	terms := gated(spillway.Slower{Factor: 150}, spillway.Slower{Quantile: 99, Limit: spillway.Duration(2 * time.Second)})
	s = observe(s, terms, 2, slowAnswer())
	want := "5 of 8 answers of release 7 were slower than 113ms (75 of 100 of release 6 are faster than 75ms): 1 in 11252 chance if it took no more than 1.5x as long"
	if e := s.Evidence(terms); e.Reason != want {
		t.Errorf("reason %q, want %q", e.Reason, want)
	}
}

func TestState_KeepsLatencyInJSON(t *testing.T) {
	terms := gated(spillway.Slower{Factor: 120}, spillway.Slower{Quantile: 99, Limit: spillway.Duration(200 * time.Millisecond)})
	s := playSlow(dice(28), terms, spillway.Percent(25), times(1.1), 500, harmful)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back judge.State
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back != s || s.Latency[5].Requests == 0 {
		t.Errorf("wrote %+v\nread  %+v", s, back)
	}
	if text, _ := json.Marshal(judge.New(9)); len(text) > 600 {
		t.Errorf("a trial without latency takes %d bytes, want no unused places: %s", len(text), text)
	}
}

func TestObserve_WithLatencyToleratesExtremeTerms(t *testing.T) {
	terms := gated(
		spillway.Slower{Quantile: -1, Factor: 1 << 60}, spillway.Slower{Quantile: 200, Limit: math.MaxInt64},
		spillway.Slower{Factor: math.MaxInt}, spillway.Slower{Factor: -1, Limit: 1}, spillway.Slower{Limit: -1}, spillway.Slower{Factor: 1})
	for _, thresholds := range [][5]time.Duration{{}, {1}, {math.MaxInt64, math.MaxInt64, -5, math.MinInt64, 1}} {
		for _, weight := range []spillway.Share{-1, 0, 1, 9999, spillway.Whole, spillway.Whole + 1} {
			s := judge.New(1).Fix(thresholds)
			for i := range 20_000 {
				s = s.Observe(judge.Answer{Candidate: i%3 > 0, Weight: weight, Took: time.Duration(i%7) << (i % 50)}, terms)
			}
			s.Evidence(terms)
			if _, err := json.Marshal(s); err != nil || s.Peak != s.Peak {
				t.Errorf("thresholds %v weight %d: peak %v, %v", thresholds, weight, s.Peak, err)
			}
		}
	}
}

func TestObserve_WithLatencyDoesNotAllocate(t *testing.T) {
	s, terms := judge.New(9).Fix(around), gated(spillway.Slower{Factor: 100}, spillway.Slower{Limit: 1})
	for _, a := range []judge.Answer{slowAnswer(), {Weight: 500, Took: time.Second}, {Candidate: true, Took: time.Millisecond}} {
		n := testing.AllocsPerRun(100, func() {
			a.SlowRepeat |= s.Slow(a.Candidate, a.Took, terms) & 1
			s = s.Observe(a, terms)
		})
		if n != 0 {
			t.Errorf("%+v: %v allocations", a, n)
		}
	}
}

func TestEvidence_SaysHowSlow(t *testing.T) {
	quick := judge.Answer{Candidate: true, Weight: 500, Took: time.Millisecond}
	for _, test := range []struct {
		name   string
		gate   spillway.Slower
		reason string
	}{
		{"not slower", spillway.Slower{Quantile: 95, Factor: 100},
			"5 of 38 answers of release 7 were slower than 95ms (95 of 100 of release 6 are faster): 1 in 191153 chance if it were not slower"},
		{"tolerant", spillway.Slower{Quantile: 95, Factor: 150},
			"5 of 38 answers of release 7 were slower than 143ms (95 of 100 of release 6 are faster than 95ms): 1 in 191153 chance if it took no more than 1.5x as long"},
		{"limit", spillway.Slower{Quantile: 99, Limit: spillway.Duration(300 * time.Millisecond)},
			"5 of 38 answers of release 7 were slower than 300ms: 1 in 16646 chance if no more than 1 % were"},
		{"three digits", spillway.Slower{Quantile: 99, Limit: spillway.Duration(23456 * time.Microsecond)},
			"5 of 38 answers of release 7 were slower than 23.5ms: 1 in 16646 chance if no more than 1 % were"},
	} {
		terms := gated(test.gate)
		s := observe(judge.New(9).Fix(around), terms, 50, judge.Answer{Weight: 500, Took: time.Millisecond})
		s = observe(s, terms, 33, quick)
		s = observe(s, terms, 5, slowAnswer())
		e := s.Evidence(terms)
		if e.Verdict != spillway.Harmful || e.Cause != "latency" || e.Reason != test.reason {
			t.Errorf("%s: %s, cause %q: %s\nwant %s", test.name, e.Verdict, e.Cause, e.Reason, test.reason)
		}
	}
}

func TestEvidence_SaysThatLatencyIsNotComparedYet(t *testing.T) {
	s := observe(judge.New(9), terms(), 100, judge.Answer{Candidate: true, Weight: 500})
	want := "0 of 100 requests failed on release 7, 0 of 0 on release 6: no harm shown; certified after about 232 more good requests; its latency is not compared yet: too few answers of release 6"
	if e := s.Evidence(gated(spillway.Slower{Factor: 120})); e.Reason != want {
		t.Errorf("reason %q\nwant   %q", e.Reason, want)
	}
	first := gated(spillway.Slower{Factor: 120})
	first.Stable = 0
	want = "0 of 100 requests failed on release 7: no harm shown; certified after about 232 more good requests"
	if e := s.Evidence(first); e.Reason != want {
		t.Errorf("without stable: reason %q\nwant   %q", e.Reason, want)
	}
}

func TestObserve_NamesTheCauseWithTheMostEvidence(t *testing.T) {
	slow := slowAnswer()
	failed := judge.Answer{Candidate: true, Weight: spillway.Whole, Failed: true}
	dealt := judge.Answer{Candidate: true, Weight: 500, Failed: true}
	for _, test := range []struct {
		name   string
		first  judge.Answer
		n      int
		then   judge.Answer
		within int
		want   judge.Cause
	}{
		{"slow, then broken", slow, 1, failed, 12, judge.AboveLimit},
		{"slow, then worse", slow, 1, dealt, 3, judge.WorseThanStable},
		{"broken, then slow", failed, 8, slow, 5, judge.SlowerThanStable},
	} {
		terms := gated(spillway.Slower{Limit: spillway.Duration(time.Millisecond)})
		s := observe(judge.New(9), terms, test.n, test.first)
		if harmful(&s) {
			t.Errorf("%s: harmful too early", test.name)
		}
		if s = observe(s, terms, test.within, test.then); s.Cause != test.want {
			t.Errorf("%s: cause %q, want %q", test.name, s.Cause, test.want)
		}
	}
}

func TestEvidence_SpeaksOfABudgetInUsers(t *testing.T) {
	terms := terms()
	terms.Budget, terms.Users = 3, 10
	for _, test := range []struct {
		users int64
		want  string
	}{
		{7012, "3 of 3 requests failed on release 7: more than half, and its budget is 0.1% of the users (3 of 7012)"},
		{0, "3 of 3 requests failed on release 7: more than half, and its budget is 0.1% of the users (3)"},
	} {
		s := observe(judge.New(9).Among(test.users), terms, 3, judge.Answer{Candidate: true, Failed: true})
		if e := s.Evidence(terms); e.Reason != test.want || e.Cause != "budget" {
			t.Errorf("cause %q: %s\nwant %s", e.Cause, e.Reason, test.want)
		}
	}
}

func TestNeeds_WorkedExamples(t *testing.T) {
	for _, test := range []struct {
		margin spillway.Share
		stable judge.Tally
		want   int64
	}{
		{100, judge.Tally{Requests: 6000}, 332},
		{100, judge.Tally{Requests: 6000, Failures: 6}, 408},
		{100, judge.Tally{Requests: 6000, Failures: 60}, 1187},
		{100, judge.Tally{}, 332},
		{500, judge.Tally{Requests: 6000}, 60},
		{0, judge.Tally{Requests: 6000}, 0},
		{100, judge.Tally{Requests: 30, Failures: 15}, 0},
		{spillway.Whole, judge.Tally{Requests: 30, Failures: 30}, 0},
	} {
		if got := judge.Needs(test.margin, test.stable); got != test.want {
			t.Errorf("margin %v, stable %+v: %d, want %d", test.margin, test.stable, got, test.want)
		}
	}
}
