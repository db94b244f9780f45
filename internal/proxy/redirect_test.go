package proxy

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// fixed is a source whose certificate is there, or is not.
type fixed struct{ *tls.Certificate }

func (f fixed) pair() *tls.Certificate                { return f.Certificate }
func (fixed) problem(time.Time) (file, reason string) { return "", "" }

func TestRedirectOf_LeadsToHTTPSWhereThereIsSome(t *testing.T) {
	pair, err := tls.X509KeyPair(testAuthority.issue(t, 7, "shop.test"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := tls.X509KeyPair(testAuthority.issueUntil(t, time.Now().Add(-time.Minute), 8, "old.test"))
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{outside: outside{http: 8080, https: 8443}}
	p.routing.Store(&routing{certificates: map[string]secureHost{
		"shop.test":    {fixed{&pair}, true},
		"quiet.test":   {fixed{&pair}, false},
		"waiting.test": {fixed{nil}, true},
		"old.test":     {fixed{&old}, true},
		"*.wild.test":  {fixed{&pair}, true},
		"own.wild.test": {
			fixed{&pair}, false,
		},
	}})
	for _, c := range []struct {
		host, target string
		secure       bool
		want         string
	}{
		{"shop.test:8080", "/a?b=c", false, "https://shop.test:8443/a?b=c"},
		{"SHOP.test.:8080", "/", false, "https://shop.test:8443/"},
		{"shop.test", "/a", false, "https://shop.test/a"},
		{"shop.test:80", "/a", false, "https://shop.test/a"},
		{"shop.test", "//evil.test/", false, "https://shop.test//evil.test/"},
		{"shop.test", "/", true, ""},
		{"shop.test", "*", false, ""},
		{"shop.test", "/.well-known/acme-challenge/x", false, ""},
		{"quiet.test", "/", false, ""},
		{"waiting.test", "/", false, ""},
		{"old.test", "/", false, ""},
		{"other.test", "/", false, ""},
		{"", "/", false, ""},
		{"a.wild.test", "/", false, "https://a.wild.test/"},
		{"own.wild.test", "/", false, ""},
		{"a.b.wild.test", "/", false, ""},
		{"wild.test", "/", false, ""},
	} {
		if got, ok := p.redirectOf(c.host, c.target, c.secure); got != c.want || ok != (c.want != "") {
			t.Errorf("%s %s, secure %v: %q, %v, want %q", c.host, c.target, c.secure, got, ok, c.want)
		}
	}
	p.outside = outside{http: 80, https: 443}
	for host, want := range map[string]string{"shop.test": "https://shop.test/", "shop.test:8080": "https://shop.test/"} {
		if got, _ := p.redirectOf(host, "/", false); got != want {
			t.Errorf("on the usual ports %s: %q, want %q", host, got, want)
		}
	}
	p.outside = outside{http: 80, https: 8443}
	if got, _ := p.redirectOf("shop.test", "/", false); got != "https://shop.test:8443/" {
		t.Errorf("our port 80 and another for HTTPS: %q", got)
	}
	p.outside.https = 0
	if got, ok := p.redirectOf("shop.test", "/", false); ok {
		t.Errorf("without HTTPS: %q", got)
	}
}

// unfollowed asks over HTTP and stays where it is.
func (r *running) unfollowed(path string, header ...string) answer {
	r.t.Helper()
	c := newClient()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a, err := do(c, r.url, http.MethodGet, path, nil, header...)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// Our own requests, those of a terminator in front and private edges are not sent away; all others are.
func TestRedirect_IsForUsersByHTTPOnly(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 7, "shop.test")
	var asked atomic.Int64
	back := replica(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(http.StatusNoContent) })
	table := secured(divided(1, spillway.Percent(50), back, back), files)
	table.Route.Edges[0].TLS.Redirect = true
	r.push(table)
	port := r.tls[strings.LastIndex(r.tls, ":"):]
	key, err := SyntheticKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := r.unfollowed("/x?y", "Host", "shop.test:1")
	if a.status != http.StatusPermanentRedirect || a.header.Get("Location") != "https://shop.test"+port+"/x?y" || !strings.Contains(a.body, "Spillway: this host is served over HTTPS") {
		t.Errorf("a user: %d to %q: %q", a.status, a.header.Get("Location"), a.body)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a replica was asked %d times for what was sent away", n)
	}
	for name, header := range map[string][]string{
		"our own": {"X-Spillway-Synthetic", key}, "a terminator": {"X-Forwarded-Proto", "https"},
		"two terminators": {"X-Forwarded-Proto", "HTTPS, http"},
	} {
		if a := r.unfollowed("/", header...); a.status != http.StatusNoContent {
			t.Errorf("%s: %d, want 204", name, a.status)
		}
	}
	for name, header := range map[string][]string{
		"not our key": {"X-Spillway-Synthetic", "1"}, "http in front": {"X-Forwarded-Proto", "http"},
	} {
		if a := r.unfollowed("/", header...); a.status != http.StatusPermanentRedirect {
			t.Errorf("%s: %d, want 308", name, a.status)
		}
	}
	if resp, err := r.tlsClient(true).Get("https://shop.test/"); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("over HTTPS: %v, %v", resp, err)
	}
}
