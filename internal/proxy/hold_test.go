package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/spillway-dev/spillway"
)

func (r *running) hold(wait time.Duration) spillway.Hold {
	r.t.Helper()
	h, err := r.Hold(r.t.Context(), shop, wait)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// asks makes n requests at once and gives their answers as they come.
func (r *running) asks(n int, method string) <-chan answer {
	answers := make(chan answer, n)
	for range n {
		go func() { // owned by the test, which takes all answers; ends with its request
			a, err := r.do(method, "/", strings.NewReader(""))
			if err != nil {
				a.body = err.Error()
			}
			answers <- a
		}()
	}
	return answers
}

func (r *running) waits(n int) {
	r.t.Helper()
	eventually(r.t, "requests wait", func() bool { h := r.report().Hold; return h != nil && h.Waiting == n })
}

func TestHold_KeepsRequestsAndLetsThemGoOnePerMoment(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var mu sync.Mutex
	var came []time.Time
	r.push(alone(1, replica(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		came = append(came, time.Now())
		io.WriteString(w, "ok")
	})))
	r.hold(20 * time.Second)
	const n = 60
	answers := r.asks(n, http.MethodPost)
	r.waits(n)
	if len(came) > 0 {
		t.Fatal("a request has passed")
	}
	if h := r.hold(0); h.Waiting != n || h.Since.IsZero() {
		t.Errorf("the hold was %+v", h)
	}
	for range n {
		if a := <-answers; a.status != 200 || a.body != "ok" {
			t.Errorf("%+v", a)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if took, least := came[n-1].Sub(came[0]), (n-2)*releasePace*9/10; took < least {
		t.Errorf("all went on within %v, want at least %v", took, least)
	}
	if r.report().Hold != nil {
		t.Error("still held")
	}
}

func TestHold_EndsByItsTime(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, text("ok"))))
	r.hold(50 * time.Millisecond)
	a := r.get("/")
	if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "Spillway: shop is held, and the request has waited for 50ms") {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
	if n := r.report().Hold.Waiting; n != 0 {
		t.Errorf("%d wait", n)
	}
	_, err := r.Hold(t.Context(), shop, time.Hour)
	wantError(t, err, spillway.ErrInvalid, "10m0s")
	_, err = r.Hold(t.Context(), "nobody", time.Second)
	wantError(t, err, spillway.ErrNotFound, "no table")
}

func TestHold_LetsGoOfClientsThatLeave(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var served atomic.Int64
	r.push(alone(1, replica(t, func(http.ResponseWriter, *http.Request) { served.Add(1) })))
	r.hold(20 * time.Second)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
	r.waits(1)
	conn.Close()
	r.waits(0)
	r.hold(0)
	if r.get("/").status != 200 || served.Load() != 1 {
		t.Errorf("%d requests were served", served.Load())
	}
}

// TestHold_AnswersWhoWaitsForAnAppThatIsRemoved, and goes on with the connection.
func TestHold_AnswersWhoWaitsForAnAppThatIsRemoved(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		r := startWith(t, tempDir(t), Config{Engine: engine})
		r.push(alone(1, replica(t, text("ok"))))
		r.hold(20 * time.Second)
		answers := r.asks(3, http.MethodPost)
		r.waits(3)
		if err := r.Remove(t.Context(), shop); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if a := <-answers; a.status != 503 || !strings.Contains(a.body, "the app or the route was removed") {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
	})
}

func TestHold_RefusesWhatIsTooMuch(t *testing.T) {
	p := handler(t)
	p.serveTable(t, alone(1, "127.0.0.9:1"))
	if _, err := p.hold(shop, time.Minute); err != nil {
		t.Fatal(err)
	}
	g := &p.apps[shop].gate
	for range maxQueue {
		if !g.enter() {
			t.Fatal("full too early")
		}
	}
	e := p.routing.Load().ways.hosts["shop.test"].rest.first()
	x := &exchange{plane: p}
	if err := x.stay(e); err == nil || !strings.Contains(err.Error(), "1000 requests of shop wait already") {
		t.Errorf("stay: %v", err)
	}
	p.serveTable(t, alone(2)) // without a replica
	x = &exchange{plane: p}
	routes := p.routing.Load()
	if err := x.wait(routes.ways.hosts["shop.test"].rest.first(), routes.changed); err == nil || !strings.Contains(err.Error(), "wait already") {
		t.Errorf("wait: %v", err)
	}
}

