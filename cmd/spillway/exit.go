package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// The exit codes of every command.
const (
	exitDone       = 0
	exitFailed     = 1 // the old release still serves
	exitUsage      = 2 // wrong usage or an invalid file; nothing was changed
	exitRolledBack = 3 // by Spillway itself
	exitReplaced   = 4 // superseded by a newer deploy, cancelled, or aborted by a person
	exitDenied     = 5
	exitChanges    = 10 // plan only: there is something to do
)

// exitError ends the program with a code of its own. A nil err has been told already, or is no error.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// usage is a mistake in how the command was called.
func usage(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

// failed is what --json gives on stdout when a command failed; stderr has the same for people.
type failed struct {
	Error failure `json:"error"`
}

type failure struct {
	Text   string                `json:"text"`
	Fields []spillway.FieldError `json:"fields,omitempty"` // mistakes of the app file
	Code   int                   `json:"code"`             // the exit code
}

// finish tells an error to the user and gives the exit code for it.
func (c *cli) finish(err error) int {
	if err == nil {
		return exitDone
	}
	code, tell := exitCode(err), err
	if own := (exitError{}); errors.As(err, &own) && own.err == nil {
		tell = nil
	} else if !c.started { // flags and arguments are checked before any command starts
		code = exitUsage
	}
	if tell == nil {
		return code
	}
	var fields spillway.FieldErrors
	errors.As(tell, &fields)
	if c.json {
		if err := c.printJSON(failed{Error: failure{Text: spillway.Text(tell), Fields: fields, Code: code}}); err != nil {
			fmt.Fprintln(c.stderr, err)
		}
	}
	if fields != nil {
		c.tellFields(fields)
		return code
	}
	fmt.Fprintf(c.stderr, "%s %s\n", c.errStyle.red("Error:"), spillway.Text(tell))
	if !c.started {
		fmt.Fprintln(c.stderr, "Help:  "+c.helpFor)
	}
	return code
}

// tellFields prints every mistake of a file or of a request.
func (c *cli) tellFields(fields spillway.FieldErrors) {
	file := ""
	for _, f := range fields {
		fmt.Fprintf(c.stderr, "%s %s\n", c.errStyle.red("Error:"), f)
		file = cmp.Or(file, f.File)
	}
	if file != "" {
		fmt.Fprintf(c.stderr, "%s in %s; nothing was changed. All keys: spillway schema\n", count(len(fields), "mistake"), file)
	}
}

// exitCode finds the code for an error.
func exitCode(err error) int {
	if own := (exitError{}); errors.As(err, &own) {
		return own.code
	}
	return api.ExitCode(err)
}

// outcomeCode is the exit code of a command that followed a rollout to its end.
func outcomeCode(o spillway.Outcome) int {
	switch o {
	case spillway.Succeeded:
		return exitDone
	case spillway.RolledBack:
		return exitRolledBack
	case spillway.Aborted, spillway.Superseded, spillway.Cancelled:
		return exitReplaced
	default:
		return exitFailed
	}
}
