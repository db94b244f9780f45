package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// logged waits until the access log has n lines, and gives them.
func logged(t *testing.T, path string, n int) (lines []map[string]any) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " lines in the access log"), func() bool {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n") >= n
	})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, l)
	}
	if len(lines) != n {
		t.Fatalf("%d lines instead of %d: %v", len(lines), n, lines)
	}
	return lines
}

// has checks fields of a line; "" = it is not there.
func has(t *testing.T, line map[string]any, want ...any) {
	t.Helper()
	for i := 0; i < len(want); i += 2 {
		got := line[want[i].(string)]
		if w := want[i+1]; (w == "" && got != nil) || (w != "" && fmt.Sprint(got) != fmt.Sprint(w)) {
			t.Errorf("%s is %v, want %v; the line: %v", want[i], got, w, line)
		}
	}
}

func logging(t *testing.T, share spillway.Share) (*running, string) {
	path := filepath.Join(tempDir(t), "access.log")
	return startSeen(t, tempDir(t), false, Seen{AccessLog: path, LogSample: share}), path
}

func TestAccessLog_SaysWhatHappened(t *testing.T) {
	p, path := logging(t, spillway.Whole)
	p.push(alone(1, replica(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, "hello")
	})))
	_, err := p.do(http.MethodPost, "/a%20b/?token=s3cret&q=1&api_key=s3cret", strings.NewReader("0123456789"),
		"User-Agent", "agent \"x\"", "Referer", "http://other.test/page?session=s3cret", "Cookie", "id=s3cret", "Authorization", "Basic s3cret",
		"X-Request-Id", "r-1", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if err != nil {
		t.Fatal(err)
	}
	line := logged(t, path, 1)[0]
	has(t, line, "app", "shop", "service", "www", "release", 1, "track", "stable", "replica", "www.1-1", "method", "POST",
		"scheme", "http", "host", "shop.test", "path", "/a%20b/", "query", "token=REDACTED&q=1&api_key=REDACTED", "protocol", "HTTP/1.1", "status", 201,
		"bytes_in", 10, "bytes_out", 5, "client", "127.0.0.1", "user_agent", `agent "x"`, "referer", "http://other.test/page", "request_id", "r-1",
		"trace_id", "4bf92f3577b34da6a3ce929d0e0e4736", "span_id", "", "refused", "", "rescued", "", "retries", "")
	if at, err := time.Parse(time.RFC3339, line["time"].(string)); err != nil || time.Since(at) > time.Minute || time.Since(at) < 0 {
		t.Errorf("time %v: %v", line["time"], err)
	}
	whole, first := line["duration_ms"].(float64), line["first_byte_ms"].(float64)
	if first <= 0 || whole < first || whole > 20000 {
		t.Errorf("it took %v ms, and %v to the first byte", whole, first)
	}
	if text, _ := os.ReadFile(path); strings.Contains(string(text), "s3cret") {
		t.Errorf("there is a secret in %s", text)
	}
}

func TestAccessLog_KeepsFailuresWhateverTheSample(t *testing.T) {
	p, path := logging(t, 0)
	address := replica(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/500":
			w.WriteHeader(500)
		case "/reset":
			reset(w, r)
		case "/broken":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "12345")
			w.(http.Flusher).Flush()
			reset(w, r)
		}
	})
	p.push(alone(1, address))
	for range 20 {
		p.get("/")
		p.get("/", "Host", "nobody.test") // who knows how many such there are
	}
	p.get("/500")
	logged(t, path, 1) // a client has its answer a moment before the line is there
	p.do(http.MethodPost, "/reset", nil)
	logged(t, path, 2)
	p.do(http.MethodGet, "/broken", nil)
	lines := logged(t, path, 3)
	has(t, lines[0], "path", "/500", "status", 500, "refused", "")
	has(t, lines[1], "path", "/reset", "status", 502, "refused", "unanswered", "replica", "www.1-1")
	if why := fmt.Sprint(lines[1]["reason"]); !strings.Contains(why, "closed the connection") {
		t.Errorf("the reason is %q", why)
	}
	has(t, lines[2], "path", "/broken", "status", 200, "broken", true, "bytes_out", 5)
}

