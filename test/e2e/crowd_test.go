package e2e

import (
	"crypto/x509"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/e2etest"
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
	browser := e2etest.Browser(in.t, in.http, in.https, roots)
	browser.Timeout = 30 * time.Second
	return browser
}

// open asks for a URL with these header fields.
var open = e2etest.Open

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
				if p.Err != nil || p.Status != http.StatusOK {
					failed.Store(i, p)
				}
				for _, c := range p.Set {
					people[i].header.Add("Cookie", c.Name+"="+c.Value)
				}
				met[i] = p.Release
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

// watch lets four users of each URL ask, thirty times a second each, until the watch is ended.
func watch(t *testing.T, client *http.Client, urls ...string) *e2etest.Watchers {
	t.Helper()
	ask := func(url string) e2etest.Page { return open(client, url, nil) }
	return e2etest.Watch(t, e2etest.Habit{Users: 4, Every: time.Second / 30, Open: ask}, urls...)
}
