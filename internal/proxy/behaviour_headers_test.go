package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy"
)

// stranger begins a connection of somebody who is not trusted, where the proxy believes such headers of this machine.
const stranger = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 80\r\n"

// guarded is a proxy with an access log to whose clients stranger may be put before.
func guarded(t *testing.T, engine string, table spillway.Table) *front {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := run(t, proxy.Config{Dir: dir, Engine: engine, ProxyProtocol: true, Seen: proxy.Seen{AccessLog: filepath.Join(dir, "access.log"), LogSample: spillway.Whole}})
	f.push(table)
	return f
}

// one sends a request on a connection of its own, and gives the answer.
func (f *front) one(request string) reply {
	f.t.Helper()
	conn := f.dial()
	defer conn.Close()
	go io.WriteString(conn, request) // ends with conn
	method, _, _ := strings.Cut(strings.TrimPrefix(request, stranger), " ")
	a, err := readReply(bufio.NewReader(conn), method)
	if err != nil {
		f.t.Errorf("%s: %v", shorten(request), err)
	}
	return a
}

// redirecting is shopAt with a rule that sends /moved to another host.
func redirecting(revision int64, addresses ...string) spillway.Table {
	table := shopAt(revision, addresses...)
	table.Route.Rules = []spillway.HTTPRule{{
		Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: "/moved"},
		Redirect: &spillway.Redirect{Host: "other.test", Status: http.StatusFound},
	}}
	return table
}

// TestBehaviour_BelievesTwoSchemes: what a terminator says goes into Location and to replicas.
func TestBehaviour_BelievesTwoSchemes(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := guarded(t, engine, redirecting(1, backend.addr))
		for said, want := range map[string]string{
			"https": "https", "HTTPS": "https", " https , http": "https", "http, https": "http", "wss": "https", "ws": "http",
			"javascript:alert(1)//": "http", "https://evil.test/?": "http", "": "http", "ftp": "http", "httpsx": "http",
		} {
			request := " HTTP/1.1\r\n" + toShop + "X-Forwarded-Proto: " + said + "\r\n\r\n"
			if a := f.one("GET /moved" + request); a.header.Get("Location") != want+"://other.test/moved" {
				t.Errorf("X-Forwarded-Proto %q: sent to %q", said, a.header.Get("Location"))
			}
			f.one("GET /" + request)
			if a := f.one(stranger + "GET /moved" + request); a.header.Get("Location") != "http://other.test/moved" {
				t.Errorf("X-Forwarded-Proto %q of a stranger: sent to %q", said, a.header.Get("Location"))
			}
			_, requests := backend.take()
			if len(requests) != 1 || fmt.Sprint(requests[0].header["x-forwarded-proto"]) != "["+want+"]" {
				t.Errorf("X-Forwarded-Proto %q: the back end got %v", said, requests)
			}
		}
	})
}

// ownFields are fields that only the proxy says, or nobody, in a request of somebody who forges them.
var ownFields = []string{
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Spillway-Bucket", "X-Spillway-Synthetic", "X-Spillway-Rescued",
	"X-Spillway-Release", "X-Spillway-Track", "X-Spillway-Mirror",
}

// hopFields are about the connection or the framing.
var hopFields = []string{"Transfer-Encoding", "Content-Length", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization"}

// toldFields say for whom a request is forwarded, which a trusted peer may.
var toldFields = []string{"X-Real-Ip", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "Forwarded"}

// forgedLines are header lines with a value that must not arrive.
func forgedLines(names []string, spell func(string) string) string {
	var lines strings.Builder
	for _, name := range names {
		lines.WriteString(spell(name) + ": forged\r\n")
	}
	return lines.String()
}

func asItIs(name string) string { return name }

func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func half(name string) string { return strings.Replace(strings.ToLower(name), "-", "_", 1) }

// TestBehaviour_PassesNoForgedField: what the proxy says itself arrives once, whoever sends it in whatever spelling that a
// back end may take for the same.
func TestBehaviour_PassesNoForgedField(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := guarded(t, engine, shopAt(1, backend.addr))
		everything := slices.Concat(ownFields, hopFields, toldFields[:4])
		lines := forgedLines(everything, underscored) + forgedLines(everything, half) + "X_Own_1: kept\r\nx_: kept\r\n"
		check := func(who string, begin func(string) string, kept int) {
			t.Helper()
			backend.take()
			f.one(begin(lines + forgedLines(ownFields[3:], asItIs) + forgedLines(toldFields, asItIs)))
			_, requests := backend.take()
			if len(requests) != 1 {
				t.Fatalf("%s: the back end got %d requests", who, len(requests))
			}
			raw := requests[0].raw
			if n := strings.Count(raw, "forged"); n != kept || strings.Count(raw, "kept") != 2 {
				t.Errorf("%s: %d fields are passed on, want %d, and 2 to be kept:\n%s", who, n, kept, raw)
			}
		}
		get := func(lines string) string { return "GET / HTTP/1.1\r\n" + toShop + lines + "\r\n" }
		check("a trusted peer", get, len(toldFields))
		check("a stranger", func(lines string) string { return stranger + get(lines) }, 0)
		upgrade := "Connection: Upgrade\r\nUpgrade: mine\r\n"
		check("an upgrade of a stranger", func(lines string) string { return stranger + get(upgrade+lines) }, 0)
	})
}

