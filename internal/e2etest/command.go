package e2etest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// Build builds a package as it is released, without cgo, in the directory of its module, and puts the program into a
// file.
func Build(dir, pkg, file string) error {
	build := exec.Command("go", "build", "-o", file, pkg)
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Run runs a command to its end, but for no longer than d, and gives its exit code and what it printed. The code is
// negative when it was not started or had to be killed.
func Run(d time.Duration, dir string, env []string, program string, args ...string) (code int, stdout, stderr string) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &out, &problems, env
	err := cmd.Run()
	if ctx.Err() != nil {
		fmt.Fprintf(&problems, "\nit did not return within %v", d)
	}
	if cmd.ProcessState == nil {
		fmt.Fprintf(&problems, "\nit did not start: %v", err)
		return -1, out.String(), problems.String()
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}

// LastLines are the last n lines of a text, or all.
func LastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// FreeAddress is one on which nobody listens, with one of the 10,000 ports that begin with first. They lie below those
// from which the system makes connections, so that no connection takes it in the meantime.
func FreeAddress(t *testing.T, first int) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(10_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatalf("no free port from %d to %d", first, first+9_999)
	return ""
}

// Describe is an overview in one line.
func Describe(o spillway.Overview) string {
	text := fmt.Sprintf("%s is %s, stable %d, queue %d", o.App, o.Phase, o.Stable, o.Queue)
	if r := o.Rollout; r != nil {
		text += fmt.Sprintf(", release %d at %s of %s in step %d of %d, waiting for %s, evidence %+v", r.Release, r.Served, r.Asked, r.Step, r.Steps, r.Waiting, r.Evidence)
	}
	if l := o.Last; l != nil {
		text += fmt.Sprintf("; last: release %d %s: %s", l.Release, l.Outcome, l.Reason)
	}
	return text
}

// Serves is the release that has all traffic, watched or not; 0 when it is divided.
func Serves(o spillway.Overview) int {
	switch {
	case o.Rollout == nil:
		return o.Stable
	case o.Phase == spillway.Promoting:
		return o.Rollout.Release
	default:
		return 0
	}
}

// Ready says one thing of each ready replica of a release, in order: its name, or its address.
func Ready(all []spillway.Replica, release int, thing func(spillway.Replica) string) (list []string) {
	for _, r := range all {
		if r.Group.Release == release && r.State == spillway.Ready {
			list = append(list, thing(r))
		}
	}
	slices.Sort(list)
	return list
}

// Earlier is one of the last five releases, but for the one that serves. There are two at least.
func Earlier(random *rand.Rand, newest, serves int) int {
	target := newest - random.IntN(min(5, newest))
	if target == serves {
		target--
	}
	if target < 1 {
		target = newest
	}
	return target
}
