package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	maxLine   = 16 << 10 // of a line of output that is passed on
	tailLines = 20       // that an error shows
	// leftover is how long a build may keep its output open after its command has ended.
	leftover = 2 * time.Second
)

// passed are the variables of the server that a build command sees; those that begin with npm_config_
// are passed too. Everything else is the server's own.
var passed = [...]string{
	"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL",
	"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"GOPATH", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOTOOLCHAIN", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOSUMDB",
}

// environment is the environment of a build command.
func (b *Builder) environment() []string {
	var env []string
	home := false
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if slices.Contains(passed[:], name) || strings.HasPrefix(strings.ToLower(name), "npm_config_") {
			env = append(env, variable)
			home = home || name == "HOME" && value != ""
		}
	}
	if !home {
		env = append(env, "HOME="+b.home)
	}
	return env
}

// run runs a build command and checks that it made what it should.
func (b *Builder) run(ctx context.Context, dir string, r recipe, log func(string)) error {
	words := r.command.Exec
	if len(words) == 0 {
		words = []string{"/bin/sh", "-c", r.command.Shell}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.timeout, fmt.Errorf("it took longer than %s", spillway.Duration(b.timeout)))
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	if errors.Is(cmd.Err, exec.ErrNotFound) || errors.Is(cmd.Err, exec.ErrDot) {
		return b.lacking(words[0])
	}
	out := &lines{log: log}
	cmd.Dir, cmd.Env = dir, append(b.environment(), "PWD="+dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killGroup := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = killGroup, leftover
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrNotExist) && len(r.command.Exec) == 0 { // a server in an image of nothing else has no shell
			return b.lacking(words[0])
		}
		return fmt.Errorf("start %s: %w", show(r.command), err)
	}
	err := cmd.Wait()
	_ = killGroup() // what the command left in the background; mostly there is nothing
	out.flush()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the command itself succeeded
	}
	if err != nil {
		return failure(ctx, r, out, err)
	}
	if r.program != "" {
		if info, err := os.Stat(dir + "/" + r.program); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s made no program: there is no package main in %s; name the one to build: "+
				"build: {dir: %s, command: go build -o %s ./cmd/%s}: %w", show(r.command), r.dir, r.dir, r.program, r.program, spillway.ErrInvalid)
		}
	}
	return nil
}

// lacking is the error of a tool that is not there.
func (b *Builder) lacking(tool string) error {
	return fmt.Errorf("%s is not installed where Spillway's server runs, or not in its PATH (%s); %s and deploy again, or write another command under build: %w",
		tool, os.Getenv("PATH"), cmp.Or(b.tools, "install it"), spillway.ErrUnavailable)
}

// failure is the error of a build command: what it was, how it ended, what it said, what to do.
func failure(ctx context.Context, r recipe, out *lines, err error) error {
	how := err.Error()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		how = "it was stopped: " + context.Cause(ctx).Error()
		err = context.Cause(ctx)
	case errors.As(err, &exit) && exit.ExitCode() == 127:
		how = "a program that it names was not found (exit code 127)"
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		how = fmt.Sprintf("exit code %d", exit.ExitCode())
	}
	text := fmt.Sprintf("the command failed: %s: %s", show(r.command), how)
	if len(out.tail) > 0 {
		text += "\n  " + strings.Join(out.tail, "\n  ")
	}
	text += "\nnext: run the command in " + r.dir + " of a clean copy"
	if r.scope != "." {
		text += "; the build sees only " + r.scope + ": to build from more, write build: {dir: ., command: cd " + r.dir + " && …}"
	}
	return commandError{text, err}
}

// commandError is the end of a build command in words; it wraps the error of
// os/exec or the cause of a context.
type commandError struct {
	text  string
	cause error
}

func (e commandError) Error() string { return e.text }
func (e commandError) Unwrap() error { return e.cause }

// show is a command as people write it.
func show(c spillway.Command) string {
	if len(c.Exec) > 0 {
		return strings.Join(c.Exec, " ")
	}
	return strings.TrimSpace(c.Shell)
}

// lines cuts what is written to it into lines, passes each on and remembers the last.
type lines struct {
	log  func(string)
	rest []byte // of a line that has not ended, at most maxLine+1 bytes of it
	tail []string
}

// Write never fails: output that cannot be kept is no reason to stop a build.
func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, after, ended := bytes.Cut(p, []byte("\n"))
		l.rest = append(l.rest, part[:min(len(part), maxLine+1-len(l.rest))]...)
		if ended {
			l.emit()
		}
		p = after
	}
	return n, nil
}

// flush passes on a last line without a line feed.
func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.emit()
	}
}

func (l *lines) emit() {
	text := strings.ToValidUTF8(strings.TrimRight(string(l.rest[:min(len(l.rest), maxLine)]), "\r"), "�")
	if len(l.rest) > maxLine {
		text += "…"
	}
	l.rest = l.rest[:0]
	l.tail = append(l.tail, text)
	if len(l.tail) > tailLines {
		l.tail = l.tail[1:]
	}
	l.log(text)
}