// TestBehaviour_PassesNoForgedTrailer: a server may merge a trailer with the header.
func TestBehaviour_PassesNoForgedTrailer(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		table := shopAt(1, backend.addr)
		table.Route.Edges[0].Target = "www"
		table.Route.Rules = []spillway.HTTPRule{{
			Hosts: []string{"shop.test"}, Path: spillway.PathMatch{Kind: spillway.PathExact, Text: "/edited"},
			To: []spillway.Target{{Service: "www", Weight: 1}}, Request: &spillway.HeaderEdit{Remove: []string{"X-Secret"}, Set: []spillway.HeaderField{{Name: "X-Role", Value: "guest"}}},
		}}
		f := guarded(t, engine, table)
		names := slices.Concat(ownFields, hopFields, toldFields, []string{
			"Authorization", "Cookie", "Host", "Content-Type", "Content-Encoding", "Content-Range", "Expect", "Range", "If-None-Match", "Cache-Control", "X-One",
		})
		send := func(path, header, trailer string) arrival {
			t.Helper()
			f.one(path + " HTTP/1.1\r\n" + toShop + header + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailer + "X-Sum: 1\r\nx_own: 2\r\n\r\n")
			_, requests := backend.take()
			if len(requests) != 1 {
				t.Fatalf("the back end got %d requests", len(requests))
			}
			return requests[0]
		}
		trailer := forgedLines(names, asItIs) + forgedLines(names, func(name string) string { return strings.ToLower(underscored(name)) })
		trailer = strings.Replace(trailer, "x_one: forged\r\n", "", 1)
		for _, who := range []string{"", stranger} {
			a := send(who+"POST /", "Connection: X-One\r\nTrailer: X-Sum, Authorization\r\n", trailer)
			if a.body != "hello|X-Sum: 1|x_own: 2" && a.body != "hello|X-Sum: 1|X_own: 2" && a.body != "hello|X_own: 2|X-Sum: 1" {
				t.Errorf("behind the body the back end got %q", a.body)
			}
		}
		a := send("POST /edited", "X_Secret: forged\r\nX_Role: forged\r\n", "X-Secret: forged\r\nX-Role: forged\r\nx_role: forged\r\n")
		if strings.Contains(a.raw+a.body, "forged") || fmt.Sprint(a.header["x-role"]) != "[guest]" {
			t.Errorf("a rule is undone: %q %q", a.raw, a.body)
		}
	})
}

// http2Only are the protocols of clients and servers of HTTP/2 without TLS.
func http2Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// TestBehaviour_PassesNoForgedFieldOfHTTP2: the same of streams, from clients and to back ends.
func TestBehaviour_PassesNoForgedFieldOfHTTP2(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		got := make(chan http.Header, 2)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			got <- r.Header
			got <- r.Trailer
		}))
		server.Config.Protocols = http2Only()
		server.Start()
		defer server.Close()
		f := serve(t, engine)
		f.push(speaking(t, shopAt(2, server.Listener.Addr().String()), "h2c"))
		r, err := http.NewRequest("POST", "http://"+f.addr, io.MultiReader(strings.NewReader("hello")))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "shop.test"
		r.Trailer = http.Header{"X-Sum": {"kept"}}
		for _, name := range slices.Concat(ownFields, hopFields, toldFields[:4]) {
			r.Header[strings.ToLower(underscored(name))] = []string{"forged"}
			r.Trailer[http.CanonicalHeaderKey(underscored(name))] = []string{"forged"}
		}
		for _, name := range append(slices.Clone(ownFields), "Cookie", "X-Real-Ip") {
			r.Trailer[name] = []string{"forged"}
		}
		r.Header["x_own"] = []string{"kept"}
		c := &http.Client{Transport: &http.Transport{Protocols: http2Only()}, Timeout: patient}
		defer c.CloseIdleConnections()
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("answered %s", resp.Status)
		}
		for _, fields := range []http.Header{<-got, <-got} {
			text := fmt.Sprint(fields)
			if strings.Contains(text, "forged") || strings.Count(text, "kept") != 1 {
				t.Errorf("the back end got %s", text)
			}
		}
	})
}