func TestAccessLog_SaysWhyItWasRefused(t *testing.T) {
	t.Parallel()
	p, path := logging(t, spillway.Whole)
	table := alone(1, refused(t))
	table.Route.Edges = append(table.Route.Edges,
		spillway.Edge{Service: "shut", Hosts: []string{"shut.test"}, Closed: "closed for today"},
		spillway.Edge{Service: "none", Hosts: []string{"none.test"}, Backends: []spillway.Backend{{Group: spillway.Group{Service: "none", Release: 1}, Release: 1, Weight: spillway.Whole}}})
	p.push(table)
	p.get("/", "Host", "nobody.test")
	p.get("/", "Host", "shut.test")
	p.get("/", "Host", "none.test")
	p.get("/")
	for i, want := range [][]any{
		{"status", 404, "refused", "no_host", "app", "", "host", "nobody.test"},
		{"status", 503, "refused", "no_backend", "app", "shop", "service", "shut", "reason", "closed for today", "release", ""},
		{"status", 503, "refused", "no_replica", "service", "none"},
		{"status", 502, "refused", "unreachable", "service", "www", "release", 1, "replica", "www.1-1"},
	} {
		has(t, logged(t, path, 4)[i], want...)
	}
}

func TestSeen_TellsWhomTheCandidateFailed(t *testing.T) {
	path := filepath.Join(tempDir(t), "access.log")
	p := startSeen(t, tempDir(t), false, Seen{AccessLog: path, LogSample: spillway.Whole, Metrics: "127.0.0.1:0"})
	p.push(divided(1, spillway.Percent(50), replica(t, text("one")), replica(t, status(500))))
	if a := p.get("/", "X-User", usersAt(0, spillway.Percent(50), 1)[0]); a.status != 200 {
		t.Fatalf("%+v", a)
	}
	has(t, logged(t, path, 1)[0], "status", 200, "release", 1, "rescued", true, "failed_release", 2, "retries", 1)
	m := p.metrics()
	m.is(t, `spillway_proxy_rescued_total{app="shop",service="www",release="2",track="stable"}`, 1)
	m.is(t, `spillway_proxy_requests_total{app="shop",service="www",release="1",track="stable",code="2xx"}`, 1)
}

func TestSeen_ClientThatDoesNotWait(t *testing.T) {
	path := filepath.Join(tempDir(t), "access.log")
	p := startSeen(t, tempDir(t), false, Seen{AccessLog: path, LogSample: spillway.Whole, Metrics: "127.0.0.1:0"})
	came := make(chan struct{})
	p.push(alone(1, replica(t, func(_ http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
	})))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
	<-came
	conn.Close()
	has(t, logged(t, path, 1)[0], "status", 499, "client_left", true, "release", 1)
	m := p.metrics()
	m.is(t, `spillway_proxy_requests_total{app="shop",service="www",release="1",track="stable",code="499"}`, 1)
	m.is(t, `spillway_proxy_clients_left_total{app="shop",service="www",release="1",track="stable",code="499"}`, 1)
}

// samples are the metrics of one scrape.
type samples map[string]float64

func (m samples) is(t *testing.T, name string, want float64) {
	t.Helper()
	if got, ok := m[name]; !ok || got != want {
		base, _, _ := strings.Cut(name, "{")
		near := slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(s string) bool { return !strings.HasPrefix(s, base) })
		t.Errorf("%s is %v (%v), want %v; there are\n%s", name, got, ok, want, strings.Join(near, "\n"))
	}
}

// metrics scrapes the proxy, and checks the form of the answer.
func (r *running) metrics() samples {
	r.t.Helper()
	info, err := r.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.Get("http://" + info.Metrics + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || kind != metricsType {
		r.t.Fatalf("%s, %s", resp.Status, kind)
	}
	m, families, family := samples{}, map[string]bool{}, ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "# HELP "); ok {
			if family, _, _ = strings.Cut(name, " "); families[family] {
				r.t.Errorf("%s comes twice", family)
			}
			families[family] = true
		}
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		at := strings.LastIndexByte(lines.Text(), ' ')
		name, text := lines.Text()[:at], lines.Text()[at+1:]
		value, err := strconv.ParseFloat(text, 64)
		if _, twice := m[name]; err != nil || twice || !strings.HasPrefix(name, family) {
			r.t.Errorf("in %s: %s (%v)", family, lines.Text(), err)
		}
		m[name] = value
	}
	return m
}

