package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
	"github.com/spillway-dev/spillway/internal/proxy/linelog"
	"github.com/spillway-dev/spillway/internal/proxy/trace"
)

// wireFields reads a message of Protocol Buffers: its fields with a length, by number. What test/otlp does
// with the official decoder is not done again here.
func wireFields(t *testing.T, b []byte) map[int][][]byte {
	t.Helper()
	fields := map[int][][]byte{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		size, skip := uint64(0), n
		switch tag & 7 {
		case 0:
			_, m := binary.Uvarint(b[n:])
			size = uint64(m)
		case 1:
			size = 8
		case 2:
			l, m := binary.Uvarint(b[n:])
			size, skip = l, n+m
		case 5:
			size = 4
		}
		if n <= 0 || uint64(len(b)-skip) < size || size == 0 && tag&7 != 2 {
			t.Fatalf("no message: %x", b)
		}
		fields[int(tag>>3)] = append(fields[int(tag>>3)], b[skip:skip+int(size)])
		b = b[skip+int(size):]
	}
	return fields
}

// receiver is a collector that knows just enough.
type receiver struct {
	url   string
	mu    sync.Mutex
	spans []map[int][][]byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, resource := range wireFields(t, b)[1] {
			for _, scope := range wireFields(t, resource)[2] {
				for _, span := range wireFields(t, scope)[2] {
					r.spans = append(r.spans, wireFields(t, span))
				}
			}
		}
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *receiver) got() []map[int][][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spans
}

// echoTrace answers with the trace headers that it got.
func echoTrace(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode([2][]string{r.Header["Traceparent"], r.Header["Tracestate"]})
}

const (
	traceID  = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampled1 = "00-" + traceID + "-00f067aa0ba902b7-01"
	sampled0 = "00-" + traceID + "-00f067aa0ba902b7-00"
)

func traced(t *testing.T, a answer) (parent trace.Context, state []string) {
	t.Helper()
	var got [2][]string
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got[0]) > 1 {
		t.Fatalf("the replica got %q", got[0])
	}
	if len(got[0]) == 1 {
		parent, _ = trace.Parse(got[0][0])
	}
	return parent, got[1]
}

func TestTrace_PassesOnWhatComesWhenItIsOff(t *testing.T) {
	p := start(t, tempDir(t), false)
	p.push(alone(1, replica(t, echoTrace)))
	for _, parent := range []string{sampled1, "00-nonsense", "cc-" + traceID + "-00f067aa0ba902b7-01-more"} {
		if a := p.get("/", "Traceparent", parent, "Tracestate", "a=1"); strings.TrimSpace(a.body) != `[["`+parent+`"],["a=1"]]` {
			t.Errorf("of %s, the replica got %s", parent, a.body)
		}
	}
	if a := p.get("/"); strings.TrimSpace(a.body) != `[null,null]` {
		t.Errorf("of nothing, the replica got %s", a.body)
	}
}

func TestTrace_GoesOnWithATraceAndExportsASpan(t *testing.T) {
	t.Parallel()
	collector := newReceiver(t)
	p := startSeen(t, tempDir(t), false, Seen{OTLP: collector.url, TraceSample: 0})
	p.push(alone(1, replica(t, echoTrace)))
	at, state := traced(t, p.get("/x", "Traceparent", sampled1, "Tracestate", "a=1,b=2"))
	if at.Trace.String() != traceID || at.Span.String() == "00f067aa0ba902b7" || at.Flags != trace.Sampled || len(state) != 1 || state[0] != "a=1,b=2" {
		t.Errorf("the replica got %s, %q", at.Header(), state)
	}
	eventually(t, "a span", func() bool { return len(collector.got()) > 0 })
	span := collector.got()[0]
	for field, want := range map[int]string{1: traceID, 2: at.Span.String(), 4: "00f067aa0ba902b7", 3: hex.EncodeToString([]byte("a=1,b=2")), 5: hex.EncodeToString([]byte("GET"))} {
		if got := hex.EncodeToString(span[field][0]); got != want {
			t.Errorf("field %d of the span is %s, want %s", field, got, want)
		}
	}
	// Neither the share of 0 nor the parent wants these; but replicas hear of the trace all the same.
	if at, _ := traced(t, p.get("/", "Traceparent", sampled0)); at.Trace.String() != traceID || at.Flags != 0 {
		t.Errorf("the replica got %s", at.Header())
	}
	if at, state := traced(t, p.get("/", "Tracestate", "a=1", "Traceparent", "00-nonsense")); at.Flags&trace.Sampled != 0 || at.Trace == (trace.ID{}) || state != nil {
		t.Errorf("the replica got %s, %q", at.Header(), state)
	}
	p.stop() // sends what is left
	if n := len(collector.got()); n != 1 {
		t.Errorf("%d spans", n)
	}
}