// TestBehaviour_DatesItsOwnAnswers: pages, refusals before there is a request, and redirects.
func TestBehaviour_DatesItsOwnAnswers(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		f := guarded(t, engine, redirecting(1))
		for _, request := range []string{
			"GET /moved HTTP/1.1\r\n" + toShop + "\r\n", "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: nobody.test\r\n\r\n",
			"GET / HTTP/1.1\r\n\r\n", "CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n",
		} {
			a := f.one(request)
			if date, err := http.ParseTime(a.header.Get("Date")); err != nil || time.Since(date).Abs() > time.Minute || len(a.header["Date"]) != 1 {
				t.Errorf("%q: %d with Date %q", request, a.status, a.header["Date"])
			}
		}
	})
}

// TestBehaviour_RefusesTRACE: it would show the client what the proxy adds to its request. Other requests may follow.
func TestBehaviour_RefusesTRACE(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		backend := record(t, plainAnswer)
		f := serve(t, engine, backend.addr)
		h := f.say("TRACE / HTTP/1.1\r\n"+toShop+"\r\n"+"GET / HTTP/1.1\r\n"+toShop+"Connection: close\r\n\r\n", patient)
		if h.String() != "405 200 closed" || !strings.Contains(h.answers[0].body, "TRACE is not served") {
			t.Errorf("answered %s: %s", h, shorten(h.text))
		}
		r, err := http.NewRequest("TRACE", "http://"+f.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "shop.test"
		c := &http.Client{Transport: &http.Transport{Protocols: http2Only()}, Timeout: patient}
		defer c.CloseIdleConnections()
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 405 || resp.ProtoMajor != 2 {
			t.Errorf("%s answers %s", resp.Proto, resp.Status)
		}
		if _, requests := backend.take(); len(requests) != 1 {
			t.Errorf("the back end got %d requests, want the GET only", len(requests))
		}
	})
}

// TestBehaviour_TellsUsersNoAddressBehindIt: pages say why; which socket of which machine it was is for the log.
func TestBehaviour_TellsUsersNoAddressBehindIt(t *testing.T) {
	address := regexp.MustCompile(`127\.0\.0\.\d`)
	nobody := func(t *testing.T) string { return free(t) }
	resetting := func(t *testing.T) string {
		return accept(t, func(conn net.Conn) {
			if _, err := readHead(bufio.NewReader(conn)); err == nil {
				conn.(*net.TCPConn).SetLinger(0)
			}
		})
	}
	silent := func(t *testing.T) string { return accept(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }) }
	engines(t, func(t *testing.T, engine string) {
		for _, row := range []struct {
			name    string
			backend func(t *testing.T) string
			status  int
			why     string
			logs    bool // the address
		}{
			{"nobody listens", nobody, 502, "www.1-1 cannot be connected to: connect: connection refused", true},
			{"resets", resetting, 502, "www.1-1 closed the connection before it answered: read: connection reset by peer", false},
			{"does not answer", silent, 504, "www.1-1 did not answer in time: no answer within 50ms: i/o timeout", true},
			{"outside, nobody listens", nobody, 502, "www@legacy cannot be connected to: connect: connection refused", true},
			{"HTTP/2, nobody listens", nobody, 502, "www.1-1 cannot be connected to: connect: connection refused", true},
			{"HTTP/2, resets", resetting, 502, "www.1-1 closed the connection before it answered: ", false},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				backend := row.backend(t)
				table := shopAt(1, backend)
				table.Route.Edges[0].Target = "www"
				switch {
				case row.status == 504:
					table.Route.Rules = []spillway.HTTPRule{{Hosts: []string{"shop.test"}, To: []spillway.Target{{Service: "www", Weight: 1}}, Timeout: spillway.Duration(50 * time.Millisecond)}}
				case strings.HasPrefix(row.name, "outside"):
					table.Endpoints = nil
					table.Route.Edges[0].Backends = []spillway.Backend{{Track: "legacy", URLs: []string{"http://" + backend}, Weight: spillway.Whole}}
				case strings.HasPrefix(row.name, "HTTP/2"):
					table = speaking(t, table, "h2c")
				}
				f := guarded(t, engine, table)
				a := f.one("POST / HTTP/1.1\r\n" + toShop + "\r\n")
				reason := a.header.Get("X-Spillway-Reason")
				same := reason == row.why || strings.HasSuffix(row.why, ": ") && strings.HasPrefix(reason, row.why) // by HTTP/2 it depends on what was being done
				if a.status != row.status || !same || !strings.Contains(a.body, reason) || address.MatchString(fmt.Sprint(a)) {
					t.Errorf("answered %d %q:\n%s", a.status, reason, a.body)
				}
				if line := f.logged(1)[0]; row.logs && !address.MatchString(fmt.Sprint(line["reason"])) {
					t.Errorf("logged was the reason %q", line["reason"])
				}
			})
		}
	})
}
