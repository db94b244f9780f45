package otlp

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// received are the spans that the receiver of the collector understood, with their resource.
type received struct {
	mu       sync.Mutex
	spans    []ptrace.Span
	resource map[string]any
}

func (r *received) take(_ context.Context, traces ptrace.Traces) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range traces.ResourceSpans().All() {
		r.resource = resource.Resource().Attributes().AsRaw()
		for _, scope := range resource.ScopeSpans().All() {
			for _, s := range scope.Spans().All() {
				r.spans = append(r.spans, s)
			}
		}
	}
	return nil
}

// of gives the span of a path.
func (r *received) of(path string) (ptrace.Span, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if v, ok := s.Attributes().Get("url.path"); ok && v.Str() == path {
			return s, true
		}
	}
	return ptrace.Span{}, false
}

// receive runs the receiver of OTLP over HTTP until the test ends.
func receive(t *testing.T, address string) *received {
	t.Helper()
	factory := otlpreceiver.NewFactory()
	conf := factory.CreateDefaultConfig()
	err := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": address}}}).Unmarshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	r := &received{}
	sink, err := consumer.NewTraces(r.take)
	if err != nil {
		t.Fatal(err)
	}
	c, err := factory.CreateTraces(t.Context(), receivertest.NewNopSettings(component.MustNewType("otlp")), conf, sink)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return r
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// app answers with the traceparent that it got. It is run by the server as this test program.
func app() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, r.Header.Get("Traceparent"))
	})
	_ = http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")), nil) // ends with the process
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "app" {
		app()
		return
	}
	os.Exit(m.Run())
}

// spillway builds the program, starts it with an app and gives the address where that answers.
func spillway(t *testing.T, flags ...string) (address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw") // short, because a unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "spillway"), "./cmd/spillway")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program under test: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("app: shop\nservices:\n  web:\n    run: [%q, app]\n    host: shop.localhost\n    health: /\n", self)
	if err := os.WriteFile(filepath.Join(dir, "spillway.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	address = free(t)
	up := exec.Command(filepath.Join(dir, "spillway"), append([]string{"up", dir, "--dir", filepath.Join(dir, "s"), "--http", address, "--listen", free(t)}, flags...)...)
	up.Stdout, up.Stderr = t.Output(), t.Output()
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }() // owned by the test; ends with up, which the cleanup ends
	t.Cleanup(func() {
		up.Process.Signal(os.Interrupt)
		if err := <-ended; err != nil {
			t.Errorf("up: %v", err)
		}
	})
	within(t, "the app to answer", func() bool { return get(t, address, "/", "") != "" })
	return address
}

// get asks for a path and gives the traceparent that the app got; "" = there was no answer of it.
func get(t *testing.T, address, path, parent string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop.localhost"
	if parent != "" {
		r.Header.Set("Traceparent", parent)
		r.Header.Set("Tracestate", "vendor=1")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text := make([]byte, 55)
	n, _ := resp.Body.Read(text)
	if resp.Header.Get("X-Spillway-Release") == "" {
		return ""
	}
	return string(text[:n])
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

func TestSpans_AreUnderstoodByTheReceiverOfTheCollector(t *testing.T) {
	collector := free(t)
	r := receive(t, collector)
	log := filepath.Join(t.TempDir(), "access.log")
	address := spillway(t, "--otlp", "http://"+collector, "--access-log", log)
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	sent := get(t, address, "/item?token=s3cret&q=1", "00-"+id+"-"+parent+"-01")
	get(t, address, "/fails", "00-"+id+"-"+parent+"-01")
	get(t, address, "/unseen", "00-"+id+"-"+parent+"-00")
	within(t, "two spans", func() bool { _, a := r.of("/item"); _, b := r.of("/fails"); return a && b })

	span, _ := r.of("/item")
	if got := fmt.Sprintf("00-%s-%s-01", span.TraceID(), span.SpanID()); got != sent || span.TraceID().String() != id || span.ParentSpanID().String() != parent {
		t.Errorf("the app got %s, the span is %s below %s", sent, got, span.ParentSpanID())
	}
	if span.Kind() != ptrace.SpanKindServer || span.Name() != "GET" || span.TraceState().AsRaw() != "vendor=1" || span.Status().Code() != ptrace.StatusCodeUnset || span.Flags() != 0x301 {
		t.Errorf("%s %q, state %q, status %s, flags %x", span.Kind(), span.Name(), span.TraceState().AsRaw(), span.Status().Code(), span.Flags())
	}
	if took := span.EndTimestamp().AsTime().Sub(span.StartTimestamp().AsTime()); took <= 0 || took > 30*time.Second || time.Since(span.StartTimestamp().AsTime()) > time.Minute {
		t.Errorf("from %s to %s", span.StartTimestamp(), span.EndTimestamp())
	}
	attrs := span.Attributes().AsRaw()
	for key, want := range map[string]any{
		"http.request.method": "GET", "url.scheme": "http", "url.path": "/item", "url.query": "token=REDACTED&q=1", "server.address": "shop.localhost",
		"http.response.status_code": int64(200), "client.address": "127.0.0.1", "network.protocol.version": "1.1", "user_agent.original": "Go-http-client/1.1",
		"http.response.body.size": int64(55), "spillway.app": "shop", "spillway.service": "web", "spillway.release": int64(1), "spillway.track": "stable", "spillway.replica": "web.1-1",
	} {
		if attrs[key] != want {
			t.Errorf("%s is %v (%T), want %v", key, attrs[key], attrs[key], want)
		}
	}
	if r.resource["service.name"] != "spillway" || r.resource["service.version"] == nil {
		t.Errorf("the resource is %v", r.resource)
	}
	failed, _ := r.of("/fails")
	if kind, _ := failed.Attributes().Get("error.type"); failed.Status().Code() != ptrace.StatusCodeError || kind.Str() != "500" {
		t.Errorf("a failure has the status %s, %s", failed.Status().Code(), kind.Str())
	}
	if _, seen := r.of("/unseen"); seen {
		t.Error("a span of what was not to be recorded")
	}
	inLog(t, log, "/item", id, span.SpanID().String())
}

// inLog finds the span of a path in the access log.
func inLog(t *testing.T, path, of, traceID, spanID string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var l struct {
			Path    string `json:"path"`
			TraceID string `json:"trace_id"`
			SpanID  string `json:"span_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if l.Path == of {
			if l.TraceID != traceID || l.SpanID != spanID {
				t.Errorf("the access log says %s", line)
			}
			return
		}
	}
	t.Errorf("%s is not in the access log:\n%s", of, text)
}
