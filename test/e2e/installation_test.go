package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

const (
	startWithin   = 30 * time.Second // until a server answers
	haltWithin    = 60 * time.Second // until a server has stopped everything
	commandWithin = 2 * time.Minute  // until a command returns
)

// installation is a state directory and the server on it.
type installation struct {
	t      *testing.T
	dir    string   // state directory
	http   string   // where users are served
	https  string   // where they are over TLS; "" = nowhere
	listen string   // of the API
	flags  []string // of the server, besides those of the addresses
	client *api.Client
	server e2etest.Server
}

// install starts a server on a fresh directory. When the test ends, everything is stopped, and that
// nothing is left is checked.
func install(t *testing.T) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw") // short, because a unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := installOn(t, dir)
	in.start()
	return in
}

// installTLS is install with an address for HTTPS too.
func installTLS(t *testing.T) *installation {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := installOn(t, dir)
	in.https = freeAddress(t)
	in.start()
	return in
}

// installOn makes an installation on a directory whose server is not started yet.
func installOn(t *testing.T, dir string) *installation {
	t.Helper()
	client, err := api.NewClient("unix://"+filepath.Join(dir, api.SocketName), "")
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{t: t, dir: dir, http: freeAddress(t), listen: freeAddress(t), client: client}
	t.Cleanup(in.tearDown)
	return in
}

// freeAddress is one on which nobody listens. The tests of a cluster take others.
func freeAddress(t *testing.T) string {
	t.Helper()
	return e2etest.FreeAddress(t, 10_000)
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
	args := []string{"server", "--dir", in.dir, "--http", in.http, "--listen", in.listen}
	if in.https != "" {
		args = append(args, "--https", in.https)
	}
	in.server.Launch(in.t, in.log(), binary, append(args, in.flags...)...)
}

// log is the file with the server's output. It is beside the state directory, which may be full.
func (in *installation) log() string { return in.dir + ".log" }

func (in *installation) serverPID() int { return in.server.PID() }

// kill ends the server with a signal and waits until it has ended. SIGTERM and SIGKILL leave all that it
// runs running; SIGINT does not.
func (in *installation) kill(s syscall.Signal) {
	in.t.Helper()
	in.server.Kill(in.t, s, haltWithin)
}

// tearDown stops everything, checks that nothing is left, and tells what happened when the test failed.
func (in *installation) tearDown() {
	if in.t.Failed() {
		in.tell()
	}
	in.kill(syscall.SIGINT)
	in.nothingLeft()
	os.Remove(in.log())
}

// nothingLeft fails the test when a process of the installation is left, and ends it.
func (in *installation) nothingLeft() {
	in.t.Helper()
	var left []process
	for deadline := time.Now().Add(3 * time.Second); ; {
		if left = in.processes(); len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
		pause()
	}
	for _, p := range left {
		in.t.Errorf("a process is left: %d %s", p.pid, p.args)
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

// process is one process of the machine.
type process struct {
	pid     int
	session int // pid of the first process of its session: each replica, the proxy and the server have one
	args    string
}

// processes lists the processes of the installation: those that have its state directory in their
// arguments or their environment, or run below it. Commands that the test runs count too while they run.
func (in *installation) processes() []process {
	var list []process
	entries, err := os.ReadDir("/proc")
	if err != nil {
		in.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if bytes.Contains(args, []byte(in.dir)) || bytes.Contains(env, []byte(in.dir)) || strings.HasPrefix(cwd, in.dir+"/") {
			if session, err := sessionOf(pid); err == nil {
				list = append(list, process{pid, session, strings.ReplaceAll(string(args), "\x00", " ")})
			}
		}
	}
	return list
}

// exactly waits until there are the server, the proxy and the replicas that ps lists, as many as promised,
// and no process besides them and their children. It fails the test when that does not become so.
func (in *installation) exactly(app spillway.Ref, replicas int) {
	in.t.Helper()
	var have []process
	var want []int
	ok := within(15*time.Second, func() bool {
		list, err := in.client.Replicas(in.ctx(5*time.Second), app)
		info, infoErr := in.client.Info(in.ctx(5 * time.Second))
		if err != nil || infoErr != nil {
			return false
		}
		want = []int{info.PID, info.Proxy}
		for _, r := range list {
			want = append(want, r.PID)
		}
		slices.Sort(want)
		have = in.processes()
		var sessions []int
		for _, p := range have {
			sessions = append(sessions, p.session)
		}
		slices.Sort(sessions)
		return len(list) == replicas && slices.Equal(slices.Compact(sessions), want)
	})
	if !ok {
		in.t.Errorf("want the server, the proxy and %d replicas and nothing else; the server knows %v, there are:", replicas, want)
		for _, p := range have {
			in.t.Logf("  %d in session %d: %s", p.pid, p.session, p.args)
		}
	}
}

// tell logs what a person would look at first after a failure.
func (in *installation) tell() {
	text, _ := os.ReadFile(in.log())
	in.t.Logf("---- the end of the server's log\n%s", lastLines(string(text), 40))
	apps, err := in.client.Apps(in.ctx(5 * time.Second))
	if err != nil {
		in.t.Logf("---- no status: %v", err)
		return
	}
	for _, app := range apps {
		for _, args := range [][]string{{"status"}, {"ps"}, {"events"}} {
			r := in.spillway(append(args, "--app", string(app))...)
			in.t.Logf("---- %s of %s\n%s%s", args[0], app, lastLines(r.stdout, 40), r.stderr)
		}
	}
}

var lastLines = e2etest.LastLines

// get asks for a page of a host once, and gives status and body.
func (in *installation) get(host, path string) (int, string) {
	in.t.Helper()
	return e2etest.Get(in.t, "http://"+in.http+path, host, nil)
}

// ctx is a context with a deadline. It is released when that has passed or the test has ended.
func (in *installation) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// await ends the test when a condition does not come to hold in time, within reports it.
var await, within = e2etest.Await, e2etest.Within

// pause is the time between two looks of a bounded wait.
func pause() { <-time.After(10 * time.Millisecond) }

// need ends the test with the way to get a program that is not there.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatal(fmt.Errorf("this test runs %s, which is not there; install it with test/e2e/needs.sh: %w", program, err))
	}
}

// sessionOf reads the session of a process from /proc/PID/stat: the fourth field behind the name, which is
// in brackets and may hold anything.
func sessionOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return strconv.Atoi(fields[3])
}
