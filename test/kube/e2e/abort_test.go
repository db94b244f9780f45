//go:build kube

package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// askMany sends requests of users one after the other over connections that stay open and over new ones, several at a
// time, and gives how many each release answered, and what was no answer.
func (c *castle) askMany(n int) (met map[string]int, failed []string) {
	c.Helper()
	const workers = 8
	var mu sync.Mutex
	var crew sync.WaitGroup
	met = map[string]int{}
	for w := range workers {
		crew.Go(func() { // ends after its share of the requests; waited for below
			browser := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: w%2 == 1}}
			defer browser.CloseIdleConnections()
			for range n / workers {
				var s says
				err := hello(c.Context(), browser, c.in.gateway, c.host, &s)
				mu.Lock()
				if err != nil {
					failed = append(failed, err.Error())
				} else {
					met[s.Release]++
				}
				mu.Unlock()
			}
		})
	}
	crew.Wait()
	return met, failed
}

// leavesNobody aborts in the moments of a canary in which it matters, and then sends users: none may meet the candidate
// when the command has returned.
func (c *castle) leavesNobody() {
	c.Helper()
	c.edit("steps: [25% 1s, 50% 1s]", "steps: [50% 5m]")
	c.deploy().want(c.T, 0)
	c.in.healthy("castle", 1, time.Minute)
	for _, moment := range []struct {
		name  string
		waits func(candidate string)
	}{
		{"when the first user met it", c.met},
		{"when it had half of them", func(string) { c.in.divided(50) }},
	} {
		c.change().deploy("--detach").want(c.T, 0)
		candidate := fmt.Sprint(c.in.newest("castle"))
		moment.waits(candidate)
		began := time.Now()
		r := c.in.spillway("abort", "--app", "castle").want(c.T, 0)
		took := time.Since(began)
		r.tells(c.T, "release "+candidate+" of castle has weight 0", "release 1 serves everybody")
		met, failed := c.askMany(2000)
		c.Logf("aborted %s in %.2f s; users in the %.1f s after it met %v", moment.name, took.Seconds(), time.Since(began.Add(took)).Seconds(), met)
		if met[candidate] > 0 || len(failed) > 0 {
			c.Errorf("aborted %s: %d users met release %s after it, %d had no answer %q", moment.name, met[candidate], candidate, len(failed), failed[:min(3, len(failed))])
		}
		c.in.settled("castle", time.Minute)
	}
}

// met waits until a user meets a release.
func (c *castle) met(release string) {
	c.Helper()
	browser := &http.Client{Timeout: 10 * time.Second}
	defer browser.CloseIdleConnections()
	var s says
	for deadline := time.Now().Add(time.Minute); s.Release != release; {
		if err := hello(c.Context(), browser, c.in.gateway, c.host, &s); err != nil || time.Now().After(deadline) {
			c.Fatalf("wait for a user who meets release %s: met %s, %v", release, s.Release, err)
		}
	}
}

// When abort has returned, no user meets the candidate any more, also when the gateway served its share before the server
// knew.
func TestAbort_LeavesNobodyBehind(t *testing.T) {
	t.Parallel()
	newCastle(install(t)).leavesNobody()
}

// Nor at any instance of the gateway, each of which learns of the route by itself.
func TestSeveralInstances_AbortLeavesNobodyBehind(t *testing.T) {
	t.Parallel()
	newCastle(installBehindSeveral(t)).leavesNobody()
}
