package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// What is said of a request is what becomes of it when it is made: for every user, while a candidate is tried.
func TestExplain_SaysWhatRequestsGet(t *testing.T) {
	r := start(t, tempDir(t), false)
	stable, candidate := replica(t, text("stable")), replica(t, text("candidate"))
	table := divided(1, spillway.Percent(50), stable, candidate)
	table.Route.Edges[0].Target = "www"
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{
		Service: "elsewhere", Target: "http://" + stable, Backends: []spillway.Backend{{Track: "external", URLs: []string{"http://" + stable}, Weight: spillway.Whole}},
	})
	hosts := []string{"shop.test"}
	table.Route.Rules = []spillway.HTTPRule{
		{Hosts: hosts, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: "/both"}, To: []spillway.Target{{Service: "www", Weight: 1}, {URLs: []string{"http://" + stable}, Weight: 1}}},
		{Hosts: hosts, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: "/once"}, To: []spillway.Target{{Service: "www", Weight: 1}}, Rate: &spillway.RateLimit{Requests: 1, Per: spillway.Duration(1e12), Burst: 1}},
	}
	r.push(table)
	got := map[string]int{}
	for i := range 60 {
		key, path := fmt.Sprint("user-", i), []string{"/", "/both"}[i%2]
		answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: "http://shop.test" + path, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		want := "external"
		if len(answer.Got.URLs) == 0 {
			want = fmt.Sprint(answer.Got.Release)
		}
		real := r.get(path, "X-User", key)
		if real.release != want || !answer.Key || answer.Bucket != Bucket(shop, key) {
			t.Errorf("%s asks for %s and gets %s; said was %+v", key, path, real.release, answer)
		}
		got[path+" "+want]++
	}
	if len(got) != 5 {
		t.Errorf("the users got %v, want each release on both paths, and the servers elsewhere on one", got)
	}
	for range 3 { // a look takes no token
		answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: "http://shop.test/once"})
		if err != nil || answer.Got == nil || answer.Key {
			t.Errorf("got %+v, %v", answer, err)
		}
	}
	if a := r.get("/once"); a.status != http.StatusOK {
		t.Errorf("the first request is answered %d", a.status)
	}
	for url, want := range map[string]string{"shop.test/": "is not a URL", "ftp://shop.test/": "is not a URL", "http://": "is not a URL"} {
		if _, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: url}); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
	other, err := r.Explain(t.Context(), "other", spillway.RouteQuery{Method: "GET", URL: "http://shop.test/"})
	if err != nil || other.Line != nil || other.Passed != nil || other.Text != "the host is one of shop, not of other" {
		t.Errorf("of another app: %+v, %v", other, err)
	}
}

