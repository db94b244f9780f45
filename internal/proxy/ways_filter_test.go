package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func oneWay(t testing.TB, rule string) *way {
	t.Helper()
	w, ok := waysOf(t, routed(t, threeServices+"  - "+rule+"\n")).find(asked("http://a.test/old/x"))
	if !ok {
		t.Fatalf("%s does not fit /old/x", rule)
	}
	return w
}

// Each row is what a rule does to a request: where the client is sent, or what the service v1 is asked for.
func TestWay_RedirectsAndRewritesAsTheGatewayAPIHasIt(t *testing.T) {
	const host = "{host: a.test, "
	for _, row := range []struct{ rule, request, want string }{
		{host + "redirect: //example.org}", "http://a.test/x?q=1", "302 http://example.org/x?q=1"},
		{host + "redirect: {to: //example.org, status: 301}}", "http://a.test/", "301 http://example.org/"},
		{host + "redirect: //example.org}", "http://a.test:8080/x", "302 http://example.org:8080/x"},
		{host + "redirect: https://example.org}", "http://a.test:8080/x", "302 https://example.org/x"},
		{host + "redirect: https://example.org:443}", "http://a.test/x", "302 https://example.org/x"},
		{host + "redirect: http://example.org:80}", "https://a.test/x", "302 http://example.org/x"},
		{host + "redirect: //example.org:8443}", "https://a.test/x", "302 https://example.org:8443/x"},
		{host + "redirect: {scheme: https, status: 308}}", "POST http://a.test:8080/x", "308 https://a.test/x"},
		{host + "redirect: /whole}", "https://a.test/x/y", "302 https://a.test/whole"},
		{host + "path: /old/*, redirect: /new/*}", "http://a.test/old/lemon", "302 http://a.test/new/lemon"},
		{host + "path: /old/*, redirect: /new/*}", "http://a.test/old", "302 http://a.test/new"},
		{host + "path: /old/*, redirect: {to: /*, status: 303}}", "http://a.test/old/a/b", "303 http://a.test/a/b"},
		{host + "path: /old/*, redirect: /*}", "http://a.test/old", "302 http://a.test/"},
		{host + "path: /old/*, redirect: https://example.org/n/*}", "http://a.test/%6fld/%2f", "302 https://example.org/n/%2F"},
		{host + "redirect: {to: /a/*, status: 307}}", "http://a.test/x", "307 http://a.test/a/x"},
		{host + "path: /prefix/one/*, to: v1, rewrite: /one/*}", "http://a.test/prefix/one/two", "v1 a.test/one/two"},
		{host + "path: /strip/*, to: v1, rewrite: /*}", "http://a.test/strip/three?x=1", "v1 a.test/three?x=1"},
		{host + "path: /strip/*, to: v1, rewrite: /*}", "http://a.test/strip", "v1 a.test/"},
		{host + "path: /strip/*, to: v1, rewrite: /*}", "http://a.test/strip?", "v1 a.test/?"},
		{host + "path: /full/*, to: v1, rewrite: /one}", "http://a.test/full/two/", "v1 a.test/one"},
		{host + "to: v1, rewrite: {host: b.test}}", "http://a.test:8080/x", "v1 b.test/x"},
		{host + "path: /old/*, to: v1, rewrite: {host: b.test, path: /new/*}}", "http://a.test/old//x/../y", "v1 b.test/new//y"},
	} {
		if got := led(waysOf(t, routed(t, threeServices+"  - "+row.rule+"\n")), asked(row.request)); got != row.want {
			t.Errorf("%s, %s: got %s, want %s", row.rule, row.request, got, row.want)
		}
	}
	forwarded := asked("http://a.test/x X-Forwarded-Proto=https")
	w := oneWay(t, host+"redirect: //b.test}")
	if got := w.instant(forwarded, testTime).header.Get("Location"); got != "http://b.test/x" {
		t.Errorf("a client that is not trusted came by %s", got)
	}
	forwarded.ours = true
	if got := w.instant(forwarded, testTime).header.Get("Location"); got != "https://b.test/x" {
		t.Errorf("a client that terminates TLS for us came by %s", got)
	}
}

