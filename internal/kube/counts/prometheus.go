package counts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway/internal/judge"
)

// answer is what a Prometheus says to an instant query
// (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Result []struct {
			Metric labels `json:"metric"`
			Value  [2]any `json:"value"` // a time and a number as text
		} `json:"result"`
	} `json:"data"`
}

// query is the question for all wanted backends: what each instance of the gateway had counted when it was
// read last. It asks for counters and not for rates, because a rate of a series that has just begun does not
// exist, and that is what the first failures of a candidate are. Replicas of a Prometheus that hold the same
// are taken for one.
func (f Flavour) query(want wanted) string {
	pattern := strconv.Quote(f.pattern(slices.Collect(maps.Keys(want.names))))
	by := []string{"instance", "pod"}
	for _, l := range append(f.backendLabels(), f.statusLabel()) {
		by = append(by, l, "exported_"+l)
	}
	var selectors []string
	for _, l := range f.backendLabels() {
		if l == "namespace" {
			continue
		}
		p := pattern
		if f == Nginx && l == "service" { // namespace/service in names
			p = strconv.Quote(f.pattern(bareNames(want)))
		}
		selectors = append(selectors, fmt.Sprintf("%s{%s=~%s}", f.metric(), l, p), fmt.Sprintf("%s{exported_%s=~%s}", f.metric(), l, p))
	}
	return fmt.Sprintf("sum by (%s) (max without (prometheus, prometheus_replica, replica) (%s))", strings.Join(by, ", "), strings.Join(selectors, " or "))
}

// bareNames are the names of Services without their namespaces.
func bareNames(want wanted) []string {
	var names []string
	for n := range want.names {
		if _, name, ok := strings.Cut(n, "/"); ok {
			names = append(names, name)
		}
	}
	return names
}

// ask asks a Prometheus for what all instances of the gateway have counted.
func ask(ctx context.Context, client *http.Client, store string, flavour Flavour, want wanted, now time.Time) (reading, error) {
	r := reading{at: now, instances: map[string]instance{}, lagging: true}
	a, err := run(ctx, client, store, flavour.query(want))
	if err != nil {
		return r, err
	}
	for _, s := range a.Data.Result {
		text, _ := s.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !countable(value) {
			return r, fmt.Errorf("%s of %s is %q", flavour.metric(), flavour.cluster(s.Metric), text)
		}
		name := s.Metric["instance"] + " " + s.Metric["pod"]
		if _, ok := r.instances[name]; !ok {
			r.instances[name] = instance{At: now, Counters: map[string]judge.Tally{}}
		}
		c := counted{flavour: flavour, want: want, tallies: r.instances[name].Counters}
		c.add(series{s.Metric, value})
		r.known = true
	}
	if !r.known { // is there anything of the gateway?
		a, err := run(ctx, client, store, "count("+flavour.metric()+")")
		if err != nil {
			return r, err
		}
		r.known = len(a.Data.Result) > 0
	}
	return r, nil
}

// run runs an instant query whose result is a vector.
func run(ctx context.Context, client *http.Client, store, query string) (a answer, err error) {
	form := url.Values{"query": {query}}
	address := strings.TrimSuffix(store, "/") + "/api/v1/query"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return a, bare(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := fetch(ctx, client, req)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Status != "success" {
		if a.Error != "" {
			return a, fmt.Errorf("the query failed: %s", a.Error)
		}
		return a, errors.New("what it answers is not what a Prometheus does")
	}
	return a, nil
}
