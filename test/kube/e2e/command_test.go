//go:build kube

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

// result is what a command did.
type result struct {
	args           []string
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("spillway %s: exit code %d\n%s%s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// spillway runs a command against the installation.
func (in *installation) spillway(args ...string) result {
	in.t.Helper()
	r := in.run("/", args...)
	if r.code < 0 {
		in.t.Fatal(r)
	}
	return r
}

// behind runs a command while the test goes on. What it did comes over the channel.
func (in *installation) behind(args ...string) <-chan result {
	done := make(chan result, 1)
	go func() { done <- in.run("/", args...) }() // ends with the command, which has a deadline
	return done
}

// run runs a command in a directory. The code is negative when it was not started or had to be killed.
func (in *installation) run(dir string, args ...string) result {
	code, stdout, stderr := e2etest.Run(commandWithin, dir, append(os.Environ(), "SPILLWAY_DIR="+in.dir), binary, args...)
	return result{args, code, stdout, stderr}
}

// want ends the test when a command ended with another code.
func (r result) want(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("want exit code %d: %v", code, r)
	}
	return r
}

// tells fails the test when a command did not print a text.
func (r result) tells(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("want %q in the output of %v", text, r)
		}
	}
}

// overview is the status of an app.
func (in *installation) overview(name string) spillway.Overview {
	in.t.Helper()
	o, err := in.client.Overview(in.ctx(10*time.Second), spillway.Ref(name))
	if err != nil {
		in.t.Fatal(err)
	}
	return o
}

// status waits until the overview is as wanted, and gives it.
func (in *installation) status(name string, d time.Duration, what string, wanted func(spillway.Overview) bool) (o spillway.Overview) {
	in.t.Helper()
	if !within(d, func() bool { o = in.overview(name); return wanted(o) }) {
		in.t.Fatalf("waited %v for %s; now %s", d, what, describe(o))
	}
	return o
}

// settled waits until no rollout runs and none waits.
func (in *installation) settled(name string, d time.Duration) spillway.Overview {
	in.t.Helper()
	return in.status(name, d, "the rollout to end", func(o spillway.Overview) bool { return o.Rollout == nil && o.Queue == 0 })
}

// healthy waits until the app is at rest with a release.
func (in *installation) healthy(name string, release int, d time.Duration) spillway.Overview {
	in.t.Helper()
	return in.status(name, d, fmt.Sprintf("%s to be Healthy on release %d", name, release), func(o spillway.Overview) bool {
		return o.Rollout == nil && o.Queue == 0 && o.Stable == release && o.Phase == spillway.Healthy
	})
}

// describe is an overview in one line.
var describe = e2etest.Describe

// newest is the number of the newest release of an app.
func (in *installation) newest(name string) int {
	in.t.Helper()
	list, err := in.client.Releases(in.ctx(10*time.Second), spillway.Ref(name))
	if err != nil {
		in.t.Fatal(err)
	}
	return list[0].Number
}

// events are what happened to an app, oldest first.
func (in *installation) events(name string) []spillway.Event {
	in.t.Helper()
	list, err := in.client.Events(in.ctx(10*time.Second), spillway.Ref(name), spillway.EventQuery{})
	if err != nil {
		in.t.Fatal(err)
	}
	return list
}
