package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/linelog"
	"github.com/spillway-dev/spillway/internal/proxy/trace"
)

// Seen says what is to be seen of requests besides the counts, which are always kept. The zero value is nothing.
type Seen struct {
	// AccessLog is the file that gets a line of JSON for each request: an absolute path, or "-" for the
	// standard output. "" = none.
	AccessLog string `json:"access_log,omitempty"`
	// LogSample is the share of requests that are logged. Failures always are.
	LogSample spillway.Share `json:"log_sample,omitempty"`
	// Metrics is the address at which GET /metrics is answered for Prometheus: "127.0.0.1:7301". Nobody has to
	// authenticate there. "" = nowhere.
	Metrics string `json:"metrics,omitempty"`
	// OTLP is the collector that gets a span for each request: "http://127.0.0.1:4318". "" = none. The variable
	// OTEL_EXPORTER_OTLP_HEADERS of the process says what else it wants in the header.
	OTLP string `json:"otlp,omitempty"`
	// TraceSample is the share of the traces begun here that are recorded. Of traces begun by others, their
	// beginning says so.
	TraceSample spillway.Share `json:"trace_sample,omitempty"`
}

// record is one request as it is seen once it has ended. Whoever serves it fills it in.
type record struct {
	call  *call         // nil = it could not be read
	began time.Time     // when its first byte, or nearly, had come
	whole time.Duration // until its answer had ended; 0 = until now
	first time.Duration // until the first byte of its answer, after began; 0 = none came
	dial  time.Duration // spent on connecting to replicas; 0 = a kept connection was there

	status  int  // of the answer; 0 = none began
	left    bool // the client went away, or broke off its body
	broken  bool // the answer broke off on the replica's side
	refused refusedFor
	why     string // of a refusal, or of what is broken, in words

	in, out int64  // bytes of the bodies
	edge    *edge  // nil = it came to no edge
	arm     *arm   // the last that it was sent to; nil = to none
	replica string // endpoint.name of the last
	route   string // name of the rule that fitted; "" = none has a name. Bounded by what the tables say
	bucket  spillway.Share
	retries int  // attempts after the first
	rescued bool // the candidate failed it, so that it was stable's to answer
	failing *arm // the candidate that did; nil = none, or the replaced process knows
	fast    bool // the fast engine had all of it
	trace   traceState
}

// refusedFor is why the proxy answered by itself, sorted into few classes.
type refusedFor uint8

// Reasons of refusals. Their names are in refusals.
const (
	notRefused  refusedFor = iota
	noHost                 // no app answers to the host
	noBackend              // the edge is closed, or its app was removed
	noReplica              // none was ready in time
	unreachable            // nobody could be connected to
	unanswered             // the connection closed before an answer
	tooLate                // no answer in time
	badRequest             // not to be understood, or its body broke off
	notAllowed             // the method, or a rule that keeps it out
	tooLarge               // its header or body
	tooMany                // the rate is limited, or a queue full
	replaced               // it could not be passed on to the proxy that has taken over
	refusedKinds
)

// refusals are the names of the reasons in logs and metrics.
var refusals = [refusedKinds]string{
	noHost: "no_host", noBackend: "no_backend", noReplica: "no_replica", unreachable: "unreachable",
	unanswered: "unanswered", tooLate: "timeout", badRequest: "bad_request", notAllowed: "not_allowed",
	tooLarge: "too_large", tooMany: "too_many", replaced: "replaced",
}

// failed reports whether a request is one that somebody will look for: the app failed it, or was not there.
// A host that nobody has is no such thing: anybody can ask for it, at any rate.
func (r *record) failed() bool {
	return r.status >= 500 || r.broken || r.refused > noHost
}

// code is the status as it is told: that of a client that did not wait for an answer is 499, as nginx has it.
func (r *record) code() int {
	if r.status == 0 && r.left {
		return 499
	}
	return r.status
}

