package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// service is an app file with one service, whose lines are given.
func service(app string, lines ...string) string {
	return "app: " + app + "\nservices:\n  web:\n    " + strings.Join(lines, "\n    ") + "\ndeadline: 10s\n"
}

// A mistake is a release that cannot be, on top of one that serves.
type mistake struct {
	name  string
	file  string
	code  int
	tells []string // what, where, and what to do next
}

func mistakes() []mistake {
	site := fmt.Sprintf("run: [%s, site]", self)
	const host, health = "host: input.localhost", "health: /healthz"
	return []mistake{
		{"not YAML", "app: input\nservices: [", 2, []string{"spillway.yaml:2:", "nothing was changed"}},
		{"unknown key", service("input", site, host, "scael: 2"), 2,
			[]string{"spillway.yaml:6:5", "services.web.scael", "did you mean scale?", "nothing was changed"}},
		{"two mistakes at once", service("input", site, host, "scale: many", "strategy: hopeful"), 2,
			[]string{"services.web.scale", "services.web.strategy", "rolling", "2 mistakes"}},
		{"command not found", service("input", "run: [./no-such-program]", host), 1,
			[]string{"./no-such-program", "not found", "release 1 serves everybody", "next:"}},
		{"command of the shell not found", service("input", "run: no-such-program --port $PORT", host), 1,
			[]string{"no-such-program", "127", "release 1 serves everybody", "next:"}},
		{"the build fails", service("input", "build: {dir: ., command: 'echo compiling; echo boom on line 7 >&2; exit 3'}", site, host), 1,
			[]string{"service web", "boom on line 7", "exit"}},
		{"never listens", service("input", "run: [/bin/sleep, '1000']", host), 1,
			[]string{"0 of 1 replica of web ready", "connection refused", "release 1 serves everybody", "spillway logs --release"}},
		{"listens elsewhere", service("input", "run: python3 -m http.server 0 --bind $HOST", host), 1,
			[]string{"listens on", "$PORT", "release 1 serves everybody", "next:"}},
		{"ends at once", service("input", "run: echo no database; exit 9", host), 1,
			[]string{"exited with code 9", "no database", "release 1 serves everybody"}},
		{"host of another app", service("second", site, host, health), 1,
			[]string{"input.localhost", "belongs to app input", "another host"}},
	}
}

// What is wrong, where, and what to do next; and whatever it was, the old release serves on.
func TestBadInput_Releases(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	in := install(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "spillway.yaml")
	writeFile(t, file, service("input", fmt.Sprintf("run: [%s, site]", self), "host: input.localhost", "health: /healthz"))
	in.spillway("deploy", dir).want(t, 0)
	users := in.send("input.localhost", keepAlive("GET", 20))
	for _, m := range mistakes() {
		t.Run(m.name, func(t *testing.T) {
			writeFile(t, file, m.file)
			r := in.spillway("deploy", dir)
			if r.code != m.code {
				t.Errorf("want exit code %d: %v", m.code, r)
			}
			r.tells(t, m.tells...)
			in.healthy("input", 1, 30*time.Second)
		})
	}
	users.flawless(15)
	in.exactly("input", 1)
}

// Commands that cannot be done.
func TestBadInput_Commands(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "input")
	in.deploy(a).want(t, 0)
	for _, tt := range []struct {
		args  []string
		code  int
		tells []string
	}{
		{[]string{"deploy", "/nowhere"}, 2, []string{"/nowhere"}},
		{[]string{"deploy", "99", "--app", "input"}, 1, []string{"no release 99", "spillway releases"}},
		{[]string{"rollback", "99", "--app", "input"}, 1, []string{"no release 99", "spillway releases"}},
		{[]string{"rollback", "--app", "input"}, 1, []string{"no earlier good release", "spillway releases"}},
		{[]string{"rollback", "yesterday", "--app", "input"}, 2, []string{"yesterday", "spillway releases"}},
		{[]string{"status", "--app", "nobody"}, 1, []string{"nobody"}},
		{[]string{"abort", "--app", "input"}, 1, []string{"no rollout runs", "spillway status"}},
		{[]string{"scale", "nobody=3", "--app", "input"}, 1, []string{"nobody", "web"}},
		{[]string{"deploy", "--strategy", "hopeful", a.dir}, 2, []string{"hopeful", "rolling, canary, blue-green and recreate"}},
		{[]string{"deploy", "--no-such-flag"}, 2, []string{"no-such-flag", "--help"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			r := in.spillway(tt.args...)
			if r.code != tt.code {
				t.Errorf("want exit code %d: %v", tt.code, r)
			}
			r.tells(t, tt.tells...)
		})
	}
	in.healthy("input", 1, 5*time.Second)
	if status, text := in.get(a.Host(), "/"); status != 200 {
		t.Errorf("the release does not serve any more: %d %s", status, text)
	}
}