func TestMetrics_CountRequests(t *testing.T) {
	p := startSeen(t, tempDir(t), false, Seen{Metrics: "127.0.0.1:0"})
	hold, inside := make(chan struct{}), make(chan struct{})
	p.push(alone(3, replica(t, func(w http.ResponseWriter, r *http.Request) {
		switch io.Copy(io.Discard, r.Body); r.URL.Path {
		case "/hold":
			close(inside)
			<-hold
		case "/404":
			w.WriteHeader(404)
		}
		io.WriteString(w, "12345")
	})))
	for range 3 {
		p.get("/")
	}
	p.get("/404")
	p.get("/", "Host", "nobody.test")
	p.do(http.MethodPost, "/", strings.NewReader("0123456789"))
	held := make(chan struct{})
	go func() { // owned by the test, which waits for held
		defer close(held)
		p.do(http.MethodGet, "/hold", nil)
	}()
	<-inside
	const www = `app="shop",service="www",release="1",track="stable"`
	m := p.metrics()
	eventually(t, "what was answered is counted", func() bool { // a client has its answer a moment before
		m = p.metrics()
		return m["spillway_proxy_requests_active"] == 1 && m["spillway_proxy_requests_total{"+www+`,code="2xx"}`] == 4
	})
	m.is(t, "spillway_proxy_requests_total{"+www+`,code="2xx"}`, 4)
	m.is(t, "spillway_proxy_requests_total{"+www+`,code="4xx"}`, 1)
	m.is(t, `spillway_proxy_requests_total{code="4xx"}`, 1)
	m.is(t, `spillway_proxy_refused_total{reason="no_host"}`, 1)
	m.is(t, "spillway_proxy_request_body_bytes_total{"+www+`,code="2xx"}`, 10)
	m.is(t, "spillway_proxy_response_body_bytes_total{"+www+`,code="2xx"}`, 20)
	m.is(t, "spillway_proxy_request_duration_seconds_count{"+www+`,code="2xx"}`, 4)
	m.is(t, "spillway_proxy_request_duration_seconds_bucket{"+www+`,code="2xx",le="+Inf"}`, 4)
	m.is(t, "spillway_proxy_request_duration_seconds_bucket{"+www+`,code="2xx",le="30"}`, 4)
	if s := m["spillway_proxy_request_duration_seconds_sum{"+www+`,code="2xx"}`]; s <= 0 || s > 60 {
		t.Errorf("4 requests took %v s", s)
	}
	m.is(t, `spillway_proxy_requests_in_flight{app="shop",replica="www.1-1"}`, 1)
	m.is(t, "spillway_proxy_requests_active", 1)
	m.is(t, "spillway_proxy_weight_ratio{"+www+"}", 1)
	m.is(t, `spillway_proxy_route_generation{app="shop"}`, 3)
	m.is(t, `spillway_proxy_info{version="test"}`, 1)
	m.is(t, `spillway_proxy_trips_total{app="shop"}`, 0)
	if rss := m["process_resident_memory_bytes"]; rss < 1<<20 || rss > 1<<32 {
		t.Errorf("%v bytes of memory", rss)
	}
	if start := m["process_start_time_seconds"]; time.Since(time.Unix(int64(start), 0)) > 2*time.Hour || start > float64(time.Now().Unix()+2) {
		t.Errorf("started at %v", time.Unix(int64(start), 0))
	}
	close(hold)
	<-held
}

// What the table knows nothing of any more leaves the metrics: releases come every day.
func TestMetrics_ForgetWhatIsGone(t *testing.T) {
	p := startSeen(t, tempDir(t), false, Seen{Metrics: "127.0.0.1:0"})
	one, two := replica(t, text("one")), replica(t, text("two"))
	p.push(divided(1, 0, one, two))
	p.get("/")
	next := divided(2, 0, one, two)
	next.Route.Trial = nil
	next.Route.Edges[0].Backends = []spillway.Backend{{Group: www2, Release: 2, Weight: spillway.Whole}}
	p.push(next)
	p.get("/")
	eventually(t, "the answer is counted", func() bool { // its client has it a moment before
		return p.metrics()[`spillway_proxy_requests_total{app="shop",service="www",release="2",track="stable",code="2xx"}`] == 1
	})
	for name := range p.metrics() {
		if strings.Contains(name, `release="1"`) {
			t.Errorf("still there: %s", name)
		}
	}
	p.metrics().is(t, `spillway_proxy_requests_total{app="shop",service="www",release="2",track="stable",code="2xx"}`, 1)
}

