package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) restartCommand() *cobra.Command {
	return c.verb(groupWork, &cobra.Command{
		Use:   "restart [SERVICE]",
		Short: "Replace the replicas of a service, or of all, one by one",
		Long:  "Restart starts a new replica, waits until it is ready, and stops an old one, until all are new.",
		Example: `  spillway restart
  spillway restart www`,
		Args:              atMost(1, "SERVICE"),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.restart(cmd.Context(), first(args)) },
		ValidArgsFunction: c.completeServices,
	})
}

func (c *cli) restart(ctx context.Context, service string) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	a, err := c.ask(ctx, client, app, spillway.Intent{Verb: spillway.VerbRestart, Service: service})
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(a.overview)
	}
	if service == "" {
		service = "every service"
	}
	c.print("%s of %s is being restarted, one replica at a time; watch it: spillway ps", service, app)
	return nil
}
