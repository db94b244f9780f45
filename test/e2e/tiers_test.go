package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// tierCount is what 10,000 requests of an app of two tiers met.
type tierCount struct {
	mu      sync.Mutex
	whole   map[string]int // answers by release; both tiers were of it
	failed  map[string]int // answers of 500 and more, by release
	crossed []string       // answers of which the tiers were of different releases
}

func (c *tierCount) add(release string, status int, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if status != http.StatusOK {
		c.failed[release]++
		return
	}
	var s says
	if err := json.Unmarshal(body, &s); err != nil || s.Peer == nil || s.Release != release || s.Peer.Release != release || s.Peer.N != s.N {
		c.crossed = append(c.crossed, fmt.Sprintf("release %s: %s", release, body))
		return
	}
	c.whole[release]++
}

// A candidate peer that breaks nobody but the candidate web: users of stable see no error, both tiers roll
// back together, and of 10,000 requests none crosses from one release to the other. Requests are POSTs, so
// what the candidate breaks is broken for its users.
func TestTiers_RollBackTogether(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "pair")
	a.Tiers, a.Strategy, a.Steps, a.Watch = true, "canary", "20% 1h", "1m"
	a.Top = []string{"cohort: {key: [header X-Account-Id]}"}
	in.deploy(a).want(t, 0)
	in.healthy(a.Name, 1, 30*time.Second)
	a.PeerEnv["FAIL"] = "after 800"
	followed := in.behind("deploy", a.bump().write())
	in.status(a.Name, 30*time.Second, "20% of the users on release 2", func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Percent(20)
	})
	c := tierCount{whole: map[string]int{}, failed: map[string]int{}}
	client := in.browser()
	var people sync.WaitGroup
	for worker := range 8 {
		people.Go(func() {
			for i := range 1250 {
				c.post(t, client, "http://"+a.Host()+"/", fmt.Sprintf("person-%d-%d", worker, i%50))
			}
		})
	}
	people.Wait()
	(<-followed).want(t, 3).tells(t, "release 2", "rolled back")
	for i, text := range c.crossed {
		if i < 5 {
			t.Errorf("the tiers were of different releases: %s", text)
		}
	}
	if c.failed["1"] > 0 || c.failed[""] > 0 || c.failed["2"] == 0 || c.failed["2"] > 20 {
		t.Errorf("failures by release: %v, want 1 to 20 at release 2 and no other", c.failed)
	}
	if c.whole["2"] < 500 {
		t.Errorf("only %d answers were of release 2 before it broke, which proves little", c.whole["2"])
	}
	t.Logf("10,000 requests: whole %v, failed %v, crossed %d", c.whole, c.failed, len(c.crossed))
	o := in.healthy(a.Name, 1, 30*time.Second)
	for _, s := range o.Services {
		if len(s.Groups) != 1 || s.Groups[0].Group.Release != 1 || s.Groups[0].Ready != 2 {
			t.Errorf("after the rollback %s has %+v, want the two replicas of release 1", s.Name, s.Groups)
		}
	}
	in.exactly("pair", 4)
}

// post sends one request of a person and counts the answer.
func (c *tierCount) post(t *testing.T, client *http.Client, url, person string) {
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader("x"))
	if err != nil {
		t.Error(err)
		return
	}
	request.Header.Set("X-Account-Id", person)
	response, err := client.Do(request)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
		return
	}
	c.add(response.Header.Get("X-Spillway-Release"), response.StatusCode, body)
}
