package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// migrating is an app whose release command writes to a journal when it begins and when it ends.
func migrating(t *testing.T, in *installation) (a *app, journal func() string) {
	a = newApp(t, "migrate")
	file := filepath.Join(t.TempDir(), "journal")
	task := func(body string) []string {
		return []string{fmt.Sprintf("release: echo began $SPILLWAY_RELEASE $N >> %[1]s; %[2]s; echo ended $SPILLWAY_RELEASE >> %[1]s", file, body)}
	}
	a.Lines = task("true")
	in.deploy(a).want(t, 0)
	if got := readFile(t, file); got != "began 1 0\nended 1\n" {
		t.Fatalf("the release command of release 1 did not run once: journal %q", got)
	}
	os.Remove(file)
	a.Lines = task("sleep 2")
	return a, func() string { return readFile(t, file) }
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// The release command runs once, before a replica of the new release starts, and not on the way back.
func TestReleaseCommand_RunsOnceBeforeTheFirstReplica(t *testing.T) {
	t.Parallel()
	in := install(t)
	a, journal := migrating(t, in)
	in.spillway("plan", a.bump().write()).want(t, 10).tells(t, "release command")
	done := in.behind("deploy", a.dir)
	await(t, 20*time.Second, "the command to begin", func() bool { return strings.HasPrefix(journal(), "began") })
	for !strings.Contains(journal(), "ended") {
		for _, r := range in.replicas(a.Name) {
			if r.Group.Release != 1 && !strings.Contains(r.Name, "release") {
				t.Fatalf("%s runs beside the release command", r.Name)
			}
		}
		pause()
	}
	(<-done).want(t, 0)
	in.healthy(a.Name, 2, 30*time.Second)
	in.spillway("rollback", "--app", a.Name).want(t, 0)
	in.healthy(a.Name, 1, 30*time.Second)
	if got := journal(); got != "began 2 1\nended 2\n" {
		t.Errorf("want one run of the command of release 2, journal %q", got)
	}
	in.exactly("migrate", 2)
}

// When it fails, nothing was changed, and its last lines are told.
func TestReleaseCommand_FailureChangesNothing(t *testing.T) {
	t.Parallel()
	in := install(t)
	a, _ := migrating(t, in)
	before := pids(in.replicas(a.Name))
	a.Lines = []string{"release: echo adding column; echo column exists >&2; exit 4"}
	users := in.send(a.Host(), everybody()...)
	in.deploy(a.bump()).want(t, 1).tells(t, "release command", "column exists", "4", "release 1 serves everybody")
	if s := users.flawless(150); s.Releases["2"].Requests > 0 {
		t.Errorf("%d requests met release 2", s.Releases["2"].Requests)
	}
	o := in.healthy(a.Name, 1, 30*time.Second)
	if l := o.Last; l == nil || l.Outcome != spillway.Failed {
		t.Errorf("want release 2 failed, got %s", describe(o))
	}
	if now := pids(in.replicas(a.Name)); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the replicas were %v and are %v", before, now)
	}
	in.spillway("logs", "--app", a.Name, "--release", "2").want(t, 0).tells(t, "adding column")
	in.exactly("migrate", 2)
}

// The server is killed while it runs: it runs on, once, and the next server waits for its end.
func TestReleaseCommand_ServerKilled(t *testing.T) {
	t.Parallel()
	in := install(t)
	a, journal := migrating(t, in)
	in.spillway("deploy", "--detach", a.bump().write()).want(t, 0)
	await(t, 20*time.Second, "the command to begin", func() bool { return strings.HasPrefix(journal(), "began") })
	in.kill(syscall.SIGKILL)
	if got := journal(); strings.Contains(got, "ended") {
		t.Fatalf("the command has ended before the kill, which proves nothing: %q", got)
	}
	in.start()
	in.healthy(a.Name, 2, 30*time.Second)
	if got := journal(); got != "began 2 1\nended 2\n" {
		t.Errorf("want one run of the command, journal %q", got)
	}
	in.exactly("migrate", 2)
}
