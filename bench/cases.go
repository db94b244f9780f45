package main

import "slices"

// generator is what makes the load of a case.
type generator string

// The generators.
const (
	byWrk    generator = "wrk"    // HTTP/1, as fast as the connections allow
	byH2load generator = "h2load" // HTTP/2 over TLS, as fast as the streams allow
	bySteady generator = "steady" // HTTP/1 at a fixed rate: see steady.go
)

// testCase is one kind of load. The zero value asks for nothing.
type testCase struct {
	name        string // in results.json and for -cases
	title       string // for people
	by          generator
	path        string // at the backend: /200 or /64k
	connections int
	routes      int  // hosts that are asked, each with a route of its own; 1 = only localhost
	secure      bool // over TLS
	close       bool // a new connection for every request
	browser     bool // with the headers of a browser
	divided     bool // Spillway divides the users between two releases and judges the newer one
	peers       []string
}

// smallest and largest are the two numbers of routes beside one.
const (
	fewRoutes  = 1_000
	manyRoutes = 10_000
)

// everyPeer is measured in most cases, in this order or reversed.
func everyPeer() []string {
	return []string{"direct", "nginx", "haproxy", "spillway", "spillway-general", "plain", "traefik", "caddy"}
}

// cases are measured in this order. What is compared stands close together.
func cases() []testCase {
	all := everyPeer()
	proxies := all[1:]
	routers := slices.DeleteFunc(slices.Clone(proxies), func(p string) bool { return p == "plain" || p == "spillway-general" })
	return []testCase{
		{name: "small", title: "200 B, keep-alive, 50 connections", by: byWrk, path: "/200", connections: 50, routes: 1, divided: true, peers: all},
		{name: "undivided", title: "200 B, keep-alive, Spillway with one release and no trial", by: byWrk, path: "/200", connections: 50, routes: 1,
			peers: []string{"haproxy", "spillway", "spillway-general"}},
		{name: "routes-1000", title: "200 B, keep-alive, 1,000 routes", by: byWrk, path: "/200", connections: 50, routes: fewRoutes, divided: true, peers: routers},
		{name: "routes-10000", title: "200 B, keep-alive, 10,000 routes", by: byWrk, path: "/200", connections: 50, routes: manyRoutes, divided: true, peers: routers},
		{name: "close", title: "200 B, a connection per request, 50 at once", by: byWrk, path: "/200", connections: 50, routes: 1, close: true, divided: true, peers: all},
		{name: "browser", title: "200 B, keep-alive, 900 B of request headers", by: byWrk, path: "/200", connections: 50, routes: 1, browser: true, divided: true, peers: all},
		{name: "large", title: "64 KB, keep-alive, 50 connections", by: byWrk, path: "/64k", connections: 50, routes: 1, divided: true, peers: all},
		{name: "tls", title: "200 B, TLS, HTTP/1.1, 900 B of request headers", by: byWrk, path: "/200", connections: 50, routes: 1, secure: true, browser: true, divided: true, peers: proxies},
		{name: "h2", title: "200 B, TLS, HTTP/2, 10 connections of 5 streams, 900 B of request headers", by: byH2load, path: "/200", connections: 10, routes: 1, secure: true, browser: true, divided: true, peers: proxies},
		{name: "rss", title: "200 B, keep-alive, 100 connections", by: byWrk, path: "/200", connections: 100, routes: 1, divided: true, peers: proxies},
		{name: "steady", title: "200 B, keep-alive, at a fixed rate", by: bySteady, path: "/200", connections: 50, routes: 1, divided: true,
			peers: []string{"direct", "nginx", "haproxy", "spillway", "spillway-general", "plain"}},
	}
}

// headers are those of every request of the case, beside Host and the user's.
func (c testCase) headers() [][2]string {
	var list [][2]string
	if c.browser {
		list = browserHeaders()
	}
	if c.close {
		list = append(list, [2]string{"Connection", "close"})
	}
	return list
}
