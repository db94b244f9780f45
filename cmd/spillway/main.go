// Command spillway is the whole product in one binary: the command line, the server (control plane)
// and the proxy (data plane). This package knows flags, words for people and how the parts are wired;
// everything that decides lives in the packages under internal.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends ctx and the command winds up; a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// run is one invocation of the program with everything that it takes from the outside. It returns the
// exit code: see exit.go.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	return newCLI(stdin, stdout, stderr, getenv).run(ctx, args)
}
