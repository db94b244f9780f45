package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

// holdFor is how long a request is held unless somebody says otherwise.
const holdFor = 30 * time.Second

func (c *cli) holdCommand() *cobra.Command {
	wait, off := holdFor, false
	cmd := c.verb(groupWork, &cobra.Command{
		Use:   "hold [flags]",
		Short: "Let new requests to an app wait at the proxy, and go on",
		Long: `Hold lets new requests to the public hosts of an app wait at the proxy, for moments in which the app must
see none: a change of its database, say. Requests in flight, WebSockets, connections of TCP and calls
between its services go on. A request that has waited for the time, or finds 1,000 others waiting, is
refused with 503 and Retry-After. Hold --off lets them go on, 200 a second. The hold lasts until then, also
when the proxy is replaced or restarted.`,
		Example: `  spillway hold
  spillway hold --for 10s
  spillway hold --off`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case off && cmd.Flags().Changed("for"):
				return usage("--for is about a hold, and --off ends it: give one of them")
			case off:
				return c.hold(cmd.Context(), 0)
			case wait <= 0:
				return usage("--for %v: how long may a request wait? Like --for 30s; to let requests go on: spillway hold --off", wait)
			}
			return c.hold(cmd.Context(), wait)
		},
	})
	cmd.Flags().DurationVar(&wait, "for", holdFor, "how long a request waits before it is refused")
	cmd.Flags().BoolVar(&off, "off", false, "let requests go on")
	return cmd
}

func (c *cli) hold(ctx context.Context, wait time.Duration) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	h, err := client.Hold(ctx, app, wait)
	switch {
	case err != nil:
		return err
	case c.json:
		return c.printJSON(h)
	case wait > 0:
		c.print("%s is held: new requests wait, each for up to %s; let them go on: spillway hold --off", app, h.For)
	case h.Since.IsZero():
		c.print("%s was not held", app)
	default:
		c.print("%s goes on: %s", app, heldWords(h))
	}
	return nil
}

// heldWords is how many requests wait: "3 requests wait, each for up to 30s".
func heldWords(h spillway.Hold) string {
	if h.Waiting == 1 {
		return fmt.Sprintf("1 request waits, for up to %s", h.For)
	}
	return fmt.Sprintf("%d requests wait, each for up to %s", h.Waiting, h.For)
}
