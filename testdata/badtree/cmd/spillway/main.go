// Command spillway may do what others must not.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/spillway-dev/spillway/internal/local"
)

var version string

func init() { version = cobra.Version + local.Version }

func main() { os.Exit(1) }
