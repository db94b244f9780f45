package main

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	const out = `Running 2s test @ http://127.0.0.1:12001/200
  2 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.21ms  811.00us  12.44ms   81.90%
  Latency Distribution
     50%    1.05ms
     99%    4.38ms
  99211 requests in 2.10s, 35.10MB read
Requests/sec:  47243.33
measured requests=99211 errors=3 us=2100123 p50=1050 p99=4380 p999=11980
`
	got, err := parseWrk(out)
	want := load{requests: 99211, errors: 3, seconds: 2.100123, p50: 1050, p99: 4380, p999: 11980}
	if err != nil || got != want {
		t.Errorf("parseWrk = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseWrk_SaysWhatWasPrintedInstead(t *testing.T) {
	if _, err := parseWrk("unable to connect to 127.0.0.1:1 Connection refused\n"); err == nil || !strings.Contains(err.Error(), "Connection refused") {
		t.Errorf("err = %v, want one with the words of wrk", err)
	}
}

func TestScript_HasTheHeadersOfTheCase(t *testing.T) {
	text := script(testCase{path: "/200", routes: 1000, close: true, browser: true})
	for _, want := range []string{`hosts, users = 1000, 1000`, `headers["Connection"] = "close"`, `headers["Sec-Fetch-Mode"] = "navigate"`, `"/200", "X-User"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the script lacks %q", want)
		}
	}
}

func TestBrowserHeaders_AreOfTheSizeThatIsTold(t *testing.T) {
	size := len("GET /200 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for _, h := range browserHeaders() {
		size += len(h[0]) + len(": ") + len(h[1]) + len("\r\n")
	}
	if size < 850 || size > 950 {
		t.Errorf("a request of %d bytes, want about 900", size)
	}
}

func TestParseH2load(t *testing.T) {
	const out = `starting benchmark...
TLS Protocol: TLSv1.3
Application protocol: h2

finished in 2.00s, 12122.50 req/s, 4.26MB/s
requests: 24245 total, 24295 started, 24245 done, 24240 succeeded, 5 failed, 0 errored, 0 timeout
status codes: 24240 2xx, 0 3xx, 0 4xx, 5 5xx
`
	got, err := parseH2load(out)
	want := load{requests: 24245, errors: 5, seconds: 2}
	if err != nil || got != want {
		t.Errorf("parseH2load = %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseH2load("could not connect to host\n"); err == nil {
		t.Error("a run without figures was read")
	}
}

func TestParseH2log(t *testing.T) {
	times, bad, err := parseH2log(strings.NewReader("1700000000000001\t200\t900\n1700000000000002\t502\t5\n1700000000000003\t-1\t7\n1700000000000004\t200\t100\n"))
	if err != nil || bad != 2 || !slices.Equal(times, []float64{100, 900}) {
		t.Errorf("parseH2log = %v, %d, %v, want [100 900], 2", times, bad, err)
	}
	for _, broken := range []string{"1 200\n", "1 200 x\n"} {
		if _, _, err := parseH2log(strings.NewReader(broken)); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

func TestPercentile(t *testing.T) {
	var list []float64
	for i := range 1000 {
		list = append(list, float64(i+1))
	}
	for p, want := range map[float64]float64{50: 500, 99: 990, 99.9: 999, 100: 1000, 0: 1} {
		if got := percentile(list, p); got != want {
			t.Errorf("percentile(%g) = %g, want %g", p, got, want)
		}
	}
	if got := percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("percentile of nothing = %g", got)
	}
}

func TestParseStat(t *testing.T) {
	const line = "4242 (a ) b (c) S 17 4242 4242 0 -1 4194560 900 0 0 0 150 50 7 8 20 0 9 0 5000 123456789 100 18446744073709551615 1 1\n"
	got, err := parseStat([]byte(line))
	want := stat{pid: 4242, parent: 17, usage: usage{cpu: 2 * time.Second, rss: 100 * int64(os.Getpagesize())}}
	if err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, broken := range []string{"", "1 (sh) S 1 2 3\n", ") 1 ("} {
		if _, err := parseStat([]byte(broken)); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

func TestTreeUsage_KnowsThisProcess(t *testing.T) {
	u, err := treeUsage(os.Getpid())
	if err != nil || u.rss < 1<<20 {
		t.Errorf("treeUsage = %+v, %v, want at least a megabyte", u, err)
	}
}

func TestSumTree_AddsDescendantsAndNobodyElse(t *testing.T) {
	process := func(pid, parent int) stat {
		return stat{pid: pid, parent: parent, usage: usage{cpu: time.Duration(pid), rss: int64(pid) * 10}}
	}
	all := []stat{process(1, 0), process(2, 1), process(3, 2), process(4, 3), process(5, 1), process(6, 5)}
	if got, err := sumTree(2, all); err != nil || got != (usage{cpu: 9, rss: 90}) {
		t.Errorf("sumTree = %+v, %v, want that of 2, 3 and 4", got, err)
	}
	if _, err := sumTree(7, all); err == nil {
		t.Error("the usage of a process that has ended was told")
	}
}

func TestAnswerSize(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\n"
	tests := []struct {
		got          string
		size, status int
		bad          bool
	}{
		{got: head + "12345", size: len(head) + 5, status: 200},
		{got: head, size: len(head) + 5, status: 200},
		{got: "HTTP/1.1 200 OK\r\nContent-Le"},
		{got: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", bad: true},
		{got: "SSH-2.0\r\n\r\n", bad: true},
	}
	for _, tt := range tests {
		size, status, err := answerSize([]byte(tt.got))
		if (err != nil) != tt.bad || !tt.bad && (size != tt.size || status != tt.status) {
			t.Errorf("answerSize(%q) = %d, %d, %v", tt.got, size, status, err)
		}
	}
}

func TestBetween(t *testing.T) {
	if got := between(`{"Zip": "z", "Dir": "/d", "Sum": "s"}`, `"Dir": "`, `"`); got != "/d" {
		t.Errorf("between = %q", got)
	}
	if got := between("nothing", "a", "b"); got != "" {
		t.Errorf("between = %q, want nothing", got)
	}
}
