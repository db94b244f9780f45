package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// ruling runs a proxy with the rules of a file until the test ends. Each of the services v1 to v3 says what it was
// asked for; mirrored gets what comes as a copy.
func ruling(t *testing.T, engine, rules string) (address string, mirrored chan string, report func() spillway.Report) {
	t.Helper()
	mirrored = make(chan string, 100)
	table := routed(t, threeServices+rules)
	for _, name := range []string{"v1", "v2", "v3"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			said := fmt.Sprintf("%s %s %s%s %s", name, r.Method, r.Host, r.RequestURI, body)
			if r.Header.Get(mirrorHeader) != "" {
				mirrored <- said
				return
			}
			w.Header().Set("X-Debug", "1")
			switch r.URL.Path {
			case "/hang":
				<-r.Context().Done()
				return
			case "/drip": // an answer that never becomes whole
				for r.Context().Err() == nil {
					_, _ = io.WriteString(w, ".")
					_ = http.NewResponseController(w).Flush()
					<-time.After(20 * time.Millisecond)
				}
				return
			case "/reset":
				reset(w, r)
				return
			}
			fmt.Fprintf(w, "%s [%s] [%s]", strings.TrimSpace(said), r.Header.Get("X-Tier"), r.Header.Get("X-Forwarded-Host"))
		}))
		t.Cleanup(server.Close)
		table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: name + ".1-1", Group: spillway.Group{Service: name, Release: 1}, Address: server.Listener.Addr().String()})
	}
	dir := tempDir(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { // owned by the test; ends with ctx; its clean-up waits
		ended <- Run(ctx, Config{Dir: dir, HTTP: "127.0.0.1:0", Engine: engine, Version: "test", Ready: func() { close(ready) }, Log: testLog(t)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	client := Dial(dir)
	if err := client.Push(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	info, err := client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.HTTP, mirrored, func() spillway.Report {
		r, err := client.Report(t.Context(), shop)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// said sends a request as it is written, "|" standing for a line end, and gives status and body of the answer, with
// the fields that are asked for.
func said(t *testing.T, address, request string, fields ...string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	head, body, _ := strings.Cut(request, "||")
	if _, err := io.WriteString(conn, strings.ReplaceAll(head, "|", "\r\n")+"\r\nConnection: close\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.Fields(request)[0]})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	answer := fmt.Sprint(resp.StatusCode)
	for _, name := range fields {
		answer += " " + strings.Join(resp.Header.Values(name), ",")
	}
	if resp.StatusCode < 300 {
		answer += " " + string(text)
	}
	if err != nil {
		answer += " broken off"
	}
	return strings.TrimSpace(answer)
}

func bothEngines(t *testing.T, test func(t *testing.T, engine string)) {
	for name, engine := range map[string]string{"fast": "", "general": EngineGeneral} {
		t.Run(name, func(t *testing.T) { test(t, engine) })
	}
}

func TestRun_FollowsRules(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		address, _, _ := ruling(t, engine, `
  - {host: a.test, to: v1}
  - {host: a.test, path: /api/*, method: POST, to: v2}
  - {host: a.test, path: /v2/*, to: v2, rewrite: {path: /new/*, host: b.test}, request-headers: {set: {X-Tier: gold}}, response-headers: {set: {X-Debug: changed}}}
  - {host: a.test, path: /old/*, redirect: {to: https://new.test/*, status: 308}}
  - {host: a.test, path: /cors, to: v3, cors: {origins: ["https://shop.test"]}}
  - {host: a.test, path: /net, to: v3, allow: [10.0.0.0/8]}
  - {host: a.test, path: /user, to: v3, users: {machine: "sha256:3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"}}
  - {host: a.test, path: /rate, to: v3, rate: {requests: 1, per: 1h}}
  - {host: a.test, path: /small, to: v3, max-body: 1Ki}
  - {host: a.test, path: /hang, to: v3, timeout: 100ms}
  - {host: a.test, path: /drip, to: v3, timeout: 200ms}
`)
		const host = "|Host: a.test"
		for _, row := range []struct {
			request, want string
			fields        []string
		}{
			{"GET /x?y=z HTTP/1.1" + host, "200 1 v1 GET a.test/x?y=z [] [a.test]", []string{"X-Spillway-Release"}},
			{"GET /api/x HTTP/1.1" + host, "200 v1 GET a.test/api/x [] [a.test]", nil},
			{"POST /api/x HTTP/1.1" + host + "|Content-Length: 5||hello", "200 v2 POST a.test/api/x hello [] [a.test]", nil},
			{"GET /x/../v2/a%2fb?q HTTP/1.1" + host + "|X-Tier: mine", "200 changed v2 GET b.test/new/a%2Fb?q [gold] [a.test]", []string{"X-Debug"}},
			{"GET /old/x?y HTTP/1.1" + host, "308 https://new.test/x?y", []string{"Location"}},
			{"HEAD /old/ HTTP/1.1" + host, "308 https://new.test/", []string{"Location"}},
			{"OPTIONS /cors HTTP/1.1" + host + "|Origin: https://shop.test|Access-Control-Request-Method: POST", "204 https://shop.test GET, HEAD, POST", []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods"}},
			{"GET /cors HTTP/1.1" + host + "|Origin: https://shop.test", "200 https://shop.test v3 GET a.test/cors [] [a.test]", []string{"Access-Control-Allow-Origin"}},
			{"GET /cors HTTP/1.1" + host + "|Origin: https://evil.test", "200  v3 GET a.test/cors [] [a.test]", []string{"Access-Control-Allow-Origin"}},
			{"GET /net HTTP/1.1" + host, "403 route a.test/net: clients from 127.0.0.1 may not come in here", []string{"X-Spillway-Reason"}},
			{"GET /user HTTP/1.1" + host, `401 Basic realm="a.test", charset="UTF-8"`, []string{"WWW-Authenticate"}},
			{"GET /user HTTP/1.1" + host + "|Authorization: Basic bWFjaGluZTp0b2tlbg==", "200 v3 GET a.test/user [] [a.test]", nil},
			{"GET /rate HTTP/1.1" + host, "200 v3 GET a.test/rate [] [a.test]", nil},
			{"GET /rate HTTP/1.1" + host, "429 3600", []string{"Retry-After"}},
			{"POST /small HTTP/1.1" + host + "|Content-Length: 2000||" + strings.Repeat("x", 2000), "413", nil},
			{"POST /small HTTP/1.1" + host + "|Transfer-Encoding: chunked||7d0\r\n" + strings.Repeat("x", 2000) + "\r\n0\r\n\r\n", "413", nil},
			{"POST /small HTTP/1.1" + host + "|Transfer-Encoding: chunked||3\r\nabc\r\n0\r\n\r\n", "200 v3 POST a.test/small abc [] [a.test]", nil},
			{"GET /hang HTTP/1.1" + host, "504", nil},
			{"GET //user HTTP/1.1" + host, "400", nil},
			{"GET /x/..%2fnet HTTP/1.1" + host, "400", nil},
			{"GET http://a.test/%2fuser HTTP/1.1" + host, "400", nil},
			{"GET / HTTP/1.1|Host: b.test", "404", nil},
		} {
			if got := said(t, address, row.request, row.fields...); got != row.want {
				t.Errorf("%.80s\ngot  %s\nwant %s", row.request, got, row.want)
			}
		}
		began := time.Now()
		if got := said(t, address, "GET /drip HTTP/1.1"+host); !strings.HasSuffix(got, "broken off") || time.Since(began) > 5*time.Second {
			t.Errorf("an answer that never becomes whole: got %.100s after %s", got, time.Since(began))
		}
	})
}

func TestRun_MirrorsWithoutAnybodyNoticing(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		address, mirrored, report := ruling(t, engine, `
  - {host: a.test, to: v1, mirror: v2}
  - {host: a.test, path: /never/*, to: v1, mirror: {to: v2, share: 0.01%}}
`)
		body := strings.Repeat("x", 1000)
		if got := said(t, address, "POST /a?b HTTP/1.1|Host: a.test|Content-Length: 1000||"+body); !strings.HasPrefix(got, "200 v1 POST a.test/a?b") {
			t.Errorf("got %.80s", got)
		}
		select {
		case got := <-mirrored:
			if got != "v2 POST a.test/a?b "+body {
				t.Errorf("the mirror got %.80s", got)
			}
		case <-time.After(5 * time.Second):
			t.Error("the mirror got nothing")
		}
		large := strings.Repeat("x", keptBody+1)
		if got := said(t, address, fmt.Sprintf("POST /large HTTP/1.1|Host: a.test|Content-Length: %d||%s", len(large), large)); !strings.HasPrefix(got, "200 v1") {
			t.Errorf("got %.80s", got)
		}
		if got := said(t, address, "GET /b HTTP/1.1|Host: a.test"); !strings.HasPrefix(got, "200 v1") {
			t.Errorf("got %.80s", got)
		}
		select {
		case got := <-mirrored:
			if got != "v2 GET a.test/b " { // and not the large one
				t.Errorf("the mirror got %.80s", got)
			}
		case <-time.After(5 * time.Second):
			t.Error("the mirror got nothing")
		}
		client := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
		client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
		defer client.CloseIdleConnections()
		ask, err := http.NewRequest("POST", "http://"+address+"/c", strings.NewReader("small"))
		if err != nil {
			t.Fatal(err)
		}
		ask.Host = "a.test"
		if resp, err := client.Do(ask); err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("%+v %v", resp, err)
		} else {
			resp.Body.Close()
		}
		select {
		case got := <-mirrored:
			if got != "v2 POST a.test/c small" {
				t.Errorf("the mirror got %.80s", got)
			}
		case <-time.After(5 * time.Second):
			t.Error("the mirror got nothing of a small body by HTTP/2")
		}
		counts := report().Counts
		if counts["v2.1"].Requests != 0 || counts["v1.1"].Requests != 4 {
			t.Errorf("counts %+v: copies are no evidence", counts)
		}
	})
}

func TestRun_RetriesAsTheRuleSays(t *testing.T) {
	bothEngines(t, func(t *testing.T, engine string) {
		t.Setenv("SPILLWAY_ENGINE", engine)
		r := start(t, tempDir(t), false)
		var asked atomic.Int64
		table := alone(1)
		for i := range 5 {
			address := replica(t, func(w http.ResponseWriter, q *http.Request) { asked.Add(1); reset(w, q) })
			table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: fmt.Sprintf("www.1-%d", i), Group: www1, Address: address})
		}
		table.Route.Edges[0].Target = "www"
		for _, n := range []int{0, 1, 4} {
			table.Route.Rules = append(table.Route.Rules, spillway.HTTPRule{
				Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: fmt.Sprintf("/%d", n)},
				To: []spillway.Target{{Service: "www"}}, Retries: &n,
			})
		}
		r.push(table)
		for path, want := range map[string]int64{"/0": 1, "/1": 2, "/4": 5, "/usual": 1 + maxResends} {
			asked.Store(0)
			if a := r.get(path); a.status != http.StatusBadGateway || asked.Load() != want {
				t.Errorf("%s: answered %d after %d attempts, want %d", path, a.status, asked.Load(), want)
			}
		}
	})
}
