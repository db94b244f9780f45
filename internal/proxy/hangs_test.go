package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// limited has requests below /hang answered within a time.
func limited(table spillway.Table, limit time.Duration) spillway.Table {
	table.Route.Edges[0].Target = "www"
	table.Route.Rules = []spillway.HTTPRule{{
		Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: "/hang"},
		To: []spillway.Target{{Service: "www"}}, Timeout: spillway.Duration(limit),
	}}
	return table
}

// TestRun_BlamesTheCandidateThatHangs, and nobody else: stable has a time of its own for what it answers instead.
func TestRun_BlamesTheCandidateThatHangs(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		r := startWith(t, tempDir(t), Config{Engine: engine})
		var stable atomic.Int64
		r.push(limited(divided(1, spillway.Whole, replica(t, func(w http.ResponseWriter, _ *http.Request) {
			stable.Add(1)
			<-time.After(2 * soon)
			io.WriteString(w, "stable")
		}), replica(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/hang/half" {
				w.Header().Set("Content-Length", "10")
				io.WriteString(w, "hello")
				http.NewResponseController(w).Flush()
			}
			<-q.Context().Done()
		})), 500*time.Millisecond))
		for _, path := range []string{"/hang", "/hang/half", "/hang"} {
			a, err := r.do(http.MethodGet, path, nil, "X-User", "1")
			if rescued := path == "/hang"; rescued != (err == nil && a.body == "stable" && a.release == "1") || !rescued && err == nil {
				t.Errorf("%s: %+v, %v", path, a, err)
			}
		}
		report := r.report()
		if e := report.Evidence; e.Requests != 3 || e.Failures != 3 {
			t.Errorf("evidence %+v", e)
		}
		if c := report.Counts["www.2"]; c.Requests != 3 || c.Failures != 3 {
			t.Errorf("counts of the candidate %+v", c)
		}
		if c := report.Counts["www.1"]; c.Requests != 2 || c.Failures != 0 || stable.Load() != 2 {
			t.Errorf("stable was asked %d times; counts %+v", stable.Load(), c)
		}
	})
}

// TestExchange_AsksNobodyWhenTheTimeIsOver: a replica that comes too late is not blamed for that.
func TestExchange_AsksNobodyWhenTheTimeIsOver(t *testing.T) {
	e := edgesOf(t, limited(alone(1, "127.0.0.1:1"), time.Second))[0]
	p := e.app.plane
	p.reroute()
	c := asks("X-None", "")
	c.name, c.host, c.path, c.target = "shop.test", "shop.test", "/hang", "/hang"
	find := func(r *routing, _ *call) *way { return r.ways.hosts["shop.test"].prefixes["/hang"][0] }
	for late, want := range map[time.Duration]bool{time.Second - 100*time.Millisecond: true, time.Second + time.Millisecond: false} {
		x := &exchange{plane: p, call: c, client: &recorder{}, find: find, began: time.Now().Add(-late), now: time.Now()}
		got, err := x.claim()
		var no *refusal
		if want != (err == nil) || !want && (!errors.As(err, &no) || no.status != http.StatusGatewayTimeout) {
			t.Errorf("after %v: %v", late, err)
		}
		if err == nil {
			p.release(got.endpoint)
		}
	}
}

// TestRun_BlamesTheClientThatSendsTooSlowly: what it owes is not the failure of a release.
func TestRun_BlamesTheClientThatSendsTooSlowly(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		t.Parallel()
		r := startWith(t, tempDir(t), Config{Engine: engine})
		back := replica(t, func(_ http.ResponseWriter, q *http.Request) {
			io.Copy(io.Discard, q.Body)
			<-time.After(2 * soon)
		})
		r.push(limited(divided(1, spillway.Whole, back, back), 500*time.Millisecond))
		for name, row := range map[string]struct {
			length int
			later  bool // the rest comes when it is too late
			want   string
		}{
			"small":              {10, true, "408"},
			"large":              {8000, true, "408"},
			"large, and no more": {8000, false, "408"},
			"in time":            {0, false, "200"},
		} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			body := strings.Repeat("x", row.length)
			fmt.Fprintf(conn, "POST /hang HTTP/1.1\r\nHost: shop.test\r\nX-User: 1\r\nContent-Length: %d\r\n\r\n%s", len(body), body[len(body)/2:])
			if row.later {
				time.AfterFunc(700*time.Millisecond, func() { io.WriteString(conn, body[:len(body)/2]) })
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || !strings.HasPrefix(resp.Status, row.want) {
				t.Errorf("%s: %+v, %v, want %s", name, resp, err, row.want)
			}
		}
		report := r.report()
		if e, c := report.Evidence, report.Counts["www.2"]; e.Requests != 1 || e.Failures != 0 || c.Failures != 0 {
			t.Errorf("evidence %+v, counts %+v", e, c)
		}
	})
}

// TestRun_SurvivesClientsThatLeaveWithinInterimAnswers: the server of HTTP/2 must not read what the next answer is made of.
// The race detector sees it, and so does the runtime, which ends the process.
func TestRun_SurvivesClientsThatLeaveWithinInterimAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	r.push(alone(1, replica(t, func(w http.ResponseWriter, q *http.Request) {
		for i := range 50 {
			w.Header().Set("Link", fmt.Sprint("</", i, ">"))
			w.WriteHeader(http.StatusEarlyHints)
		}
		io.WriteString(w, "ok")
	})))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for k := range 20 {
		all.Go(func() { // ends with its requests
			for i := range 20 {
				ctx, cancel := context.WithCancel(t.Context())
				hints := 0
				q, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
					if hints++; hints > (i+k)%7 {
						cancel()
					}
					return nil
				}}), http.MethodGet, r.url, nil)
				if err != nil {
					t.Error(err)
				}
				q.Host = "shop.test"
				if resp, err := transport.RoundTrip(q); err == nil {
					resp.Body.Close()
				}
				cancel()
			}
		})
	}
	all.Wait()
	if a := r.get("/"); a.body != "ok" {
		t.Errorf("behind them: %+v", a)
	}
}
