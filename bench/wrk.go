package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// load is what a load generator saw.
type load struct {
	requests int64
	errors   int64 // connections that failed, timeouts, answers that are no 2xx
	seconds  float64
	p50      float64 // microseconds
	p99      float64
	p999     float64
}

// users is how many different ones the load comes from, told by a header.
const users = 1000

// userHeader tells who asks: the cohort key of Spillway's table. All proxies pass it on.
const userHeader = "X-User"

// browserHeaders are what a browser sends, about 900 bytes with the request line.
func browserHeaders() [][2]string {
	return [][2]string{
		{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"},
		{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"},
		{"Accept-Language", "en-GB,en;q=0.9,de;q=0.8,fr;q=0.7"},
		{"Accept-Encoding", "gzip, deflate, br, zstd"},
		{"Referer", "https://www.example.test/catalogue/shoes?page=4&sort=price-ascending"},
		{"Cookie", "session=6f1d2c3b4a5968778695a4b3c2d1e0f1; theme=dark; consent=necessary.statistics; basket=" + strings.Repeat("8c", 115)},
		{"Sec-Fetch-Site", "same-origin"},
		{"Sec-Fetch-Mode", "navigate"},
		{"Sec-Fetch-Dest", "document"},
		{"Cache-Control", "max-age=0"},
		{"Upgrade-Insecure-Requests", "1"},
	}
}

// script is the Lua with which wrk makes the requests of a case: as many as there are users or hosts,
// made before the start, sent in an order that neither follows. At the end it prints one line, see parseWrk,
// because wrk's own report has no 99.9th percentile and rounds the others.
func script(c testCase) string {
	var b strings.Builder
	fmt.Fprintf(&b, "local hosts, users = %d, %d\nlocal headers = {}\n", c.routes, users)
	for _, h := range c.headers() {
		fmt.Fprintf(&b, "headers[%s] = %s\n", luaQuote(h[0]), luaQuote(h[1]))
	}
	fmt.Fprintf(&b, "local path, key = %s, %s\n", luaQuote(c.path), luaQuote(userHeader))
	b.WriteString(`local list, at = {}, 0
function init(args)
  local n = math.max(hosts, users)
  for i = 0, n - 1 do
    headers["Host"] = "localhost"
    if hosts > 1 then headers["Host"] = string.format("h%05d.test", i % hosts) end
    headers[key] = tostring(i % users)
    list[(i * 7919) % n + 1] = wrk.format("GET", path, headers)
  end
end
function request()
  at = at % #list + 1
  return list[at]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("measured requests=%d errors=%d us=%d p50=%d p99=%d p999=%d\n", summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
`)
	return b.String()
}

func luaQuote(s string) string { return strconv.Quote(s) } // headers have nothing that the two quote differently

// runWrk asks url as the case says, for so long.
func runWrk(ctx context.Context, dir string, c testCase, url string, d time.Duration) (load, error) {
	file := filepath.Join(dir, "load.lua")
	if err := os.WriteFile(file, []byte(script(c)), 0o600); err != nil {
		return load{}, err
	}
	seconds := strconv.Itoa(max(1, int(d.Round(time.Second)/time.Second)))
	out, err := output(ctx, d+20*time.Second, "wrk", "--latency", "-t2", "-c"+strconv.Itoa(c.connections), "-d"+seconds+"s", "-s", file, url)
	if err != nil {
		return load{}, err
	}
	return parseWrk(out)
}

// parseWrk reads the line that our script prints.
func parseWrk(out string) (load, error) {
	m := regexp.MustCompile(`(?m)^measured requests=(\d+) errors=(\d+) us=(\d+) p50=(\d+) p99=(\d+) p999=(\d+)$`).FindStringSubmatch(out)
	if m == nil {
		return load{}, fmt.Errorf("wrk printed no figures: %s", lastLines(out, 5))
	}
	var n [6]float64
	for i := range n {
		n[i], _ = strconv.ParseFloat(m[i+1], 64) // digits, by the expression
	}
	return load{requests: int64(n[0]), errors: int64(n[1]), seconds: n[2] / 1e6, p50: n[3], p99: n[4], p999: n[5]}, nil
}

// lastLines is the end of a text, on one line.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
