package main

import (
	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) pauseCommand() *cobra.Command {
	return c.intentCommand(spillway.VerbPause, &cobra.Command{
		Short: "Stay at the present weight",
		Long: `Pause keeps the candidate at the weight that it has. It is still judged, and rolled back if it is
harmful. Go on with resume, or end it with abort.`,
		Example: "  spillway pause",
	})
}
