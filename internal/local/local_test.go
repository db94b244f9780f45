package local_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// The test binary is also the shim, the program of every replica, and a server that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "_exec" {
		os.Exit(local.ExitCode(local.Exec(os.Args[2:])))
	}
	switch os.Getenv("TEST_PROGRAM") {
	case "":
		os.Exit(m.Run())
	case "server":
		serveUntilKilled()
	default:
		program(os.Getenv("TEST_PROGRAM"))
	}
}

// program is what replicas run.
func program(kind string) {
	fmt.Println("starting", os.Getenv("SPILLWAY_REPLICA"))
	switch kind {
	case "crash":
		fmt.Fprintln(os.Stderr, "boom: no database")
		os.Exit(3)
	case "elsewhere":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println("listening on", l.Addr())
		select {}
	case "silent":
		select {}
	case "sleeper": // the child of a stubborn replica
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "TEST_PROGRAM=sleeper")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it hides from signals to the group
		if err := child.Start(); err != nil {
			panic(err)
		}
		fmt.Println("child", child.Process.Pid)
	case "lines":
		for i := range 50_000 {
			fmt.Printf("line %d %s\n", i, strings.Repeat("x", i%40))
		}
	}
	serve(kind)
}

// serve answers HTTP on $PORT, "h2c" HTTP/2 and nothing else, and does what it is asked to.
func serve(kind string) {
	var sick sync.Map
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := sick.Load("sick"); ok {
			http.Error(w, "sick", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { sick.Store("sick", true) })
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("/say", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.FormValue("text")) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Environ()) })
	server := &http.Server{Addr: os.Getenv("HOST") + ":" + os.Getenv("PORT"), Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(kind != "h2c")
	server.Protocols.SetUnencryptedHTTP2(kind == "h2c")
	if err := server.ListenAndServe(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// serveUntilKilled is a server that runs the desired state on its standard input in TEST_DIR, and says so
// when everything is ready.
func serveUntilKilled() {
	var in struct {
		Releases map[int]spillway.Release
		Desired  rollout.Desired
	}
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		panic(err)
	}
	p, err := local.Open(context.Background(), config(os.Getenv("TEST_DIR"), newRouter(), slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	go func() { // ends with the process
		if err := p.Run(context.Background()); err != nil {
			panic(err)
		}
	}()
	d, err := p.Daemon("clock", []string{os.Args[0]}, append(os.Environ(), "TEST_PROGRAM=silent"))
	if err != nil {
		panic(err)
	}
	go func() { // ends with the process
		if err := d.Run(context.Background()); err != nil {
			panic(err)
		}
	}()
	if err := p.Apply(context.Background(), "shop", in.Releases, in.Desired); err != nil {
		panic(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	for ; ; <-tick.C {
		o, err := p.Observe(context.Background(), "shop")
		if err != nil {
			panic(err)
		}
		if len(o.Groups) == 1 && o.Groups[0].Ready == in.Desired.Groups[0].Replicas && d.PID() != 0 {
			fmt.Println("ready", d.PID())
			select {}
		}
	}
}

// router is a data plane that only remembers.
type router struct {
	mu       sync.Mutex
	down     bool
	tables   map[spillway.Ref]spillway.Table
	history  []spillway.Table
	inFlight map[string]int
	evidence *spillway.Evidence
	counts   map[string]spillway.Traffic
	dead     map[string]string
	reports  int
	removed  []spillway.Ref
}

func newRouter() *router {
	return &router{tables: map[spillway.Ref]spillway.Table{}, inFlight: map[string]int{}}
}

func (r *router) Push(_ context.Context, t spillway.Table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return fmt.Errorf("push: %w", spillway.ErrUnavailable)
	}
	if t.Revision < r.tables[t.App].Revision {
		return fmt.Errorf("push: %w", spillway.ErrStale)
	}
	r.tables[t.App] = t
	r.history = append(r.history, t)
	return nil
}

func (r *router) Remove(_ context.Context, app spillway.Ref) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return spillway.ErrUnavailable
	}
	delete(r.tables, app)
	r.removed = append(r.removed, app)
	return nil
}

func (r *router) Report(_ context.Context, app spillway.Ref) (spillway.Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return spillway.Report{}, fmt.Errorf("report: %w", spillway.ErrUnavailable)
	}
	t, ok := r.tables[app]
	if !ok {
		return spillway.Report{}, spillway.ErrNotFound
	}
	r.reports++
	return spillway.Report{
		App: app, Revision: t.Revision, Generation: t.Route.Generation, Edges: t.Route.Edges, InFlight: maps.Clone(r.inFlight), Evidence: r.evidence,
		Counts: maps.Clone(r.counts), Dead: maps.Clone(r.dead),
	}, nil
}

func (r *router) Watch(ctx context.Context, _ func(spillway.Ref)) error {
	<-ctx.Done()
	return nil
}

// set changes the data plane under its lock.
func (r *router) set(change func(r *router)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// endpoints says "www.1-1 www.1-2/draining".
func (r *router) endpoints() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return endpoints(r.tables["shop"])
}

func endpoints(t spillway.Table) string {
	var list []string
	for _, e := range t.Endpoints {
		name := e.Replica
		if e.Draining {
			name += "/draining"
		}
		list = append(list, name)
	}
	return strings.Join(list, " ")
}

func config(dir string, r local.Router, h slog.Handler) local.Config {
	return local.Quick(local.Config{Dir: dir, Router: r, Log: slog.New(h)})
}

// bench is a running platform with one app, "shop".
type bench struct {
	*local.Platform
	t      *testing.T
	dir    string
	router *router
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	events []string
}

// newBench opens a platform in a new directory and runs it until the test ends.
func newBench(t *testing.T) *bench {
	t.Parallel()
	b := &bench{t: t, dir: t.TempDir(), router: newRouter()}
	b.open(func(c local.Config) local.Config { return c })
	return b
}

// open runs a platform in the bench's directory; at the end of the test everything is stopped.
func (b *bench) open(change func(local.Config) local.Config) {
	b.t.Helper()
	c := change(config(b.dir, b.router, slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})))
	c.Events = func(e spillway.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e.Text)
	}
	p, err := local.Open(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.Platform, b.cancel, b.done = p, cancel, make(chan struct{})
	done := b.done
	go func() { // the bench owns it, close ends it and waits
		defer close(done)
		if err := p.Run(ctx); err != nil {
			b.t.Error(err)
		}
	}()
	b.t.Cleanup(func() {
		cancel()
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := p.Halt(ctx); err != nil {
			b.t.Error(err)
		}
	})
}

