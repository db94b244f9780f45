package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) logsCommand() *cobra.Command {
	var q spillway.LogQuery
	cmd := c.verb(groupWatch, &cobra.Command{
		Use:   "logs [flags]",
		Short: "What the replicas wrote",
		Long: `Logs prints what the replicas wrote to their standard output and error, also those that are gone. On
Kubernetes it prints what the cluster has: it throws away what a pod wrote with the pod. There it prints
10,000 lines or 16 MiB of 100 replicas at most, and says what it leaves out.`,
		Example: `  spillway logs
  spillway logs -f --service www
  spillway logs --release 8 -n 500     of a release that failed
  spillway logs --json -f`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.logs(cmd.Context(), q) },
	})
	flags := cmd.Flags()
	flags.BoolVarP(&q.Follow, "follow", "f", false, "go on until Ctrl-C")
	flags.IntVarP(&q.Lines, "lines", "n", 100, "the newest `N` lines")
	flags.StringVar(&q.Service, "service", "", "only of this service")
	flags.StringVar(&q.Replica, "replica", "", "only of this replica, like www.4-1")
	flags.IntVar(&q.Release, "release", 0, "only of replicas of this release")
	c.complete(cmd, "service", c.completeServices)
	c.complete(cmd, "release", c.completeReleases)
	return cmd
}

func (c *cli) logs(ctx context.Context, q spillway.LogQuery) error {
	if q.Lines < 1 {
		return usage("--lines %d: a number from 1", q.Lines)
	}
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	told := false
	err = client.Logs(ctx, app, q, func(l spillway.LogLine) error {
		told = told || l.Stream != spillway.StreamNote
		return c.printLog(l)
	})
	if ctx.Err() != nil {
		return nil
	}
	if err == nil && !told {
		c.say("%s wrote nothing that matches", app)
	}
	return err
}

// printLog prints one line of a replica.
func (c *cli) printLog(l spillway.LogLine) error {
	if c.json {
		return c.printJSON(l)
	}
	if l.Stream == spillway.StreamNote {
		c.say("%s", clean(l.Text))
		return nil
	}
	name := l.At.Local().Format("15:04:05") + " " + l.Replica
	if l.Stream == "stderr" {
		name += "!"
	}
	c.print("%s  %s", c.outStyle.dim(name), clean(l.Text))
	return nil
}
