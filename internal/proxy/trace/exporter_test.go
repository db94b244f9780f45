package trace

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// running starts an exporter. stop ends it and waits.
func running(t *testing.T, url, headers string) (e *Exporter, stop func()) {
	t.Helper()
	e, err := NewExporter(url, headers, "1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { // owned by the test; stop ends it
		defer close(ended)
		e.Run(t.Context(), done)
	}()
	stop = sync.OnceFunc(func() {
		close(done)
		<-ended
	})
	t.Cleanup(stop)
	return e, stop
}

func span(n byte) Span {
	return Span{Context: Context{Trace: ID{n}, Span: SpanID{n}}, Name: "GET", Begin: time.Now(), End: time.Now()}
}

func counts(t *testing.T, e *Exporter, sent, dropped uint64) {
	t.Helper()
	if s, d := e.Counts(); s != sent || d != dropped {
		t.Errorf("%d spans sent, %d dropped; want %d, %d", s, d, sent, dropped)
	}
}

func TestExporter_SendsWhatIsLeftAtTheEnd(t *testing.T) {
	var size, requests atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		size.Add(int64(len(b)))
		requests.Add(1)
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Api-Key") != "a b" {
			t.Errorf("%s with %v", r.URL, r.Header)
		}
	}))
	defer collector.Close()
	e, stop := running(t, collector.URL, "api-key=a%20b, nonsense")
	for i := range batched + 10 {
		e.Put(span(byte(i)))
	}
	stop()
	counts(t, e, batched+10, 0)
	if n := requests.Load(); n < 2 || n > 4 || size.Load() < batched*50 {
		t.Errorf("%d requests with %d bytes", n, size.Load())
	}
}

func TestExporter_TriesAgainWhatMayHelp(t *testing.T) {
	for status, want := range map[int][2]uint64{503: {1, 0}, 429: {1, 0}, 400: {0, 1}, 404: {0, 1}, 302: {0, 1}} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(status)
				}
			}))
			defer collector.Close()
			e, _ := running(t, collector.URL, "")
			e.Put(span(1))
			for deadline := time.Now().Add(10 * time.Second); ; {
				if s, d := e.Counts(); s+d > 0 || time.Now().After(deadline) {
					break
				}
				<-time.After(5 * time.Millisecond)
			}
			counts(t, e, want[0], want[1])
		})
	}
}

// Nobody waits for a collector that hangs, and it costs no more memory than the queue.
func TestExporter_CollectorThatHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // connected to, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, stop := running(t, "http://"+l.Addr().String(), "")
	const all = 3 * queued
	began := time.Now()
	for range all {
		e.Put(span(1))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%d spans took %v", all, took)
	}
	stop()
	if took := time.Since(began); took > lastTime+3*time.Second {
		t.Errorf("the end took %v", took)
	}
	counts(t, e, 0, all)
}

func TestNewExporter_RefusesWhatIsNoCollector(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:4318", "localhost:4318", "grpc://127.0.0.1:4317", "http://", "http://a/?x=1", "http://a b/"} {
		if _, err := NewExporter(url, "", "", nil); err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:4318") {
			t.Errorf("NewExporter(%q): %v", url, err)
		}
	}
	for url, want := range map[string]string{"http://a": "http://a/v1/traces", "https://a:1/": "https://a:1/v1/traces", "http://a/otlp/v1/traces": "http://a/otlp/v1/traces"} {
		if got, err := Collector(url); got != want {
			t.Errorf("Collector(%q) = %q, %v", url, got, err)
		}
	}
}
