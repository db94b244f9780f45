package proxy

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

const ms = time.Millisecond

// paced are the terms of a trial in which the candidate must not be slower than stable.
func paced() spillway.Trial {
	return spillway.Trial{ID: 1, Release: 2, Stable: 1, Budget: 20, Latency: []spillway.Slower{{Factor: 100}}}
}

func begin(t *testing.T, terms spillway.Trial) *trial {
	t.Helper()
	trial, err := newTrial(terms)
	if err != nil {
		t.Fatal(err)
	}
	return trial
}

// alternate has both sides answer n users each, in the time given for each.
func alternate(trial *trial, n int, stable, candidate time.Duration) {
	for i := range n {
		key := uint64(2*i) + 1_000
		trial.observe(shop, outcome{Weight: 5000, Key: key, Took: stable}, false)
		trial.observe(shop, outcome{Candidate: true, Weight: 5000, Key: key + 1, Took: candidate}, false)
	}
}

// after answers when the time has passed that next gives for each request.
func after(next func() time.Duration) http.HandlerFunc {
	return func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-time.After(next()):
		case <-req.Context().Done():
		}
	}
}

// TestLatency_TripsASlowCandidate has a stable of many times, 1 to 20 ms: one that always took the same
// would be slower than all its quantiles as soon as the machine has more to do in the trial than before.
func TestLatency_TripsASlowCandidate(t *testing.T) {
	r := start(t, tempDir(t), false)
	var asked atomic.Int64
	stable := replica(t, after(func() time.Duration { return time.Duration(1+asked.Add(1)*7%20) * ms }))
	slow := replica(t, after(func() time.Duration { return 100 * ms }))
	r.push(alone(1, stable))
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for range enoughTimes {
		if _, err := do(client, r.url, "GET", "/", nil); err != nil {
			t.Fatal(err)
		}
	}
	table := divided(2, spillway.Percent(50), stable, slow)
	table.Route.Trial.Latency = []spillway.Slower{{Factor: 150}}
	r.push(table)
	if s := evidenceOf(t, r.report()); s.Thresholds[0] <= 0 || s.Thresholds[4] < s.Thresholds[0] {
		t.Fatalf("thresholds %v although stable had answers before", s.Thresholds)
	}
	olds, news := usersAt(5000, spillway.Whole, 200), usersAt(0, 5000, 200)
	for i := 0; i < len(news) && !r.report().Evidence.Tripped; i++ {
		for _, user := range []string{olds[i], news[i]} {
			if _, err := do(client, r.url, "GET", "/", nil, "X-User", user); err != nil {
				t.Fatal(err)
			}
		}
	}
	report := r.report()
	if e := report.Evidence; !e.Tripped || e.Cause != "latency" || e.Failures != 0 {
		t.Errorf("evidence %+v", e)
	}
	if w := report.Edges[0].Backends[1].Weight; w != 0 {
		t.Errorf("the slow candidate has the weight %s", w)
	}
}

func TestLatency_LearnsFromStableInTheTrial(t *testing.T) {
	trial := begin(t, paced())
	for range enoughTimes - 1 {
		trial.observe(shop, outcome{Weight: 5000, Took: 10 * ms}, false)
		trial.observe(shop, outcome{Candidate: true, Weight: 5000, Took: 500 * ms}, false)
	}
	if trial.harmful.Load() || trial.state.Thresholds[0] != 0 {
		t.Fatalf("judged by nothing: %v", trial.state.Thresholds)
	}
	trial.observe(shop, outcome{Weight: 5000, Took: 10 * ms}, false)
	if got := trial.state.Thresholds[0]; got < 10*ms || got > 12*ms {
		t.Errorf("thresholds %v", trial.state.Thresholds)
	}
	var later [classes]uint64
	later[class(time.Second)] = 1000
	trial.usual(&later, 1000)
	if got := trial.state.Thresholds[0]; got > 12*ms {
		t.Errorf("fixed anew: %v", got)
	}
	alternate(trial, 40, 10*ms, 20*ms)
	if e := trial.evidence(); e.Verdict != spillway.Harmful || e.Cause != "latency" {
		t.Errorf("evidence %+v", e)
	}
}

