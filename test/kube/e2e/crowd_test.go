//go:build kube

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// browser goes to the gateway whatever the host is, by HTTP or by HTTPS, and trusts the certificate of its listener.
func browser(t *testing.T) *http.Client {
	t.Helper()
	var secret core.Secret
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: "gateway", Name: "public"}, &secret); err != nil {
		t.Fatalf("the listener for HTTPS of the gateway has its certificate in the Secret public: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) && !roots.AppendCertsFromPEM(secret.Data["tls.crt"]) {
		t.Fatal("the Secret public has no certificate")
	}
	host, _, err := net.SplitHostPort(gatewayAddress())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			to := gatewayAddress()
			if strings.HasSuffix(address, ":443") {
				to = net.JoinHostPort(host, "443")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 64, DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 90 * time.Second}
}

// page is an answer as a user sees it.
type page struct {
	status           int
	release, version string // as the program says it
	scheme           string // by which it was asked, as the program says it
	body             string
	began, came      time.Time
	err              error
}

func (p page) String() string {
	if p.err != nil {
		return p.err.Error()
	}
	return fmt.Sprintf("%d from release %q: %s", p.status, p.release, strings.TrimSpace(p.body))
}

// open asks for a URL. Another answer than 200 is an error of the page.
func open(browser *http.Client, url string) page {
	p := page{began: time.Now()}
	response, err := browser.Get(url)
	if err != nil {
		p.err, p.came = err, time.Now()
		return p
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	p.status, p.body, p.came, p.err = response.StatusCode, string(body), time.Now(), err
	if p.err == nil && p.status != http.StatusOK {
		p.err = fmt.Errorf("%d: %s", p.status, strings.TrimSpace(p.body))
	}
	var a struct{ Release, Version, Scheme string }
	if json.Unmarshal(body, &a) == nil {
		p.release, p.version, p.scheme = a.Release, a.Version, a.Scheme
	}
	return p
}

// watchers are users who ask all the time and remember when they met which release.
type watchers struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	seen []page // in the order in which they came; without bodies
}

// watch lets eight users of each URL ask, eight times a second each, until end.
func watch(t *testing.T, browser *http.Client, urls ...string) *watchers {
	t.Helper()
	w := &watchers{t: t, stop: make(chan struct{})}
	for i := range 8 * len(urls) {
		w.done.Go(func() { w.ask(browser, urls[i%len(urls)]) }) // ends with stop; waited for by end
	}
	t.Cleanup(func() { w.end() })
	return w
}

func (w *watchers) ask(browser *http.Client, url string) {
	ticker := time.NewTicker(time.Second / 8)
	defer ticker.Stop()
	for {
		p := open(browser, url)
		p.body = ""
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
	await(w.t, time.Minute, fmt.Sprintf("%d more pages", n), func() bool { return count() >= want })
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

// flawless ends the watch and fails the test when a request failed, or when there were fewer than 80 a second.
func (w *watchers) flawless() []page {
	w.t.Helper()
	seen := w.end()
	failures := 0
	for _, p := range seen {
		if p.err == nil {
			continue
		}
		if failures++; failures <= 5 {
			w.t.Errorf("at %s: %v", p.began.UTC().Format("15:04:05.000"), p)
		}
	}
	if failures > 5 {
		w.t.Errorf("%d of %d requests failed, want none", failures, len(seen))
	}
	if rate := float64(len(seen)) / seen[len(seen)-1].came.Sub(seen[0].began).Seconds(); rate < 80 {
		w.t.Errorf("there were %.0f requests a second, want at least 80", rate)
	} else {
		w.t.Logf("%d requests at %.0f/s", len(seen), rate)
	}
	return seen
}

// met counts how often each release was met.
func met(seen []page) map[string]int {
	n := map[string]int{}
	for _, p := range seen {
		n[p.release]++
	}
	return n
}

// switched fails the test unless users moved from one release to the other in one moment: whoever asks after somebody
// has met the new release meets the new release, by HTTP and by HTTPS.
func switched(t *testing.T, seen []page, from, to string) {
	t.Helper()
	all := met(seen)
	if all[from] == 0 || all[to] == 0 {
		t.Fatalf("the watchers met %v, want releases %s and %s", all, from, to)
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
			t.Errorf("a request by %s that began %v after release %s was met was answered by release %s", p.scheme, p.began.Sub(first), to, from)
			return
		}
	}
	t.Logf("%d requests, %v; none met release %s after release %s", len(seen), all, from, to)
}
