package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// sample has HAProxy twice as dear in the second round, as on a machine that became busy.
func sample() results {
	r := results{Date: "2026-01-02T03:04:05Z", Machine: machine{CPU: "A <& B>", Cores: 2}, Versions: map[string]string{"nginx": "1.2"}}
	for i, cpu := range []float64{20, 40, 22} {
		r.Measurements = append(r.Measurements,
			measurement{Case: "small", Peer: "haproxy", Round: i + 1, CPU: cpu, RPS: 1000, P99: 2000},
			measurement{Case: "small", Peer: "spillway", Round: i + 1, CPU: cpu * 1.5, RPS: 500, P99: 3000},
			measurement{Case: "small", Peer: "direct", Round: i + 1, RPS: 3000, P99: 100})
	}
	r.Measurements = append(r.Measurements, measurement{Case: "small", Peer: "caddy", Round: 1, CPU: 100})
	r.Unmeasured = []unmeasured{{Peer: "traefik", Reason: "it was\nnot built"}}
	return r
}

func TestRatio_IsTheMedianOfThoseInsideTheRounds(t *testing.T) {
	r := sample()
	if got := r.ratio(subject{"spillway", "small"}, subject{"haproxy", "small"}, cpuOf); got != 1.5 {
		t.Errorf("ratio = %g, want 1.5", got)
	}
	if got := r.ratio(subject{"spillway", "small"}, subject{"caddy", "small"}, cpuOf); got != 0.3 {
		t.Errorf("ratio = %g, want that of the only round with both, 0.3", got)
	}
	for _, none := range []string{"traefik", "direct"} {
		if got := r.ratio(subject{"spillway", "small"}, subject{none, "small"}, cpuOf); !math.IsNaN(got) {
			t.Errorf("ratio to %s = %g, want not a number", none, got)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		list []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{4, 1, 2}, 2}, {[]float64{8, 1, 4, 2}, 3}} {
		if got := median(tt.list); got != tt.want {
			t.Errorf("median(%v) = %g, want %g", tt.list, got, tt.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %g", got)
	}
}

func TestReport_HasGoalsTablesAndWhatIsMissing(t *testing.T) {
	text := report(sample())
	for _, want := range []string{
		"| CPU, 200 B, of HAProxy's | 1.25 | 1.50 | 1.50 to 1.50 | **missed** |",
		"| CPU, 64 KB, of HAProxy's | 0.95 | – | – | not measured |",
		"- Traefik could not be measured in no case: it was not built\n",
		"| Spillway | 500 | 0.00 | 3.00 | 0.00 | 33.0 | 0 | 1.50 | – |",
		"| no proxy | 3,000 | 0.00 | 0.10 | 0.00 | – | – | – | – |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

func TestInsert_KeepsWhatIsAround(t *testing.T) {
	document := "a\n" + markBegin + "\nold\n" + markEnd + "\nb\n"
	got, err := insert(document, "new\n")
	if want := "a\n" + markBegin + "\nnew\n" + markEnd + "\nb\n"; err != nil || got != want {
		t.Errorf("insert = %q, %v, want %q", got, err, want)
	}
	if _, err := insert("no marks", "new\n"); err == nil {
		t.Error("a document without marks was written over")
	}
}

func TestPlot_IsXMLWhateverTheNamesAre(t *testing.T) {
	text := plot(sample())
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
	if !strings.Contains(text, "A &lt;&amp; B&gt;") || strings.Count(text, "<rect") != 3 {
		t.Errorf("want an escaped note and three bars:\n%s", text)
	}
}

func TestEscape(t *testing.T) {
	if got, want := escape(`<a href="x">&'`), "&lt;a href=&quot;x&quot;&gt;&amp;&apos;"; got != want {
		t.Errorf("escape = %q, want %q", got, want)
	}
}

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		f        float64
		decimals int
		want     string
	}{{1234567.4, 0, "1,234,567"}, {999.95, 1, "1,000.0"}, {0.5, 2, "0.50"}, {-1234, 0, "-1,234"}, {-123, 0, "-123"}, {math.NaN(), 1, "–"}} {
		if got := number(tt.f, tt.decimals); got != tt.want {
			t.Errorf("number(%g, %d) = %q, want %q", tt.f, tt.decimals, got, tt.want)
		}
	}
}

func TestSave_IsReadBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	want := sample()
	if err := want.save(file); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(file)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
}

func TestPasses_FailsAboveTheLimitAndWithoutFigures(t *testing.T) {
	run := func(own, general float64) error {
		var r results
		for peer, cpu := range map[string]float64{"plain": 100, "spillway": own, "spillway-general": general} {
			if cpu > 0 {
				r.Measurements = append(r.Measurements, measurement{Case: "small", Peer: peer, Round: 1, CPU: cpu})
			}
		}
		return passes(io.Discard, r)
	}
	for _, tt := range []struct {
		own, general float64
		closed       bool
	}{{45, 65, false}, {46, 65, true}, {45, 66, true}, {0, 65, true}, {45, 0, true}} {
		if err := run(tt.own, tt.general); (err != nil) != tt.closed {
			t.Errorf("passes with %g and %g: %v, want closed = %t", tt.own, tt.general, err, tt.closed)
		}
	}
}