// eventually waits until ok; what is said when it never is.
func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			b.t.Fatalf("never happened: %s\nobserved: %+v\ntable: %s", what, b.observe(), b.router.endpoints())
		}
		<-tick.C
	}
}

func (b *bench) observe() rollout.Observation {
	b.t.Helper()
	o, err := b.Observe(b.t.Context(), "shop")
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

// group observes one group; the zero Group when it is not there.
func (b *bench) group(name string) rollout.Group {
	b.t.Helper()
	for _, g := range b.observe().Groups {
		if g.Group.String() == name {
			return g
		}
	}
	return rollout.Group{}
}

func (b *bench) apply(releases map[int]spillway.Release, d rollout.Desired) {
	b.t.Helper()
	if err := b.Apply(b.t.Context(), "shop", releases, d); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) replica(name string) spillway.Replica {
	b.t.Helper()
	list, err := b.Replicas(b.t.Context(), "shop")
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(r spillway.Replica) bool { return r.Name == name })
	if i < 0 {
		return spillway.Replica{}
	}
	return list[i]
}

// ask sends a request to a replica and gives the answer; an error is an empty answer.
func (b *bench) ask(name, path string) string {
	b.t.Helper()
	resp, err := http.Get("http://" + b.replica(name).Address + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// logs gives the stored lines of the app.
func (b *bench) logs(q spillway.LogQuery) []string {
	b.t.Helper()
	var lines []string
	err := b.Logs(b.t.Context(), "shop", q, func(l spillway.LogLine) error {
		lines = append(lines, l.Text)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return lines
}

func (b *bench) said(part string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.events, func(e string) bool { return strings.Contains(e, part) })
}

// shop is release 1 of an app with one service, www, that runs the given program.
func shop(program string, change func(*spillway.Service)) map[int]spillway.Release {
	svc := spillway.Service{
		Name: "www", Run: spillway.Command{Exec: []string{os.Args[0]}}, Env: map[string]string{"TEST_PROGRAM": program},
		Health: spillway.Probe{Interval: ms(20), Timeout: ms(2000), Start: ms(20000), Healthy: 1, Unhealthy: 3},
		Stop:   spillway.Stop{Signal: "SIGTERM", Grace: ms(5000), Drain: ms(20000)},
	}
	if change != nil {
		change(&svc)
	}
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return map[int]spillway.Release{1: {
		App: "shop", Number: 1, Config: spillway.App{Name: "shop", Services: []spillway.Service{svc}},
		Artefacts: map[string]spillway.Artefact{"www": {Dir: dir}}, Groups: map[string]int{"www": 1},
	}}
}

func ms(n int) spillway.Duration { return spillway.Duration(n) * spillway.Duration(time.Millisecond) }

// www wants n replicas of www.1, behind a public edge of the given generation.
func www(n int, generation int64) rollout.Desired {
	g := spillway.Group{Service: "www", Release: 1}
	return rollout.Desired{
		Groups: []rollout.Want{{Group: g, Replicas: n, Release: 1}},
		Route: spillway.Route{Generation: generation, Edges: []spillway.Edge{
			{Service: "www", Hosts: []string{"shop.test"}, Backends: []spillway.Backend{{Group: g, Release: 1, Weight: spillway.Whole}}},
		}},
	}
}

func running(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(after, "Z")
}
