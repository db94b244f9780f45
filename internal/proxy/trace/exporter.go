package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	queued  = 4096 // spans that wait; about 4 MB at the very most
	batched = 512  // spans in one request
	// A batch goes out when it is full, or when its first span is so old.
	batchAge = time.Second
	// Tries of one batch, with growing pauses: what comes meanwhile waits in the queue, or is dropped.
	tries    = 3
	tryPause = 500 * time.Millisecond
	sendTime = 5 * time.Second // for one try
	lastTime = 2 * time.Second // for what is left at the end
	tellPer  = time.Minute     // how often trouble is logged
)

// Exporter sends spans to a collector by OTLP over HTTP, in batches. Whoever has a span never waits for it:
// what the collector does not take in time is dropped and counted.
type Exporter struct {
	url     string
	header  http.Header
	version string
	log     *slog.Logger
	client  *http.Client
	queue   chan Span
	told    time.Time // of the last warning; belongs to Run

	sent, dropped atomic.Uint64
}

// NewExporter makes an exporter to the collector at an URL such as http://127.0.0.1:4318, whose path is
// /v1/traces when it has none. headers has the form of the variable OTEL_EXPORTER_OTLP_HEADERS:
// "api-key=abc,x-scope=shop". Nothing is sent before Run.
func NewExporter(collector, headers, version string, log *slog.Logger) (*Exporter, error) {
	u, err := Collector(collector)
	if err != nil {
		return nil, err
	}
	e := &Exporter{url: u, header: http.Header{}, version: version, log: log, queue: make(chan Span, queued)}
	for pair := range strings.SplitSeq(headers, ",") {
		key, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); ok && key != "" && err == nil {
			e.header.Set(key, value)
		}
	}
	e.header.Set("Content-Type", "application/x-protobuf")
	e.header.Set("User-Agent", "spillway/"+version)
	e.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// Collector is the address to which spans for a collector go, or what is wrong with its URL.
func Collector(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is no address of a collector; write http://127.0.0.1:4318", text)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// Put hands a span over. It never waits.
func (e *Exporter) Put(s Span) {
	select {
	case e.queue <- s:
	default:
		e.dropped.Add(1)
	}
}

// Counts are the spans that a collector took, and those that were dropped.
func (e *Exporter) Counts() (sent, dropped uint64) { return e.sent.Load(), e.dropped.Load() }

// Run sends spans until done is closed, and then, for a moment, what is left. ctx bounds all of it.
func (e *Exporter) Run(ctx context.Context, done <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The end must not wait for a collector that hangs. Owned by Run; ends with done or with ctx.
	go func() {
		select {
		case <-ctx.Done():
		case <-done:
			time.AfterFunc(lastTime, cancel)
		}
	}()
	for over := false; !over; {
		var batch []Span
		batch, over = e.gather(done)
		if len(batch) > 0 {
			e.deliver(ctx, batch, done)
		}
	}
	for len(e.queue) > 0 {
		batch, _ := e.gather(done)
		e.deliver(ctx, batch, done)
	}
	e.client.CloseIdleConnections()
}

// gather waits for the next batch. over: done is closed.
func (e *Exporter) gather(done <-chan struct{}) (batch []Span, over bool) {
	var old <-chan time.Time
	for len(batch) < batched {
		select {
		case s := <-e.queue:
			batch = append(batch, s)
			if old == nil {
				old = time.After(batchAge)
			}
			continue
		default:
		}
		select {
		case s := <-e.queue:
			batch = append(batch, s)
			if old == nil {
				old = time.After(batchAge)
			}
		case <-old:
			return batch, false
		case <-done:
			return batch, true
		}
	}
	return batch, false
}

// deliver sends a batch, a few times if need be; after done once only.
func (e *Exporter) deliver(ctx context.Context, batch []Span, done <-chan struct{}) {
	body := encode([]Attr{{"service.name", "spillway"}, {"service.version", e.version}}, "spillway.proxy", e.version, batch)
	var err error
	for try := range tries {
		if try > 0 {
			select {
			case <-time.After(tryPause << (try - 1)):
			case <-done:
			}
		}
		var again bool
		if again, err = e.post(ctx, body); err == nil {
			e.sent.Add(uint64(len(batch)))
			return
		}
		if !again {
			break
		}
	}
	e.dropped.Add(uint64(len(batch)))
	if now := time.Now(); now.Sub(e.told) > tellPer {
		e.told = now
		e.log.Warn("spans are dropped; requests are served as ever", "collector", e.url, "dropped", e.dropped.Load(), "error", err)
	}
}

// post makes one try. again: another one may help (https://opentelemetry.io/docs/specs/otlp/#failures-1).
func (e *Exporter) post(ctx context.Context, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header = e.header
	resp, err := e.client.Do(r)
	if err != nil {
		return ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded), err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, fmt.Errorf("the collector answered %s", resp.Status)
}