func TestWay_ChangesHeaders(t *testing.T) {
	w := oneWay(t, `{host: a.test, to: v1, request-headers: {set: {X-Set: new}, add: {X-Add: more}, remove: [X-Gone, cookie]}, response-headers: {set: {Server: us}, remove: [X-Debug]}}`)
	c := asked("http://a.test/ X-Set=a x-set=b X-Add=first X-Gone=1 Cookie=a=b X-Keep=yes")
	came := slices.Clone(c.header)
	want := "X-Add:first X-Keep:yes X-Set:new X-Add:more"
	if got := fieldText(w.outbound(c).header); got != want {
		t.Errorf("the service gets %s, want %s", got, want)
	}
	if !slices.Equal(c.header, came) {
		t.Errorf("the client's own header was changed to %s", fieldText(c.header))
	}
	answer := http1.Fields{{Name: "server", Value: "them"}, {Name: "X-Debug", Value: "1"}, {Name: "A", Value: "b"}}
	if got := fieldText(w.answered(c, answer)); got != "A:b Server:us" {
		t.Errorf("the client gets %s", got)
	}
	if plain := oneWay(t, "{host: a.test, to: v1}"); plain.outbound(c) != c || plain.stops || plain.replies {
		t.Error("a rule that only leads costs something")
	}
}

func fieldText(h http1.Fields) string {
	var list []string
	for _, f := range h {
		list = append(list, f.Name+":"+f.Value)
	}
	return strings.Join(list, " ")
}

func TestWay_TellsBrowsersWhoMayAsk(t *testing.T) {
	const some = `{host: a.test, method: [GET, PUT], to: v1, cors: {origins: ["https://shop.test", "https://*.shop.test"], methods: [POST, PUT], headers: [X-A, X-B], expose: [X-Total], credentials: true, age: 1m}}`
	const all = `{host: a.test, to: v1, cors: {origins: ["*"], methods: ["*"], headers: ["*"]}}`
	for _, row := range []struct{ rule, request, want string }{
		{some, "OPTIONS http://a.test/ Origin=https://shop.test Access-Control-Request-Method=PUT",
			"204 Vary:Origin Access-Control-Allow-Origin:https://shop.test Access-Control-Allow-Credentials:true Access-Control-Allow-Methods:GET, HEAD, POST, PUT Access-Control-Allow-Headers:X-A, X-B Access-Control-Max-Age:60"},
		{some, "OPTIONS http://a.test/ Origin=https://evil.test Access-Control-Request-Method=PUT", "204 Vary:Origin"},
		{some, "OPTIONS http://a.test/ Origin=https://shop.test.evil.test Access-Control-Request-Method=PUT", "204 Vary:Origin"},
		{some, "OPTIONS http://a.test/ Origin=https://xshop.test Access-Control-Request-Method=PUT", "204 Vary:Origin"},
		{some, "OPTIONS http://a.test/ Origin=https://a.b.shop.test Access-Control-Request-Method=GET",
			"204 Vary:Origin Access-Control-Allow-Origin:https://a.b.shop.test Access-Control-Allow-Credentials:true Access-Control-Allow-Methods:GET, HEAD, POST, PUT Access-Control-Allow-Headers:X-A, X-B Access-Control-Max-Age:60"},
		{some, "OPTIONS http://a.test/ Origin=https://shop.test Access-Control-Request-Method=DELETE", "404"}, // another rule's, if there were one
		{some, "OPTIONS http://a.test/ Origin=https://shop.test", "404"},                                      // no preflight request
		{some, "http://a.test/ Origin=https://shop.test", "Vary:Origin Access-Control-Allow-Origin:https://shop.test Access-Control-Allow-Credentials:true Access-Control-Expose-Headers:X-Total"},
		{some, "http://a.test/ Origin=http://shop.test", "Vary:Origin"},
		{all, "OPTIONS http://a.test/ Origin=https://x.test Access-Control-Request-Method=PURGE Access-Control-Request-Headers=x-z,x-y",
			"204 Vary:Origin Access-Control-Allow-Origin:* Access-Control-Allow-Methods:PURGE Access-Control-Allow-Headers:x-z,x-y Access-Control-Max-Age:5"},
		{all, "POST http://a.test/ Origin=null", "Vary:Origin Access-Control-Allow-Origin:*"},
		{all, "POST http://a.test/", "Vary:Origin"},
	} {
		c := asked(row.request)
		got := "404"
		if w, ok := waysOf(t, routed(t, threeServices+"  - "+row.rule+"\n")).find(c); ok {
			if now := w.instant(c, testTime); now != nil {
				got = fmt.Sprintf("%d %s", now.status, fieldText(now.header))
			} else {
				got = fieldText(w.answered(c, http1.Fields{{Name: "access-control-allow-origin", Value: "of the service"}}))
			}
		}
		if got != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", row.request, got, row.want)
		}
	}
}

