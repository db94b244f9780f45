package main

import (
	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) cancelCommand() *cobra.Command {
	return c.intentCommand(spillway.VerbCancel, &cobra.Command{
		Short:   "Drop the deploy that waits, or else the one that runs",
		Long:    "Cancel drops the deploy that waits for its turn. When none waits it takes back the one that runs.",
		Example: "  spillway cancel",
	})
}
