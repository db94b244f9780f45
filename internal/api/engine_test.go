package api_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

var at = time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)

// engine is an Engine in memory, with the app castle@staging in it. What fails, waits or panics is set
// by the test.
type engine struct {
	mu     sync.Mutex
	events []spillway.Event
	asked  []spillway.Intent
	plans  []api.DeployRequest

	err    error // of everything that can fail
	deploy func(ctx context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error)
	logs   func(ctx context.Context, q spillway.LogQuery, line func(spillway.LogLine) error) error
	heard  chan context.Context // of each look at the events, when not nil
}

const castle spillway.Ref = "castle@staging"

var _ api.Engine = (*engine)(nil)

func (e *engine) Info(context.Context) api.Info {
	return api.Info{Version: "v0", Dir: "/d", Listen: "127.0.0.1:7300", HTTP: "[::]:8080", PID: 7, Proxy: 8}
}

func (e *engine) Apps(context.Context) ([]spillway.Ref, error) {
	return []spillway.Ref{"gone", castle}, e.err
}

func (e *engine) known(app spillway.Ref) error {
	if app != castle {
		return spillway.ErrNotFound
	}
	return e.err
}

func overview() spillway.Overview {
	return spillway.Overview{
		App: castle, Phase: spillway.Progressing, Stable: 1, Services: []spillway.ServiceOverview{{
			Name: "www", Size: 2, Groups: []spillway.GroupOverview{{Group: spillway.Group{Service: "www", Release: 1}, Weight: spillway.Whole}},
		}},
	}
}

func (e *engine) Overview(_ context.Context, app spillway.Ref) (spillway.Overview, error) {
	return overview(), e.known(app)
}

func releases() []spillway.Release {
	return []spillway.Release{{App: castle, Number: 2, Created: at, Groups: map[string]int{"www": 1}}, {App: castle, Number: 1, Created: at}}
}

func (e *engine) Releases(_ context.Context, app spillway.Ref) ([]spillway.Release, error) {
	return releases(), e.known(app)
}

func (e *engine) Replicas(_ context.Context, app spillway.Ref) ([]spillway.Replica, error) {
	return nil, e.known(app)
}

func (e *engine) Events(ctx context.Context, app spillway.Ref, q spillway.EventQuery) ([]spillway.Event, error) {
	if e.heard != nil {
		select {
		case e.heard <- ctx:
		default:
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.known(app); err != nil {
		return nil, err
	}
	var list []spillway.Event
	for _, event := range e.events {
		if event.ID > q.Since && (q.Limit == 0 || len(list) < q.Limit) {
			list = append(list, event)
		}
	}
	if q.Tail > 0 {
		list = list[max(0, len(list)-q.Tail):]
	}
	return list, nil
}

// add appends n events.
func (e *engine) add(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range n {
		id := int64(len(e.events) + 1)
		e.events = append(e.events, spillway.Event{ID: id, App: castle, At: at, Kind: spillway.EventStep, Text: "step\n<5 %>"})
	}
}

func (e *engine) Logs(ctx context.Context, app spillway.Ref, q spillway.LogQuery, line func(spillway.LogLine) error) error {
	if err := e.known(app); err != nil || e.logs == nil {
		return err
	}
	return e.logs(ctx, q, line)
}

func (e *engine) Deploy(ctx context.Context, r api.DeployRequest, log func(string)) (api.DeployResult, error) {
	if e.deploy == nil {
		return api.DeployResult{}, e.err
	}
	return e.deploy(ctx, r, log)
}

func (e *engine) Plan(_ context.Context, r api.DeployRequest) (spillway.Plan, error) {
	text, err := io.ReadAll(r.Source)
	if err != nil {
		return spillway.Plan{}, err
	}
	r.Source = nil
	e.mu.Lock()
	defer e.mu.Unlock()
	e.plans = append(e.plans, r)
	return spillway.Plan{App: castle, Release: 3, Worst: string(text)}, e.err
}

func (e *engine) Ask(_ context.Context, app spillway.Ref, intent spillway.Intent) (spillway.Intent, error) {
	if err := e.known(app); err != nil {
		return spillway.Intent{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	intent.Seq = int64(len(e.asked) + 1)
	e.asked = append(e.asked, intent)
	return intent, nil
}

func (e *engine) Who(_ context.Context, app spillway.Ref, q api.WhoQuery) (api.Who, error) {
	if err := e.known(app); err != nil {
		return api.Who{}, err
	}
	return api.Who{App: app, Key: q.Key, At: q.At, Bucket: 1448, Edges: []api.WhoEdge{{Service: "www", Release: 1}}}, nil
}

func (e *engine) Routes(_ context.Context, app spillway.Ref) ([]spillway.RouteLine, error) {
	return []spillway.RouteLine{{App: app, Host: "castle.test", Match: "/*", Rest: true}}, e.known(app)
}

func (e *engine) TestRoute(_ context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	return spillway.RouteAnswer{App: app, Asked: q.Method + " " + q.URL, Bucket: 1448}, e.known(app)
}

func (e *engine) Hold(_ context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error) {
	return spillway.Hold{For: spillway.Duration(wait), Waiting: 3}, e.known(app)
}

func (e *engine) Doctor(context.Context) []spillway.Check {
	return []spillway.Check{{Name: "cgroups", State: "ok", Text: "v2"}}
}

// running is a server that a test started.
type running struct {
	dir, address string
	stop         func() // and wait until it has stopped
	log          *syncBuffer
}

// start runs a server on a socket and on a free port until the test ends.
func start(t *testing.T, e api.Engine) running { return startIn(t, e, shortDir(t)) }

func startIn(t *testing.T, e api.Engine, dir string) running {
	t.Helper()
	log := &syncBuffer{}
	s := api.NewServer(api.Config{
		Engine: e, Log: slog.New(slog.NewTextHandler(log, nil)), Dir: dir, Listen: "127.0.0.1:0", Hosts: []string{"Deploy.example.com"},
	})
	check(t, s.Listen(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	// Owned by the test, ended by cancel; stop waits.
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server did not stop")
		}
	})
	t.Cleanup(stop)
	return running{dir: dir, address: s.Addr(), stop: stop, log: log}
}

// socket is a client over the unix socket.
func (r running) socket(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient("unix://"+filepath.Join(r.dir, api.SocketName), "")
	check(t, err)
	return c
}

// tcp is a client over TCP with the token that the server left.
func (r running) tcp(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient("http://"+r.address, r.token(t))
	check(t, err)
	return c
}

func (r running) token(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, api.TokenName))
	check(t, err)
	return strings.TrimSpace(string(text))
}

// shortDir is a directory whose name leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spw")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}

type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon fails the test when a channel stays silent.
func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}
