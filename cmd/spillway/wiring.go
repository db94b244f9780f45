package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/kube/counts"
	"github.com/spillway-dev/spillway/internal/local"
	"github.com/spillway-dev/spillway/internal/metrics"
	"github.com/spillway-dev/spillway/internal/oci"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
	"github.com/spillway-dev/spillway/internal/store"
)

// roles lists the commands that are parts of a running installation rather than verbs.
func (c *cli) roles() []*cobra.Command {
	return []*cobra.Command{c.serverCommand(), c.proxyCommand(), c.demoCommand(), c.demoWebCommand()}
}

// installation is every part of a server, wired. Parts meet here and nowhere else: the store and the
// platform through the loop, the platform and the proxy through the proxy's client.
type installation struct {
	log      *slog.Logger
	store    records
	builder  *pipeline.Builder
	proxy    dataPlane
	daemon   *local.Daemon // the proxy's process; nil on a cluster
	platform runner
	asker    *metrics.Asker
	trials   trials
	loop     *reconcile.Loop
	engine   *engine
	api      *api.Server
	self     string              // the pinned copy of our program: see pinProgram
	facts    chan spillway.Event // of replicas, on their way into the store
	closers  []func() error      // last in, first out

	// The rest is of a cluster; nil on one machine.
	images *oci.Registry
	fits   func(spillway.App) error                                              // what its data plane cannot do of an app
	doubts func(context.Context, spillway.App) []string                          // what its data plane does otherwise than an app says; nil = see doubtfulCertificates
	taken  func(context.Context, spillway.Release) error                         // whether others have its hosts
	gone   func(context.Context, spillway.Ref, rollout.Status) ([]string, error) // resources in use that somebody deleted
	// putBack makes those anew that this server remembers.
	putBack func(context.Context, spillway.Ref, rollout.Status) ([]string, error)
	lost    func(ctx context.Context, gone func(spillway.Ref, int)) error // watches for them
	wishes  wishes
	asked   func(ctx context.Context, changed func(spillway.Ref)) error // watches what resources ask for
	judge   *counts.Judge
	lead    func(ctx context.Context, run func(context.Context) error) error
	leads   atomic.Bool // this server decides, and no other
	visit   *visitor    // nil without a gateway: nobody counts

	standing func(context.Context) (string, bool) // what this server is while it does not lead, and whether another one leads
	leader   func(context.Context) spillway.Check // who leads
}

// assemble opens the state directory and wires the parts. It starts nothing but what it says; on an error
// everything that was opened is closed.
func assemble(ctx context.Context, o serverOptions, log *slog.Logger) (_ *installation, err error) {
	in := &installation{log: log, facts: make(chan spillway.Event, 1000)}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	stored, err := store.Open(ctx, o.dir)
	if err != nil {
		return nil, err
	}
	in.store = stored
	in.closers = append(in.closers, stored.Close)
	if o.self, err = pinProgram(o.dir, o.self); err != nil {
		return nil, err
	}
	in.self = o.self
	if in.builder, err = pipeline.NewBuilder(filepath.Join(o.dir, "builds"), log); err != nil {
		return nil, err
	}
	client := proxy.Dial(filepath.Join(o.dir, "proxy"))
	platform, err := local.Open(ctx, local.Config{Dir: o.dir, Router: client, Log: log, Self: o.self, Events: in.fact})
	if err != nil {
		return nil, err
	}
	in.proxy, in.platform = client, platform
	argv := []string{o.self, "proxy", "--dir", o.dir, "--http", o.http, "--takeover"}
	if o.https != "" {
		argv = append(argv, "--https", o.https)
	}
	argv = append(argv, o.behind.args()...)
	argv = append(argv, seenArgs(o.seen)...)
	if in.daemon, err = platform.Daemon("proxy", argv, nil); err != nil {
		return nil, err
	}
	in.asker = metrics.New(metrics.Config{Log: log, Changed: func(app spillway.Ref) { in.loop.Wake(app) }})
	in.loop = reconcile.NewLoop(in.store, gated{in.platform, in.asker, &in.trials}, log)
	in.engine = &engine{installation: in, options: o}
	in.api = api.NewServer(api.Config{Engine: in.engine, Log: log, Dir: o.dir, Listen: o.listen})
	in.closers = append(in.closers, in.api.Close) // nobody asks any more when the rest is closed
	return in, nil
}

