package main

import (
	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway/internal/appfile"
)

func (c *cli) schemaCommand() *cobra.Command {
	return c.verb(groupWork, &cobra.Command{
		Use:   "schema",
		Short: "The JSON Schema of spillway.yaml, for editors",
		Long: `Schema prints the JSON Schema of the app file: all keys, what they mean and what they may be. With
"# yaml-language-server: $schema=spillway.schema.json" at the top of a spillway.yaml, editors complete it.`,
		Example: "  spillway schema > spillway.schema.json",
		Args:    atMost(0, ""),
		RunE: func(*cobra.Command, []string) error {
			_, err := c.stdout.Write(append(appfile.Schema(), '\n'))
			return err
		},
	})
}