func TestWay_LetsInWhoMay(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	allow := oneWay(t, `{host: a.test, to: v1, allow: [10.0.0.0/8, "2001:db8::/32", 192.0.2.1]}`)
	for client, status := range map[string]int{
		"10.1.2.3": 0, "11.0.0.1": 403, "192.0.2.1": 0, "192.0.2.2": 403, "2001:db8::1": 0, "2001:db9::1": 403, "::ffff:10.1.2.3": 0,
	} {
		c := asked("http://a.test/")
		c.client = netip.MustParseAddr(client)
		if got := statusOf(allow.instant(c, testTime)); got != status {
			t.Errorf("a client from %s: got %d, want %d", client, got, status)
		}
	}
	// "machine" has the SHA-256 of "token".
	users := oneWay(t, `{host: a.test, to: v1, users: {ann: "`+string(hash)+`", machine: sha256:3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0}}`)
	for range 2 { // the second time from memory
		for authorization, status := range map[string]int{
			"": 401, "Basic YW5uOnNlc2FtZQ==": 0, "basic YW5uOnNlc2FtZQ==": 0, "Basic YW5uOnNlc2Ft": 401, "Basic Ym9iOnNlc2FtZQ==": 401, // bob
			"Basic bWFjaGluZTp0b2tlbg==": 0, "Basic bWFjaGluZTpzZXNhbWU=": 401, "Bearer YW5uOnNlc2FtZQ==": 401, "Basic !": 401, "Basic YW5u": 401,
		} {
			c := asked("http://a.test/")
			c.header = http1.Fields{{Name: "Authorization", Value: authorization}}
			if got := statusOf(users.instant(c, testTime)); got != status {
				t.Errorf("with %q: got %d, want %d", authorization, got, status)
			}
		}
	}
	no := users.instant(asked("http://a.test/"), testTime)
	if got := no.header.Get("WWW-Authenticate"); got != `Basic realm="a.test", charset="UTF-8"` || strings.Contains(no.reason, "$2") {
		t.Errorf("got %s, %s", got, no.reason)
	}
	for range doorkeepers {
		users.users.busy <- struct{}{}
	}
	c := asked("http://a.test/")
	c.header = http1.Fields{{Name: "Authorization", Value: "Basic YW5uOndyb25n"}}
	if got := statusOf(users.instant(c, testTime)); got != 429 {
		t.Errorf("while everybody looks at passwords: got %d, want 429", got)
	}
}

func statusOf(i *instant) int {
	if i == nil {
		return 0
	}
	return i.status
}

