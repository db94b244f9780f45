package counts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/spillway-dev/spillway/internal/judge"
)

// mostRead is how long an exposition may be. What is kept of it is far less: only the lines that are wanted.
const mostRead = 32 << 20

// The metrics that tell when a process began: of Prometheus client libraries, and of Envoy.
const (
	started = "process_start_time_seconds"
	uptime  = "envoy_server_uptime"
)

// scraped is what one instance showed.
type scraped struct {
	instance
	known bool    // the metric is there
	age   float64 // of the process, in seconds; 0 = Started says it
}

// scrape asks one instance of a gateway.
func scrape(ctx context.Context, client *http.Client, i Instance, flavour Flavour, want wanted, now time.Time) (scraped, error) {
	req, err := http.NewRequestWithContext(context.WithValue(ctx, dialKey{}, i.Address), http.MethodGet, i.URL, nil)
	if err != nil {
		return scraped{}, bare(err)
	}
	req.Header.Set("Accept", "text/plain; version=0.0.4")
	body, err := fetch(ctx, client, req)
	if err != nil {
		return scraped{}, err
	}
	s, err := parse(body, flavour, want)
	s.At = now
	if s.age > 0 {
		s.Started = float64(now.Unix()) - s.age
	}
	return s, err
}

// dialKey is that of Instance.Address in the context of a request.
type dialKey struct{}

// dial connects to the instance that a request is for, whatever the name in its URL means.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	if to, _ := ctx.Value(dialKey{}).(string); to != "" {
		address = to
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// fetch gives the body of a good answer.
func fetch(ctx context.Context, client *http.Client, req *http.Request) ([]byte, error) {
	req.Header.Set("User-Agent", "spillway")
	began := time.Now()
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close() //nolint:errcheck // read only
		if resp.StatusCode != http.StatusOK {
			var a answer // of a Prometheus
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			if json.Unmarshal(said, &a) == nil && a.Error != "" {
				return nil, fmt.Errorf("it answers %s: %s", resp.Status, a.Error)
			}
			return nil, fmt.Errorf("it answers %s", resp.Status)
		}
		var body []byte
		if body, err = io.ReadAll(io.LimitReader(resp.Body, mostRead+1)); err == nil {
			if len(body) > mostRead {
				return nil, fmt.Errorf("its answer is longer than %d MiB", mostRead>>20)
			}
			return body, nil
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer within %v", time.Since(began).Round(100*time.Millisecond))
	}
	return nil, bare(err)
}

// bare takes the URL out of an error: it may hold a password.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// parse reads an exposition (https://prometheus.io/docs/instrumenting/exposition_formats/).
func parse(body []byte, flavour Flavour, want wanted) (scraped, error) {
	metrics := []string{flavour.metric(), flavour.rules(), started, uptime}
	histogram, unit := flavour.times()
	if want.times {
		metrics = append(metrics, histogram)
	}
	kept, err := keep(body, metrics)
	if err != nil {
		return scraped{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(kept)
	if err != nil {
		return scraped{}, fmt.Errorf("its metrics cannot be read: %w", err)
	}
	all := map[string][]series{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			s := series{labels: labels{}, value: m.GetCounter().GetValue() + m.GetUntyped().GetValue() + m.GetGauge().GetValue()}
			for _, p := range m.GetLabel() {
				s.labels[p.GetName()] = p.GetValue()
			}
			if !countable(s.value) {
				return scraped{}, fmt.Errorf("%s of %v is %v", name, s.labels, s.value)
			}
			all[name] = append(all[name], s)
		}
	}
	c := counted{flavour: flavour, want: want, tallies: map[string]judge.Tally{}}
	c.addRules(all[flavour.metric()], all[flavour.rules()])
	s := scraped{instance: instance{Counters: c.tallies}, known: len(all[flavour.metric()]) > 0}
	if want.times && histogram != "" {
		s.Times, s.Timed = c.timesOf(all[histogram], unit), true
	}
	for _, x := range all[started] {
		s.Started = x.value
	}
	for _, x := range all[uptime] {
		s.age = x.value
	}
	return s, nil
}

// keep gives the lines of an exposition that are about the metrics. The others are passed over unread, so that a
// gateway with many costs little.
func keep(body []byte, metrics []string) (io.Reader, error) {
	var kept bytes.Buffer
	any := false
	for line := range bytes.Lines(body) {
		text := bytes.TrimPrefix(line, []byte("# TYPE "))
		any = any || len(text) < len(line)
		if slices.ContainsFunc(metrics, func(m string) bool { return begins(text, m) }) {
			kept.Write(line)
		}
	}
	if !any {
		return nil, errors.New("what it answers are no metrics")
	}
	if kept.Len() > 0 && kept.Bytes()[kept.Len()-1] != '\n' {
		return nil, errors.New("its metrics end in the middle of a line")
	}
	return &kept, nil
}

// begins reports whether a line is about a metric.
func begins(line []byte, metric string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(metric))
	return ok && metric != "" && len(rest) > 0 && (rest[0] == '{' || rest[0] == ' ' || rest[0] == '\t')
}

// countable reports whether a number can be a count.
func countable(v float64) bool { return v >= 0 && v <= 1<<53 && !math.IsNaN(v) }

// name tells an instance from others, and may be shown.
func (i Instance) name() string {
	u, err := url.Parse(i.URL)
	if err != nil || u.Host == "" || i.Address == "" {
		return place(i.URL)
	}
	return place((&url.URL{Scheme: "http", Host: i.Address, Path: u.Path}).String())
}

// place is the part of a URL that may be shown, and tells instances apart.
func place(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host + strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/metrics")
	}
	return "a URL that cannot be read"
}
