package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

const (
	metricsName = "metrics " // before the address, in the name of the listener of metrics
	// metricsType is version 0.0.4 of the text format, which every Prometheus reads:
	// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
	// scrapeTime is how long the last scrape may take after the drain.
	scrapeTime  = 2 * time.Second
	scrapeGrace = 250 * time.Millisecond
	metricsType = "text/plain; version=0.0.4; charset=utf-8"
)

// metricsServer answers on the listener of metrics.
func (p *plane) metricsServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metricsType)
		_, _ = w.Write(p.exposition()) // the client went away
	})
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, WriteTimeout: headerTimeout, IdleTimeout: clientIdle, MaxHeaderBytes: http1.MaxHead,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}

// serveMetrics answers until the listener is closed, and then until the drain is over: whoever asks for the
// last counts on a connection that it has gets them.
func (p *plane) serveMetrics() {
	err := p.seen.server.Serve(p.seen.metrics)
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		p.log.Error("metrics are not served any more", "error", err)
	}
	p.seen.server.SetKeepAlivesEnabled(false) // each answer is the last of its connection from here on
	<-p.drained
	<-time.After(scrapeGrace) // Shutdown would cut a connection on which the first request is just coming
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.base), scrapeTime)
	defer cancel()
	_ = p.seen.server.Shutdown(ctx) // what is left is closed
	p.seen.server.Close()
}

// labels are names and values in turn. Those with an empty value are left out: to Prometheus that is the same.
type labels []string

// exposition is a text that is being written.
type exposition struct{ strings.Builder }