func TestWay_BoundsBodiesAndSaysWhatTheExchangeNeeds(t *testing.T) {
	w := oneWay(t, "{host: a.test, to: v1, max-body: 1Ki, timeout: 3s, retries: 0}")
	c := asked("POST http://a.test/")
	for length, status := range map[int64]int{0: 0, 1024: 0, 1025: 413, -1: 0} {
		c.length = length
		if got := statusOf(w.instant(c, testTime)); got != status {
			t.Errorf("%d bytes: got %d, want %d", length, got, status)
		}
	}
	if w.timeout != 3*time.Second || w.retries != 0 || w.maxBody != 1024 || oneWay(t, "{host: a.test, to: v1}").retries != -1 {
		t.Errorf("got %+v", w)
	}
}

func TestLimiter_GivesEachClientItsRequests(t *testing.T) {
	w := oneWay(t, "{host: a.test, to: v1, rate: {requests: 10, per: 1s, burst: 5, by: header X-Key}}")
	now := testTime
	count := func(key string, n int) (in int) {
		c := asked("http://a.test/ X-Key=" + key)
		if key == "" {
			c = asked("http://a.test/")
		}
		for range n {
			if w.instant(c, now) == nil {
				in++
			}
		}
		return in
	}
	for _, step := range []struct {
		after time.Duration
		key   string
		asked int
		in    int
	}{
		{0, "a", 8, 5}, {0, "b", 5, 5}, {0, "", 6, 5}, {99 * time.Millisecond, "a", 1, 0}, {time.Millisecond, "a", 2, 1},
		{200 * time.Millisecond, "a", 9, 2}, {time.Hour, "a", 9, 5},
	} {
		now = now.Add(step.after)
		if got := count(step.key, step.asked); got != step.in {
			t.Errorf("%s later, %q asks %d times: %d came in, want %d", step.after, step.key, step.asked, got, step.in)
		}
	}
	no := w.instant(asked("http://a.test/ X-Key=a"), now)
	if no == nil || no.status != 429 || no.header.Get("Retry-After") != "1" || !strings.Contains(no.reason, "more than 10 requests in 1s") {
		t.Errorf("got %+v", no)
	}
}

// An IPv6 client has at least a /64 to itself.
func TestLimiter_TellsClientsApartByNetwork(t *testing.T) {
	for _, row := range []struct {
		one, other string
		same       bool
	}{
		{"2001:db8::1", "2001:db8::ffff:1", true}, {"2001:db8::1", "2001:db8::a:b:c:d", true}, {"2001:db8::1", "2001:db8:0:1::1", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true}, {"::ffff:192.0.2.1", "::ffff:192.0.2.2", false}, {"192.0.2.1", "192.0.2.2", false},
		{"::1", "0.0.0.0", false}, {"fe80::1%eth0", "fe80::2%eth1", true},
	} {
		w := oneWay(t, "{host: a.test, to: v1, rate: {requests: 1, per: 1h, burst: 1}}")
		var in []bool
		for _, client := range []string{row.one, row.other} {
			c := asked("http://a.test/")
			c.client = netip.MustParseAddr(client)
			in = append(in, w.instant(c, testTime) == nil)
		}
		if !in[0] || in[1] == row.same {
			t.Errorf("%s and then %s: let in %v; want them to be the same: %v", row.one, row.other, in, row.same)
		}
	}
}

// Whoever sends with a new key each time cannot fill the memory, and a push forgives nobody.
func TestLimiter_IsBounded(t *testing.T) {
	rules := "  - {host: a.test, to: v1, rate: {requests: 1, per: 1h, burst: 1}}\n"
	for i := range 999 {
		rules += fmt.Sprintf("  - {host: a%d.test, to: v1, rate: {requests: 1, per: 1h, burst: 1}}\n", i)
	}
	table := routed(t, threeServices+rules)
	first := waysOf(t, table)
	w, _ := first.find(asked("http://a.test/"))
	const room = limiterClients / limiterShards / 1000
	for i := range uint64(limiterShards * room * 3) {
		w.limiter.take(mixed(i), testTime)
	}
	for i := range w.limiter.shards {
		if n := len(w.limiter.shards[i].full); n > max(room, limiterLeast) || n < room/2 {
			t.Fatalf("a shard knows %d clients, want up to %d", n, room)
		}
	}
	a := &app{ref: table.App, table: table, tallies: map[string]*tally{}, plane: &plane{}}
	again := newWays()
	if err := again.add(a, []*edge{newEdge(a, table.Route.Edges[0], nil)}, first); err != nil {
		t.Fatal(err)
	}
	if next, _ := again.find(asked("http://a.test/")); next.limiter != w.limiter {
		t.Error("a push begins the count anew")
	}
}

