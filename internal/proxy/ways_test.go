package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// routed is the table of an app file whose services all serve: each host and each target of a rule has an edge.
func routed(t testing.TB, text string) spillway.Table {
	t.Helper()
	file, err := appfile.Parse("spillway.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	table := spillway.Table{App: shop, Revision: 1, Cohort: file.Cohort, Route: spillway.Route{Generation: 1, Rules: file.Routes}}
	edge := func(service, target string, hosts []string, b spillway.Backend) {
		b.Weight = spillway.Whole
		table.Route.Edges = append(table.Route.Edges, spillway.Edge{Service: service, Hosts: hosts, Target: target, Backends: []spillway.Backend{b}})
	}
	for _, s := range file.Services {
		edge(s.Name, s.Name, s.Host, spillway.Backend{Group: spillway.Group{Service: s.Name, Release: 1}, Release: 1})
	}
	known := map[string]bool{}
	urls := func(to spillway.Target) {
		if name := to.Name(); len(to.URLs) > 0 && !known[name] {
			known[name] = true
			edge("elsewhere", name, nil, spillway.Backend{Track: "external", URLs: to.URLs})
		}
	}
	for _, r := range file.Routes {
		for _, to := range r.To {
			urls(to)
		}
		for _, m := range r.Mirror {
			urls(m.Target)
		}
	}
	return table
}

// waysOf are the ways of one table.
func waysOf(t testing.TB, table spillway.Table) *ways {
	t.Helper()
	if err := checkTable(table); err != nil {
		t.Fatal(err)
	}
	a := &app{ref: table.App, table: table, plane: &plane{endpoints: map[endpointKey]*endpoint{}}, tallies: map[string]*tally{}}
	var edges []*edge
	for _, spec := range table.Route.Edges {
		edges = append(edges, newEdge(a, spec, nil))
	}
	w := newWays()
	if err := w.add(a, edges, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// asked is a call as a client makes it: "POST https://shop.test/a?b=c X-A=1 Cookie=x=y".
func asked(text string) *call {
	words := strings.Fields(text)
	method, address := "GET", words[0]
	if !strings.Contains(address, "://") {
		method, address, words = words[0], words[1], words[1:]
	}
	scheme, rest, _ := strings.Cut(address, "://")
	i := strings.IndexAny(rest+"/", "/")
	c := &call{method: method, secure: scheme == "https", client: netip.MustParseAddr("192.0.2.7")}
	c.aim(rest[:i], rest[i:])
	for _, field := range words[1:] {
		name, value, _ := strings.Cut(field, "=")
		c.header = append(c.header, http1.Field{Name: name, Value: value})
	}
	return c
}

// led says what becomes of a request: "web GET shop.test/path", or "302 https://…".
func led(ways *ways, c *call) string {
	w, ok := ways.find(c)
	if !ok {
		return "404"
	}
	if now := w.instant(c, testTime); now != nil {
		text := fmt.Sprint(now.status)
		if to := now.header.Get("Location"); to != "" {
			text += " " + to
		}
		return text
	}
	out := w.outbound(c)
	return fmt.Sprintf("%s %s%s", w.edge(0).spec.Target, out.host, out.target)
}

// The tables below are what the conformance tests of the Gateway API ask of an HTTPRoute, in words of our own:
// backends are services v1, v2 and v3, and a request that nothing fits is answered 404.
const threeServices = "app: shop\nservices: {v1: {run: x}, v2: {run: x}, v3: {run: x}}\nroutes:\n"

func TestWays_LeadAsTheGatewayAPIHasIt(t *testing.T) {
	for _, group := range []struct{ name, rules, requests string }{
		{"simple match", `
  - {host: a.test, path: /*, header: version=one, to: v1}
  - {host: a.test, path: /*, to: v1}
  - {host: a.test, path: /v2/*, to: v2}
  - {host: a.test, header: version=two, path: /*, to: v2}`, `
http://a.test/ => v1
http://a.test/example => v1
http://a.test/ Version=one => v1
http://a.test/v2 => v2
http://a.test/v2/ => v2
http://a.test/v2/example => v2
http://a.test/ Version=two => v2
http://a.test/v2example => v1
http://a.test/foo/v2/example => v1
http://b.test/ => 404`},
		{"hosts across routes", `
  - {host: [a.com, a.net], path: /*, to: v1}
  - {host: [a.com, a.net], path: /*, header: version=one, to: v1}
  - {host: a.com, path: /v2/*, to: v2}
  - {host: a.com, path: /*, header: version=two, to: v2}
  - {host: "*.a.com", to: v3}
  - {host: "*.b.a.com", path: /only, to: v2}`, `
http://a.com/ => v1
http://a.net/ => v1
http://a.net/v2 => v1
http://a.com/v2 => v2
http://a.com/ version=two => v2
http://a.net/ version=two => v1
http://x.a.com/ => v3
http://x.y.a.com/v2 => v3
http://x.b.a.com/only => v2
http://x.b.a.com/other => v3
http://b.a.com/only => v3
http://A.COM:8080/v2 => v2
http://a.com./v2 => v2
http://.a.com/ => 404
http://xa.com/ => 404`},
		{"order of paths", `
  - {host: a.test, path: /match/exact/one, to: v3}
  - {host: a.test, path: /match/exact, to: v2}
  - {host: a.test, path: /match/*, to: v1}
  - {host: a.test, path: /match/prefix/one/*, to: v2}
  - {host: a.test, path: /match/prefix/*, to: v3}
  - {host: a.test, path: /match, to: v3}`, `
http://a.test/match/exact/one => v3
http://a.test/match/exact => v2
http://a.test/match => v3
http://a.test/match/ => v1
http://a.test/match/exact/two => v1
http://a.test/match/prefix/one/any => v2
http://a.test/match/prefix/any => v3
http://a.test/match/prefix => v3
http://a.test/matching => 404`},
		{"patterns go behind prefixes, and before what is for all paths", `
  - {host: a.test, path: "~ ^/api/v[0-9]+/", to: v1}
  - {host: a.test, path: /api/v2/*, to: v2}
  - {host: a.test, path: "~ x/$", header: x=1, to: v3}
  - {host: b.test, to: v1}
  - {host: b.test, path: "~ ^/img/", to: v2}
  - {host: b.test, path: /img/new/*, to: v3}`, `
http://b.test/ => v1
http://b.test/img/a => v2
http://b.test/img/new/a => v3
http://a.test/api/v1/x => v1
http://a.test/api/v2/x => v2
http://a.test/api/vx/ => 404
http://a.test/api/vx/ x=1 => v3
http://a.test/api/v1/x/ x=1 => v3`},
		{"no path is the prefix of all", `
  - {host: a.test, path: /*, to: v1}
  - {host: a.test, header: x-beta=1, to: v2}
  - {host: a.test, path: "~ ^/img", to: v3}
  - {host: b.test, header: x-beta=1, path: /*, to: v1}
  - {host: b.test, method: GET, to: v2}
  - {host: b.test, to: v3}
  - {host: b.test, path: /*, to: v1}`, `
http://a.test/x => v1
http://a.test/x x-beta=1 => v2
http://a.test/img => v3
http://a.test/img x-beta=1 => v3
http://b.test/x x-beta=1 => v2
POST http://b.test/x x-beta=1 => v1
POST http://b.test/x => v3`},
		{"headers", `
  - {host: a.test, header: version=one, to: v1}
  - {host: a.test, header: version=two, to: v2}
  - {host: a.test, header: [version=two, color=orange], to: v1}
  - {host: a.test, header: color=~^(blue|green)$, to: v1}
  - {host: a.test, header: color=red, to: v2}
  - {host: a.test, header: any=*, to: v3}
  - {host: a.test, header: [any=*, color=red], cookie: a=1, to: v1}`, `
http://a.test/ Version=one => v1
http://a.test/ VERSION=two => v2
http://a.test/ version=two color=orange => v1
http://a.test/ color=orange => 404
http://a.test/ color=blue => v1
http://a.test/ color=bluegreen => 404
http://a.test/ color=red => v2
http://a.test/ color=red any=x => v2
http://a.test/ color=red any=x Cookie=b=2;a=1 => v1
http://a.test/ version=three any=x => v3
http://a.test/ version=one version=two => v1`},
		{"queries", `
  - {host: a.test, query: animal=whale, to: v1}
  - {host: a.test, query: animal=dolphin, to: v2}
  - {host: a.test, query: [animal=dolphin, color=blue], to: v3}
  - {host: a.test, query: ANIMAL=Whale, to: v3}
  - {host: a.test, path: /path4/*, query: animal=dolphin, header: version=one, to: v1}
  - {host: a.test, query: "word=a b&c", to: v2}`, `
http://a.test/?animal=whale => v1
http://a.test/?animal=dolphin => v2
http://a.test/?color=blue&animal=dolphin => v3
http://a.test/?ANIMAL=Whale => v3
http://a.test/?animal=Whale => 404
http://a.test/?animal=whale&other=x => v1
http://a.test/?animal[]=whale => 404
http://a.test/?animal=dolphin&animal=whale => v2
http://a.test/?%61nimal=whal%65 => v1
http://a.test/?word=a+b%26c => v2
http://a.test/path4?animal=dolphin version=one => v1
http://a.test/?animal => 404
http://a.test/ => 404`},
		{"methods", `
  - {host: a.test, path: /*, method: POST, to: v1}
  - {host: a.test, path: /*, method: GET, to: v2}
  - {host: a.test, path: /path1/*, method: GET, to: v1}
  - {host: a.test, path: /*, method: PUT, header: version=one, to: v2}
  - {host: a.test, path: /path2/*, method: POST, header: version=two, to: v3}
  - {host: a.test, path: /path3/*, method: [PATCH, DELETE], to: v1}
  - {host: a.test, path: /path3/*, header: version=three, to: v2}`, `
POST http://a.test/ => v1
GET http://a.test/ => v2
HEAD http://a.test/ => 404
GET http://a.test/path1 => v1
PUT http://a.test/ version=one => v2
PUT http://a.test/ => 404
POST http://a.test/path2 version=two => v3
POST http://a.test/path2 => v1
PATCH http://a.test/path3 => v1
DELETE http://a.test/path3 version=three => v1
GET http://a.test/path3 version=three => v2`},
		{"the first of the file", `
  - {host: a.test, path: /x, header: a=1, to: v1}
  - {host: a.test, path: /x, header: b=1, to: v2}
  - {host: a.test, path: /x, cookie: c=1, to: v3}`, `
http://a.test/x a=1 b=1 Cookie=c=1 => v1
http://a.test/x b=1 Cookie=c=1 => v2
http://a.test/x Cookie=c=1 => v3`},
		{"normal paths", `
  - {host: a.test, path: /admin/*, to: v2}
  - {host: a.test, path: "/a%2fb", to: v3}
  - {host: a.test, path: /*, to: v1}`, `
http://a.test/x/../admin/y => v2 a.test/admin/y
http://a.test/%61dmin => v2 a.test/%61dmin
http://a.test/x/%2E%2e/admin => v2 a.test/admin
http://a.test/./admin/. => v2 a.test/admin/
http://a.test/../../admin?q=/../ => v2 a.test/admin?q=/../
http://a.test/admin/.. => v1 a.test/
http://a.test//admin => v1 a.test//admin
http://a.test/admin%2fx => v1 a.test/admin%2fx
http://a.test/a%2Fb => v3 a.test/a%2Fb
http://a.test/a/b => v1
http://a.test/.hidden => v1 a.test/.hidden
http://a.test/...?x => v1 a.test/...?x
http://a.test/100% => v1 a.test/100%`},
	} {
		t.Run(group.name, func(t *testing.T) {
			ways := waysOf(t, routed(t, threeServices+strings.TrimPrefix(group.rules, "\n")+"\n"))
			for line := range strings.SplitSeq(strings.TrimSpace(group.requests), "\n") {
				request, want, _ := strings.Cut(line, " => ")
				got := led(ways, asked(request))
				if !strings.Contains(want, " ") {
					got, _, _ = strings.Cut(got, " ")
				}
				if got != want {
					t.Errorf("%s: got %s, want %s", request, got, want)
				}
			}
		})
	}
}

// What nginx and others take for a path that is guarded does not pass by another rule; elsewhere it does.
func TestWays_LetNoSpellingAroundAGuard(t *testing.T) {
	ways := waysOf(t, routed(t, threeServices+`
  - {host: a.test, to: v1}
  - {host: a.test, path: /admin/*, to: v2, users: {ann: "sha256:3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"}}
  - {host: a.test, path: /admin/open/*, to: v3}
  - {host: a.test, path: /net, method: POST, to: v2, allow: [10.0.0.0/8]}
  - {host: "*.below.test", path: /admin/*, to: v2, allow: [10.0.0.0/8]}
  - {host: "*.below.test", to: v1}
`))
	const no = "400"
	for request, want := range map[string]string{
		"http://a.test//admin/x":                     no,
		"http://a.test/admin%2fx":                    no,
		"http://a.test/%2fadmin/x":                   no,
		"http://a.test/%2Fadmin":                     no,
		"http://a.test/pub/..%2fadmin/x":             no,
		"http://a.test/pub/%2e%2e%2fadmin/x":         no,
		"http://a.test/.//admin/x":                   no,
		"http://a.test/pub/..//admin/x":              no,
		"http://a.test/pub//..%2f..%2fadmin":         no,
		"http://a.test/pub//..%2fadmin":              no, // where slashes are merged first
		"http://a.test/pub%2f%2e%2e//admin":          no,
		"http://a.test///%61dmin?x":                  no,
		"http://a.test/admin/open/..%2fx":            no,
		"http://a.test/admin%2fopen":                 "v1 a.test/admin%2fopen",
		"POST http://a.test//net":                    no,
		"http://a.test//net":                         "v1 a.test//net",
		"http://a.test/admin//x":                     "401",
		"http://a.test/admin/a%2fb":                  "401",
		"http://a.test/admin/..%2fx":                 "401",
		"http://a.test/admin/open/a%2Fb":             "v3 a.test/admin/open/a%2Fb",
		"http://a.test/admin/open//x":                "v3 a.test/admin/open//x",
		"http://a.test/a%2fb//c":                     "v1 a.test/a%2fb//c",
		"http://a.test/proxy/https://b.test/admin/x": "v1 a.test/proxy/https://b.test/admin/x",
		"http://a.test/?to=//admin%2f":               "v1 a.test/?to=//admin%2f",
		"http://x.below.test//admin":                 no,
		"http://x.below.test//adm":                   "v1 x.below.test//adm",
	} {
		if got := led(ways, asked(request)); got != want {
			t.Errorf("%s: got %s, want %s", request, got, want)
		}
	}
	w, _ := ways.find(asked("http://a.test/pub/..%2fadmin/x"))
	want := "route a.test/admin/*: a server may take this path for /admin/x, which only some may ask for; ask for that, without // and %2F"
	if got := w.instant(asked("http://a.test/"), testTime).reason; got != want {
		t.Errorf("got %s", got)
	}
	answer, err := ways.explain(shop, spillway.RouteQuery{Method: "GET", URL: "http://a.test//admin/x"}, keys{}, nil)
	if err != nil || answer.Status != 400 || answer.Line.Match != "/admin/*" || answer.Text != strings.Replace(want, "/pub", "", 1) {
		t.Errorf("said is %+v, %v", answer, err)
	}
}

// The rest of a host is its service's, and a service's own host goes before another's wildcard.
func TestWays_LeaveTheRestToTheHost(t *testing.T) {
	ways := waysOf(t, routed(t, `app: shop
services: {web: {run: x, host: [shop.test, "*.shop.test"]}, api: {run: x}, other: {run: x, host: other.shop.test}}
routes:
  - {path: /api/*, to: api}
  - {host: "*.shop.test", path: /all, to: api}
`))
	for request, want := range map[string]string{
		"http://shop.test/": "web", "http://shop.test/api/x": "api", "http://a.shop.test/": "web", "http://a.shop.test/api": "api",
		"http://other.shop.test/": "other", "http://other.shop.test/all": "other", "http://a.shop.test/all": "api", "http://test/": "404",
		"OPTIONS http://shop.test*": "404",
	} {
		if got, _, _ := strings.Cut(led(ways, asked(request)), " "); got != want {
			t.Errorf("%s: got %s, want %s", request, got, want)
		}
	}
	star := &call{method: "OPTIONS"}
	star.aim("shop.test", "*")
	if w, ok := ways.find(star); !ok || w.edge(0).spec.Target != "web" || w.outbound(star) != star {
		t.Error("OPTIONS * does not go to the service of the host as it is")
	}
}

// Users are dealt to targets by weight, each stays, and a release has users of every target.
func TestWay_DealsUsersByWeight(t *testing.T) {
	ways := waysOf(t, routed(t, threeServices+"  - {host: a.test, to: [{to: v1, weight: 70}, {to: v2, weight: 30}, {to: v3, weight: 0}]}\n"))
	w, _ := ways.find(asked("http://a.test/"))
	count := map[string]int{}
	low := map[string]int{}
	for bucket := range spillway.Whole {
		name := w.edge(bucket).spec.Target
		if count[name]++; bucket < spillway.Percent(10) {
			low[name]++
		}
		if again := w.edge(bucket).spec.Target; again != name {
			t.Fatalf("bucket %d is led to %s, then to %s", bucket, name, again)
		}
	}
	if n := count["v1"]; n < 6800 || n > 7200 || count["v3"] > 0 {
		t.Errorf("of 10000 buckets %v, want 7000 and 3000", count)
	}
	if n := low["v1"]; n < 620 || n > 780 {
		t.Errorf("of the first 1000 buckets %v: a candidate would be tried with the users of one target", low)
	}
}

func TestNormalPath(t *testing.T) {
	for path, want := range map[string][2]string{ // as rules look at it, and as it is passed on
		"/":            {"/", "/"},
		"/a/b":         {"/a/b", "/a/b"},
		"/a/./b":       {"/a/b", "/a/b"},
		"/a/../b":      {"/b", "/b"},
		"/a/..":        {"/", "/"},
		"/..":          {"/", "/"},
		"/a/b/../..":   {"/", "/"},
		"/a//../b":     {"/a/b", "/a/b"},
		"//":           {"//", "//"},
		"/a/.":         {"/a/", "/a/"},
		"/%7Ea":        {"/~a", "/%7Ea"},
		"/%2e%2E/a":    {"/a", "/a"},
		"/a%2f..":      {"/a%2F..", "/a%2f.."},
		"/a%2":         {"/a%252", "/a%2"},
		"/%zz/../%41":  {"/A", "/A"},
		"/%7%30":       {"/%2570", "/%7%30"},
		"/a%20b%3fc":   {"/a%20b%3Fc", "/a%20b%3fc"},
		"/.a/..b/c./x": {"/.a/..b/c./x", "/.a/..b/c./x"},
	} {
		if got := [2]string{normalPath(path), forwardedPath(path)}; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func FuzzNormalPath(f *testing.F) {
	f.Add("/a/../%2e/b//c%2F")
	f.Fuzz(func(t *testing.T, text string) {
		path := "/" + text
		normal := normalPath(path)
		if again := normalPath(normal); again != normal {
			t.Errorf("%q becomes %q, then %q", path, normal, again)
		}
		if !strings.HasPrefix(normal, "/") || strings.Contains(normal+"/", "/../") || strings.Contains(normal+"/", "/./") {
			t.Errorf("%q becomes %q", path, normal)
		}
		for _, reading := range readings(normal) {
			if normalPath(reading) != reading && !strings.Contains(normal, "%2F") {
				t.Errorf("%q is read as %q, which is not normal", normal, reading)
			}
		}
		if len(readings(normal)) > 0 && !veiled(normal) {
			t.Errorf("%q is read as %q, and nobody looks", normal, readings(normal))
		}
		if seen := normalPath(forwardedPath(path)); seen != normal {
			t.Errorf("%q is looked at as %q and passed on as %q, which is %q", path, normal, forwardedPath(path), seen)
		}
	})
}

// Tables that cannot be served are refused as a whole.
func TestCheckTable_RefusesRulesThatLeadNowhere(t *testing.T) {
	rule := spillway.HTTPRule{Hosts: []string{"a.test"}}
	for want, change := range map[string]func(*spillway.HTTPRule){
		"route a.test/*: it leads to nobody":               func(*spillway.HTTPRule) {},
		"route a.test/*: no edge is called web":            func(r *spillway.HTTPRule) { r.To = []spillway.Target{{Service: "web"}} },
		"route a.test ~ (: pattern \"(\": error":           func(r *spillway.HTTPRule) { r.Path = spillway.PathMatch{Kind: "pattern", Text: "("} },
		"route a.test/*: allow x: ":                        func(r *spillway.HTTPRule) { r.Allow = []string{"x"} },
		"route a.test/*: no edge is called http://a.test,": nil,
	} {
		r := rule
		if change == nil {
			r.Redirect, r.Mirror = &spillway.Redirect{}, []spillway.Mirror{{Target: spillway.Target{URLs: []string{"http://a.test", "b"}}}}
		} else {
			r.Redirect = &spillway.Redirect{Status: 302}
			if strings.Contains(want, "leads to nobody") || strings.Contains(want, "called web") {
				r.Redirect = nil
			}
			change(&r)
		}
		err := checkTable(spillway.Table{App: shop, Route: spillway.Route{Rules: []spillway.HTTPRule{r}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Ten thousand rules on a thousand hosts cost a request what one costs.
func BenchmarkWays_Find(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		table := spillway.Table{App: shop}
		table.Route.Edges = []spillway.Edge{{Service: "web", Target: "web", Hosts: []string{"shop.test"}, Backends: []spillway.Backend{{Group: www1, Weight: spillway.Whole}}}}
		for i := range n {
			kind := []string{spillway.PathPrefix, spillway.PathExact, spillway.PathPrefix}[i%3]
			host := fmt.Sprintf("h%d.test", i/10)
			if i < n/2 {
				host = "shop.test" // half of them on one host
			}
			table.Route.Rules = append(table.Route.Rules, spillway.HTTPRule{
				Hosts: []string{host}, Path: spillway.PathMatch{Kind: kind, Text: fmt.Sprintf("/a/b%d", i)}, To: []spillway.Target{{Service: "web"}},
			})
		}
		ways := waysOf(b, table)
		for _, path := range []string{"/a/b0/c", "/none/of/them", fmt.Sprintf("/a/b%d", n/4)} {
			b.Run(fmt.Sprintf("%d%s", n, path), func(b *testing.B) {
				c := asked("http://shop.test" + path)
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := ways.find(c); !ok {
						b.Fatal("not found")
					}
				}
			})
		}
	}
}

// A push makes the ways of all tables anew. No request waits for it.
func BenchmarkWays_Push(b *testing.B) {
	table := spillway.Table{App: shop}
	table.Route.Edges = []spillway.Edge{{Service: "web", Target: "web", Hosts: []string{"shop.test"}, Backends: []spillway.Backend{{Group: www1, Weight: spillway.Whole}}}}
	for i := range 10_000 {
		table.Route.Rules = append(table.Route.Rules, spillway.HTTPRule{
			Hosts: []string{fmt.Sprintf("h%d.test", i/10)}, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: fmt.Sprintf("/a/b%d", i)},
			Headers: []spillway.FieldMatch{{Name: "X-A", Kind: "pattern", Text: fmt.Sprintf("^%d$", i)}}, To: []spillway.Target{{Service: "web"}},
		})
	}
	a := &app{ref: shop, table: table, plane: &plane{}, tallies: map[string]*tally{}}
	edges := []*edge{newEdge(a, table.Route.Edges[0], nil)}
	var old *ways
	for b.Loop() {
		next := newWays()
		if err := next.add(a, edges, old); err != nil {
			b.Fatal(err)
		}
		old = next
	}
}
