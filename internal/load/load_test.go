package load_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/load"
)

// serve starts a server that ends with the test.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// run runs a plan to its end.
func run(t *testing.T, p load.Plan) load.Counts {
	t.Helper()
	l, err := load.New(p)
	if err != nil {
		t.Fatal(err)
	}
	l.Run(t.Context())
	return l.Counts()
}

func TestRun_CountsEveryAnswerByClassAndRelease(t *testing.T) {
	var n atomic.Int64
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		i := n.Add(1)
		w.Header().Set("X-Spillway-Release", fmt.Sprint(1+i%2))
		switch {
		case i%10 == 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case i%25 == 1:
			w.WriteHeader(http.StatusNotFound)
		case i%25 == 2:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	})
	var told sync.Map
	got := run(t, load.Plan{URL: target, Workers: 8, Total: 200, OnFailure: func(f load.Failure) {
		n, _ := told.LoadOrStore(fmt.Sprint(f.Class, f.Status, " ", f.Release), new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}})
	if got.Requests != 200 || got.Failures != 28 {
		t.Errorf("%d requests, %d failures; want 200 and 28", got.Requests, got.Failures)
	}
	if want := map[load.Class]int64{load.Status5xx: 20, load.StatusOther: 8}; !maps.Equal(got.Classes, want) {
		t.Errorf("classes %v, want %v", got.Classes, want)
	}
	if want := map[string]load.Release{"1": {100, 24}, "2": {100, 4}}; !maps.Equal(got.Releases, want) {
		t.Errorf("releases %v, want %v", got.Releases, want)
	}
	for what, want := range map[string]int64{"5xx503 1": 20, "other status404 1": 4, "other status404 2": 4} {
		n, _ := told.LoadOrStore(what, new(atomic.Int64))
		if n := n.(*atomic.Int64).Load(); n != want {
			t.Errorf("told %d times of %s, want %d", n, what, want)
		}
	}
	if got.P50 <= 0 || got.P99 < got.P50 {
		t.Errorf("p50 %v, p99 %v", got.P50, got.P99)
	}
}

func TestRun_TellsBrokenConnectionsApart(t *testing.T) {
	cut := func(text string) http.HandlerFunc { // writes text and closes
		return func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		url  string
		want load.Class
	}{
		{"nobody listens", "http://" + nobody.Addr().String(), load.Refused},
		{"closed before the answer", serve(t, cut("")), load.Reset},
		{"closed in the headers", serve(t, cut("HTTP/1.1 200 OK\r\nServer: x")), load.Reset},
		{"closed in the body", serve(t, cut("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")), load.Reset},
		{"not HTTP", serve(t, cut("220 mail.example.com ESMTP\r\n\r\n")), load.Other},
		{"no answer in time", serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), load.Timeout},
		{"half an answer in time", serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), load.Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timeout := 30 * time.Second
			if tt.want == load.Timeout {
				timeout = 50 * time.Millisecond
			}
			got := run(t, load.Plan{URL: tt.url, Total: 3, Timeout: timeout})
			if want := map[load.Class]int64{tt.want: 3}; got.Requests != 3 || got.Failures != 3 || !maps.Equal(got.Classes, want) {
				t.Errorf("got %+v, want 3 failures %v", got, want)
			}
		})
	}
}

// A server that takes every second request on a connection and closes it: any HTTP client repeats a GET
// there, and nobody would learn that a request was lost.
func TestRun_CountsALostRequestThatABrowserWouldRepeat(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		// The test owns it; closing the listener ends it; the test waits for served.
		go func() {
			defer close(served)
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				in := bufio.NewReader(c)
				if r, err := http.ReadRequest(in); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
					_, _ = http.ReadRequest(in)
				}
				_ = c.Close()
			}
		}()
		got := run(t, load.Plan{URL: "http://" + listener.Addr().String(), Method: method, Total: 6})
		if got.Requests != 6 || got.Classes[load.Reset] != 3 {
			t.Errorf("%s: %+v, want every second of 6 requests reset", method, got)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		<-served
	}
}

func TestRun_SendsWhatThePlanSays(t *testing.T) {
	type seen struct{ method, host, header, body, encoding string }
	for _, method := range []string{"", "GET", "POST", "PUT", "DELETE"} {
		for _, body := range []string{"", "guess=7"} {
			answered := make(chan seen, 1)
			target := serve(t, func(w http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				answered <- seen{r.Method, r.Host, r.Header.Get("X-Account-Id"), string(text), fmt.Sprint(r.TransferEncoding)}
			})
			header := http.Header{"X-Account-Id": {"17"}}
			counts := run(t, load.Plan{URL: target, Host: "www.castle.localhost", Method: method, Body: body, Header: header, Total: 1})
			want := seen{method, "www.castle.localhost", "17", body, "[]"}
			if method == "" {
				want.method = "GET"
			}
			if got := <-answered; got != want || counts.Failures != 0 {
				t.Errorf("got %+v, want %+v (%+v)", got, want, counts)
			}
		}
	}
}