func TestHold_LeavesAloneWhatIsInFlight(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	began, end := make(chan struct{}), make(chan struct{})
	r.push(alone(1, replica(t, func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-end
		io.WriteString(w, "late")
	})))
	answers := r.asks(1, http.MethodGet)
	<-began
	r.hold(20 * time.Second)
	close(end)
	if a := <-answers; a.body != "late" {
		t.Errorf("%+v", a)
	}
}

// TestHold_AnswersWhatAsksNoReplica: what an authority looks for, and what has to come back by HTTPS or elsewhere, is
// answered while the app is held. What the app itself would show to an authority is a request like others.
func TestHold_AnswersWhatAsksNoReplica(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		t.Setenv("SPILLWAY_ENGINE", engine)
		dir := tempDir(t)
		terms := nowhere(t)
		keep(t, dir, terms.CA, "shop.test", time.Now().Add(time.Hour), 23)
		r := start(t, dir, false)
		var asked atomic.Int64
		app := replica(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); io.WriteString(w, "the app") })
		table := secured(divided(1, spillway.Percent(50), app, app), terms)
		table.Route.Rules = []spillway.HTTPRule{{
			Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: "/old"},
			Redirect: &spillway.Redirect{Host: "new.test", Status: http.StatusMovedPermanently},
		}}
		r.push(table)
		show(t, dir, terms.CA, acme.Challenge{Type: acme.ChallengeTypeHTTP01, Token: "token", KeyAuthorization: "token.thumb", Identifier: acme.Identifier{Type: "dns", Value: "shop.test"}})
		r.hold(time.Minute)
		if a := r.unfollowed(challengePath + "token"); a.status != http.StatusOK || a.body != "token.thumb" {
			t.Errorf("the challenge: %d %q", a.status, a.body)
		}
		if a := r.unfollowed("/a"); a.status != http.StatusPermanentRedirect || !strings.HasPrefix(a.header.Get("Location"), "https://shop.test") {
			t.Errorf("a request by HTTP: %d to %q", a.status, a.header.Get("Location"))
		}
		if a := r.unfollowed("/old", "X-Forwarded-Proto", "https"); a.status != http.StatusMovedPermanently {
			t.Errorf("a rule that sends elsewhere: %d", a.status)
		}
		if n, err := r.serial("shop.test"); err != nil || n != 23 {
			t.Errorf("a handshake: certificate %d, %v", n, err)
		}
		if n := r.report().Hold.Waiting; n != 0 || asked.Load() != 0 {
			t.Errorf("%d wait, and the app was asked %d times", n, asked.Load())
		}
		answers := make(chan answer, 2)
		for _, path := range []string{"/a", challengePath + "of-the-app"} {
			go func() { // owned by the test, which takes both answers; ends with its request
				a, err := r.do(http.MethodGet, path, nil, "X-Forwarded-Proto", "https")
				if err != nil {
					a.body = err.Error()
				}
				answers <- a
			}()
		}
		r.waits(2)
		r.hold(0)
		for range 2 {
			if a := <-answers; a.body != "the app" {
				t.Errorf("%+v", a)
			}
		}
	})
}

func TestHold_OutlivesReplacementAndRestart(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	r.push(alone(1, replica(t, text("ok"))))
	since := r.hold(20 * time.Second).Since
	answers := r.asks(3, http.MethodPost)
	r.waits(3)
	heir := start(t, dir, true)
	heir.waits(3) // passed on
	if err := heir.stop(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if a := <-answers; a.status != 503 || !strings.Contains(a.body, "the proxy stops") {
			t.Errorf("%+v", a)
		}
	}
	again := start(t, dir, false)
	if h := again.report().Hold; h == nil || !h.Since.Equal(since) || time.Duration(h.For) != 20*time.Second {
		t.Errorf("after a restart: %+v", h)
	}
	answers = again.asks(1, http.MethodGet)
	again.waits(1)
	again.hold(0)
	if a := <-answers; a.body != "ok" {
		t.Errorf("%+v", a)
	}
}
