//go:build kube

package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

const (
	startWithin   = 30 * time.Second // until a server answers
	endWithin     = 30 * time.Second // until a server has ended
	commandWithin = 4 * time.Minute  // until a command returns
)

// installation is a namespace, and a server that works in it from the outside.
type installation struct {
	t          *testing.T
	namespace  string
	dir        string   // state directory
	listen     string   // of the API
	kubeconfig string   // of the server
	gateway    string   // where users reach it: HOST:PORT
	metrics    string   // URL of the gateway's
	flags      []string // of the server, besides these
	client     *api.Client

	mu     sync.Mutex
	server *exec.Cmd
	gone   chan struct{} // closed when server has ended
}

// install starts a server in a namespace of the test's own.
func install(t *testing.T) *installation {
	t.Helper()
	in := installIn(t, namespace(t))
	in.start()
	return in
}

// installIn makes an installation whose server is not started yet.
func installIn(t *testing.T, namespace string) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw") // short, because a unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient("unix://"+filepath.Join(dir, api.SocketName), "")
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{t: t, namespace: namespace, dir: dir, listen: freeAddress(t), kubeconfig: kubeconfig(), gateway: gatewayAddress(), metrics: gatewayMetrics(), client: client}
	t.Cleanup(func() {
		if t.Failed() {
			in.tell()
		}
		in.kill(syscall.SIGTERM)
		os.RemoveAll(dir)
		os.Remove(in.log())
	})
	return in
}

// freeAddress is one on which nobody listens. The tests of one machine take others.
func freeAddress(t *testing.T) string {
	t.Helper()
	return e2etest.FreeAddress(t, 20_000)
}

// start starts a server and waits until it answers.
func (in *installation) start() {
	in.t.Helper()
	in.launch()
	answers := false
	await(in.t, startWithin, "the server to answer", func() bool {
		if in.ended() {
			return true
		}
		info, err := in.client.Info(in.ctx(time.Second))
		answers = err == nil && info.PID == in.server.Process.Pid
		return answers
	})
	if !answers {
		in.t.Fatal("the server ended while it started")
	}
}

// launch starts a server, and does not wait.
func (in *installation) launch() {
	in.t.Helper()
	log, err := os.OpenFile(in.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		in.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "server", "--kubernetes", "--dir", in.dir, "--listen", in.listen, "--kubeconfig", in.kubeconfig, "--namespace", in.namespace,
		"--gateway", "gateway/public", "--gateway-url", "http://"+in.gateway, "--gateway-metrics", in.metrics,
		"--registry", registry()+"/"+in.namespace, "--insecure-registry", registry())
	cmd.Args = append(cmd.Args, in.flags...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	gone := make(chan struct{})
	in.mu.Lock()
	in.server, in.gone = cmd, gone
	in.mu.Unlock()
	// Owned by the installation; ends with the process, which the end of the test ends and waits for.
	go func() { cmd.Wait(); close(gone) }()
}

// log is the file with the server's output.
func (in *installation) log() string { return in.dir + ".log" }

// logged is what the server has written so far.
func (in *installation) logged() string {
	text, _ := os.ReadFile(in.log())
	return string(text)
}

// ended reports whether the server has ended by itself.
func (in *installation) ended() bool {
	select {
	case <-in.gone:
		return true
	default:
		return false
	}
}

// kill ends the server with a signal and waits until it has ended. What it runs on the cluster goes on.
func (in *installation) kill(s syscall.Signal) {
	in.t.Helper()
	in.mu.Lock()
	cmd, gone := in.server, in.gone
	in.server = nil
	in.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		in.t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(endWithin):
		in.t.Errorf("the server has not ended %v after %v", endWithin, s)
		cmd.Process.Kill()
		<-gone
	}
}

// tell logs what a person would look at first after a failure.
func (in *installation) tell() {
	in.t.Logf("---- the end of the server's log\n%s", lastLines(in.logged(), 40))
	apps, err := in.client.Apps(in.ctx(5 * time.Second))
	if err != nil {
		in.t.Logf("---- no status: %v", err)
		return
	}
	for _, app := range apps {
		for _, verb := range []string{"status", "ps", "events"} {
			r := in.run("/", verb, "--app", string(app))
			in.t.Logf("---- %s of %s\n%s%s", verb, app, lastLines(r.stdout, 40), r.stderr)
		}
	}
}

var lastLines = e2etest.LastLines

// get asks the gateway for a page of a host once, and gives status and body; the status is 0 where there is no answer.
func (in *installation) get(host, path string, header http.Header) (int, string) {
	in.t.Helper()
	return e2etest.Get(in.t, "http://"+in.gateway+path, host, header)
}

// ctx is a context with a deadline. It is released when that has passed or the test has ended.
func (in *installation) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}
