package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// serverMode tells the server that the test binary plays what to do.
const serverMode = "SPILLWAY_TEST_SERVER"

// playServer is `spillway server` as far as up sees it: the real API on an engine in memory. SIGINT
// ends it, and it leaves a file that says so.
func playServer(args []string) int {
	if len(args) < 2 || args[0] != "--dir" {
		fmt.Println("want --dir DIR first, have", args)
		return 2
	}
	if os.Getenv(serverMode) == "dies" {
		fmt.Println("cannot listen on 127.0.0.1:7300: address already in use")
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	e := deploying(round{overview: castleAt(8, 1), events: []spillway.Event{fact(spillway.EventServing, 8, "release 8 has all traffic")}})
	if os.Getenv(serverMode) == "bad release" {
		e = deploying(climbing(back(spillway.RolledBack, "5 of 5 requests failed"))...)
	}
	e.info.PID, e.info.HTTP = os.Getpid(), strings.Join(args[2:], " ")
	err := api.NewServer(api.Config{Engine: e, Log: slog.New(slog.DiscardHandler), Dir: args[1]}).Run(ctx)
	if err == nil {
		err = os.WriteFile(filepath.Join(args[1], "stopped"), nil, 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// runUp runs up until it wrote want on stdout, and then interrupts it.
func runUp(t *testing.T, dir, want string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, errOut := &waiting{want: want, seen: cancel}, &bytes.Buffer{}
	c := newCLI(strings.NewReader(""), out, errOut, func(string) string { return "" })
	c.every = time.Millisecond
	code = c.run(ctx, append([]string{"up", "--dir", dir}, args...))
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("up did not write %q\n%s%s", want, &out.text, errOut)
	}
	return code, out.text.String(), errOut.String()
}

func stopped(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "stopped"))
	return err == nil
}

func TestUp_StartsAServerAndInterruptStopsIt(t *testing.T) {
	appDir(t, castleFile)
	dir := stateDir(t)
	code, stdout, stderr := runUp(t, dir, "panic: no gate", "--http", ":9090")
	if code != exitDone || !stopped(dir) {
		t.Errorf("exit code %d, stopped %t; want 0 and a server that was asked to stop\n%s", code, stopped(dir), stderr)
	}
	for _, want := range []string{"release 8 of castle serves everybody", "http://www.castle.localhost:8080/"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("stdout lacks %q:\n%s", want, stdout)
		}
	}
	if !strings.Contains(stderr, "--http :9090") { // what the server played was started with
		t.Errorf("the server was not given --http:\n%s", stderr)
	}
}

// Ctrl-C is no failure, also while the server starts, and as soon as up says that it stops everything, though nothing was
// shown yet.
func TestUp_InterruptAtOnceIsNoFailure(t *testing.T) {
	for want, runs := range map[string]bool{"starting one": false, "Ctrl-C stops it all": true} {
		t.Run(want, func(t *testing.T) {
			appDir(t, castleFile)
			dir := stateDir(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			said := &waiting{want: want, seen: cancel}
			c := newCLI(strings.NewReader(""), io.Discard, said, func(string) string { return "" })
			c.every = time.Millisecond
			if code := c.run(ctx, []string{"up", "--dir", dir}); code != exitDone || runs && !stopped(dir) {
				t.Errorf("exit code %d, stopped %t; want 0 and a server that was asked to stop\n%s", code, stopped(dir), &said.text)
			}
		})
	}
}

func TestUp_DetachLeavesTheServerRunning(t *testing.T) {
	appDir(t, castleFile)
	dir := stateDir(t)
	code, _, stderr := runUp(t, dir, "never written", "-d")
	if code != exitDone || stopped(dir) {
		t.Fatalf("exit code %d, stopped %t; want 0 and a server that runs\n%s", code, stopped(dir), stderr)
	}
	client, err := api.NewClient("unix://"+filepath.Join(dir, api.SocketName), "")
	if err != nil {
		t.Fatal(err)
	}
	info, err := client.Info(t.Context())
	if err != nil || !strings.Contains(stderr, fmt.Sprintf("kill -INT %d", info.PID)) {
		t.Fatalf("%v; stderr does not say how to stop pid %d:\n%s", err, info.PID, stderr)
	}
	if session, err := syscall.Getpgid(info.PID); err != nil || session != info.PID {
		t.Errorf("the server is in process group %d (%v), want one of its own", session, err)
	}
	process, err := os.FindProcess(info.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(time.Millisecond); !stopped(dir); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the server did not stop")
		}
	}
}

func TestUp_UsesTheServerThatRuns(t *testing.T) {
	appDir(t, castleFile)
	e := deploying(climbing(serving())...)
	dir := serve(t, e)
	code, stdout, stderr := runUp(t, dir, "panic: no gate")
	if code != exitDone || !strings.Contains(stdout, "release 8 of castle serves everybody") || !strings.Contains(stderr, "the server ran before and goes on") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	client, err := api.NewClient("unix://"+filepath.Join(dir, api.SocketName), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Info(t.Context()); err != nil {
		t.Errorf("the server does not answer any more: %v", err)
	}
}

func TestUp_ShowsWhyTheServerDied(t *testing.T) {
	appDir(t, castleFile)
	t.Setenv(serverMode, "dies")
	code, _, stderr := runUp(t, stateDir(t), "never written")
	if code != exitFailed || !strings.Contains(stderr, "exit status 1") || !strings.Contains(stderr, "address already in use") {
		t.Errorf("exit code %d, stderr:\n%s", code, stderr)
	}
}

func TestUp_StopsWhatItStartedWhenTheReleaseIsBad(t *testing.T) {
	appDir(t, castleFile)
	t.Setenv(serverMode, "bad release")
	dir := stateDir(t)
	code, _, stderr := runUp(t, dir, "never written")
	if code != exitRolledBack || !stopped(dir) || !strings.Contains(stderr, "5 of 5 requests failed") {
		t.Errorf("exit code %d, stopped %t\n%s", code, stopped(dir), stderr)
	}
}

func TestUp_ChecksTheFileBeforeItStartsAnything(t *testing.T) {
	appDir(t, "app: castle\n")
	dir := stateDir(t)
	code, _, stderr := runUp(t, dir, "never written")
	if _, err := os.Stat(filepath.Join(dir, "server.log")); code != exitUsage || err == nil {
		t.Errorf("exit code %d, want 2 and no server\n%s", code, stderr)
	}
}
