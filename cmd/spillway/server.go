package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway/internal/proxy"
)

// haltWithin bounds how long stopping everything may take.
const haltWithin = 90 * time.Second

// serverOptions are the flags of server.
type serverOptions struct {
	dir    string // absolute
	http   string
	https  string // "" = none
	listen string
	behind behindOptions
	seen   proxy.Seen
	self   string // our own program
	level  slog.Level

	cluster clusterOptions
}

func (c *cli) serverCommand() *cobra.Command {
	var o serverOptions
	var seen seenOptions
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "server [flags]",
		Short: "Run the server: it keeps apps running and steers rollouts",
		Long: `The server steers rollouts and keeps replicas and the proxy running. It serves the API on a unix socket
in its state directory and on --listen. Replicas and the proxy are processes of their own: when the
server ends or is killed they go on, and the next server on the same directory takes them up again.

  SIGTERM  ends the server only; apps go on
  SIGINT   (Ctrl-C) stops everything: apps, proxy, server; the next start brings the apps back
  SIGHUP   replaces the proxy by a new process, without a refused connection

An upgrade is a SIGTERM and a start of the new program: it takes up what runs and replaces the proxy.`,
		Example: `  spillway server
  spillway server --http :80 --dir /var/lib/spillway
  spillway server --trust 10.0.0.0/8 --proxy-protocol   # behind a load balancer`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.dir, err = filepath.Abs(c.dir); err != nil {
				return err
			}
			if err := checkAddresses(o.http, o.https, o.listen); err != nil {
				return err
			}
			if err := errors.Join(o.behind.check(), o.cluster.check()); err != nil {
				return err
			}
			if o.seen, err = seen.seen(); err != nil {
				return err
			}
			if o.self = c.self; o.self == "" {
				if o.self, err = os.Executable(); err != nil {
					return err
				}
			}
			return c.serve(cmd.Context(), o)
		},
	})
	cmd.Flags().StringVar(&o.http, "http", ":8080", "`ADDR` at which users reach the apps")
	cmd.Flags().StringVar(&o.https, "https", "", "`ADDR` at which users reach the hosts that have a certificate (tls:)")
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:7300", "`ADDR` of the API")
	cmd.Flags().TextVar(&o.level, "log-level", slog.LevelInfo, "`LEVEL` from which on the server says what it does: debug, info, warn or error")
	o.behind.flags(cmd)
	o.cluster.flags(cmd.Flags())
	seen.bind(cmd.Flags())
	return cmd
}

// serve runs a server until a signal.
func (c *cli) serve(ctx context.Context, o serverOptions) (err error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	log := slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: o.level}))
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // signals are ours to tell apart
	defer cancel()
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return stateError(o.dir, fmt.Errorf("state directory: %w", err))
	}
	wire := assemble
	if o.cluster.on {
		wire = assembleCluster
	}
	in, err := wire(ctx, o, log)
	if err != nil {
		return stateError(o.dir, err)
	}
	defer func() { err = errors.Join(err, in.close()) }()
	ended := make(chan error, 1)
	// Owned by serve; ends with ctx or its own failure; waited for through ended.
	go func() {
		ended <- in.run(ctx, o, func() { log.Info("serving", "dir", o.dir, "api", in.api.Addr(), "pid", os.Getpid()) })
	}()
	halt := false
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP && in.daemon != nil {
				if err := in.replaceProxy(ctx); err != nil {
					log.Error("the proxy was not replaced and goes on", "error", err)
				}
				continue
			}
			halt = s == syscall.SIGINT
			log.Info("ending", "signal", s, "stop apps", halt)
			cancel()
		case err := <-ended:
			if halt {
				err = in.halt(err)
			}
			return err
		}
	}
}

// halt stops what goes on running after run: replicas first, so that their last requests are answered.
func (in *installation) halt(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), haltWithin)
	defer cancel()
	if haltErr := in.platform.Halt(ctx); haltErr != nil {
		in.log.Error("not every replica was stopped", "error", haltErr)
	}
	if in.daemon == nil {
		return err
	}
	if stopErr := in.daemon.Stop(ctx); stopErr != nil {
		in.log.Error("the proxy was not stopped", "error", stopErr)
	}
	return err
}

// checkAddresses finds addresses to listen on that are none; "" is fine.
func checkAddresses(http, https, listen string) error {
	for _, flag := range [][2]string{{"http", http}, {"https", https}, {"listen", listen}} {
		if flag[1] == "" {
			continue
		}
		_, port, err := net.SplitHostPort(flag[1])
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil {
			return usage("--%s %s is no address to listen on; write :8080 or 127.0.0.1:8080", flag[0], flag[1])
		}
	}
	return nil
}

func (c *cli) proxyCommand() *cobra.Command {
	var config proxy.Config
	var behind behindOptions
	var seen seenOptions
	cmd := &cobra.Command{
		Use:    "proxy [flags]",
		Short:  "Run the data plane; the server starts it",
		Hidden: true,
		Long:   "The proxy serves users. The server starts it and keeps it running; it goes on serving without a server.",
		Args:   atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if err := behind.check(); err != nil {
				return err
			}
			if config.Seen, err = seen.seen(); err != nil {
				return err
			}
			config.Dir, config.Version, config.Engine = filepath.Join(c.dir, "proxy"), fingerprint(self), os.Getenv("SPILLWAY_ENGINE")
			config.Trust, config.ProxyProtocol = behind.networks(), behind.headers
			config.Log = slog.New(slog.NewTextHandler(c.stderr, nil))
			return proxy.Run(cmd.Context(), config)
		},
	}
	cmd.Flags().StringVar(&config.HTTP, "http", ":8080", "`ADDR` at which users reach the apps")
	cmd.Flags().StringVar(&config.HTTPS, "https", "", "`ADDR` at which users reach the hosts that have a certificate")
	behind.flags(cmd)
	seen.bind(cmd.Flags())
	cmd.Flags().BoolVar(&config.Takeover, "takeover", false, "take the listeners of the proxy that runs in the state directory")
	return cmd
}
