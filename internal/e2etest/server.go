package e2etest

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is the process of a server, which ends and is started again. The zero value is ended.
type Server struct {
	mu   sync.Mutex
	cmd  *exec.Cmd     // nil = killed
	gone chan struct{} // closed when cmd has ended
}

// Launch starts the process in a session of its own, with its output at the end of a file, and does not wait.
func (s *Server) Launch(t *testing.T, log, program string, args ...string) {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.gone = cmd, gone
	s.mu.Unlock()
	// Owned by s; ends with the process, which Kill ends and waits for.
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(gone)
	}()
}

// Await waits until the server answers; answers gives the number of the process that does.
func (s *Server) Await(t *testing.T, d time.Duration, answers func() (pid int, err error)) {
	t.Helper()
	up := false
	Await(t, d, "the server to answer", func() bool {
		if s.Ended() {
			return true
		}
		pid, err := answers()
		up = err == nil && pid == s.PID()
		return up
	})
	if !up {
		t.Fatal("the server ended while it started")
	}
}

// PID is the number of the process; 0 when it was killed.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// Ended reports whether the process that was launched last has ended.
func (s *Server) Ended() bool {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	select {
	case <-gone:
		return true
	default:
		return false
	}
}

// Kill ends the process with a signal and waits until it has ended, which it has to in d.
func (s *Server) Kill(t *testing.T, signal syscall.Signal, d time.Duration) {
	t.Helper()
	s.mu.Lock()
	cmd, gone := s.cmd, s.gone
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(d):
		t.Errorf("the server has not ended %v after %v", d, signal)
		_ = cmd.Process.Kill() // it may have ended now
		<-gone
	}
}
