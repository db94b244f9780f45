package e2etest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Browser gives a client that goes to an address for every host, to one by HTTP and to another by HTTPS, and trusts
// the roots.
func Browser(t *testing.T, plain, secure string, roots *x509.CertPool) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to := plain
			if strings.HasSuffix(address, ":443") {
				to = secure
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 90 * time.Second}
}

// Page is an answer as a user sees it.
type Page struct {
	URL         string
	Status      int    // 0 = no answer
	Release     string // X-Spillway-Release
	Body        string
	Said        Said
	Set         []*http.Cookie
	Began, Came time.Time
	Err         error // why there is no whole answer
}

// Said is what programs of the examples say of themselves; empty where the page is another.
type Said struct {
	Release, Version string
	Scheme           string // by which they were asked
}

// String is one line for a log: the error, or who answered what.
func (p Page) String() string {
	if p.Err != nil {
		return p.Err.Error()
	}
	return fmt.Sprintf("%d from release %q: %s", p.Status, p.Release, strings.TrimSpace(p.Body))
}

// Open asks for a URL with these header fields.
func Open(client *http.Client, url string, header http.Header) Page {
	p := Page{URL: url, Began: time.Now()}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		p.Err = err
		return p
	}
	maps.Copy(request.Header, header)
	response, err := client.Do(request)
	if err != nil {
		p.Err, p.Came = err, time.Now()
		return p
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	p.Status, p.Release, p.Set = response.StatusCode, response.Header.Get("X-Spillway-Release"), response.Cookies()
	p.Body, p.Came, p.Err = string(body), time.Now(), err
	var said Said
	if json.Unmarshal(body, &said) == nil {
		p.Said = said
	}
	return p
}

// Get asks for a URL of a host once, over a connection of its own, and gives status and body, or 0 and why there is none.
func Get(t *testing.T, url, host string, header http.Header) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // also when the test has ended
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(request.Header, header)
	request.Host, request.Close = host, true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// Habit is how watchers ask.
type Habit struct {
	Users int           // of each URL
	Every time.Duration // from one request of a user to the next
	Least float64       // requests a second of all of them together; fewer prove nothing
	Open  func(url string) Page
}

// Watchers are users who ask all the time and remember when they met which release.
type Watchers struct {
	t     *testing.T
	habit Habit
	stop  chan struct{}
	done  sync.WaitGroup

	mu   sync.Mutex
	seen []Page // in the order in which they came; without bodies and cookies
}

// Watch lets users ask for each URL until End. Another answer than 200 is an error of the page.
func Watch(t *testing.T, habit Habit, urls ...string) *Watchers {
	t.Helper()
	w := &Watchers{t: t, habit: habit, stop: make(chan struct{})}
	for i := range habit.Users * len(urls) {
		w.done.Go(func() { w.ask(urls[i%len(urls)]) }) // ends with stop; waited for by End
	}
	t.Cleanup(func() { w.End() })
	return w
}

func (w *Watchers) ask(url string) {
	ticker := time.NewTicker(w.habit.Every)
	defer ticker.Stop()
	for {
		p := w.habit.Open(url)
		if p.Err == nil && p.Status != http.StatusOK {
			p.Err = fmt.Errorf("answered %v", p)
		}
		p.Body, p.Set = "", nil
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

// Asked waits until n more pages came.
func (w *Watchers) Asked(n int) {
	w.t.Helper()
	count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.seen) }
	want := count() + n
	Await(w.t, time.Minute, fmt.Sprintf("%d more pages", n), func() bool { return count() >= want })
}

// End stops the watchers and gives what they saw. It may be called again.
func (w *Watchers) End() []Page {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.done.Wait()
	return w.seen
}

// Flawless ends the watch and fails the test when a request failed, or when there were too few.
func (w *Watchers) Flawless() []Page {
	w.t.Helper()
	seen := w.End()
	failures := 0
	for _, p := range seen {
		if p.Err == nil {
			continue
		}
		if failures++; failures <= 5 {
			w.t.Errorf("at %s: %v", p.Began.UTC().Format("15:04:05.000"), p)
		}
	}
	if failures > 5 {
		w.t.Errorf("%d of %d requests failed, want none", failures, len(seen))
	}
	rate := float64(len(seen)) / seen[len(seen)-1].Came.Sub(seen[0].Began).Seconds()
	w.t.Logf("%d requests at %.0f/s", len(seen), rate)
	if rate < w.habit.Least {
		w.t.Errorf("there were %.0f requests a second, want at least %.0f", rate, w.habit.Least)
	}
	return seen
}

// Met counts how often each release was met.
func Met(seen []Page) map[string]int {
	n := map[string]int{}
	for _, p := range seen {
		n[p.Release]++
	}
	return n
}

// Switched fails the test unless users moved from one release to the other in one moment: whoever asks after somebody
// has met the new release meets the new release, by every URL.
func Switched(t *testing.T, seen []Page, from, to string) {
	t.Helper()
	met := Met(seen)
	if met[from] == 0 || met[to] == 0 {
		t.Fatalf("the watchers met %v, want releases %s and %s", met, from, to)
	}
	var first time.Time // when the first answer of the new release was in
	for _, p := range seen {
		if p.Release == to && (first.IsZero() || p.Came.Before(first)) {
			first = p.Came
		}
	}
	for _, p := range seen {
		if p.Release != to && p.Release != from {
			t.Fatalf("a watcher met %v, want releases %s and %s only", p, from, to)
		}
		if p.Release == from && p.Began.After(first) {
			t.Errorf("a request for %s that began %v after release %s was met was answered by release %s", p.URL, p.Began.Sub(first), to, from)
			return
		}
	}
	t.Logf("%d requests, %v; none met release %s after release %s", len(seen), met, from, to)
}

// Between gives the pages that were asked for and came wholly between two releases: after the last that met the one,
// and before the first that met the other.
func Between(seen []Page, one, other string) (list []Page) {
	var last, first time.Time
	for _, p := range seen {
		if p.Release == one && p.Came.After(last) {
			last = p.Came
		}
		if p.Release == other && (first.IsZero() || p.Came.Before(first)) {
			first = p.Came
		}
	}
	for _, p := range seen {
		if p.Began.After(last) && p.Came.Before(first) {
			list = append(list, p)
		}
	}
	return list
}
