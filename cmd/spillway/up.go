package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// comeBackWithin bounds the wait for an app that ran before.
const comeBackWithin = 30 * time.Second

// upOptions are the flags of up.
type upOptions struct {
	detach bool
	http   string
	https  string
	behind behindOptions
	listen string
	seen   seenOptions
}

func (c *cli) upCommand() *cobra.Command {
	var o upOptions
	cmd := c.verb(groupStart, &cobra.Command{
		Use:   "up [DIR] [flags]",
		Short: "Start everything: server, proxy and the app of a directory",
		Long: `Up starts a server if none runs, deploys the app of the directory, says where it answers, and shows
what happens until Ctrl-C. Ctrl-C stops everything that up started: the app, the proxy and the server.
When a server ran already, Ctrl-C only stops watching.`,
		Example: `  spillway up
  spillway up ./shop
  spillway up -d                       leave it running in the background
  spillway up --http :8080`,
		Args: atMost(1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.up(cmd.Context(), o, first(args)) },
	})
	flags := cmd.Flags()
	flags.BoolVarP(&o.detach, "detach", "d", false, "leave it running in the background")
	flags.StringVar(&o.http, "http", "", "`ADDR` at which users reach the app (default :8080)")
	flags.StringVar(&o.https, "https", "", "`ADDR` at which users reach the hosts that have a certificate (tls:)")
	flags.StringVar(&o.listen, "listen", "", "`ADDR` of the API (default 127.0.0.1:7300)")
	o.behind.flags(cmd)
	o.seen.bind(flags)
	return cmd
}

func (c *cli) up(ctx context.Context, o upOptions, dir string) error {
	if err := checkAddresses(o.http, o.https, o.listen); err != nil {
		return err
	}
	if err := o.behind.check(); err != nil {
		return err
	}
	if _, err := o.seen.seen(); err != nil {
		return err
	}
	src, err := c.openSource(dir)
	if err != nil {
		return err
	}
	defer src.close()
	client, err := c.client()
	if err != nil {
		return err
	}
	server, err := c.ensureServer(ctx, client, o)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		c.say("stopped before anything ran")
		return nil
	}
	if err != nil {
		return err
	}
	owned := server != nil && !o.detach
	err = c.deployAndAttend(ctx, client, src, server, o)
	switch {
	case owned:
		c.say("stopping everything; Ctrl-C again leaves it to end by itself")
		return errors.Join(err, server.stop())
	case server != nil && err == nil:
		c.say("it runs in the background; stop everything: kill -INT %d; the server's log: %s", server.pid(), server.log)
	}
	return err
}

// deployAndAttend lets out the release and, unless up leaves it alone, shows what happens from then on.
func (c *cli) deployAndAttend(ctx context.Context, client *api.Client, src *source, server *serverProcess, o upOptions) error {
	owned := server != nil && !o.detach
	result, err := c.release(ctx, client, src, deployOptions{yes: true, owned: owned})
	if err == nil && result.Same && server != nil {
		err = c.comeBack(ctx, client, result.App)
	}
	if err != nil || o.detach || ctx.Err() != nil {
		return err
	}
	if owned {
		c.say("Ctrl-C stops it all; from another terminal: spillway status, spillway deploy")
	} else {
		c.say("Ctrl-C stops watching; the server ran before and goes on")
	}
	var gone <-chan struct{}
	if server != nil {
		gone = server.gone
	}
	return c.attend(ctx, client, result.App, gone)
}

// comeBack waits until an app that a server has found in its directory serves again.
func (c *cli) comeBack(ctx context.Context, client *api.Client, app spillway.Ref) error {
	ctx, cancel := context.WithTimeout(ctx, comeBackWithin)
	defer cancel()
	o, err := c.until(ctx, client, app, complete)
	if errors.Is(err, context.DeadlineExceeded) {
		c.say("%s; why: spillway status", stateLine(o))
		return nil // it goes on trying
	}
	if err == nil && !c.json {
		c.say("%s", stateLine(o))
	}
	return err
}

// complete reports whether every service has the replicas that it should have, ready now: the phase is that
// of the last decision, which may be older than the server.
func complete(o spillway.Overview) bool {
	return !slices.ContainsFunc(o.Services, func(s spillway.ServiceOverview) bool {
		ready := 0
		for _, g := range s.Groups {
			ready += g.Ready
		}
		return ready < s.Size
	})
}

// ensureServer starts a server when none answers. It returns nil when one was there.
func (c *cli) ensureServer(ctx context.Context, client *api.Client, o upOptions) (*serverProcess, error) {
	_, err := client.Info(ctx)
	if err == nil {
		if o.http != "" || o.https != "" || o.listen != "" || o.behind.given() || o.seen.asked() {
			c.say("a server runs already; --http, --listen and the like are for starting one, and are not used")
		}
		return nil, nil
	}
	if !errors.Is(err, spillway.ErrUnavailable) || c.elsewhere() {
		return nil, err
	}
	return c.startServer(ctx, client, o)
}

// upLine is one line of up --json after the deploy: exactly one field is set.
type upLine struct {
	Event *spillway.Event   `json:"event,omitempty"`
	Line  *spillway.LogLine `json:"line,omitempty"`
}

// attend shows events and output of an app until ctx ends, which is no error, or the server is gone.
func (c *cli) attend(ctx context.Context, client *api.Client, app spillway.Ref, gone <-chan struct{}) error {
	since, err := newestEvent(ctx, client, app)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // one line at a time
	ends := make(chan error, 2)
	// Both are owned by attend, end with following, and are waited for below.
	go func() {
		ends <- client.Follow(following, app, since, func(e spillway.Event) error {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e.Kind == spillway.EventRoute: // the steps tell people the same
				return nil
			case c.json:
				return c.printJSON(upLine{Event: &e})
			}
			return c.printEvent(e)
		})
	}()
	go func() {
		ends <- client.Logs(following, app, spillway.LogQuery{Lines: lastLines, Follow: true}, func(l spillway.LogLine) error {
			mu.Lock()
			defer mu.Unlock()
			if c.json {
				return c.printJSON(upLine{Line: &l})
			}
			return c.printLog(l)
		})
	}()
	running := 2
	select {
	case err = <-ends:
		running--
	case <-gone:
		err = errors.New("the server ended; why: its log, named above")
	}
	cancel()
	for range running {
		<-ends
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}
