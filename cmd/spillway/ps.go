package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) psCommand() *cobra.Command {
	return c.verb(groupWatch, &cobra.Command{
		Use:     "ps",
		Short:   "The replicas: state, age, restarts, CPU, memory",
		Long:    "Ps lists every running copy of every service, with what is wrong with it, if anything.",
		Example: "  spillway ps",
		Args:    atMost(0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.ps(cmd.Context()) },
	})
}

func (c *cli) ps(ctx context.Context) error {
	client, app, err := c.target(ctx)
	if err != nil {
		return err
	}
	replicas, err := client.Replicas(ctx, app)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"replicas": replicas})
	}
	if len(replicas) == 0 {
		c.say("%s has no replicas; see: spillway status", app)
		return nil
	}
	return replicaTable(replicas, time.Now()).print(c.stdout)
}

func replicaTable(replicas []spillway.Replica, now time.Time) *table {
	t := newTable("REPLICA", "STATE", "STARTED", "RESTARTS", "OPEN", "CPU", "MEMORY", "PID", "ADDRESS", "PROBLEM")
	for _, r := range replicas {
		pid, open, cpu, used := "", strconv.Itoa(r.InFlight), r.CPU.String(), memory(r.Memory)
		if r.PID != 0 {
			pid = strconv.Itoa(r.PID)
		}
		if r.Memory == 0 { // no program runs without memory: nothing was measured, as on a cluster
			cpu, used = "", ""
			if r.InFlight == 0 {
				open = ""
			}
		}
		t.row(r.Name, string(r.State), age(now, r.Started), strconv.Itoa(r.Restarts), open, cpu, used, pid, r.Address, r.Problem)
	}
	return t
}

// memory prints an amount in mebibytes, as far as people compare it: "12.4Mi", "310Mi".
func memory(b spillway.Bytes) string {
	mebi := float64(b) / (1 << 20)
	decimals := 0
	if mebi < 100 {
		decimals = 1
	}
	return strconv.FormatFloat(mebi, 'f', decimals, 64) + "Mi"
}
