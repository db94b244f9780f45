package main

import "github.com/spf13/cobra"

// roles lists the commands that are parts of a running installation rather than verbs: the server, the
// proxy, the shim that starts a replica, and the demonstration.
func (c *cli) roles() []*cobra.Command {
	return nil
}
