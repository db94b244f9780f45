package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway/internal/api"
)

const (
	startWithin = 30 * time.Second // until a started server answers
	stopWithin  = 2 * time.Minute  // until a server has stopped all that it runs
)

// serverProcess is a server that this command started. It is no child in spirit: it has a session of
// its own, so that neither Ctrl-C nor the end of the terminal reaches it.
type serverProcess struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it ended
	log  string        // file with its output
}

func (p *serverProcess) pid() int { return p.cmd.Process.Pid }

// startServer starts our own program as a server on c.dir and waits until its API answers. It returns
// nil when another server won the race for the directory.
func (c *cli) startServer(ctx context.Context, client *api.Client, o upOptions) (*serverProcess, error) {
	p, from, err := c.spawnServer(o)
	if err != nil {
		return nil, stateError(c.dir, fmt.Errorf("start a server on %s: %w", c.dir, err))
	}
	c.say("no server runs on %s; starting one (its log: %s)", c.dir, p.log)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(startWithin)
	for {
		info, err := client.Info(ctx)
		if err == nil && info.PID == p.pid() {
			c.say("server: pid %d, API %s, HTTP %s%s", info.PID, info.Listen, info.HTTP, after(", HTTPS ", info.HTTPS))
			return p, nil
		}
		select {
		case <-ticker.C:
		case <-p.gone:
			if _, err := client.Info(ctx); err == nil {
				return nil, nil
			}
			return nil, fmt.Errorf("the server ended while it started (%s)%s", p.cmd.ProcessState, tail(p.log, from))
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), p.stop())
		case <-deadline:
			return nil, errors.Join(fmt.Errorf("the server does not answer after %s%s", span(startWithin), tail(p.log, from)), p.stop())
		}
	}
}

// spawnServer starts the process. It also returns where in the log its own output begins.
func (c *cli) spawnServer(o upOptions) (*serverProcess, int64, error) {
	self := c.self
	if self == "" {
		var err error
		if self, err = os.Executable(); err != nil {
			return nil, 0, err
		}
	}
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return nil, 0, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, err
	}
	args := []string{"server", "--dir", dir}
	if o.http != "" {
		args = append(args, "--http", o.http)
	}
	if o.https != "" {
		args = append(args, "--https", o.https)
	}
	if o.listen != "" {
		args = append(args, "--listen", o.listen)
	}
	args = append(args, o.behind.args()...)
	seen, err := o.seen.seen()
	if err != nil {
		return nil, 0, err
	}
	args = append(args, seenArgs(seen)...)
	cmd := exec.Command(self, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	p := &serverProcess{cmd: cmd, gone: make(chan struct{}), log: log.Name()}
	// Owned by p; ends when the process does, or with us. Who must know reads p.gone.
	go func() {
		cmd.Wait()
		close(p.gone)
	}()
	return p, from, nil
}

// stop asks the server to stop everything that it runs, itself included, and waits until it has.
func (p *serverProcess) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the server (pid %d): %w", p.pid(), err)
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(stopWithin):
		return fmt.Errorf("the server (pid %d) has not ended after %s; see %s", p.pid(), span(stopWithin), p.log)
	}
}

// tail gives the last 20 lines of a file after an offset, indented, or "".
func tail(file string, from int64) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, from, 64<<10))
	if err != nil || len(strings.TrimSpace(string(text))) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var b strings.Builder
	b.WriteString("; it wrote:")
	for _, line := range lines[max(0, len(lines)-20):] {
		b.WriteString("\n    " + clean(line))
	}
	return b.String()
}