func TestMetrics_CountTripsHoldsAndHandshakes(t *testing.T) {
	t.Parallel()
	p := startSeen(t, tempDir(t), false, Seen{Metrics: "127.0.0.1:0"})
	p.push(divided(1, spillway.Percent(50), replica(t, text("one")), replica(t, status(500))))
	for _, user := range usersAt(0, spillway.Percent(50), 60) {
		p.get("/", "X-User", user)
	}
	p.metrics().is(t, `spillway_proxy_trips_total{app="shop"}`, 1)
	p.metrics().is(t, `spillway_proxy_weight_ratio{app="shop",service="www",release="2",track="stable"}`, 0)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.tls, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n") // no TLS
	io.Copy(io.Discard, conn)
	conn.Close()
	eventually(t, "the handshake to be counted", func() bool { return p.metrics()["spillway_proxy_tls_handshake_errors_total"] == 1 })
	p.push(alone(2))
	p.get("/")
	p.metrics().is(t, "spillway_proxy_holds_total", 1)
	p.metrics().is(t, "spillway_proxy_requests_held", 0)
	p.metrics().is(t, `spillway_proxy_refused_total{app="shop",reason="no_replica"}`, 1)
}

// A copy that is not made leaves a trace.
func TestMetrics_CountCopies(t *testing.T) {
	t.Parallel()
	p := startSeen(t, tempDir(t), false, Seen{Metrics: "127.0.0.1:0"})
	inside := make(chan struct{}, 2*mirrorOpen)
	mirror := replica(t, func(_ http.ResponseWriter, r *http.Request) { inside <- struct{}{}; <-r.Context().Done() })
	table := alone(1, replica(t, text("one")))
	table.Route.Edges[0].Target = "www"
	for target, servers := range map[string][]string{"copies": {"http://" + mirror}, "nobody": nil} {
		edge := spillway.Edge{Service: "elsewhere", Target: target, Closed: "nobody is there"}
		if servers != nil {
			edge.Backends = []spillway.Backend{{Track: "external", URLs: servers, Weight: spillway.Whole}}
		}
		table.Route.Edges = append(table.Route.Edges, edge)
		table.Route.Rules = append(table.Route.Rules, spillway.HTTPRule{
			Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: "/" + target}, To: []spillway.Target{{Service: "www"}},
			Mirror: []spillway.Mirror{{Target: spillway.Target{Service: target}, Share: spillway.Whole}},
		})
	}
	p.push(table)
	p.do(http.MethodPost, "/copies", strings.NewReader(strings.Repeat("x", keptBody+1)))
	p.get("/nobody")
	for range mirrorOpen + 2 {
		p.get("/copies")
	}
	for range mirrorOpen {
		<-inside
	}
	want := map[string]float64{
		`spillway_proxy_mirror_sent_total{app="shop"}`:                        mirrorOpen,
		`spillway_proxy_mirror_skipped_total{app="shop",reason="body"}`:       1,
		`spillway_proxy_mirror_skipped_total{app="shop",reason="busy"}`:       2,
		`spillway_proxy_mirror_skipped_total{app="shop",reason="no_replica"}`: 1,
	}
	m := p.metrics()
	eventually(t, "copies are counted", func() bool { // a client has its answer a moment before
		m = p.metrics()
		return m[`spillway_proxy_mirror_skipped_total{app="shop",reason="busy"}`] == 2
	})
	for name, value := range want {
		m.is(t, name, value)
	}
}

// A proxy that takes over answers at the same address, without a refused connection in between.
func TestMetrics_GoOnAtTheHeir(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	seen := Seen{Metrics: free(t, "127.0.0.4"), AccessLog: filepath.Join(dir, "access.log"), LogSample: spillway.Whole}
	old := startSeen(t, dir, false, seen)
	old.push(alone(1, replica(t, text("one"))))
	old.get("/")
	stop, scraped := make(chan struct{}), make(chan error)
	go func() { // owned by the test, which closes stop and waits for scraped
		for {
			select {
			case <-stop:
				scraped <- nil
				return
			default:
			}
			resp, err := http.Get("http://" + seen.Metrics + "/metrics")
			if err != nil {
				scraped <- err
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	heir := startSeen(t, dir, true, seen)
	old.stop()
	close(stop)
	if err := <-scraped; err != nil {
		t.Error(err)
	}
	heir.url = old.url
	heir.get("/")
	heir.metrics().is(t, `spillway_proxy_requests_total{app="shop",service="www",release="1",track="stable",code="2xx"}`, 1)
	logged(t, seen.AccessLog, 2)
}