func TestLatency_SaysNothingWhileTheCandidateWarmsUp(t *testing.T) {
	terms := paced()
	terms.Warmup = spillway.Duration(time.Hour)
	trial := begin(t, terms)
	var times [classes]uint64
	times[class(10*ms)] = 1000
	trial.usual(&times, 1000)
	alternate(trial, 100, 10*ms, time.Second)
	if e := trial.evidence(); e.Verdict == spillway.Harmful {
		t.Errorf("warm-up: %+v", e)
	}
	again := begin(t, withMemory(terms, trial)) // the hour goes on from where it was
	if again.pace.first.IsZero() || !again.pace.first.Equal(trial.pace.first) || again.state.Thresholds != trial.state.Thresholds {
		t.Errorf("remembered: %+v", again.pace.first)
	}
	terms.Warmup = 0
	again.renew(terms)
	alternate(again, 100, 10*ms, time.Second)
	if e := again.evidence(); e.Cause != "latency" {
		t.Errorf("after the warm-up: %+v", e)
	}
}

func withMemory(terms spillway.Trial, t *trial) spillway.Trial {
	terms.Memory = t.memory(nil)
	return terms
}

func TestLatency_TakesAUsersFirstSlowAnswerOnly(t *testing.T) {
	trial := begin(t, paced())
	var times [classes]uint64
	times[class(10*ms)] = 1000
	trial.usual(&times, 1000)
	for i := range 500 { // one user who asks for slow things happens to be the candidate's
		trial.observe(shop, outcome{Weight: 5000, Key: uint64(i) + 10, Took: 5 * ms}, false)
		trial.observe(shop, outcome{Candidate: true, Weight: 5000, Key: 1, Took: time.Second}, false)
		if i == 250 {
			trial = begin(t, withMemory(paced(), trial))
		}
	}
	if e := trial.evidence(); e.Verdict == spillway.Harmful {
		t.Errorf("one user: %+v", e)
	}
	for key := range uint64(maxSlow) { // nobody new can be remembered
		trial.observe(shop, outcome{Weight: 5000, Key: key + 100, Took: time.Second}, false)
	}
	trial = begin(t, withMemory(paced(), trial))
	alternate(trial, 500, 5*ms, time.Second)
	if e := trial.evidence(); !trial.pace.full || e.Verdict == spillway.Harmful {
		t.Errorf("full %v: %+v", trial.pace.full, e)
	}
	for i := range uint64(5) {
		trial.observe(shop, outcome{Candidate: true, Weight: 100, Key: i + 1<<40, Failed: true}, false)
	}
	if e := trial.evidence(); e.Cause != "errors" {
		t.Errorf("errors are not judged any more: %+v", e)
	}
}

func TestLatency_IsHandedOver(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	old := start(t, dir, false)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	table.Route.Trial.Latency, table.Route.Trial.Users = []spillway.Slower{{Quantile: 95, Limit: 1}}, 100 // every answer is slower
	old.push(table)
	for i := range 4 {
		old.get("/", "X-User", usersAt(0, 5000, 4)[i])
	}
	r := start(t, dir, true)
	if e := r.report().Evidence; e.Tripped || e.Requests != 4 {
		t.Fatalf("after the hand-over: %+v", e)
	}
	for i, users := 0, usersAt(0, 5000, 60); !r.report().Evidence.Tripped; i++ {
		r.get("/", "X-User", users[i])
	}
	s := evidenceOf(t, r.report())
	if e := r.report().Evidence; e.Cause != "latency" || s.Users < 5 {
		t.Errorf("evidence %+v of %d users", e, s.Users)
	}
}

func TestSlowOf_ReadsWhatWasStored(t *testing.T) {
	p := pace{slow: map[uint32]uint64{}}
	for i := range uint32(1000) {
		p.slow[i*7919] = uint64(1) << (i % 64)
	}
	if got := slowOf(p.stored()); fmt.Sprint(got) != fmt.Sprint(p.slow) {
		t.Errorf("%d users instead of %d", len(got), len(p.slow))
	}
	if got := slowOf([]byte{1, 2, 3, 4}); len(got) != 0 {
		t.Errorf("a broken end: %v", got)
	}
}
