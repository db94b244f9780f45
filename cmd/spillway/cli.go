package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// cli is one invocation: its streams, its environment and the persistent flags. stdout carries data,
// stderr everything that is told on the way.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	outStyle       style // for stdout
	errStyle       style // for stderr

	dir     string // state directory of the server
	server  string // URL of the API; "" = the unix socket in dir
	token   string
	context string // name of what servers were given names for; "" = the flags and variables, else the current one
	json    bool
	file    string // the app file; "" = spillway.yaml here or in a parent directory
	app     string // as -a gave it
	env     string // the environment; "" = production
	track   string // the track; "" = stable, or whatever rollout runs
	started bool   // flags and arguments were right and a command runs
	helpFor string // the help command to name after a usage error

	self     string        // our own program, to start a server with; "" = os.Executable
	every    time.Duration // between two looks at the server while following
	hush     time.Duration // off a terminal: silence after which a follower says what it waits for
	brief    time.Duration // how long a completion may take
	patience time.Duration // with a server that takes intents and does not act, or that is away while following
}

func newCLI(stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) *cli {
	plain := getenv("NO_COLOR") != "" || getenv("TERM") == "dumb"
	return &cli{
		stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv,
		outStyle: style{on: !plain && isTerminal(stdout)},
		errStyle: style{on: !plain && isTerminal(stderr)},
		helpFor:  "spillway help",
		every:    200 * time.Millisecond,
		hush:     5 * time.Second,
		brief:    500 * time.Millisecond,
		patience: 30 * time.Second,
	}
}

// run does what the arguments say and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand()
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would read os.Args
	return c.finish(root.ExecuteContext(ctx))
}

// The groups of commands in the help text, in its order.
const (
	groupStart = "start"
	groupWatch = "watch"
	groupSteer = "steer"
	groupWork  = "work"
)

const introduction = `Spillway lets releases out under control. It runs the services of your app on this machine, moves
users to a new release step by step, compares it with the old one request by request, and goes back
by itself when the new one is worse.

  spillway init        write a spillway.yaml for the directory you are in
  spillway up          start everything: server, proxy and your app; Ctrl-C stops it all
  spillway deploy      let out the next release (from a second terminal, or after up -d)
  spillway rollback    back to the last good release, at once`

// rootCommand builds the command tree.
func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "spillway",
		Short:         "Let releases out under control",
		Long:          introduction,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			c.started = true
			if c.track == "stable" {
				c.track = ""
			}
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetIn(c.stdin)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		c.helpFor = cmd.CommandPath() + " --help"
		return err
	})
	flags := root.PersistentFlags()
	flags.StringVar(&c.dir, "dir", c.defaultDir(), "state directory of the server (SPILLWAY_DIR)")
	flags.StringVar(&c.server, "server", c.getenv("SPILLWAY_SERVER"), "URL of a server elsewhere (SPILLWAY_SERVER)")
	flags.StringVar(&c.token, "token", "", "token for --server (SPILLWAY_TOKEN)")
	flags.StringVar(&c.context, "context", "", "`NAME` of a server or cluster that context add gave it")
	flags.BoolVar(&c.json, "json", false, "print JSON: one object, or one a line when following")
	flags.StringVarP(&c.app, "app", "a", "", "the app, like castle (default: the one of the app file)")
	c.complete(root, "app", c.completeApps)
	c.complete(root, "context", c.completeContexts)

	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Every day:"},
		&cobra.Group{ID: groupWatch, Title: "Look:"},
		&cobra.Group{ID: groupSteer, Title: "Steer a rollout:"},
		&cobra.Group{ID: groupWork, Title: "Run and care:"},
	)
	root.SetHelpCommandGroupID(groupWork)
	for _, cmd := range c.appCommands() {
		short := "f"
		if cmd.Flags().ShorthandLookup("f") != nil {
			short = "" // logs -f and events -f follow
		}
		cmd.Flags().StringVarP(&c.file, "file", short, "", "the app file (default: spillway.yaml here or in a parent directory)")
		cmd.Flags().StringVar(&c.env, "env", "", "the environment, like staging (default: production)")
		root.AddCommand(cmd)
	}
	root.AddCommand(c.oopsCommand())
	root.AddCommand(c.otherCommands()...)
	root.AddCommand(c.roles()...)
	return root
}

// appCommands lists the verbs that are about one app, in the order of the help text.
func (c *cli) appCommands() []*cobra.Command {
	return []*cobra.Command{
		c.upCommand(), c.planCommand(), c.simulateCommand(), c.deployCommand(), c.statusCommand(), c.rollbackCommand(),
		c.psCommand(), c.logsCommand(), c.eventsCommand(), c.releasesCommand(), c.showCommand(), c.whoCommand(), c.routesCommand(),
		c.promoteCommand(), c.pauseCommand(), c.resumeCommand(), c.abortCommand(), c.cancelCommand(),
		c.scaleCommand(), c.restartCommand(), c.holdCommand(), c.destroyCommand(), c.exportCommand(),
	}
}

// otherCommands lists the verbs that are about no app.
func (c *cli) otherCommands() []*cobra.Command {
	return []*cobra.Command{
		c.initCommand(), c.doctorCommand(), c.kubeCommand(), c.contextCommand(), c.schemaCommand(), c.completionCommand(), c.versionCommand(),
	}
}

// verb fills in what all commands have in common.
func (c *cli) verb(group string, cmd *cobra.Command) *cobra.Command {
	cmd.GroupID = group
	cmd.DisableFlagsInUseLine = true
	cmd.Flags().SortFlags = false
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		c.helpFor = cmd.CommandPath() + " --help"
		if check == nil {
			return nil
		}
		return check(cmd, args)
	}
	return cmd
}

// defaultDir is where the server keeps its state when --dir does not say.
func (c *cli) defaultDir() string {
	if dir := c.getenv("SPILLWAY_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/spillway"
	}
	if dir := c.getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "spillway")
	}
	return filepath.Join(c.getenv("HOME"), ".local", "state", "spillway")
}

// say tells something on the way.
func (c *cli) say(format string, args ...any) {
	fmt.Fprintf(c.stderr, format+"\n", args...)
}

// print writes data.
func (c *cli) print(format string, args ...any) {
	fmt.Fprintf(c.stdout, format+"\n", args...)
}

// printJSON writes one value on one line.
func (c *cli) printJSON(v any) error {
	return json.NewEncoder(c.stdout).Encode(v)
}

// confirm asks on the terminal and reads one line; its answer is right when it equals want. Ctrl-C is a no.
func (c *cli) confirm(ctx context.Context, question, want string) (bool, error) {
	fmt.Fprint(c.stderr, question)
	type answer struct {
		line string
		err  error
	}
	read, stdin := make(chan answer, 1), c.stdin
	// Owned by this call; ends with the line. Nobody waits after a Ctrl-C: a read of a terminal cannot be
	// broken off, and the process is about to end.
	go func() {
		line, err := bufio.NewReader(stdin).ReadString('\n')
		read <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(c.stderr)
		return false, nil
	case a := <-read:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return false, fmt.Errorf("read the answer: %w", a.err)
		}
		return strings.TrimSpace(a.line) == want, nil
	}
}

// first is the first argument, or "" without one.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// atMost is the check of a command that takes up to n arguments, which are called what.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) <= n:
			return nil
		case n == 0:
			return usage("%s takes no arguments, but was given %q", cmd.Name(), args[0])
		default:
			return usage("%s takes one %s, but was given %q too", cmd.Name(), what, args[n])
		}
	}
}
