package proxy

import (
	"math"
	"testing"
	"time"
)

func TestTally_Percentiles(t *testing.T) {
	for us, want := range map[int64]int64{0: 0, 7: 7, 8: 8, 9: 9, 15: 15, 16: 17, 1000: 1023} {
		if got := classEnd(class(usec(us))); got != want {
			t.Errorf("%d us is in the class up to %d, want %d", us, got, want)
		}
	}
	for us := int64(1); us < 1<<27; us = us*5/4 + 1 {
		if got := classEnd(class(usec(us))); got < us || got > us+us/8 {
			t.Errorf("%d us is in the class up to %d", us, got)
		}
	}
}

func TestTally_TellsTheLastMinute(t *testing.T) {
	var c tally
	begin := time.Unix(1_800_000_000, 0) // the begin of a slot
	for i := range 90 {
		took := 10 * time.Millisecond
		if i >= 88 {
			took = time.Second
		}
		c.add(took, i == 0, begin.Add(time.Duration(i)*time.Second/3))
	}
	got := c.traffic(begin.Add(30 * time.Second))
	if math.Abs(got.Rate-3) > 1e-9 || got.P50 < 10_000 || got.P50 > 11_500 || got.P95 != got.P50 || got.P99 < 1_000_000 {
		t.Errorf("after 30 s: %+v", got)
	}
	if got := c.traffic(begin.Add(65 * time.Second)); math.Abs(got.Rate-60/55.0) > 1e-9 {
		t.Errorf("30 of 90 have left after 65 s: %+v", got)
	}
	if got := c.traffic(begin.Add(5 * time.Minute)); got.Rate != 0 || got.P99 != 0 || got.Requests != 90 || got.Failures != 1 {
		t.Errorf("after 5 minutes: %+v", got)
	}
	var one tally
	one.add(time.Millisecond, false, begin)
	if got := one.traffic(begin.Add(time.Millisecond)); got.Rate != 1 {
		t.Errorf("one request just now: %+v", got)
	}
}
