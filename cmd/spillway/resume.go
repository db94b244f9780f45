package main

import (
	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway"
)

func (c *cli) resumeCommand() *cobra.Command {
	return c.intentCommand(spillway.VerbResume, &cobra.Command{
		Short: "Go on after a pause; after a rollback: let automatic deploys go on",
		Long: `Resume goes on with a paused rollout. After a rollback it lets automatic deploys go on.

A rollout that rests because the judge or a gate has no data waits for them again, for another
deadline: resume does not let a release pass that nobody could judge. Promote does.`,
		Example: "  spillway resume",
	})
}
