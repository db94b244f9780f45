package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
