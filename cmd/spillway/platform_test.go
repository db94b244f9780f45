package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/sim/platformtest"
)

// TestLocal_KeepsThePromisesOfAPlatform runs the local platform and the real proxy as a server wires them, with
// this test binary as the program of every replica.
func TestLocal_KeepsThePromisesOfAPlatform(t *testing.T) {
	t.Parallel() // it waits more than it works
	dir := stateDir(t)
	address := runProxy(t, filepath.Join(dir, "proxy"))
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	router := &mutable{Router: proxy.Dial(filepath.Join(dir, "proxy"))}
	platform, err := local.Open(t.Context(), local.Config{Dir: dir, Router: router, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- platform.Run(ctx) }() // ended and waited for below
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		halt, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := platform.Halt(halt); err != nil {
			t.Error(err)
		}
	})
	platformtest.Run(t, platformtest.Bench{
		Platform: platform, Fit: play(dir), Client: clientOf(address), Mute: router.mute, Patience: 30 * time.Second,
		Lacks: platformtest.Lacks{Generations: true}, // one server at a time has the directory
	})
}

// runProxy runs a proxy until the test ends, and gives the address at which users reach it.
func runProxy(t *testing.T, dir string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ended and waited for below
		ended <- proxy.Run(ctx, proxy.Config{Dir: dir, HTTP: "127.0.0.1:0", Ready: func() { close(ready) }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the proxy did not start: %v", err)
	}
	info, err := proxy.Dial(dir).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.HTTP
}

// mutable is a proxy that can be kept from answering about an app.
type mutable struct {
	local.Router
	muted sync.Map // by spillway.Ref
}

func (m *mutable) mute(app spillway.Ref, on bool) {
	if on {
		m.muted.Store(app, true)
	} else {
		m.muted.Delete(app)
	}
}

func (m *mutable) Push(ctx context.Context, t spillway.Table) error {
	if _, muted := m.muted.Load(t.App); muted {
		return spillway.ErrUnavailable
	}
	return m.Router.Push(ctx, t)
}

func (m *mutable) Report(ctx context.Context, app spillway.Ref) (spillway.Report, error) {
	if _, muted := m.muted.Load(app); muted {
		return spillway.Report{}, spillway.ErrUnavailable
	}
	return m.Router.Report(ctx, app)
}

// play makes the test binary the command of every service.
func play(dir string) func(*spillway.Release) {
	return func(r *spillway.Release) {
		for i := range r.Config.Services {
			svc := &r.Config.Services[i]
			svc.Run = spillway.Command{Exec: []string{os.Args[0]}}
			r.Artefacts[svc.Name] = spillway.Artefact{Dir: dir}
		}
	}
}

// clientOf reaches the proxy at an address whatever host a URL names.
func clientOf(address string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost: 4,
	}}
}
