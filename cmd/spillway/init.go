package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway/internal/appfile"
)

func (c *cli) initCommand() *cobra.Command {
	return c.verb(groupStart, &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a spillway.yaml for a directory",
		Long: `Init looks at what is in a directory (go.mod, package.json, a Procfile, …) and writes a spillway.yaml
to start from. It never overwrites one.`,
		Example: `  spillway init
  spillway init ./shop`,
		Args: atMost(1, "DIR"),
		RunE: func(_ *cobra.Command, args []string) error { return c.writeAppFile(first(args)) },
	})
}

// writeAppFile writes the app file that fits what is in a directory.
func (c *cli) writeAppFile(dir string) error {
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return usage("init %s: there is no such directory", dir)
	}
	file := filepath.Join(dir, appFile)
	text, why, err := appfile.Detect(dir)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return usage("%s is there already and stays as it is; try it: spillway up %s", file, dir)
	}
	if err != nil {
		return fmt.Errorf("write the app file: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the app file: %w", err)
	}
	if c.json {
		return c.printJSON(map[string]any{"file": file, "found": why})
	}
	for _, line := range why {
		c.say("found %s", line)
	}
	c.print("wrote %s", file)
	if dir == "." {
		c.say("next: spillway up")
	} else {
		c.say("next: spillway up %s", dir)
	}
	return nil
}
