package proxy

import (
	"errors"
	"testing"
	"time"
)

// shares picks n times and gives the share of each endpoint.
func shares(endpoints []*endpoint, now time.Time) map[*endpoint]float64 {
	const n = 20_000
	got := map[*endpoint]float64{}
	for range n {
		got[pick(endpoints, nil, now)] += 1.0 / n
	}
	return got
}

func TestFitness_PassesOverForAGrowingWhile(t *testing.T) {
	now := time.Now()
	refused := &fault{noConnection, errors.New("refused")}
	var f fitness
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if got := f.learn(refused, now); got != want*time.Second {
			t.Fatalf("time %d: passed over for %v, want %v s", i+1, got, want)
		}
		if got := f.learn(refused, now.Add(time.Millisecond)); got != 0 {
			t.Fatalf("time %d: a failure that was on its way counts again: %v", i+1, got)
		}
		now = now.Add(want * time.Second)
	}
	f.learn(nil, now)
	if got := f.learn(refused, now.Add(time.Hour)); got != time.Second {
		t.Errorf("after an answer it is passed over for %v", got)
	}
}

func TestFitness_BearsSingleLostAnswers(t *testing.T) {
	now := time.Now()
	for _, kind := range []faultKind{lost, late, unsent} {
		var f fitness
		err := &fault{kind, errors.New("reset")}
		for range 20 {
			for range unfitAfter - 1 {
				if f.learn(err, now) != 0 {
					t.Fatalf("%v: passed over too early", kind)
				}
			}
			f.learn(nil, now)
		}
		for range unfitAfter - 1 {
			f.learn(err, now)
		}
		if got := f.learn(err, now); got != cooling {
			t.Errorf("%v: after %d in a row it is passed over for %v", kind, unfitAfter, got)
		}
	}
}

func TestPick_PassesOverAtMostHalf(t *testing.T) {
	now := time.Now()
	all := make([]*endpoint, 5)
	for i := range all {
		all[i] = &endpoint{}
		all[i].cold.Store(now.Add(time.Duration(i+1) * time.Second).UnixNano())
	}
	got := shares(all, now)
	for i, e := range all {
		if taken := got[e] > 0; taken != (i < 3) {
			t.Errorf("endpoint %d of 5, all failing: taken %v; those that are tried again first should be", i, taken)
		}
	}
	all[4].cold.Store(0)
	all[0].cold.Store(0)
	all[1].cold.Store(0)
	if got = shares(all, now); got[all[2]]+got[all[3]] > 0 {
		t.Errorf("cold ones are taken although they are less than half: %v %v", got[all[2]], got[all[3]])
	}
}

func TestPick_LetsTheShareOfANewcomerGrow(t *testing.T) {
	now := time.Now()
	all := []*endpoint{{}, {}, {}, {}}
	all[3].join(now)
	before := 0.0
	for _, at := range []struct {
		after    time.Duration
		min, max float64
	}{{0, 0.01, 0.05}, {time.Second, 0.02, 0.08}, {2500 * time.Millisecond, 0.08, 0.18}, {5 * time.Second, 0.22, 0.28}} {
		got := shares(all, now.Add(at.after))[all[3]]
		if got < at.min || got > at.max || got < before {
			t.Errorf("after %v its share is %.3f, want %.2f to %.2f", at.after, got, at.min, at.max)
		}
		before = got
	}
	for i := range all { // all are new: none stands back
		all[i].join(now)
	}
	if got := shares(all, now)[all[0]]; got < 0.22 || got > 0.28 {
		t.Errorf("of four that are all new one has %.3f", got)
	}
}

func TestTable_LetsOnlyNewReplicasBesideOthersWarmUp(t *testing.T) {
	p := handler(t)
	p.serveTable(t, alone(1, "127.0.0.9:1"))
	p.serveTable(t, alone(2, "127.0.0.9:1", "127.0.0.9:2"))
	for key, e := range p.endpoints {
		if warming := e.cold.Load() != 0; warming != (key.Address == "127.0.0.9:2") {
			t.Errorf("%s warms up: %v", key.Replica, warming)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	now := time.Now()
	for _, state := range []struct {
		name string
		cold int
	}{{"fit", 0}, {"one-cold", 1}, {"all-cold", 40}} {
		b.Run(state.name, func(b *testing.B) {
			all := make([]*endpoint, 40)
			for i := range all {
				if all[i] = (&endpoint{}); i < state.cold {
					all[i].chill(now)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				pick(all, nil, now)
			}
		})
	}
}

func TestPick_AllocatesNothing(t *testing.T) {
	now := time.Now()
	all := make([]*endpoint, 40)
	for i := range all {
		if all[i] = (&endpoint{}); i%2 == 0 {
			all[i].chill(now)
		}
	}
	if n := testing.AllocsPerRun(100, func() { pick(all, all[:1], now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