// seen is what a plane does so that its requests can be seen. What has no use is nil and costs a comparison; the
// zero value only counts.
type seen struct {
	conf    Seen
	version string
	log     *linelog.Log     // nil = no access log
	spans   *trace.Exporter  // nil = no tracing
	metrics *net.TCPListener // nil = no exposition
	server  *http.Server     // of metrics

	unplaced   series                      // requests that came to no edge
	refusals   [refusedKinds]atomic.Uint64 // of them
	holds      atomic.Uint64               // requests that had to wait for a replica
	held       atomic.Int64                // those that wait now
	handshakes atomic.Uint64               // of TLS, failed
	overflow   atomic.Uint64               // connections that were too many
}

// open opens what is to be written to. It starts nothing and listens nowhere.
func (s *seen) open(c Config, log *slog.Logger) (err error) {
	s.conf, s.version = c.Seen, c.Version
	if c.Seen.AccessLog != "" {
		if s.log, err = linelog.Open(c.Seen.AccessLog, log); err != nil {
			return fmt.Errorf("access log: %w", err)
		}
	}
	if c.Seen.OTLP != "" {
		if s.spans, err = trace.NewExporter(c.Seen.OTLP, os.Getenv("OTEL_EXPORTER_OTLP_HEADERS"), c.Version, log); err != nil {
			return fmt.Errorf("otlp: %w", err)
		}
	}
	return nil
}

// startSeen begins to write and to answer, until drained is closed and what is left is written. group waits for it.
func (p *plane) startSeen(ctx context.Context, group *sync.WaitGroup) {
	s := &p.seen
	// All are owned by run, which waits for them; they end when the drain is over.
	if s.log != nil {
		group.Go(func() { s.log.Run(p.drained) })
	}
	if s.spans != nil {
		group.Go(func() { s.spans.Run(context.WithoutCancel(ctx), p.drained) })
	}
	if s.metrics != nil {
		s.server = p.metricsServer()
		group.Go(func() { p.serveMetrics() })
	}
}

// done sees a request that has ended. It is called once for each, by whoever served it, and never waits. A
// request that was passed on to an heir is seen there.
func (s *seen) done(r *record) {
	if r.whole == 0 {
		r.whole = time.Since(r.began)
	}
	s.count(r)
	if s.log != nil && (r.failed() || sampled(s.conf.LogSample)) {
		line := s.log.Buffer()
		*line = appendLine(*line, r)
		s.log.Put(line)
	}
	if r.trace.Flags&trace.Sampled != 0 && s.spans != nil {
		s.spans.Put(spanOf(r))
	}
}

func sampled(share spillway.Share) bool {
	return share >= spillway.Whole || rand.IntN(int(spillway.Whole)) < int(share)
}

// traceState is where a request stands in a trace. The zero value is that nothing is traced: what the client
// says about a trace then goes to the replica as it came.
type traceState struct {
	trace.Context
	state string // the tracestate that belongs to it
}

// trace finds out where a request stands. A replica gets Header as traceparent, and state as tracestate: both
// take the place of what came, unless Header is "".
func (s *seen) trace(c *call) traceState {
	if s.spans == nil {
		return traceState{}
	}
	parent, ok := parentOf(c)
	t := traceState{Context: parent.Child(float64(s.conf.TraceSample) / float64(spillway.Whole))}
	if !ok {
		return t // and what a tracestate of a trace that cannot be read says is of no use
	}
	for line := range c.header.All("Tracestate") {
		if t.state != "" && line != "" {
			t.state += ","
		}
		t.state += line
	}
	return t
}

// parentOf is the trace that the client says the request belongs to. Two of them are none.
func parentOf(c *call) (parent trace.Context, ok bool) {
	n := 0
	for line := range c.header.All("Traceparent") {
		n++
		parent, ok = trace.Parse(line)
	}
	if n != 1 || !ok {
		return trace.Context{}, false
	}
	return parent, true
}

// hold counts a request that waits for a replica, until the function that it gives is called.
func (s *seen) hold(first bool) (over func()) {
	if first {
		s.holds.Add(1)
	}
	s.held.Add(1)
	return func() { s.held.Add(-1) }
}

// unbind gives up the listener of metrics. Connections stay.
func (s *seen) unbind() {
	if s.metrics != nil {
		s.metrics.Close()
	}
}