// Servers that cannot be started, and commands without one.
func TestBadInput_Servers(t *testing.T) {
	t.Parallel()
	t.Run("no server", func(t *testing.T) {
		in := installOn(t, t.TempDir())
		in.spillway("deploy", newApp(t, "lonely").write()).want(t, 1).tells(t, "no Spillway server answers", in.dir, "spillway server")
	})
	t.Run("port taken", func(t *testing.T) {
		in := installOn(t, t.TempDir())
		l, err := net.Listen("tcp", in.http)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(in.http)
		in.spillway("up", "--http", in.http, "--listen", in.listen, newApp(t, "lonely").write()).want(t, 1).
			tells(t, in.http, "another program listens there", "ss -ltnp 'sport = :"+port+"'", "--http")
		in.nothingLeft()
	})
	t.Run("API port taken", func(t *testing.T) {
		in := installOn(t, t.TempDir())
		l, err := net.Listen("tcp", in.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		in.spillway("server", "--http", in.http, "--listen", in.listen).want(t, 1).tells(t, in.listen, "--listen")
	})
	t.Run("two servers on a directory", func(t *testing.T) {
		in := install(t)
		in.spillway("server", "--http", freeAddress(t), "--listen", freeAddress(t)).want(t, 1).tells(t, in.dir, "another")
	})
}

// A state directory that a newer version wrote is refused and not touched; its apps serve on.
func TestBadInput_NewerState(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "newer")
	in.deploy(a).want(t, 0)
	in.kill(syscall.SIGTERM)
	setFormat := func(n byte) (before byte) { // the last byte of user_version, in the header of an SQLite file
		t.Helper()
		f, err := os.OpenFile(filepath.Join(in.dir, "spillway.db"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var was [1]byte
		if _, err := f.ReadAt(was[:], 63); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{n}, 63); err != nil {
			t.Fatal(err)
		}
		return was[0]
	}
	format := setFormat(99)
	in.spillway("server", "--http", in.http, "--listen", in.listen).want(t, 1).
		tells(t, in.dir, "newer Spillway", "format 99", "use that version or another --dir")
	if status, text := in.get(a.Host(), "/"); status != 200 {
		t.Errorf("the release does not serve without a server: %d %s", status, text)
	}
	setFormat(format)
	in.start()
	in.healthy("newer", 1, 20*time.Second)
	in.exactly("newer", 2)
}

// On a full disk a deploy fails and says so, what serves goes on serving, and when there is room again
// everything works without anybody's help.
func TestBadInput_DiskFull(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatalf("this test mounts a small file system, for which it has to be root with the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	in := installOn(t, dir)
	in.start()
	a := newApp(t, "full")
	a.Watch = "0s"
	in.deploy(a).want(t, 0)
	users := in.send(a.Host(), keepAlive("GET", 50))
	users.answered(50)
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	writeFile(t, filepath.Join(a.dir, "large"), strings.Repeat("something new\n", 100_000))
	r := in.deploy(a.bump())
	if r.code != 1 {
		t.Errorf("want exit code 1: %v", r)
	}
	r.tells(t, "no space left on device")
	in.spillway("doctor").tells(t, "what replicas write cannot be kept", "free space on the file system of "+dir)
	users.answered(50)
	if o := in.overview("full"); o.Stable != 1 || o.Phase != spillway.Healthy {
		t.Errorf("on a full disk: %s", describe(o))
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	in.deploy(a.bump()).want(t, 0)
	users.answered(50)
	users.flawless(40)
	in.settled("full", 30*time.Second)
	in.exactly("full", 2)
}

// fill writes a file until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2 // so that not one block is left
		}
	}
}
