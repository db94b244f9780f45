// Command spillway is the whole product in one binary: the command line, the server (control plane)
// and the proxy (data plane). This package knows flags, words for people and how the parts are wired;
// everything that decides lives in the packages under internal.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	_ "time/tzdata" // freeze windows name time zones, and a small machine may have no files of them

	"github.com/spillway-dev/spillway/internal/local"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "_exec" { // the first moments of a replica: see local.Exec
		os.Exit(local.ExitCode(local.Exec(os.Args[2:])))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// Owned by main, ends with the process. The first signal ends ctx and the command winds up; a second
	// one finds no handler and ends the process at once.
	go func() {
		s := <-signals
		signal.Stop(signals)
		cancel(interrupted{s})
	}()
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "oops" { // a second name of the program: see oops.go
		args = append([]string{"oops"}, args...)
	}
	os.Exit(run(ctx, args, os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// interrupted is the cause of a context that a signal ended: see context.Cause.
type interrupted struct{ signal os.Signal }

// Error names the signal.
func (i interrupted) Error() string { return i.signal.String() }

// run is one invocation of the program with everything that it takes from the outside. It returns the
// exit code: see exit.go.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	return newCLI(stdin, stdout, stderr, getenv).run(ctx, args)
}
