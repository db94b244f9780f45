package proxy

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestHeadcount_IsRightToAFewPercent(t *testing.T) {
	var c headcount
	n := 0
	for _, upTo := range []int{1, 10, 100, 1000, 10_000, 30_000} {
		for ; n < upTo; n++ {
			for range 2 { // whoever comes again is counted once
				c.add(hashKey(shop, fmt.Sprint("user-", n)))
			}
		}
		if got := float64(c.size()); math.Abs(got-float64(n)) > max(2, float64(n)*0.05) {
			t.Errorf("%d users are counted as %.0f", n, got)
		}
	}
	for ; n < 200_000; n++ {
		c.add(hashKey(shop, fmt.Sprint("user-", n)))
	}
	if got := c.size(); got > 73_817 || got < 30_000 {
		t.Errorf("200,000 users are counted as %d", got)
	}
	if again := headcountOf(c.bytes()); again != c || headcountOf(nil) != (headcount{}) || headcountOf([]byte("short")) != (headcount{}) {
		t.Error("it is not read as it was stored")
	}
	half := headcount{}
	for i := range len(half.bits) / 2 {
		half.bits[i] = math.MaxUint64
	}
	if got := half.size(); got != 5678 {
		t.Errorf("the worked example gives %d", got)
	}
}

func TestBudget_IsAShareOfTheUsersSeen(t *testing.T) {
	terms := spillway.Trial{ID: 1, Release: 2, Stable: 1, Budget: 500, Users: spillway.Percent(1)}
	admitted := func(trial *trial) (n int) {
		for trial.admit() {
			n++
		}
		for range n {
			trial.leave()
		}
		return n
	}
	trial := begin(t, terms)
	if n := admitted(trial); n != 3 {
		t.Errorf("without users %d, want 3", n)
	}
	for i := range 1000 {
		o := outcome{Weight: 5000, Key: hashKey(shop, fmt.Sprint("user-", i)), Known: true}
		trial.observe(shop, o, false)
		trial.observe(shop, o, false)
		trial.observe(shop, outcome{Weight: 5000, Key: hashKey(shop, fmt.Sprint("stranger-", i))}, false)
	}
	if n := admitted(trial); n < 9 || n > 11 {
		t.Errorf("1%% of 1,000 users: %d", n)
	}
	again := begin(t, withMemory(terms, trial))
	if n := admitted(again); n != admitted(trial) {
		t.Errorf("after a restart %d", n)
	}
	terms.Users = 0
	again.renew(terms)
	if n := admitted(again); n != 500 {
		t.Errorf("counted in requests: %d", n)
	}
}

func TestBudget_CountsUsersWhoSayWhoTheyAre(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, text("new")))
	table.Route.Trial.Users = 10
	r.push(table)
	for range 20 {
		r.get("/") // a stranger, whose cookie nobody sends back
	}
	if n := evidenceOf(t, r.report()).Users; n != 0 {
		t.Errorf("strangers are counted as %d users", n)
	}
	cookie := r.get("/").header.Get("Set-Cookie")
	for range 3 {
		r.get("/", "Cookie", strings.Split(cookie, ";")[0])
		for _, user := range usersAt(0, spillway.Whole, 20) {
			r.get("/", "X-User", user)
		}
	}
	if n := evidenceOf(t, r.report()).Users; n < 20 || n > 22 {
		t.Errorf("21 users are counted as %d", n)
	}
}

func TestBudget_OfFewUsersIsThree(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var hits atomic.Int64
	full := make(chan struct{})
	table := divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, func(w http.ResponseWriter, _ *http.Request) {
		if hits.Add(1) == 3 {
			close(full)
		}
		<-full // as many at once as are admitted
		w.WriteHeader(500)
	}))
	table.Route.Trial.Users, table.Route.Trial.Budget = 10, 1000
	r.push(table)
	var clients sync.WaitGroup
	for _, user := range usersAt(0, 5000, 60) {
		clients.Go(func() { // ends with its answer, the test waits
			if _, err := r.do(http.MethodPost, "/", strings.NewReader("x"), "X-User", user); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if e := r.report().Evidence; hits.Load() != 3 || !e.Tripped || !strings.Contains(e.Reason, "of the users") && e.Cause != "errors" {
		t.Errorf("%d requests reached the candidate: %+v", hits.Load(), e)
	}
}
