package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	warmUp     = time.Second
	sampleRSS  = 250 * time.Millisecond
	errorShare = 0.001 // of the requests may fail; more is no measurement of what it costs to answer
)

// bench is one run of everything.
type bench struct {
	dir      string // temporary, for all files of this run
	peers    map[string]*peer
	backend  string // address
	cert     string
	key      string
	pair     string
	rounds   int
	seconds  time.Duration
	rate     float64
	results  *results
	progress func(format string, args ...any)
}

// run measures each case in each round, the peers in order or, every other round, reversed.
func (b *bench) run(ctx context.Context, list []testCase) error {
	refused := map[subject]bool{}
	for round := 1; round <= b.rounds; round++ {
		for _, c := range list {
			order := slices.Clone(c.peers)
			if round%2 == 0 {
				slices.Reverse(order)
			}
			for _, name := range order {
				p, s := b.peers[name], subject{name, c.name}
				if p == nil || p.missing != "" || refused[s] {
					continue
				}
				m, err := b.measure(ctx, c, p)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					b.progress("%s, %s: %v", c.name, name, err)
					reason := fmt.Sprintf("round %d: %s", round, b.anonymous(err.Error()))
					b.results.Unmeasured = append(b.results.Unmeasured, unmeasured{Peer: name, Case: c.name, Reason: reason})
					refused[s] = len(b.results.of(s)) == 0 // it will not in the next round either
					continue
				}
				m.Round = round
				b.results.Measurements = append(b.results.Measurements, m)
				b.progress("round %d  %-13s %-17s %8.0f/s  p50 %6.2f  p99 %7.2f ms  cpu %6.1f us  rss %5.1f MB", round, c.name, name, m.RPS, m.P50/1e3, m.P99/1e3, m.CPU, rssOf(m))
			}
		}
	}
	return nil
}

// anonymous takes our temporary directory out of a text.
func (b *bench) anonymous(text string) string { return strings.ReplaceAll(text, b.dir, "…") }

// measure starts a proxy, warms it up, measures it and ends it.
func (b *bench) measure(ctx context.Context, c testCase, p *peer) (m measurement, err error) {
	m = measurement{Case: c.name, Peer: p.name, Load: loadAverage()}
	s := setup{testCase: c, peer: p, backend: b.backend, cert: b.cert, key: b.key, pair: b.pair}
	if s.dir, err = os.MkdirTemp(b.dir, "run"); err != nil {
		return m, err
	}
	defer os.RemoveAll(s.dir)
	root := 0
	if p.start != nil {
		proc, err := b.serve(ctx, &s)
		if err != nil {
			return m, err
		}
		defer proc.end()
		root = proc.pid()
	}
	if _, err := b.load(ctx, s, warmUp); err != nil {
		return m, fmt.Errorf("warm up: %w", err)
	}
	l, used, err := b.watched(ctx, s, root)
	if err != nil {
		return m, err
	}
	if l.requests == 0 || float64(l.errors) > errorShare*float64(l.requests) {
		return m, fmt.Errorf("%d of %d requests failed", l.errors, l.requests)
	}
	if p.after != nil {
		if err := p.after(ctx, s); err != nil {
			return m, err
		}
	}
	m.Requests, m.Errors, m.RPS = l.requests, l.errors, float64(l.requests)/l.seconds
	m.P50, m.P99, m.P999 = l.p50, l.p99, l.p999
	m.CPU, m.RSS = float64(used.cpu.Nanoseconds())/1e3/float64(l.requests), used.rss/1024
	return m, nil
}

// serve starts the proxy of s and waits until it answers.
func (b *bench) serve(ctx context.Context, s *setup) (proc *process, err error) {
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	for s.tlsPort == 0 || s.tlsPort == s.port {
		if s.tlsPort, err = freePort(); err != nil {
			return nil, err
		}
	}
	if proc, err = s.start(ctx, *s); err != nil {
		return nil, err
	}
	if err := await(ctx, *s, proc); err != nil {
		said := proc.said()
		proc.end()
		return nil, fmt.Errorf("it does not serve: %w; it said: %s", err, said)
	}
	return proc, nil
}

// load is what the case says, for so long.
func (b *bench) load(ctx context.Context, s setup, d time.Duration) (load, error) {
	switch s.by {
	case byH2load:
		return runH2load(ctx, s.dir, s.testCase, s.url(), d)
	case bySteady:
		return runSteady(ctx, s.testCase, s.address(), b.rate, d)
	default:
		return runWrk(ctx, s.dir, s.testCase, s.url(), d)
	}
}

// watched is the load with what the tree of processes below root used meanwhile: the time it took, and
// the most memory that was seen. Without a root it used nothing.
func (b *bench) watched(ctx context.Context, s setup, root int) (load, usage, error) {
	if root == 0 {
		l, err := b.load(ctx, s, b.seconds)
		return l, usage{}, err
	}
	before, err := treeUsage(root)
	if err != nil {
		return load{}, usage{}, err
	}
	stop, most := make(chan struct{}), make(chan int64)
	// Owned by watched, which ends it and waits for what it gives.
	go func() {
		tick := time.NewTicker(sampleRSS)
		defer tick.Stop()
		var high int64
		for {
			select {
			case <-stop:
				most <- high
				return
			case <-tick.C:
				if u, err := treeUsage(root); err == nil {
					high = max(high, u.rss)
				}
			}
		}
	}()
	l, err := b.load(ctx, s, b.seconds)
	close(stop)
	high := <-most
	if err != nil {
		return load{}, usage{}, err
	}
	after, err := treeUsage(root)
	if err != nil {
		return load{}, usage{}, fmt.Errorf("after the load: %w", err)
	}
	return l, usage{cpu: after.cpu - before.cpu, rss: max(high, after.rss)}, nil
}

// loadAverage is that of the machine over the last minute.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseFloat(first, 64) // the kernel writes a number
	return n
}

// program finds an installed program, also where only root has its directory in PATH.
func program(name string) (string, bool) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}
