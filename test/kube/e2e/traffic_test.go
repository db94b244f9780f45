//go:build kube

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/load"
)

// traffic is load on an app, counted as users see it.
type traffic struct{ *e2etest.Traffic }

func (tr *traffic) forget()                            { tr.Forget() }
func (tr *traffic) first() time.Time                   { return tr.First() }
func (tr *traffic) counts() e2etest.Seen               { return tr.Counts() }
func (tr *traffic) end() e2etest.Seen                  { return tr.End() }
func (tr *traffic) flawless(rate float64) e2etest.Seen { tr.T.Helper(); return tr.Flawless(rate) }
func (tr *traffic) tellFailures()                      { tr.T.Helper(); tr.TellFailures() }
func (tr *traffic) answered(n int64)                   { tr.T.Helper(); tr.Answered(n) }

// everybody are users with connections that stay open and users with new ones, who read and write.
func everybody(rate float64) []load.Plan {
	fresh := http.Header{"Connection": {"close"}}
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	freshForm := http.Header{"Connection": fresh["Connection"], "Content-Type": form["Content-Type"]}
	return []load.Plan{
		{Method: "GET", Rate: rate * 0.4, Workers: 4}, {Method: "GET", Rate: rate * 0.2, Workers: 4, Header: fresh},
		{Method: "POST", Rate: rate * 0.2, Workers: 4, Header: form}, {Method: "POST", Rate: rate * 0.2, Workers: 4, Header: freshForm},
	}
}

// readers are users with open connections who only read.
func readers(rate float64) load.Plan { return load.Plan{Method: "GET", Rate: rate, Workers: 8} }

// send starts load on a host until end, or the end of the test: at the gateway, where a plan names no other URL.
func (in *installation) send(host string, plans ...load.Plan) *traffic {
	in.t.Helper()
	plans = slices.Clone(plans)
	for i := range plans {
		p := &plans[i]
		p.Host, p.URL = host, cmp.Or(p.URL, "http://"+in.gateway+"/")
		if p.Method == http.MethodPost {
			p.URL, p.Body = p.URL+"guess", "n=7"
		}
	}
	return &traffic{e2etest.Send(in.t, plans...)}
}

// says is what a castle answers at /api/hello.
type says struct {
	Greeting string `json:"greeting"`
	Release  string `json:"release"`
	Backend  struct {
		Release string `json:"release"`
	} `json:"backend"`
}

// visitors ask one after the other, over a connection that stays open, and remember whom they met.
type visitors struct {
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	met     map[string]int // requests by release
	crossed []says         // answers of www of one release with a backend of another
	failed  []string
}

// visit sends visitors until leave, or the end of the test.
func (c *castle) visit() *visitors {
	ctx, cancel := context.WithCancel(context.Background())
	v := &visitors{stop: cancel, ended: make(chan struct{}), met: map[string]int{}}
	c.Cleanup(func() { v.leave() })
	// Owned by v; leave ends it and waits for it.
	go func() {
		defer close(v.ended)
		browser := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
		defer browser.CloseIdleConnections()
		for ctx.Err() == nil {
			v.ask(ctx, browser, c)
			<-time.After(25 * time.Millisecond)
		}
	}()
	return v
}

func (v *visitors) ask(ctx context.Context, browser *http.Client, c *castle) {
	var s says
	err := hello(ctx, browser, c.in.gateway, c.host, &s)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		v.failed = append(v.failed, time.Now().UTC().Format("15:04:05.000 ")+err.Error())
	case s.Release != s.Backend.Release:
		v.crossed = append(v.crossed, s)
	default:
		v.met[s.Release]++
	}
}

func hello(ctx context.Context, browser *http.Client, gateway, host string, into *says) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+gateway+"/api/hello", nil)
	if err != nil {
		return err
	}
	request.Host = host
	response, err := browser.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// leave ends the visits. It may be called again.
func (v *visitors) leave() {
	v.stop()
	<-v.ended
}

// together ends the visits and fails the test when a tier of one release met a tier of another, or nobody answered.
func (v *visitors) together(t *testing.T) {
	t.Helper()
	v.leave()
	if len(v.crossed) > 0 {
		t.Errorf("%d visitors of a www of one release met a backend of another, the first: %+v", len(v.crossed), v.crossed[0])
	}
	if len(v.failed) > 0 {
		t.Errorf("%d visitors had no answer: %q", len(v.failed), v.failed[:min(5, len(v.failed))])
	}
	t.Logf("visitors met %v, none crossed", v.met)
}