// The collector is nobody's business but the exporter's: requests are answered as ever.
func TestTrace_CollectorThatIsDown(t *testing.T) {
	t.Parallel()
	p := startSeen(t, tempDir(t), false, Seen{OTLP: "http://" + refused(t), TraceSample: spillway.Whole, Metrics: "127.0.0.1:0"})
	p.push(alone(1, replica(t, text("one"))))
	for range 50 {
		if a := p.get("/"); a.body != "one" {
			t.Fatalf("%+v", a)
		}
	}
	eventually(t, "50 spans to be dropped", func() bool { return p.metrics()["spillway_proxy_spans_dropped_total"] == 50 })
}

func FuzzAppendJSON(f *testing.F) {
	for _, s := range []string{"", "a\"b\\c\n\x00\x7f", "\u0085\u2028\u202e\ufeff", "\xff\xc3", strings.Repeat("ä", 2000), "\U0010ffff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendJSON(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if !utf8.Valid(b) || strings.ContainsFunc(string(b), unicode.IsControl) {
			t.Errorf("%q", b)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); len(s) < maxField && utf8.ValidString(s) && back != want {
			t.Errorf("%q became %q", want, back)
		}
	})
}

func FuzzWithoutSecrets(f *testing.F) {
	for _, s := range []string{"", "a=1", "token=x", "a=1&access_token=x;b=2", "&&=", "token", "t%6fken=x", "filter%5Bname%5D=x", "a=token=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := withoutSecrets(query)
		if again := withoutSecrets(got); again != got {
			t.Errorf("%q becomes %q, and that %q", query, got, again)
		}
		if strings.Count(got, "&") != strings.Count(query, "&") || strings.Count(got, ";") != strings.Count(query, ";") {
			t.Errorf("%q becomes %q", query, got)
		}
	})
}

func TestWithoutSecrets(t *testing.T) {
	for query, want := range map[string]string{
		"":                            "",
		"q=cats&page=2":               "q=cats&page=2",
		"token=x":                     "token=REDACTED",
		"a=1&Access_Token=x&b=2":      "a=1&Access_Token=REDACTED&b=2",
		"a=1;password=x;b=2":          "a=1;password=REDACTED;b=2",
		"token&b=2":                   "token&b=2",
		"token=":                      "token=",
		"X-Amz-Signature=x&X-Amz-A=1": "X-Amz-Signature=REDACTED&X-Amz-A=1",
		"t%6Fken=x":                   "t%6Fken=REDACTED",
		"filter%5Bname%5D=x":          "filter%5Bname%5D=x",
		"a=b=token":                   "a=b=token",
	} {
		if got := withoutSecrets(query); got != want {
			t.Errorf("%q becomes %q, want %q", query, got, want)
		}
	}
}

// finished is a record as the end of an ordinary request gives it.
func finished() (*seen, *record) {
	a := &app{ref: shop}
	spec := alone(1).Route.Edges[0]
	e := &edge{app: a, spec: spec, series: a.series(spec, nil)}
	e.arms = []arm{{Backend: spec.Backends[0], name: "www.1", series: a.series(spec, &spec.Backends[0])}}
	c := &call{method: "GET", major: 1, minor: 1, client: netip.MustParseAddr("192.0.2.1")}
	c.aim("shop.test", "/products/4711?colour=green")
	c.header = http1.Fields{{Name: "Host", Value: "shop.test"}, {Name: "User-Agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}, {Name: "Accept", Value: "*/*"}}
	return &seen{}, &record{call: c, began: time.Now(), whole: 1500 * time.Microsecond, first: time.Millisecond, status: 200, out: 200,
		edge: e, arm: &e.arms[0], replica: "www.1-1", bucket: 4711}
}

func TestSeen_DoneAllocatesNothingWhenOff(t *testing.T) {
	s, r := finished()
	s.done(r)
	if n := testing.AllocsPerRun(1000, func() { s.trace(r.call); s.done(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	r.route = "checkout"
	s.done(r)
	if n := testing.AllocsPerRun(1000, func() { s.done(r) }); n != 0 {
		t.Errorf("%v allocations with a named rule", n)
	}
}

func BenchmarkDone(b *testing.B) {
	run := func(name string, s *seen, r *record) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				mine := *r
				for pb.Next() {
					mine.trace = s.trace(mine.call)
					s.done(&mine)
				}
			})
		})
	}
	s, r := finished()
	run("off", s, r)
	log, err := linelog.Open(filepath.Join(b.TempDir(), "log"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { // owned by the benchmark, which closes done and waits
		defer close(ended)
		log.Run(done)
	}()
	run("log", &seen{log: log, conf: Seen{LogSample: spillway.Whole}}, r)
	run("log 1%", &seen{log: log, conf: Seen{LogSample: spillway.Percent(1)}}, r)
	close(done)
	<-ended
	spans, err := trace.NewExporter("http://127.0.0.1:1", "", "", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	run("spans 1%", &seen{spans: spans, conf: Seen{TraceSample: spillway.Percent(1)}}, r)
}