func TestRun_KeepsCookiesPerWorkerOnlyWhenAsked(t *testing.T) {
	for _, cookies := range []bool{false, true} {
		var users atomic.Int64
		target := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if _, err := r.Cookie("user"); err != nil {
				http.SetCookie(w, &http.Cookie{Name: "user", Value: fmt.Sprint(users.Add(1))})
			}
		})
		got := run(t, load.Plan{URL: target, Workers: 4, Total: 100, Cookies: cookies})
		if cookies && users.Load() > 4 || !cookies && users.Load() != 100 || got.Failures > 0 {
			t.Errorf("cookies %v: %d users among %d requests of 4 workers", cookies, users.Load(), got.Requests)
		}
	}
}

func TestRun_UsesOneConnectionAWorker(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	run(t, load.Plan{URL: s.URL, Workers: 5, Total: 500})
	// net/http gives up a connection whose request it has not seen written 50 ms after the answer: on a busy machine
	// that happens, once in a while. A connection a request would be 500.
	if n := opened.Load(); n > 5+10 {
		t.Errorf("%d connections for 5 workers", n)
	}
}

func TestRun_PacesRequests(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) {})
	began := time.Now()
	got := run(t, load.Plan{URL: target, Rate: 500, Workers: 4, Total: 51})
	if took := time.Since(began); took < 100*time.Millisecond || got.Requests != 51 {
		t.Errorf("%d requests in %v; the last of 51 at 500 a second is due after 100ms", got.Requests, took)
	}
}

// The first answer takes 200 ms while the other 19 requests come due within 20 ms. They are sent late, so
// each of them waited 180 ms or more: a counter that looked at the time since sending would see none of it.
func TestRun_CountsTheWaitOfRequestsThatWereDue(t *testing.T) {
	var once sync.Once
	target := serve(t, func(http.ResponseWriter, *http.Request) {
		once.Do(func() { <-time.After(200 * time.Millisecond) })
	})
	got := run(t, load.Plan{URL: target, Rate: 1000, Workers: 1, Total: 20})
	if got.P50 < 180*time.Millisecond {
		t.Errorf("p50 is %v: coordinated omission", got.P50)
	}
}

func TestRun_DoesNotCountWhatTheEndOfTheContextCuts(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var n atomic.Int64
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 8 { // 8 answers, then every worker hangs
			if n.Load() == 12 {
				cancel()
			}
			<-r.Context().Done()
		}
	})
	l, err := load.New(load.Plan{URL: target, Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	l.Run(ctx)
	if got := l.Counts(); got.Requests != 8 || got.Failures != 0 {
		t.Errorf("got %+v, want the 8 answers and no failure", got)
	}
}

func TestNew_RefusesAPlanThatCannotWork(t *testing.T) {
	for _, p := range []load.Plan{
		{}, {URL: "www.castle.localhost:8080"}, {URL: "ftp://localhost/"}, {URL: "http://"}, {URL: "http://a b/"},
		{URL: "http://localhost", Rate: -1}, {URL: "http://localhost", Workers: -1},
		{URL: "http://localhost", Method: "GE T"},
	} {
		if _, err := load.New(p); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("New(%+v) = %v, want an ErrInvalid", p, err)
		}
	}
}

func TestCounts_Quantiles(t *testing.T) {
	var n atomic.Int64
	target := serve(t, func(http.ResponseWriter, *http.Request) {
		if n.Add(1) > 97 { // 3 of 100
			<-time.After(100 * time.Millisecond)
		}
	})
	got := run(t, load.Plan{URL: target, Total: 100})
	if got.P99 < 100*time.Millisecond {
		t.Errorf("p99 is %v although 3 of 100 requests took 100ms", got.P99)
	}
	if zero := new(load.Load).Counts(); zero.P50 != 0 || slices.Max([]int64{zero.Requests, zero.Failures}) != 0 {
		t.Errorf("nothing sent: %+v", zero)
	}
}

// Without a rate a request is due when its worker is free. Of ten requests one after the other, six take at
// least as long as the median, so it cannot be more than a sixth of the whole.
func TestRun_CountsNoWaitWithoutARate(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) { <-time.After(5 * time.Millisecond) })
	began := time.Now()
	got := run(t, load.Plan{URL: target, Total: 10})
	if most := time.Since(began) / 6; float64(got.P50) > 1.02*float64(most) {
		t.Errorf("p50 is %v, more than %v", got.P50, most)
	}
}