// family begins the metrics of a name.
func (e *exposition) family(name, kind, help string) {
	e.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

func (e *exposition) sample(name string, l labels, value float64) {
	e.WriteString(name)
	open := byte('{')
	for i := 0; i+1 < len(l); i += 2 {
		if l[i+1] == "" {
			continue
		}
		e.WriteByte(open)
		open = ','
		e.WriteString(l[i])
		e.WriteString(`="`)
		e.WriteString(escapeLabel(l[i+1]))
		e.WriteByte('"')
	}
	if open == ',' {
		e.WriteByte('}')
	}
	e.WriteByte(' ')
	e.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	e.WriteByte('\n')
}

// one writes a family of one metric.
func (e *exposition) one(name, kind, help string, value float64) {
	e.family(name, kind, help)
	e.sample(name, nil, value)
}

func escapeLabel(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\ufffd"))
}

// counted is one class of answers of one series, with all its labels.
type counted struct {
	labels labels
	sums   sums
}

// exposition is what GET /metrics answers. Names and labels are public: dashboards and rules are built on them.
func (p *plane) exposition() []byte {
	e := &exposition{}
	p.mu.Lock()
	list := p.counted()
	apps := slices.SortedFunc(maps.Values(p.apps), func(a, b *app) int { return cmp.Compare(a.ref, b.ref) })
	e.routes(apps)
	e.flight(p, apps)
	p.mu.Unlock()
	e.answers(list)
	e.refusals(&p.seen, apps)
	e.mirrors(apps)
	s := &p.seen
	e.one("spillway_proxy_requests_active", "gauge", "Requests that are being answered, or wait for a replica.", float64(p.active.Load()))
	e.one("spillway_proxy_requests_held", "gauge", "Requests that wait for a replica.", float64(s.held.Load()))
	e.one("spillway_proxy_holds_total", "counter", "Requests that had to wait for a replica.", float64(s.holds.Load()))
	e.one("spillway_proxy_tls_handshake_errors_total", "counter", "Connections that ended before TLS was agreed on.", float64(s.handshakes.Load()))
	e.one("spillway_proxy_connections_refused_total", "counter", "Connections that were closed at once, because too many were open.", float64(s.overflow.Load()))
	if s.log != nil {
		written, dropped := s.log.Counts()
		e.one("spillway_proxy_access_log_lines_total", "counter", "Lines written to the access log.", float64(written))
		e.one("spillway_proxy_access_log_dropped_total", "counter", "Lines of the access log that were dropped, because the disk was too slow or failed.", float64(dropped))
	}
	if s.spans != nil {
		sent, dropped := s.spans.Counts()
		e.one("spillway_proxy_spans_sent_total", "counter", "Spans that the collector took.", float64(sent))
		e.one("spillway_proxy_spans_dropped_total", "counter", "Spans that were dropped, because the collector was too slow or failed.", float64(dropped))
	}
	e.family("spillway_proxy_info", "gauge", "The program of the proxy.")
	e.sample("spillway_proxy_info", labels{"version", s.version}, 1)
	e.process()
	return []byte(e.String())
}

// counted lists all counts of requests, sorted. p.mu is held.
func (p *plane) counted() []counted {
	var list []counted
	add := func(l labels, s *series) {
		s.each(func(route string, a *answers) { list = a.list(list, l, route) })
	}
	for _, a := range p.apps {
		for key, s := range a.seen.all {
			add(key.labels(a.ref), s)
		}
	}
	add(nil, &p.seen.unplaced)
	slices.SortFunc(list, func(a, b counted) int { return slices.Compare(a.labels, b.labels) })
	return list
}

func (k seriesKey) labels(ref spillway.Ref) labels {
	l := labels{"app", string(ref), "service", k.service, "from", k.from}
	switch {
	case k.release != 0:
		l = append(l, "release", strconv.Itoa(k.release), "track", cmp.Or(k.track, "stable"))
	case k.track != "":
		l = append(l, "release", "", "track", k.track)
	}
	return l
}

func (a *answers) list(list []counted, l labels, route string) []counted {
	for class, code := range codes {
		if total, ok := a.sum(class); ok {
			list = append(list, counted{append(slices.Clip(l), "route", route, "code", code), total})
		}
	}
	return list
}

// answers writes what was counted of requests.
func (e *exposition) answers(list []counted) {
	for _, m := range [...]struct {
		name, help string
		value      func(*sums) uint64
		always     bool
	}{
		{"spillway_proxy_requests_total", "Requests that ended, by the release that answered and the class of its answer: 499 = the client did not wait for it.", func(s *sums) uint64 { return s.requests }, true},
		{"spillway_proxy_request_body_bytes_total", "Bytes of bodies that clients sent.", func(s *sums) uint64 { return s.in }, false},
		{"spillway_proxy_response_body_bytes_total", "Bytes of bodies that clients were sent.", func(s *sums) uint64 { return s.out }, false},
		{"spillway_proxy_retries_total", "Attempts after the first of a request.", func(s *sums) uint64 { return s.retries }, false},
		{"spillway_proxy_clients_left_total", "Requests whose client did not wait for the end of the answer.", func(s *sums) uint64 { return s.left }, false},
	} {
		e.family(m.name, "counter", m.help)
		for i := range list {
			if n := m.value(&list[i].sums); n > 0 || m.always {
				e.sample(m.name, list[i].labels, float64(n))
			}
		}
	}
	const name = "spillway_proxy_request_duration_seconds"
	e.family(name, "histogram", "How long requests took, from their first byte to the end of the answer.")
	for i := range list {
		e.histogram(name, &list[i])
	}
}

func (e *exposition) histogram(name string, c *counted) {
	below := uint64(0)
	for i, n := range c.sums.times {
		below += n
		end := "+Inf"
		if i < len(bounds) {
			end = strconv.FormatFloat(bounds[i].Seconds(), 'g', -1, 64)
		}
		e.sample(name+"_bucket", append(slices.Clip(c.labels), "le", end), float64(below))
	}
	e.sample(name+"_sum", c.labels, float64(c.sums.micros)/1e6)
	e.sample(name+"_count", c.labels, float64(below))
}

// routes writes what the tables say. plane.mu is held.
func (e *exposition) routes(apps []*app) {
	e.family("spillway_proxy_route_generation", "gauge", "The generation of the route that is served.")
	for _, a := range apps {
		e.sample("spillway_proxy_route_generation", labels{"app", string(a.ref)}, float64(a.table.Route.Generation))
	}
	const weight = "spillway_proxy_weight_ratio"
	e.family(weight, "gauge", "The share of users of a backend, as it is served.")
	for _, a := range apps {
		shares := map[seriesKey]spillway.Share{} // an edge of one track and the service's own may have one key
		for _, spec := range a.table.Route.Edges {
			if spec.Only != "" {
				continue
			}
			for _, b := range newEdge(a, spec, nil).served().Backends {
				key := seriesKey{spec.Service, spec.From.Service, b.Release, b.Track}
				if _, known := shares[key]; known && strings.HasSuffix(spec.Target, "@"+spillway.StableTrack) {
					continue // the service's own edge says more
				}
				shares[key] = b.Weight
			}
		}
		for _, key := range slices.SortedFunc(maps.Keys(shares), compareSeries) {
			e.sample(weight, key.labels(a.ref), float64(shares[key])/float64(spillway.Whole))
		}
	}
	e.rescues(apps)
	e.family("spillway_proxy_trips_total", "counter", "Candidates that the proxy took out of the route by itself.")
	for _, a := range apps {
		e.sample("spillway_proxy_trips_total", labels{"app", string(a.ref)}, float64(a.seen.trips.Load()))
	}
}

// rescues writes the failures that no user saw: they are not among the candidate's answers. plane.mu is held.
func (e *exposition) rescues(apps []*app) {
	const name = "spillway_proxy_rescued_total"
	e.family(name, "counter", "Requests that a candidate failed, so that stable was to answer them. They are counted as requests of stable.")
	for _, a := range apps {
		for _, key := range slices.SortedFunc(maps.Keys(a.seen.all), compareSeries) {
			if n := a.seen.all[key].rescued.Load(); n > 0 {
				e.sample(name, key.labels(a.ref), float64(n))
			}
		}
	}
}

func compareSeries(a, b seriesKey) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.from, b.from), cmp.Compare(a.release, b.release), cmp.Compare(a.track, b.track))
}