// Copies arrive with the body and a mark, are bounded, and nobody waits for them.
func TestReflect_CopiesToTheMirror(t *testing.T) {
	got := make(chan string, 2*mirrorOpen)
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s%s %s mirror=%s hop=%q a=%s bucket=%q for=%q", r.Method, r.Host, r.RequestURI, body, r.Header.Get(mirrorHeader), r.Header.Get("X-Hop"), r.Header.Get("A"), r.Header["X-Spillway-Bucket"], r.Header["X-Forwarded-For"])
		<-hold
	}))
	defer server.Close()
	defer close(hold)
	p := &plane{base: t.Context(), endpoints: map[endpointKey]*endpoint{}}
	table := routed(t, threeServices+"  - {host: a.test, path: /old/*, to: v1, rewrite: /new/*, mirror: "+server.URL+"/base}\n")
	a := &app{ref: shop, table: table, plane: p, tallies: map[string]*tally{}}
	for key := range endpointsOf(table) {
		p.endpoints[key] = newEndpoint(key, newBlocks())
	}
	var edges []*edge
	for _, spec := range table.Route.Edges {
		edges = append(edges, newEdge(a, spec, nil))
	}
	ways := newWays()
	if err := ways.add(a, edges, nil); err != nil {
		t.Fatal(err)
	}
	c := asked("POST http://a.test/old/x%2fy?q=1 Connection=X-Hop X-Hop=1 A=b X-Spillway-Bucket=7 X-Forwarded-For=192.0.2.66")
	c.named, c.peer = true, "192.0.2.1" // as an engine reads it
	w, _ := ways.find(c)
	body := func() ([]byte, bool) { return []byte("hello"), true }
	p.reflect(w, c, 42, body)
	if one, want := <-got, `POST a.test/base/new/x%2Fy?q=1 hello mirror=1 hop="" a=b bucket=["42"] for=["192.0.2.1"]`; one != want {
		t.Errorf("got  %s\nwant %s", one, want)
	}
	p.reflect(w, c, 0, func() ([]byte, bool) { return nil, false })                          // too large
	p.reflect(w, asked("http://a.test/old/x Connection=upgrade Upgrade=websocket"), 0, body) // a conversation
	for range 3 * mirrorOpen {
		p.reflect(w, c, 0, body)
	}
	if n := p.copies.open.Load(); n != mirrorOpen {
		t.Errorf("%d copies are under way, want %d", n, mirrorOpen)
	}
	w.mirrors[0].share = 0
	before := p.copies.open.Load()
	p.reflect(w, c, 0, body)
	if p.copies.open.Load() != before {
		t.Error("a share of nothing is copied")
	}
	for name, tally := range a.tallies {
		if n := tally.traffic(time.Now()).Requests; n != 0 {
			t.Errorf("%s has %d requests: copies are counted", name, n)
		}
	}
}

func TestReflect_CopiesAShare(t *testing.T) {
	w := oneWay(t, "{host: a.test, to: v1, mirror: {to: v2, share: 20%}}")
	n := 0
	for range 5000 {
		(&plane{}).reflect(w, asked("http://a.test/"), 0, func() ([]byte, bool) { n++; return nil, false })
	}
	if n < 800 || n > 1200 {
		t.Errorf("%d of 5000 requests are copied, want about 1000", n)
	}
}
