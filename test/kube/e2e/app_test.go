//go:build kube

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
	"github.com/spillway-dev/spillway/internal/load"
)

// castle is a copy of examples/castle. Its file is the one that runs on one machine; what a test changes are the name
// by which users come, because all tests share a gateway, values of the environment, and how long it rests.
type castle struct {
	*testing.T
	in   *installation
	dir  string
	host string
	n    int // rises with every change
}

// newCastle gives a castle that was not deployed yet, with short rests.
func newCastle(in *installation) *castle {
	in.t.Helper()
	c := &castle{T: in.t, in: in, dir: example(in.t, "castle"), host: "www." + in.namespace + ".localhost"}
	c.edit("host: www.castle.localhost", "host: "+c.host)
	c.edit("steps: [5% 5s, 25% 5s, 50% 5s]", "steps: [25% 1s, 50% 1s]")
	c.edit("watch: 2m", "watch: 4s")
	c.edit("      GREETING: Welcome to the castle", "      GREETING: number 0")
	c.edit("    build: ./backend\n", "    build: ./backend\n    env: {NUMBER: \"0\"}\n")
	return c
}

// change makes the next deploy a new release of both tiers.
func (c *castle) change() *castle {
	c.Helper()
	c.edit(fmt.Sprintf("GREETING: number %d", c.n), fmt.Sprintf("GREETING: number %d", c.n+1))
	c.edit(fmt.Sprintf("NUMBER: %q", strconv.Itoa(c.n)), fmt.Sprintf("NUMBER: %q", strconv.Itoa(c.n+1)))
	c.n++
	return c
}

// with gives www one more value of the environment; without takes it away.
func (c *castle) with(line string) *castle {
	c.Helper()
	c.edit("      GREETING:", "      "+line+"\n      GREETING:")
	return c
}

func (c *castle) without(line string) *castle {
	c.Helper()
	c.edit("      "+line+"\n", "")
	return c
}

func (c *castle) file() string { return filepath.Join(c.dir, "spillway.yaml") }

func (c *castle) edit(old, new string) {
	c.Helper()
	replace(c.T, c.file(), old, new)
}

// deploy deploys the castle as it is and follows until it serves or is back.
func (c *castle) deploy(flags ...string) result {
	c.Helper()
	return c.in.spillway(append([]string{"deploy", c.dir}, flags...)...)
}

// begin deploys the castle for the first time, and gives users and visitors who are served by it.
func (c *castle) begin() (*traffic, *visitors) {
	c.Helper()
	return c.beginWith(everybody(80)...), c.visit()
}

// beginWith deploys the castle for the first time, and gives users who are served by it.
func (c *castle) beginWith(plans ...load.Plan) *traffic {
	c.Helper()
	c.deploy().want(c.T, 0)
	c.in.healthy("castle", 1, time.Minute)
	users := c.in.send(c.host, plans...)
	users.answered(100)
	return users
}

// divided waits until the candidate of the castle serves this share, in percent.
func (in *installation) divided(percent int) {
	in.t.Helper()
	in.status("castle", time.Minute, fmt.Sprint(percent, " %"), func(o spillway.Overview) bool {
		return o.Rollout != nil && o.Rollout.Served == spillway.Percent(percent)
	})
}

// send starts load on the castle.
func (c *castle) send(rate float64) *traffic {
	c.Helper()
	return c.in.send(c.host, everybody(rate)...)
}

// example copies an example, so that the test can change it, and gives the directory.
func example(t *testing.T, name string) string {
	t.Helper()
	return e2etest.Example(t, root(), name)
}

// replace changes a text in a file; that it is there is part of the test.
var replace = e2etest.Replace
