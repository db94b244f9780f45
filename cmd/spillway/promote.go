package main

import (
	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) promoteCommand() *cobra.Command {
	return c.intentCommand(spillway.VerbPromote, &cobra.Command{
		Short: "Move all users to the candidate without further holds; later: end the watch",
		Long: `Promote skips the holds and certificates that are left and moves all users to the candidate. It is
still rolled back if it turns out to be harmful. At 100 %, promote ends the watch: the old release is
stopped.`,
		Example: "  spillway promote",
	})
}
