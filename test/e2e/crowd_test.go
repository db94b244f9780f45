package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser gives a client that reaches the installation for every host name, over HTTP and HTTPS. It trusts
// the certificates in the files.
func (in *installation) browser(certificates ...string) *http.Client {
	in.t.Helper()
	roots := x509.NewCertPool()
	for _, file := range certificates {
		pem, err := os.ReadFile(file)
		if err != nil {
			in.t.Fatal(err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			in.t.Fatalf("%s holds no certificate", file)
		}
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to := in.http
			if strings.HasSuffix(address, ":443") {
				to = in.https
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	in.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// page is an answer as a user sees it.
type page struct {
	status      int
	release     string // X-Spillway-Release
	body        string
	set         []*http.Cookie
	began, came time.Time
	err         error
}

func (p page) String() string {
	if p.err != nil {
		return p.err.Error()
	}
	return fmt.Sprintf("%d from release %q: %s", p.status, p.release, strings.TrimSpace(p.body))
}

// open asks for a URL with these header fields.
func open(client *http.Client, url string, header http.Header) page {
	p := page{began: time.Now()}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		p.err = err
		return p
	}
	maps.Copy(request.Header, header)
	response, err := client.Do(request)
	if err != nil {
		p.err, p.came = err, time.Now()
		return p
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return page{response.StatusCode, response.Header.Get("X-Spillway-Release"), string(body), response.Cookies(), p.began, time.Now(), err}
}

// person is one of a crowd: what they send with every request. Cookies that are set are added.
type person struct{ header http.Header }

// accounts makes n people with a header or a cookie of their own: kind is "header X-Account-Id", "cookie
// _ACCOUNT", or "" for people whom nothing identifies until the proxy gives them a cookie.
func accounts(kind string, n int) []person {
	people := make([]person, n)
	what, name, _ := strings.Cut(kind, " ")
	for i := range people {
		people[i].header = http.Header{}
		switch what {
		case "header":
			people[i].header.Set(name, fmt.Sprint("account-", i))
		case "cookie":
			people[i].header.Set("Cookie", fmt.Sprintf("%s=customer-%d", name, i))
		}
	}
	return people
}

// meet lets each person ask for a URL once, eight at a time, and gives the release that each met. It ends
// the test when one of them got no page.
func meet(t *testing.T, client *http.Client, url string, people []person) []string {
	t.Helper()
	met := make([]string, len(people))
	var failed sync.Map
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := w; i < len(people); i += 8 {
				p := open(client, url, people[i].header)
				if p.err != nil || p.status != http.StatusOK {
					failed.Store(i, p)
				}
				for _, c := range p.set {
					people[i].header.Add("Cookie", c.Name+"="+c.Value)
				}
				met[i] = p.release
			}
		})
	}
	workers.Wait()
	n := 0
	failed.Range(func(i, p any) bool {
		t.Errorf("person %d: %v", i, p)
		n++
		return n < 5
	})
	if n > 0 {
		t.FailNow()
	}
	return met
}

// tally counts how often each release was met.
func tally(met []string) map[string]int {
	n := map[string]int{}
	for _, release := range met {
		n[release]++
	}
	return n
}

// sigma is the standard deviation of how many of n people are dealt something of probability p.
func sigma(n int, p float64) float64 { return math.Sqrt(float64(n) * p * (1 - p)) }

// watchers are users who ask all the time and remember when they met which release.
type watchers struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	seen []page // in the order in which they came; without bodies
}

// watch lets four users of each URL ask, thirty times a second each, until end.
func watch(t *testing.T, client *http.Client, urls ...string) *watchers {
	t.Helper()
	w := &watchers{t: t, stop: make(chan struct{})}
	for i := range 4 * len(urls) {
		w.done.Go(func() { w.ask(client, urls[i%len(urls)]) }) // ends with stop; waited for by end
	}
	t.Cleanup(func() { w.end() })
	return w
}

func (w *watchers) ask(client *http.Client, url string) {
	ticker := time.NewTicker(time.Second / 30)
	defer ticker.Stop()
	for {
		p := open(client, url, nil)
		if p.err == nil && p.status != http.StatusOK {
			p.err = fmt.Errorf("answered %v", p)
		}
		p.body, p.set = "", nil
		w.mu.Lock()
		w.seen = append(w.seen, p)
		w.mu.Unlock()
		select {
		case <-ticker.C:
		case <-w.stop:
			return
		}
	}
}

// asked waits until n more pages came.
func (w *watchers) asked(n int) {
	w.t.Helper()
	count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.seen) }
	want := count() + n
	await(w.t, 30*time.Second, fmt.Sprintf("%d more pages", n), func() bool { return count() >= want })
}

// end stops the watchers and gives what they saw. It may be called again.
func (w *watchers) end() []page {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.done.Wait()
	return w.seen
}

// flawless ends the watch and fails the test when a request failed.
func (w *watchers) flawless() []page {
	w.t.Helper()
	seen := w.end()
	failures := 0
	for _, p := range seen {
		if p.err != nil {
			if failures++; failures <= 5 {
				w.t.Errorf("at %s: %v", p.began.UTC().Format("15:04:05.000"), p)
			}
		}
	}
	if failures > 5 {
		w.t.Errorf("%d of %d requests failed, want none", failures, len(seen))
	}
	return seen
}

// switched fails the test unless users moved from one release to the other in one moment: whoever asks
// after somebody has met the new release meets the new release.
func switched(t *testing.T, seen []page, from, to string) {
	t.Helper()
	met := tally(releases(seen))
	if met[from] == 0 || met[to] == 0 {
		t.Fatalf("the watchers met %v, want releases %s and %s", met, from, to)
	}
	var first time.Time // when the first answer of the new release was in
	for _, p := range seen {
		if p.release == to && (first.IsZero() || p.came.Before(first)) {
			first = p.came
		}
	}
	for _, p := range seen {
		if p.release != to && p.release != from {
			t.Fatalf("a watcher met %v, want releases %s and %s only", p, from, to)
		}
		if p.release == from && p.began.After(first) {
			t.Fatalf("a request that began %v after release %s was met was answered by release %s", p.began.Sub(first), to, from)
		}
	}
	t.Logf("%d requests, %v; none met release %s after release %s", len(seen), met, from, to)
}

func releases(seen []page) []string {
	list := make([]string, len(seen))
	for i, p := range seen {
		list[i] = p.release
	}
	return list
}

// between gives the pages that were asked for and came wholly between two moments.
func between(seen []page, from, to time.Time) (list []page) {
	for _, p := range seen {
		if p.began.After(from) && p.came.Before(to) {
			list = append(list, p)
		}
	}
	return list
}