// flight writes what is going on now. plane.mu is held.
func (e *exposition) flight(p *plane, apps []*app) {
	const name = "spillway_proxy_requests_in_flight"
	e.family(name, "gauge", "Requests that a replica has, also those of a proxy that was replaced and still ends its own.")
	for _, a := range apps {
		open := p.inFlight(a)
		for _, replica := range slices.Sorted(maps.Keys(open)) {
			e.sample(name, labels{"app", string(a.ref), "replica", replica}, float64(open[replica]))
		}
	}
	const conns = "spillway_proxy_connections"
	e.family(conns, "gauge", "Open connections of clients, but for those that switched protocols.")
	e.sample(conns, labels{"listener", "http"}, float64(p.public.conns.Load()))
	if p.secure != nil {
		e.sample(conns, labels{"listener", "https"}, float64(p.secure.conns.Load()))
	}
	private := int64(0)
	for _, l := range p.listeners {
		private += l.conns.Load()
	}
	e.sample(conns, labels{"listener", "private"}, float64(private))
}

// refusals writes what the proxy answered by itself.
func (e *exposition) refusals(s *seen, apps []*app) {
	const name = "spillway_proxy_refused_total"
	e.family(name, "counter", "Requests that the proxy answered by itself, by reason.")
	for kind := notRefused + 1; kind < refusedKinds; kind++ {
		if n := s.refusals[kind].Load(); n > 0 {
			e.sample(name, labels{"reason", refusals[kind]}, float64(n))
		}
		for _, a := range apps {
			if n := a.seen.refusals[kind].Load(); n > 0 {
				e.sample(name, labels{"app", string(a.ref), "reason", refusals[kind]}, float64(n))
			}
		}
	}
}

// mirrors writes what became of copies.
func (e *exposition) mirrors(apps []*app) {
	const sent, skipped = "spillway_proxy_mirror_sent_total", "spillway_proxy_mirror_skipped_total"
	e.family(sent, "counter", "Copies of requests that mirrors were sent.")
	for _, a := range apps {
		if n := a.seen.mirrored.sent.Load(); n > 0 {
			e.sample(sent, labels{"app", string(a.ref)}, float64(n))
		}
	}
	e.family(skipped, "counter", "Copies that were not made, by reason: the body is larger than 64 KiB or was not read, 128 copies are under way, the mirror has no replica, or the client switches protocols.")
	for _, a := range apps {
		for kind := range a.seen.mirrored.skipped {
			if n := a.seen.mirrored.skipped[kind].Load(); n > 0 {
				e.sample(skipped, labels{"app", string(a.ref), "reason", skips[kind]}, float64(n))
			}
		}
	}
}
