package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// reply is what a Prometheus answers to an instant query
// (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
type reply struct {
	Status string `json:"status"` // "success" or "error"
	Error  string `json:"error"`
	Data   struct {
		ResultType string          `json:"resultType"` // "vector", "scalar", "matrix" or "string"
		Result     json.RawMessage `json:"result"`
	} `json:"data"`
}

// sample is one series of a vector. A histogram has no Value.
type sample struct {
	Metric map[string]string `json:"metric"`
	Value  point             `json:"value"`
}

// point is a time and a number as text: [1700000000.1, "0.93"].
type point []any

// number gives the value of a point; false when there is none, or it is not a number.
func (p point) number() (float64, bool) {
	if len(p) != 2 {
		return 0, false
	}
	text, _ := p[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && !math.IsNaN(v)
}

// query asks a Prometheus. The condition has to hold for every series that it finds; one that is no number
// is no answer at all, because nobody knows what it hides.
func (a *Asker) query(ctx context.Context, q question, text string) answer {
	if q.watch.Store == "" {
		return nobody("the app names no prometheus to ask")
	}
	form := url.Values{"query": {text}}
	address := strings.TrimSuffix(q.watch.Store, "/") + "/api/v1/query"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nobody("%v", bare(err))
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.send(req)
	if err != nil {
		return a.noAnswer(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostRead+1))
	if err != nil {
		return a.noAnswer(ctx, err)
	}
	if len(body) > mostRead {
		return nobody("the answer is longer than %d MiB: aggregate the series, as with max(…)", mostRead>>20)
	}
	var r reply
	err = json.Unmarshal(body, &r)
	switch {
	case err == nil && r.Status == "error":
		return nobody("the query failed: %s", oneLine([]byte(r.Error)))
	case resp.StatusCode != http.StatusOK:
		return nobody("%s from the store: %s", resp.Status, oneLine(body[:min(len(body), mostShown)]))
	case err != nil || r.Status != "success":
		return nobody("what answers at %s is no Prometheus", req.URL.Host)
	}
	return r.judge(q.watch.Gate, text)
}

// judge holds a result against the condition of a gate. The query is told when it found nothing.
func (r reply) judge(g spillway.Gate, query string) answer {
	var series []sample
	var err error
	switch r.Data.ResultType {
	case "vector":
		err = json.Unmarshal(r.Data.Result, &series)
	case "scalar":
		var p point
		err = json.Unmarshal(r.Data.Result, &p)
		series = []sample{{Value: p}}
	default:
		return nobody("the query gives a %s; it has to give one number a series", r.Data.ResultType)
	}
	if err != nil {
		return nobody("the answer cannot be read: %v", err)
	}
	if len(series) == 0 {
		return nobody("no series: nothing fits %s", query)
	}
	low, high := math.Inf(1), math.Inf(-1)
	var broken []string
	for _, s := range series {
		v, ok := s.Value.number()
		if !ok {
			return nobody("not a number%s", s.name())
		}
		holds, known := compare(v, g.Op, g.Value)
		if !known {
			return nobody("the gate compares with %q, which is none of < <= > >= ==", g.Op)
		}
		if !holds {
			broken = append(broken, figure(v)+s.name())
		}
		low, high = min(low, v), max(high, v)
	}
	switch {
	case len(broken) > 0 && len(series) == 1:
		return no(broken[0])
	case len(broken) > 0:
		slices.Sort(broken) // the store does not promise an order
		return no(fmt.Sprintf("%s, and in all %d of %d series do not hold", broken[0], len(broken), len(series)))
	case len(series) == 1:
		return yes(figure(low))
	}
	return yes(fmt.Sprintf("%s to %s in %d series", figure(low), figure(high), len(series)))
}

// name gives ` for {job="x"}`, or nothing for a series without labels.
func (s sample) name() string {
	if len(s.Metric) == 0 {
		return ""
	}
	var labels []string
	for k, v := range s.Metric {
		labels = append(labels, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(labels)
	return " for {" + strings.Join(labels, ", ") + "}"
}

func figure(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// compare is known when op is an operator of gates.
func compare(v float64, op string, limit float64) (holds, known bool) {
	switch op {
	case "<":
		return v < limit, true
	case "<=":
		return v <= limit, true
	case ">":
		return v > limit, true
	case ">=":
		return v >= limit, true
	case "==":
		return v == limit, true
	}
	return false, false
}
