package main

// goal is a figure that Spillway wants to reach.
type goal struct {
	text  string
	limit float64
	value func(r results) []float64 // in each round, sorted; none = not measured
}

// Limits of the gate: CPU per request, divided by that of httputil.ReverseProxy in the same run.
const (
	gateDefault = 0.45
	gateGeneral = 0.65
)

// goals are checked in every run and printed in this order.
func goals() []goal {
	against := func(text, testCase, peer, other string, f figure, limit float64) goal {
		return goal{text, limit, func(r results) []float64 { return r.ratios(subject{peer, testCase}, subject{other, testCase}, f) }}
	}
	return []goal{
		against("CPU, 200 B, of HAProxy's", "small", "spillway", "haproxy", cpuOf, 1.25),
		against("CPU, 200 B, of Caddy's", "small", "spillway", "caddy", cpuOf, 0.28),
		against("CPU, 200 B, of Traefik's", "small", "spillway", "traefik", cpuOf, 0.33),
		against("CPU, 200 B, of httputil.ReverseProxy's", "small", "spillway", "plain", cpuOf, gateDefault),
		against("CPU, 200 B, general engine, of httputil.ReverseProxy's", "small", "spillway-general", "plain", cpuOf, gateGeneral),
		against("CPU, 64 KB, of HAProxy's", "large", "spillway", "haproxy", cpuOf, 0.95),
		against("CPU, TLS and HTTP/1.1, of HAProxy's", "tls", "spillway", "haproxy", cpuOf, 1.25),
		against("CPU, TLS and HTTP/2, of HAProxy's", "h2", "spillway", "haproxy", cpuOf, 3.6),
		against("CPU, TLS and HTTP/2, of Caddy's", "h2", "spillway", "caddy", cpuOf, 0.50),
		against("99th percentile at the same rate, of HAProxy's", "steady", "spillway", "haproxy", p99Of, 1.3),
		{"CPU with 10,000 routes, of that with one", 1.1, func(r results) []float64 {
			return r.ratios(subject{"spillway", "routes-10000"}, subject{"spillway", "small"}, cpuOf)
		}},
		{"memory at 100 connections, MB", 40, func(r results) []float64 { return r.figures(subject{"spillway", "rss"}, rssOf) }},
	}
}

// verdict says in a word whether a goal is reached.
func (g goal) verdict(rounds []float64) string {
	switch {
	case len(rounds) == 0:
		return "not measured"
	case median(rounds) <= g.limit:
		return "reached"
	}
	return "**missed**"
}
