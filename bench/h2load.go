package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// streams is how many requests are open on each connection of HTTP/2.
const streams = 5

// runH2load asks url over HTTP/2, for so long.
func runH2load(ctx context.Context, dir string, c testCase, url string, d time.Duration) (load, error) {
	if _, ok := program("h2load"); !ok {
		return load{}, errors.New("h2load is not installed; on Debian: apt-get install nghttp2-client")
	}
	log := filepath.Join(dir, "h2load.log")
	if err := os.Remove(log); err != nil && !os.IsNotExist(err) {
		return load{}, err
	}
	args := []string{
		"-t2", "-c" + strconv.Itoa(c.connections), "-m" + strconv.Itoa(streams), "--log-file=" + log,
		"-D", strconv.Itoa(max(1, int(d.Round(time.Second)/time.Second))), "-H", userHeader + ": " + candidateUser(),
	}
	for _, h := range c.headers() {
		args = append(args, "-H", h[0]+": "+h[1])
	}
	out, err := output(ctx, d+20*time.Second, append(append([]string{"h2load"}, args...), url)...)
	if err != nil {
		return load{}, err
	}
	l, err := parseH2load(out)
	if err != nil {
		return load{}, err
	}
	f, err := os.Open(log)
	if err != nil {
		return load{}, err
	}
	defer f.Close()
	times, bad, err := parseH2log(f)
	if err != nil {
		return load{}, err
	}
	l.errors = max(l.errors, bad)
	l.p50, l.p99, l.p999 = percentile(times, 50), percentile(times, 99), percentile(times, 99.9)
	return l, nil
}

// parseH2load reads how many requests there were, in what time. The percentiles are in its log.
func parseH2load(out string) (load, error) {
	took := regexp.MustCompile(`(?m)^finished in ([\d.]+)(us|ms|s|m|h),`).FindStringSubmatch(out)
	n := regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored`).FindStringSubmatch(out)
	if took == nil || n == nil {
		return load{}, fmt.Errorf("h2load printed no figures: %s", lastLines(out, 5))
	}
	d, err := time.ParseDuration(took[1] + took[2])
	if err != nil {
		return load{}, err
	}
	done, _ := strconv.ParseInt(n[1], 10, 64)
	succeeded, _ := strconv.ParseInt(n[2], 10, 64)
	return load{requests: done, errors: done - succeeded, seconds: d.Seconds()}, nil
}

// parseH2log reads h2load's log: a line per request with its start in microseconds, its status (-1 = none)
// and how many microseconds it took. The times come sorted.
func parseH2log(r io.Reader) (times []float64, bad int64, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return nil, 0, fmt.Errorf("a line of h2load's log has %d fields: %q", len(fields), lines.Text())
		}
		if !strings.HasPrefix(fields[1], "2") {
			bad++
			continue
		}
		t, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return nil, 0, fmt.Errorf("a line of h2load's log: %w", err)
		}
		times = append(times, t)
	}
	slices.Sort(times)
	return times, bad, lines.Err()
}

// percentile gives the nearest rank of sorted figures: of 1 to 100, the 99th is 99. None = not a number.
func percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(p*float64(len(sorted))/100 - 1e-9)) // 99.9 is a little more in binary
	return sorted[min(max(rank, 1), len(sorted))-1]
}