// What the proxy answers by itself is said as it is answered.
func TestExplain_SaysWhatTheProxyAnswers(t *testing.T) {
	r := start(t, tempDir(t), false)
	table := alone(1, replica(t, text("stable")))
	table.Route.Edges[0].Target = "www"
	to := []spillway.Target{{Service: "www", Weight: 1}}
	exact := func(path string) spillway.PathMatch {
		return spillway.PathMatch{Kind: spillway.PathExact, Text: path}
	}
	table.Route.Rules = []spillway.HTTPRule{
		{Hosts: []string{"shop.test"}, Path: exact("/small"), To: to, MaxBody: 1 << 10},
		{Hosts: []string{"shop.test"}, Path: exact("/net"), To: to, Allow: []string{"127.0.0.0/8"}},
		{Hosts: []string{"ruled.test"}, Path: exact("/a"), To: to},
	}
	r.push(table)
	address := strings.TrimPrefix(r.url, "http://")
	for _, row := range []struct {
		method, url, length, want string
	}{
		{"GET", "http://shop.test/a\\b", "", "400 the path has a backslash"},
		{"GET", "http://shop.test/\u00fc", "", "400 the target has a character that belongs there only percent-encoded"},
		{"GET", "http://shop.test/net", "", "200 "},
		{"GET", "http://shop.test//net", "", "400 route shop.test/net: a server may take this path for /net, which only some may ask for; ask for that, without // and %2F"},
		{"POST", "http://shop.test/small", "2000", "413 route shop.test/small: a body of 2000 bytes is larger than 1Ki"},
		{"CONNECT", "http://shop.test/", "", "405 CONNECT is not served"},
		{"TRACE", "http://shop.test/", "", "405 TRACE is not served"},
		{"GET", "http://ruled.test/a", "", "200 "},
		{"GET", "http://ruled.test/b", "", "404 no rule of the host fits"},
		{"GET", "http://other.test/b", "", "404 no app answers to this host"},
	} {
		q := spillway.RouteQuery{Method: row.method, URL: row.url}
		host, path, _ := strings.Cut(strings.TrimPrefix(row.url, "http://"), "/")
		request := row.method + " /" + path + " HTTP/1.1|Host: " + host
		if row.method == "CONNECT" {
			request = "CONNECT shop.test:80 HTTP/1.1|Host: shop.test:80"
		}
		if row.length != "" {
			q.Header = []spillway.HeaderField{{Name: "Content-Length", Value: row.length}}
			request += "|Content-Length: " + row.length
		}
		answer, err := r.Explain(t.Context(), shop, q)
		if answer.Status == 0 && answer.Got != nil {
			answer.Status = http.StatusOK
		}
		if said := fmt.Sprintf("%d %s", answer.Status, answer.Text); err != nil || said != row.want {
			t.Errorf("%s %s: said is %s, %v", row.method, row.url, said, err)
		}
		real := said(t, address, request, "X-Spillway-Reason")
		if status := row.want[:3]; !strings.HasPrefix(real, status) || status != "200" && real != row.want {
			t.Errorf("%s %s: the answer is %s", row.method, row.url, real)
		}
	}
	answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: "http://shop.test/net"})
	if want := "as for a client from 127.0.0.0/8: others are answered 403; say which with --client ADDRESS"; err != nil || len(answer.Notes) != 1 || answer.Notes[0] != want {
		t.Errorf("without a client: %q, %v", answer.Notes, err)
	}
	if _, err := r.Hold(t.Context(), shop, time.Minute); err != nil {
		t.Fatal(err)
	}
	answer, err = r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: "http://shop.test/"})
	if want := "the app is held: the request waits at the proxy, for up to 1m"; err != nil || len(answer.Notes) != 1 || answer.Notes[0] != want {
		t.Errorf("held: %q, %v", answer.Notes, err)
	}
}

func TestRoutes_AreToldAsTheyAreServed(t *testing.T) {
	r := start(t, tempDir(t), false)
	stable := replica(t, text("stable"))
	table := divided(1, spillway.Percent(5), stable, replica(t, reset))
	r.push(table)
	weights := func() string {
		lines, err := r.Routes(t.Context(), shop)
		if err != nil || len(lines) != 1 || !lines[0].Rest {
			t.Fatalf("got %+v, %v", lines, err)
		}
		return fmt.Sprint(lines[0].Host, lines[0].Match, lines[0].To[0].Backends[0].Weight, lines[0].To[0].Backends[1].Weight)
	}
	if got := weights(); got != "shop.test/*95% 5%" {
		t.Errorf("got %s", got)
	}
	for _, user := range usersAt(0, spillway.Percent(5), 10) {
		r.get("/", "X-User", user)
	}
	if got := weights(); got != "shop.test/*100% 0%" {
		t.Errorf("with a candidate that tripped: got %s", got)
	}
	if lines, err := r.Routes(t.Context(), "other"); err != nil || len(lines) != 0 {
		t.Errorf("of another app: %+v, %v", lines, err)
	}
}

func TestExplain_KnowsWhoIsSentToHTTPS(t *testing.T) {
	dir := tempDir(t)
	r := start(t, dir, false)
	files := pairIn(dir, "shop")
	writePair(t, files, 7, "shop.test")
	table := secured(alone(1, replica(t, text("stable"))), files)
	table.Route.Edges[0].TLS.Redirect = true
	r.push(table)
	for url, want := range map[string]string{
		"http://shop.test/x?y": "308 https://shop.test/x?y", "https://shop.test/x": "0 ", // 443 in front of our port is not ours to know
	} {
		answer, err := r.Explain(t.Context(), shop, spillway.RouteQuery{Method: "GET", URL: url})
		if got := fmt.Sprintf("%d %s", answer.Status, answer.Text); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", url, got, err, want)
		}
	}
}
