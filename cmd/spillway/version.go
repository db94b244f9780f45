package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) versionCommand() *cobra.Command {
	return c.verb(groupWork, &cobra.Command{
		Use:     "version",
		Short:   "The version of this program",
		Long:    "Version prints the version of this program, not that of a server: for that see doctor.",
		Example: "  spillway version",
		Args:    atMost(0, ""),
		RunE: func(*cobra.Command, []string) error {
			if c.json {
				return c.printJSON(map[string]string{"version": version(), "go": runtime.Version()})
			}
			c.print("spillway %s (%s %s/%s)", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	})
}

// version is what the Go toolchain recorded of this build: a tag, or the commit, or "devel".
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.Trim(info.Main.Version, "()")
}