func (in *installation) close() error {
	var errs []error
	for i := len(in.closers) - 1; i >= 0; i-- {
		errs = append(errs, in.closers[i]())
	}
	return errors.Join(errs...)
}

// fact takes what a replica did. It never blocks: under a flood facts are lost, decisions never are.
func (in *installation) fact(e spillway.Event) {
	select {
	case in.facts <- e:
	default:
		in.log.Warn("too many facts of replicas at once, one is not kept", "app", e.App, "text", e.Text)
	}
}

// keepFacts writes facts into the history until ctx ends.
func (in *installation) keepFacts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-in.facts:
			if err := in.store.AppendEvents(ctx, e.App, []spillway.Event{e}); err != nil && ctx.Err() == nil && !errors.Is(err, spillway.ErrNotFound) {
				in.log.Warn("a fact of a replica is not kept", "app", e.App, "text", e.Text, "error", err)
			}
		}
	}
}

// run serves until ctx ends or a part fails. Replicas and the proxy go on running after it.
func (in *installation) run(ctx context.Context, o serverOptions, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	failed := make(chan error, 8)
	part := func(name string, run func(context.Context) error) {
		// Owned by run, which waits below; ends with ctx or with its own failure, which ends all.
		parts.Go(func() {
			if err := run(ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
			cancel()
		})
	}
	err := in.api.Listen(ctx) // first: the proxy would go on running behind a server that cannot be reached
	if err == nil && in.daemon != nil {
		err = in.startProxy(ctx, o, part)
	}
	switch {
	case err == nil && in.daemon == nil:
		in.runCluster(part)
		ready()
		<-ctx.Done()
	case err == nil:
		part("replicas", in.platform.Run)
		part("loop", in.loop.Run)
		part("gates", in.asker.Run)
		part("history", in.keepFacts)
		part("builds", in.keepSmall)
		part("requests of our own", in.visits(o.dir).run)
		part("api", in.api.Run)
		ready()
		<-ctx.Done()
	}
	cancel()
	parts.Wait()
	close(failed)
	for f := range failed {
		err = errors.Join(err, f)
	}
	return err
}

// startProxy makes sure that a proxy of this program serves on the address asked for: the one that runs is
// kept when it is that, and replaced without a refused connection when it is another.
func (in *installation) startProxy(ctx context.Context, o serverOptions, part func(string, func(context.Context) error)) error {
	running := in.daemon.PID() != 0
	has, _ := in.proxy.Info(ctx) // without an answer it has nothing
	if err := checkSeen(o.seen, has.Seen); err != nil {
		return err
	}
	if !running {
		for _, flag := range [][2]string{{"http", o.http}, {"https", o.https}} {
			if err := addressFree(flag[0], flag[1]); err != nil {
				return err
			}
		}
	}
	part("proxy", in.daemon.Run)
	info, err := in.proxyServes(ctx, in.daemon.PID)
	if err != nil {
		return err
	}
	if running && (info.Version != fingerprint(in.self) || (info.HTTPS == "") != (o.https == "") || !o.behind.same(info.Behind) || info.Seen != o.seen) {
		in.log.Info("the proxy is of another version, or was started with other flags, and is replaced", "pid", info.PID)
		return in.replaceProxy(ctx)
	}
	return nil
}

// proxyServes waits until the proxy with the pid answers.
func (in *installation) proxyServes(ctx context.Context, pid func() int) (proxy.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := in.proxy.Info(ctx)
		if err == nil && info.PID == pid() {
			return info, nil
		}
		select {
		case <-ctx.Done():
			return info, fmt.Errorf("the proxy did not start within 15 s (%w); its output: %s", errors.Join(err, ctx.Err()), filepath.Join(in.engine.options.dir, "local/daemons/proxy/logs"))
		case <-tick.C:
		}
	}
}

// replaceProxy starts a new proxy beside the old one, which hands it its listeners and ends when its
// requests have.
func (in *installation) replaceProxy(ctx context.Context) error {
	return in.daemon.Replace(ctx, func(ctx context.Context, pid int) error {
		_, err := in.proxyServes(ctx, func() int { return pid })
		return err
	})
}

// addressFree reports in words why the address of a flag cannot be listened at; "" is free.
func addressFree(flag, address string) error {
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		return fmt.Errorf("users cannot be served on %s: another program listens there; see which: ss -ltnp 'sport = :%s'; or choose another: --http :8081, --https :8444: %w", address, port, spillway.ErrConflict)
	}
	if err != nil {
		return listenError(flag, address, err)
	}
	return l.Close()
}
