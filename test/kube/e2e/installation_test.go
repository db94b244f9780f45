//go:build kube

package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
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
	server     e2etest.Server
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
	in.server.Await(in.t, startWithin, func() (int, error) {
		info, err := in.client.Info(in.ctx(time.Second))
		return info.PID, err
	})
}

// launch starts a server, and does not wait.
func (in *installation) launch() {
	in.t.Helper()
	args := []string{"server", "--kubernetes", "--dir", in.dir, "--listen", in.listen, "--kubeconfig", in.kubeconfig, "--namespace", in.namespace,
		"--gateway", "gateway/public", "--gateway-url", "http://" + in.gateway, "--gateway-metrics", in.metrics,
		"--registry", registry() + "/" + in.namespace, "--insecure-registry", registry()}
	in.server.Launch(in.t, in.log(), binary, append(args, in.flags...)...)
}

// log is the file with the server's output.
func (in *installation) log() string { return in.dir + ".log" }

// logged is what the server has written so far.
func (in *installation) logged() string {
	text, _ := os.ReadFile(in.log())
	return string(text)
}

// ended reports whether the server has ended by itself.
func (in *installation) ended() bool { return in.server.Ended() }

// kill ends the server with a signal and waits until it has ended. What it runs on the cluster goes on.
func (in *installation) kill(s syscall.Signal) {
	in.t.Helper()
	in.server.Kill(in.t, s, endWithin)
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
