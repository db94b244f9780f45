package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillway-dev/spillway"
)

// legacy is a table in which a track of servers by URL has the users above share of stable.
func legacy(revision int64, share spillway.Share, stable string, urls ...string) spillway.Table {
	t := alone(revision, stable)
	t.Cohort.Key = []spillway.KeySource{{Kind: "header", Name: "X-User"}}
	t.Route.Edges[0].Backends = []spillway.Backend{
		{Track: "legacy", URLs: urls, Weight: share},
		{Group: www1, Release: 1, Weight: spillway.Whole - share},
	}
	if stable == "" {
		t.Endpoints = nil
	}
	return t
}

func TestServers_GetTheirShareOfTheUsers(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	var hits [2]atomic.Int64
	server := func(i int) string {
		return "http://" + replica(t, func(w http.ResponseWriter, req *http.Request) {
			hits[i].Add(1)
			fmt.Fprintf(w, "%s %s", req.Host, req.RequestURI)
		})
	}
	r.push(legacy(1, spillway.Percent(40), replica(t, text("new")), server(0), server(1)+"/base%2F/"))
	for _, user := range usersAt(6000, spillway.Whole, 20) {
		a := r.get("/a%2Fb?x=1;y", "X-User", user)
		if a.release != "legacy" || (a.body != "shop.test /a%2Fb?x=1;y" && a.body != "shop.test /base%2F/a%2Fb?x=1;y") {
			t.Fatalf("user of legacy: %+v", a)
		}
	}
	if a := r.get("/", "X-User", usersAt(0, 6000, 1)[0]); a.release != "1" || a.body != "new" {
		t.Errorf("user of stable: %+v", a)
	}
	if hits[0].Load() == 0 || hits[1].Load() == 0 {
		t.Errorf("the servers got %d and %d", hits[0].Load(), hits[1].Load())
	}
	if c := r.report().Counts["www@legacy"]; c.Requests != 20 || c.Failures != 0 || c.P99 == 0 || c.Rate <= 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestServers_OverHTTPSNeedAGoodCertificate(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	good := httptest.NewUnstartedServer(text("secure"))
	good.TLS = testAuthority.serverConfig(t, "127.0.0.1")
	good.StartTLS()
	defer good.Close()
	bad := httptest.NewUnstartedServer(text("self-signed"))
	bad.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	bad.StartTLS()
	defer bad.Close()
	r.push(legacy(1, spillway.Whole, "", good.URL))
	if a := r.get("/"); a.body != "secure" || a.release != "legacy" {
		t.Errorf("%+v", a)
	}
	r.push(legacy(2, spillway.Whole, "", bad.URL))
	if a := r.get("/"); a.status != 502 || !strings.Contains(a.body, "certificate") {
		t.Errorf("a certificate of nobody: %+v", a)
	}
}

func TestServers_AreNeverStoodInFor(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	dead := "http://" + refused(t)
	r.push(legacy(1, spillway.Percent(50), replica(t, text("new")), dead))
	other := legacy(1, spillway.Percent(50), "", "http://"+replica(t, text("legacy")))
	other.App, other.Route.Edges[0].Hosts = "other", []string{"other.test"}
	r.push(other)
	ofStable := "user-0"
	for i := 1; Bucket("other", ofStable) >= 5000; i++ {
		ofStable = fmt.Sprint("user-", i)
	}
	var both sync.WaitGroup
	both.Go(func() { // ends with the answer, the test waits
		a, err := r.do("GET", "/", nil, "X-User", usersAt(5000, spillway.Whole, 1)[0])
		if err != nil || a.status != 502 || a.release != "" || !strings.Contains(a.body, "Spillway: www@legacy cannot be connected to") {
			t.Errorf("dead server: %+v %v", a, err)
		}
	})
	both.Go(func() { // as above
		a, err := r.do("GET", "/", nil, "Host", "other.test", "X-User", ofStable)
		if err != nil || a.status != 503 || !strings.Contains(a.body, "no ready replica of www.1") {
			t.Errorf("stable without replicas beside servers: %+v %v", a, err)
		}
	})
	both.Wait()
	if c := r.report().Counts["www@legacy"]; c.Requests != 1 {
		t.Errorf("one request came to %d tries of a server that is not ours", c.Requests)
	}
}

func TestServers_AreCalledDeadUntilTheyAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := refused(t)
	r.push(legacy(1, spillway.Percent(50), replica(t, text("new")), "http://"+address, "http://"+replica(t, text("alive"))))
	ctx, cancel := context.WithCancel(t.Context())
	news, watched := make(chan map[string]string, 100), make(chan struct{})
	go func() { // ends with ctx, the test waits
		defer close(watched)
		r.Watch(ctx, func(spillway.Ref) {
			if report, err := r.Report(ctx, shop); err == nil {
				news <- report.Dead
			}
		})
	}()
	<-news // connected
	user := usersAt(5000, spillway.Whole, 1)[0]
	var dead map[string]string
	for dead["http://"+address] == "" {
		if a := r.get("/", "X-User", user); a.body != "alive" {
			t.Fatalf("with one of two servers dead: %+v", a)
		}
		select {
		case dead = <-news:
		default:
		}
	}
	if why := dead["http://"+address]; len(dead) != 1 || !regexp.MustCompile(`^connection refused \((\d+) of the last (\d+) tries\)$`).MatchString(why) {
		t.Errorf("dead: %v", dead)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(text("again"))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	defer s.Close()
	for len(dead) > 0 {
		if a := r.get("/", "X-User", user); a.status != 200 {
			t.Fatalf("%+v", a)
		}
		select {
		case dead = <-news:
		default:
		}
	}
	cancel()
	<-watched
}

func TestServers_MustHaveProperURLs(t *testing.T) {
	r := start(t, tempDir(t), false)
	for _, url := range []string{"", "10.0.0.1:80", "ftp://x", "http://", "http://u@x", "http://x?y", "http://x#y", "http://[x"} {
		wantError(t, r.Push(t.Context(), legacy(1, 100, "127.0.0.1:1", url)), spillway.ErrInvalid, fmt.Sprintf("%q", url))
	}
}

func TestServers_SwitchProtocols(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(legacy(1, spillway.Whole, "", "http://"+replica(t, echo)))
	conn, in := r.raw("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%+v %v", resp, err)
	}
	io.WriteString(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(in); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
}
