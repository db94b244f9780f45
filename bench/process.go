package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// endTime is how long a program has to end after SIGTERM.
const endTime = 5 * time.Second

// process is a server that we started, with all that it starts.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string // file with its output
	ended chan struct{}
	err   error // how it ended; set when ended is closed
}

// start runs a server in a process group of its own. Should this program die, the server is asked to end:
// callers stay on one thread (runtime.LockOSThread), because the kernel asks when the thread ends.
func start(dir, name string, env []string, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	// Owned by the process; ends with it; end waits.
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// pid is that of the process which was started.
func (p *process) pid() int { return p.cmd.Process.Pid }

// end asks the process to end, and after a while ends its group.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.ended:
	case <-time.After(endTime):
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // children that were left, if any
	<-p.ended
}

// said is the end of its output, for messages.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text), 3)
}

// output runs a program to its end and gives what it printed. One that takes longer is ended.
func output(ctx context.Context, longest time.Duration, argv ...string) (string, error) {
	return outputIn(ctx, longest, "", nil, argv...)
}

// outputIn is output in a directory, with more environment.
func outputIn(ctx context.Context, longest time.Duration, dir string, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %s: %w", longest, ctx.Err())
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, lastLines(text.String(), 5))
	}
	return text.String(), nil
}

// freePort is a TCP port of 127.0.0.1 where nothing listens, below those that outgoing connections have:
// a load of many connections would otherwise take it between this and the start of the server.
func freePort() (int, error) {
	for range 200 {
		port := 12_000 + rand.IntN(18_000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port between 12000 and 30000 on 127.0.0.1")
}
