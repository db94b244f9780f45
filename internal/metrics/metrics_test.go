package metrics_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/metrics"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// bench is an Asker that runs until the test ends.
type bench struct {
	*metrics.Asker
	t       *testing.T
	changed chan spillway.Ref
}

func newBench(t *testing.T, every, timeout time.Duration) *bench {
	t.Helper()
	b := &bench{t: t, changed: make(chan spillway.Ref, 1000)}
	b.Asker = metrics.New(metrics.Quick(metrics.Config{Changed: func(app spillway.Ref) { b.changed <- app }}, every, timeout))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }() // ends with the test, which waits
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

// next waits until the Asker tells of another answer and gives the reading of the only gate.
func (b *bench) next() rollout.Reading {
	b.t.Helper()
	select {
	case app := <-b.changed:
		list := b.Readings(app)
		if len(list) != 1 {
			b.t.Fatalf("readings: %+v", list)
		}
		return list[0]
	case <-time.After(20 * time.Second):
		b.t.Fatal("nothing changes")
		return rollout.Reading{}
	}
}

// once asks one gate and gives the first answer.
func once(t *testing.T, w rollout.Watch, releases map[int]spillway.Release) rollout.Reading {
	t.Helper()
	b := newBench(t, time.Hour, 10*time.Second)
	b.Set("castle@staging", []rollout.Watch{w}, releases)
	return b.next()
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// watch is the gate of a rollout from release 6 to 7 on the canary track.
func watch(g spillway.Gate, store string) rollout.Watch {
	g.Text = g.Metric + ": " + g.Source
	return rollout.Watch{Rollout: 3, Release: 7, Stable: 6, Track: "canary", Gate: g, Store: store}
}

// verdict says "holds", "broken" or "no data".
func verdict(r rollout.Reading) string {
	switch {
	case r.NoData:
		return "no data"
	case r.OK:
		return "holds"
	}
	return "broken"
}

// check compares a reading with "verdict: text", where * stands for anything.
func check(t *testing.T, r rollout.Reading, want string) {
	t.Helper()
	got := verdict(r) + ": " + r.Text
	head, tail, any := strings.Cut(want, "*")
	if got != want && !(any && strings.HasPrefix(got, head) && strings.HasSuffix(got, tail)) {
		t.Errorf("the gate says %q, want %q", got, want)
	}
	if r.At.IsZero() || r.Rollout != 3 {
		t.Errorf("reading: %+v", r)
	}
}

func vector(values ...string) string {
	var series []string
	for i, v := range values {
		series = append(series, fmt.Sprintf(`{"metric":{"pod":"p%d"},"value":[1700000000.5,"%s"]}`, i, v))
	}
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(series, ",") + `]}}`
}

func TestQuery_TellsAnAnswerFromSilence(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		op     string
		value  float64
		want   string
	}{
		{"one holds", 200, vector("0.93"), ">", 0.9, "holds: 0.93"},
		{"one does not", 200, vector("0.5"), ">", 0.9, `broken: 0.5 for {pod="p0"}`},
		{"all hold", 200, vector("1", "2.5", "2"), "<", 3, "holds: 1 to 2.5 in 3 series"},
		{"one of three does not", 200, vector("1", "7", "2"), "<", 3, `broken: 7 for {pod="p1"}, and in all 1 of 3 series do not hold`},
		{"scalar", 200, `{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}`, "==", 4, "holds: 4"},
		{"infinite", 200, vector("+Inf"), "<", 3, `broken: +Inf for {pod="p0"}`},
		{"at most", 200, vector("3"), "<=", 3, "holds: 3"},
		{"at least", 200, vector("2"), ">=", 3, `broken: 2 for {pod="p0"}`},
		{"no series", 200, vector(), ">", 0, `no data: no series: nothing fits errors{app="castle",env="staging",r="7",s="6",t="canary"} + {{other}}`},
		{"not a number", 200, vector("1", "NaN"), ">", 0, `no data: not a number for {pod="p1"}`},
		{"histogram", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}`, ">", 0, "no data: not a number"},
		{"matrix", 200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, ">", 0, "no data: the query gives a matrix; it has to give one number a series"},
		{"bad query", 400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, ">", 0, "no data: the query failed: parse error"},
		{"overload", 503, "try\nlater", ">", 0, "no data: 503 Service Unavailable from the store: try later"},
		{"redirect", 302, "", ">", 0, "no data: 302 Found from the store: "},
		{"not a prometheus", 200, "<html>", ">", 0, "no data: what answers at 127.0.0.1:* is no Prometheus"},
		{"no operator", 200, vector("1"), "", 0, `no data: the gate compares with "", which is none of < <= > >= ==`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan string, 1)
			store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- r.URL.Path + " " + r.FormValue("query")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			}))
			defer store.Close()
			r := once(t, watch(spillway.Gate{
				Metric: "query", Source: `errors{app="{{app}}",env="{{environment}}",r="{{release}}",s="{{ stable }}",t="{{track}}"} + {{other}}`,
				Op: tt.op, Value: tt.value,
			}, store.URL+"/base/"), nil)
			check(t, r, tt.want)
			if got, want := <-asked, `/base/api/v1/query errors{app="castle",env="staging",r="7",s="6",t="canary"} + {{other}}`; got != want {
				t.Errorf("asked %q, want %q", got, want)
			}
		})
	}
}

func TestQuery_OfAStoreThatIsDown(t *testing.T) {
	t.Parallel()
	store := httptest.NewServer(http.NotFoundHandler())
	store.Close()
	secret := strings.Replace(store.URL, "http://", "http://user:hunter2@", 1)
	r := once(t, watch(spillway.Gate{Metric: "query", Source: "up", Op: ">"}, secret), nil)
	check(t, r, "no data: no answer: *connection refused")
	if strings.Contains(r.Text, "hunter2") {
		t.Error("the answer tells a password")
	}
	check(t, once(t, watch(spillway.Gate{Metric: "query", Source: "up", Op: ">"}, ""), nil), "no data: the app names no prometheus to ask")
}

func TestHTTP_TellsAnAnswerFromSilence(t *testing.T) {
	tests := []struct {
		path, want string
	}{
		{"/200", "holds: 200 OK"},
		{"/204", "holds: 204 No Content"},
		{"/302", "broken: 302 Found: I say 302"},
		{"/503", "broken: 503 Service Unavailable: I say 503"},
		{"/cut", "no data: no answer: *EOF"},
		{"/silent", "no data: no answer within 100ms"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.RequestURI() {
				case "/cut?r=7":
					panic(http.ErrAbortHandler)
				case "/silent?r=7":
					<-r.Context().Done()
				default:
					code, err := strconv.Atoi(r.URL.Path[1:])
					if err != nil || r.URL.RawQuery != "r=7" {
						t.Errorf("asked for %s", r.URL)
						code = 500
					}
					w.Header().Set("Location", "/200")
					w.WriteHeader(code)
					fmt.Fprintf(w, "I say\n%d%s", code, strings.Repeat(" ", 1000))
				}
			}))
			defer server.Close()
			timeout := 10 * time.Second
			if tt.path == "/silent" {
				timeout = 100 * time.Millisecond
			}
			b := newBench(t, time.Hour, timeout)
			b.Set("castle", []rollout.Watch{watch(spillway.Gate{Metric: "http", Source: server.URL + tt.path + "?r={{release}}"}, "")}, nil)
			check(t, b.next(), tt.want)
		})
	}
}

func TestRun_TellsAnAnswerFromSilence(t *testing.T) {
	dir := t.TempDir()
	releases := map[int]spillway.Release{}
	for n, groups := range map[int]map[string]int{6: {"api": 6, "www": 6}, 7: {"api": 7, "www": 7}} {
		releases[n] = spillway.Release{
			Number: n, Groups: groups,
			Config:    spillway.App{Services: []spillway.Service{{Name: "api"}, {Name: "www", Host: []string{"castle.test"}}}},
			Artefacts: map[string]spillway.Artefact{"api": {Dir: "/"}, "www": {Dir: dir}},
		}
	}
	t.Setenv("TEST_LEAK", "x")
	tests := []struct {
		line, want string
	}{
		{"true", "holds: exit code 0"},
		{"echo first; echo fine >&2", "holds: exit code 0: fine"},
		{"pwd", "holds: exit code 0: " + dir},
		{"echo $SPILLWAY_APP $SPILLWAY_ENVIRONMENT $SPILLWAY_RELEASE $SPILLWAY_STABLE $SPILLWAY_TRACK$TEST_LEAK {{release}}",
			"holds: exit code 0: castle staging 7 6 canary {{release}}"},
		{"echo 'queue is 900 long'; exit 1", "broken: exit code 1: queue is 900 long"},
		{"exit 125", "broken: exit code 125"},
		{"no-such-program", "no data: exit status 127: *not found"},
		{"kill -9 $$", "no data: signal: killed"},
		{"yes 0123456789 | head -c 100000; exit 2", "broken: exit code 2: *"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			check(t, once(t, watch(spillway.Gate{Metric: "run", Source: tt.line}, ""), releases), tt.want)
		})
	}
}

func TestRun_KillsWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	pids := filepath.Join(t.TempDir(), "pids")
	b := newBench(t, time.Hour, 1500*time.Millisecond)
	b.Set("castle", []rollout.Watch{watch(spillway.Gate{Metric: "run", Source: "sleep 1000 & echo $! $$ >" + pids + "; echo thinking; wait"}, "")}, nil)
	check(t, b.next(), "no data: no answer within 1.5s; last line: thinking")
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(text)) {
		pid, _ := strconv.Atoi(f)
		eventually(t, "the process ends", func() bool { return gone(pid) })
	}
}

// gone reports whether a process has ended, also when nobody has collected it.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ") || syscall.Kill(pid, 0) != nil
}

func TestAsker_GoesOnAskingAndTellsOfChanges(t *testing.T) {
	t.Parallel()
	var good atomic.Bool
	var asked atomic.Int64
	good.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1); !good.Load() {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	b := newBench(t, 5*time.Millisecond, 10*time.Second)
	w := watch(spillway.Gate{Metric: "http", Source: server.URL}, "")
	b.Set("castle", []rollout.Watch{w}, nil)
	first := b.next()
	check(t, first, "holds: 200 OK")
	for n := asked.Load(); asked.Load() < n+3; { // the same answers are no news
		b.Set("castle", []rollout.Watch{w}, nil) // and neither is the same gate
	}
	if len(b.changed) > 0 {
		t.Error("the same answer is told again")
	}
	if r := b.Readings("castle"); len(r) != 1 || !r[0].At.After(first.At) {
		t.Errorf("readings: %+v, at first %+v", r, first)
	}
	good.Store(false)
	check(t, b.next(), "broken: 418 I'm a teapot")
	server.Close()
	check(t, b.next(), "no data: no answer: *connection refused")
	b.Set("castle", nil, nil)
	if r := b.Readings("castle"); len(r) != 0 {
		t.Errorf("readings of a gate that nobody wants: %+v", r)
	}
}

func TestAsker_AsksEachGateByItselfAndOneQuestionAtATime(t *testing.T) {
	t.Parallel()
	var open, most atomic.Int64
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), open.Add(1)))
		defer open.Add(-1)
		<-r.Context().Done() // until the Asker gives up
	}))
	defer slow.Close()
	fast := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer fast.Close()
	b := newBench(t, 5*time.Millisecond, 10*time.Second)
	slowly, quickly := watch(spillway.Gate{Metric: "http", Source: slow.URL}, ""), watch(spillway.Gate{Metric: "http", Source: fast.URL}, "")
	b.Set("castle", []rollout.Watch{slowly, quickly}, nil)
	b.Set("fort", []rollout.Watch{quickly}, nil)
	eventually(t, "the fast ones have answers", func() bool { return len(b.Readings("castle")) == 1 && len(b.Readings("fort")) == 1 })
	at := b.Readings("castle")[0].At
	eventually(t, "the slow one is asked, and the fast one again", func() bool { return open.Load() == 1 && b.Readings("castle")[0].At.After(at) })
	b.Set("castle", []rollout.Watch{quickly}, nil)
	eventually(t, "the question that nobody asks any more is taken back", func() bool { return open.Load() == 0 })
	if most.Load() != 1 {
		t.Errorf("%d questions at a time to one gate", most.Load())
	}
	if r := b.Readings("castle"); len(r) != 1 || r[0].Gate != quickly.Gate.Text {
		t.Errorf("readings: %+v", r)
	}
}
