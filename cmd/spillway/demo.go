package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway/internal/load"
)

// demoRate is the load of the demonstration: enough for a certificate in seconds, little for a laptop.
const demoRate = 300

func (c *cli) demoCommand() *cobra.Command {
	return c.verb(groupStart, &cobra.Command{
		Use:   "demo",
		Short: "See it work: a good release, a bad one, a switch and back, under load, in a few seconds",
		Long: `Demo starts a server of its own in a temporary directory, sends requests all the time, and lets out
releases of a small app of two tiers: a first one, a good one, one that fails every request, and one by
blue-green that is taken back. Everything is real: processes, proxy, requests. It ends with the count of
failed requests, and leaves nothing behind.`,
		Example: "  spillway demo",
		Args:    atMost(0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context()) },
	})
}

// demonstration is one run of demo.
type demonstration struct {
	*cli
	app  string // directory of the app
	http string
	self string
	load *load.Load
}

func (c *cli) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "spillway-demo-")
	if err != nil {
		return err
	}
	d := &demonstration{cli: c, app: filepath.Join(dir, "app")}
	if d.self = c.self; d.self == "" {
		if d.self, err = os.Executable(); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c.dir, c.server, c.app, c.context = filepath.Join(dir, "state"), "", "", ""
	if err := os.MkdirAll(d.app, 0o700); err != nil {
		return err
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	d.http = "127.0.0.1:" + ports[0]
	client, err := c.client()
	if err != nil {
		return err
	}
	server, err := c.startServer(ctx, client, upOptions{http: d.http, listen: "127.0.0.1:" + ports[1]})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	return d.tell(ctx)
}

// tell is the story, with a line before each step that says what to look for.
func (d *demonstration) tell(ctx context.Context) error {
	d.headline("1. The first deploy: two tiers, two replicas each. Nothing serves yet, so it goes straight to 100 %%.")
	if err := d.deploy(ctx, exitDone, "one", "", ""); err != nil {
		return err
	}
	stop, err := d.startLoad(ctx)
	if err != nil {
		return err
	}
	defer stop()
	d.say("from now on %d requests a second come in, each from another user", demoRate)

	d.headline("2. A good release, by canary: 5 %%, 25 %%, 50 %% of the users; each step waits for evidence, not for a clock.")
	if err := d.deploy(ctx, exitDone, "two", "", ""); err != nil {
		return err
	}
	d.headline("3. A release that answers 500 to everything. The proxy takes it out of the route by itself,\n   and what it failed is answered by the old release.")
	before := d.load.Counts()
	if err := d.deploy(ctx, exitRolledBack, "three", "1", ""); err != nil {
		return err
	}
	d.say("users saw %d failed requests of %d", d.load.Counts().Failures-before.Failures, d.load.Counts().Requests-before.Requests)

	d.headline("4. Blue-green: the whole new colour starts in the dark, then one switch.")
	if err := d.deploy(ctx, exitDone, "four", "", "blue-green"); err != nil {
		return err
	}
	d.headline("5. Roll back: the old colour is still warm, so it is one switch.")
	if err := d.command(ctx, exitDone, "rollback"); err != nil {
		return err
	}
	stop()
	counts := d.load.Counts()
	d.headline("Over all of it: %d requests, %d failed; half of them took less than %s, 99 %% less than %s.", counts.Requests, counts.Failures, counts.P50.Round(100*time.Microsecond), counts.P99.Round(100*time.Microsecond))
	if d.json {
		return d.printJSON(counts)
	}
	if counts.Failures > 0 {
		return exitError{exitFailed, fmt.Errorf("%d requests failed: %v", counts.Failures, counts.Classes)}
	}
	return nil
}

func (d *demonstration) headline(format string, args ...any) {
	fmt.Fprintln(d.stderr)
	d.say("%s", d.errStyle.bold(fmt.Sprintf(format, args...)))
}

// deploy writes the app file of a release and lets it out.
func (d *demonstration) deploy(ctx context.Context, want int, greeting, fail, strategy string) error {
	text := fmt.Sprintf(demoFile, d.self, greeting, fail, d.self)
	if err := os.WriteFile(filepath.Join(d.app, "spillway.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	args := []string{"deploy", "-y"}
	if strategy != "" {
		args = append(args, "--strategy", strategy)
	}
	return d.command(ctx, want, args...)
}

// command runs a command of our own as a user would, and checks its exit code.
func (d *demonstration) command(ctx context.Context, want int, args ...string) error {
	d.say("$ spillway %s", strings.Join(args, " "))
	inner := newCLI(d.stdin, d.stderr, d.stderr, d.getenv) // its data is our progress
	inner.self = d.self
	code := inner.run(ctx, append(args, "--dir", d.dir, "--file", filepath.Join(d.app, "spillway.yaml")))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if code != want {
		return fmt.Errorf("spillway %s ended with exit code %d, and not with %d as it should", args[0], code, want)
	}
	return nil
}

// startLoad sends requests until the stop function is called, which may be called again.
func (d *demonstration) startLoad(ctx context.Context) (stop func(), err error) {
	d.load, err = load.New(load.Plan{URL: "http://" + d.http + "/", Host: "demo.localhost", Rate: demoRate, Workers: 16})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { d.load.Run(ctx) }) // owned by tell; ends with cancel; stop waits for it
	return func() {
		cancel()
		running.Wait()
	}, nil
}

// freePorts finds loopback ports that nobody listens on at the moment.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all are held until all are known, so that they differ
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}

// demoFile is the app file of the demonstration: program, greeting, failure rate, program.
const demoFile = `app: demo
services:
  www:
    run: [%s, _demo]
    host: demo.localhost
    needs: [backend]
    health: /healthz
    scale: 2
    strategy: canary
    steps: [5%% 1s, 25%% 1s, 50%% 1s]
    env: {GREETING: %s, FAIL: "%s"}
  backend:
    run: [%s, _demo]
    health: /healthz
    scale: 2
watch: 1m
`

// demoTimeout bounds a call of the demo's front tier to its back tier.
const demoTimeout = 5 * time.Second
