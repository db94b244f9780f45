package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: person is the side where somebody types and reads.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("no pseudo-terminal: %v (mount devpts on /dev/pts)", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// invokeTyping runs the program with a terminal as its input, on which a line is typed.
func invokeTyping(t *testing.T, line, stateDir string, args ...string) invocation {
	t.Helper()
	person, program := terminal(t)
	if _, err := person.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := newCLI(program, &stdout, &stderr, func(string) string { return "" })
	c.every = time.Millisecond
	code := c.run(t.Context(), append(args, "--dir", stateDir))
	return invocation{code, stdout.String(), stderr.String()}
}

func TestTerminal_IsOneAndHasASize(t *testing.T) {
	_, program := terminal(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !isTerminal(program) || isTerminal(null) || isTerminal(&bytes.Buffer{}) {
		t.Error("a pseudo-terminal is a terminal; /dev/null and a buffer are not")
	}
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 132, Row: 50}); err != nil {
		t.Fatal(err)
	}
	if columns, rows := terminalSize(program); columns != 132 || rows != 50 {
		t.Errorf("the size is %dx%d, want 132x50", columns, rows)
	}
	if columns, rows := terminalSize(null); columns != 80 || rows != 24 {
		t.Errorf("the size of no terminal is %dx%d, want 80x24", columns, rows)
	}
}

func TestDestroy_AsksForTheName(t *testing.T) {
	for typed, code := range map[string]int{"castle": exitDone, "y": exitReplaced} {
		e := resting()
		e.scripts = map[spillway.Verb][]round{spillway.VerbDestroy: {{}}}
		got := invokeTyping(t, typed, serve(t, e), "destroy", "-a", "castle")
		if got.code != code || len(e.intents) != 1-code/exitReplaced {
			t.Errorf("typed %q: exit code %d, want %d; asked for %v\n%s", typed, got.code, code, e.intents, got.stderr)
		}
	}
}

func TestDeploy_AsksBeforeItRemovesAService(t *testing.T) {
	for _, tt := range []struct {
		typed string
		args  []string
		what  string
		code  int
		sent  bool
	}{
		{typed: "y", what: "gone", code: exitDone, sent: true},
		{typed: "n", what: "gone", code: exitReplaced},
		{typed: "", what: "gone", code: exitReplaced},
		{typed: "", what: "gone", args: []string{"-y"}, code: exitDone, sent: true},
		{typed: "", what: "source", code: exitDone, sent: true},
		{typed: "n", what: "host", code: exitReplaced},
		{typed: "n", what: "track canary", code: exitReplaced},
		{typed: "y", what: "tls", code: exitDone, sent: true},
	} {
		appDir(t, castleFile)
		e := deploying(climbing(serving())...)
		e.planned = spillway.Plan{Changes: []spillway.Change{{Service: "backend", What: tt.what}}}
		got := invokeTyping(t, tt.typed, serve(t, e), append([]string{"deploy"}, tt.args...)...)
		sent := strings.Contains(got.stdout, "serves everybody")
		if got.code != tt.code || sent != tt.sent {
			t.Errorf("%s, typed %q %q: exit code %d, want %d; deployed %t\n%s", tt.what, tt.typed, tt.args, got.code, tt.code, sent, got.stderr)
		}
		if asked := strings.Contains(got.stderr, "This deploy removes backend. Go on?"); asked != (tt.what == "gone" && tt.args == nil) {
			t.Errorf("%s, %q: asked is %t", tt.what, tt.args, asked)
		}
	}
}

func TestDeploy_DrawsTheRolloutOnATerminal(t *testing.T) {
	appDir(t, castleFile)
	person, program := terminal(t)
	dir := serve(t, deploying(climbing()...)) // stays at 5 % until it is interrupted
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := newCLI(strings.NewReader(""), &bytes.Buffer{}, program, func(string) string { return "" })
	c.every = time.Millisecond
	code := make(chan int, 1)
	go func() { code <- c.run(ctx, []string{"deploy", "--dir", dir}) }() // ends with ctx; waited for below
	var seen strings.Builder
	for buffer := make([]byte, 4096); !strings.Contains(seen.String(), "5% of the users"); {
		n, err := person.Read(buffer)
		if err != nil {
			t.Fatalf("read the terminal: %v after\n%s", err, &seen)
		}
		seen.Write(buffer[:n])
		if ctx.Err() != nil {
			t.Fatalf("the terminal never showed 5%%:\n%s", &seen)
		}
	}
	cancel()
	drained := make(chan struct{})
	go func() { // ends when the terminal is closed by the cleanup or by the line below
		defer close(drained)
		for buffer := make([]byte, 4096); ; {
			if _, err := person.Read(buffer); err != nil {
				return
			}
		}
	}()
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d after the interrupt, want 0", got)
	}
	program.Close()
	<-drained
	for _, want := range []string{"\x1b[1mrelease 8 of castle · Progressing", "candidate 1/1 ready", "2 of 20 failed requests spent", "the hold, 12s left"} {
		if !strings.Contains(seen.String(), want) {
			t.Errorf("the terminal lacks %q:\n%s", want, &seen)
		}
	}
}

func TestConfirm_CtrlCIsANo(t *testing.T) {
	nobody, hold := io.Pipe() // a terminal at which nobody types
	defer hold.Close()
	var said bytes.Buffer
	c := newCLI(nobody, io.Discard, &said, func(string) string { return "" })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if yes, err := c.confirm(ctx, "sure? ", "y"); yes || err != nil || said.String() != "sure? \n" {
		t.Errorf("confirm = %t, %v after %q", yes, err, said.String())
	}
	c = newCLI(strings.NewReader("y\n"), io.Discard, io.Discard, func(string) string { return "" })
	if yes, err := c.confirm(t.Context(), "sure? ", "y"); !yes || err != nil {
		t.Errorf("confirm = %t, %v after y", yes, err)
	}
}
