package proxy

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// handler is a plane whose replicas answer without sockets, so that many users can be asked.
func handler(t *testing.T) *plane {
	t.Helper()
	p := &plane{dir: tempDir(t), log: testLog(t), dirty: make(chan struct{}, 1), keys: keys{cookie: cookieKey("0123456789abcdef0123456789abcdef"), synthetic: "x"},
		apps: map[spillway.Ref]*app{}, endpoints: map[endpointKey]*endpoint{}, listeners: map[string]*listener{}, missing: map[string]string{}}
	p.reroute()
	return p
}

// serve has a table served by replicas that answer 200.
func (p *plane) serveTable(t *testing.T, table spillway.Table) {
	t.Helper()
	if err := p.push(table); err != nil {
		t.Fatal(err)
	}
	for _, e := range p.endpoints {
		e.send = func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, nil
		}
	}
}

// releaseOf asks as one user, and gives the release that answered.
func (p *plane) releaseOf(t *testing.T, name, value string) string {
	t.Helper()
	r := &http.Request{Method: "GET", URL: &url.URL{Path: "/"}, ProtoMajor: 1, ProtoMinor: 1, Host: "shop.test", RemoteAddr: "127.0.0.1:9", Header: http.Header{name: {value}}}
	w := httptest.NewRecorder()
	p.serve(w, r, func(routes *routing) *edge { return byHost(routes, r) })
	if w.Code != 200 || w.Header().Get("Set-Cookie") != "" {
		t.Fatalf("%s %s: %d %v", name, value, w.Code, w.Header())
	}
	return w.Header().Get("X-Spillway-Release")
}

// TestSticky_KeepsTenThousandUsersOnTheirSide: at weight w, w of 10,000 users see the candidate, to within
// 3 standard deviations; a higher weight moves nobody back, 0 moves all back, and the users of a track,
// a tenth of all, stay where they are throughout.
func TestSticky_KeepsTenThousandUsersOnTheirSide(t *testing.T) {
	t.Parallel()
	const users = 10_000
	secret := cookieKey("0123456789abcdef0123456789abcdef")
	kinds := map[string]func(i int) (name, value string){
		"header": func(i int) (string, string) { return "X-User", fmt.Sprint("account-", i) },
		"cookie": func(i int) (string, string) { return "Cookie", fmt.Sprint("theme=dark; _ACCOUNT=", i) },
		"own": func(i int) (string, string) {
			return "Cookie", cookieName + "=" + secret.sign(shop, fmt.Sprintf("%016d", i))
		},
	}
	for kind, user := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := handler(t)
			var before []string
			for revision, w := range []spillway.Share{100, 2500, 9000, 0} {
				p.serveTable(t, stickyTable(int64(revision)+1, w))
				now := make([]string, users)
				n := map[string]int{}
				for i := range now {
					name, value := user(i)
					now[i] = p.releaseOf(t, name, value)
					n[now[i]]++
				}
				for release, share := range map[string]spillway.Share{"2": w, "5": 1000, "1": 9000 - w} {
					part := float64(share) / float64(spillway.Whole)
					if off := math.Abs(float64(n[release]) - users*part); off > 3*math.Sqrt(users*part*(1-part)) {
						t.Errorf("at %s release %s has %d of %d users", w, release, n[release], users)
					}
				}
				for i := range before {
					back := before[i] == "2" && now[i] != "2" && w > 0
					if back || (before[i] == "5") != (now[i] == "5") {
						t.Fatalf("at %s user %d went from release %s to %s", w, i, before[i], now[i])
					}
				}
				before = now
			}
		})
	}
}

// stickyTable divides users between a track (5), stable (1) and a candidate (2).
func stickyTable(revision int64, w spillway.Share) spillway.Table {
	table := divided(revision, w, "127.0.0.1:1", "127.0.0.1:2")
	table.Cohort.Key = append(table.Cohort.Key, spillway.KeySource{Kind: "cookie", Name: "_ACCOUNT"})
	table.Route.Edges[0].Backends[0].Weight -= 1000
	table.Route.Edges[0].Backends = slices.Insert(table.Route.Edges[0].Backends, 0, spillway.Backend{Group: www5, Release: 5, Weight: 1000, Track: "canary"})
	table.Route.Trial.Budget = 1 << 30 // admission is not what is tested here
	table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: "www.5-1", Group: www5, Address: "127.0.0.1:3"})
	return table
}
