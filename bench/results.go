package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
)

// results are what results.json holds: everything that was measured in one run.
type results struct {
	Date         string            `json:"date"`
	Commit       string            `json:"commit"` // of Spillway; with -dirty where files differed from it
	Note         string            `json:"note,omitempty"`
	Machine      machine           `json:"machine"`
	Versions     map[string]string `json:"versions"` // by peer or tool
	Rounds       int               `json:"rounds"`
	Seconds      float64           `json:"seconds"` // of each measurement, after a second to warm up
	Rate         float64           `json:"rate"`    // of the case "steady", requests a second
	Measurements []measurement     `json:"measurements"`
	Unmeasured   []unmeasured      `json:"unmeasured"`
}

// machine is where it was measured.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
}

// measurement is one proxy under one load in one round. Times are in microseconds.
type measurement struct {
	Case     string  `json:"case"`
	Peer     string  `json:"peer"`
	Round    int     `json:"round"` // 1, 2, …
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`
	RPS      float64 `json:"rps"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p999_us"`
	CPU      float64 `json:"cpu_us"`   // per request, of all processes of the proxy, user and system; 0 = there is no proxy
	RSS      int64   `json:"rss_kb"`   // the most that was seen under the load; 0 = there is no proxy
	Load     float64 `json:"load_avg"` // of the machine when it began: what others do shows here
}

// unmeasured is what could not be measured, and why.
type unmeasured struct {
	Peer   string `json:"peer"`
	Case   string `json:"case,omitempty"` // "" = all
	Reason string `json:"reason"`
}

// figure is one number of a measurement.
type figure func(m measurement) float64

func cpuOf(m measurement) float64 { return m.CPU }
func p99Of(m measurement) float64 { return m.P99 }
func rssOf(m measurement) float64 { return float64(m.RSS) / 1024 } // MB
func rpsOf(m measurement) float64 { return m.RPS }

// subject is a peer in a case.
type subject struct{ peer, testCase string }

// of gives the measurements of a subject by round.
func (r results) of(s subject) map[int]measurement {
	list := map[int]measurement{}
	for _, m := range r.Measurements {
		if m.Peer == s.peer && m.Case == s.testCase {
			list[m.Round] = m
		}
	}
	return list
}

// median is that of a figure over all rounds; not a number when there is none.
func (r results) median(s subject, f figure) float64 { return median(r.figures(s, f)) }

// figures are those of all rounds, sorted.
func (r results) figures(s subject, f figure) []float64 {
	var list []float64
	for _, m := range r.of(s) {
		list = append(list, f(m))
	}
	slices.Sort(list)
	return list
}

// ratio is the median of the ratios inside the rounds: what changes from round to round is the same for
// both. Not a number when no round has both.
func (r results) ratio(a, b subject, f figure) float64 { return median(r.ratios(a, b, f)) }

// ratios are those inside the rounds, sorted.
func (r results) ratios(a, b subject, f figure) []float64 {
	var list []float64
	others := r.of(b)
	for round, m := range r.of(a) {
		if other, ok := others[round]; ok && f(other) > 0 && f(m) > 0 {
			list = append(list, f(m)/f(other))
		}
	}
	slices.Sort(list)
	return list
}

// median of 1, 2, 4 is 2, of 1, 2, 4, 8 it is 3; of nothing it is not a number.
func median(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(list))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// save writes results.json.
func (r results) save(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("save the results: %w", err)
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// readResults reads what save wrote.
func readResults(file string) (r results, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", file, err)
	}
	return r, nil
}
