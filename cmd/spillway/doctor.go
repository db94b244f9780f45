package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) doctorCommand() *cobra.Command {
	return c.verb(groupWork, &cobra.Command{
		Use:   "doctor",
		Short: "Check this installation, and say what to mend",
		Long:  "Doctor asks the server to check itself and its machine. It ends with exit code 1 when a check failed.",
		Example: `  spillway doctor
  spillway doctor --json`,
		Args: atMost(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.doctor(cmd.Context()) },
	})
}

func (c *cli) doctor(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	info, err := client.Info(ctx)
	if err != nil {
		return err
	}
	checks, err := client.Doctor(ctx)
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(map[string]any{"server": info, "checks": checks})
	} else {
		c.print("server %s, pid %d, API %s%s%s, state in %s", info.Version, info.PID, info.Listen, after(", HTTP ", info.HTTP), after(", HTTPS ", info.HTTPS), info.Dir)
	}
	failed := 0
	for _, check := range checks {
		mark := c.outStyle.green("ok  ")
		switch check.State {
		case "warn":
			mark = c.outStyle.yellow("warn")
		case "fail":
			mark = c.outStyle.red("fail")
			failed++
		}
		if c.json {
			continue
		}
		c.print("%s  %s: %s", mark, check.Name, clean(check.Text))
		if check.Remedy != "" && check.State != "ok" {
			c.print("      remedy: %s", clean(check.Remedy))
		}
	}
	if err == nil && failed > 0 {
		err = exitError{exitFailed, fmt.Errorf("%s failed", count(failed, "check"))}
	}
	return err
}
