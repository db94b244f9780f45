package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// process is a running replica or daemon: the leader of a session, and all that it started.
type process struct {
	rec   record
	pidfd *os.File // of the leader; waits for its end also when it is not our child

	ended chan struct{} // closed when the leader ended: nothing answers any more
	gone  chan struct{} // closed when everything that it started is gone too; status is valid then
	exit  status

	mu      sync.Mutex
	stopped bool // it was asked to end: what the leader leaves behind may finish
	killed  bool
}

// status is how a process ended.
type status struct {
	code        int
	signal      syscall.Signal // 0 = it exited by itself
	known       bool           // false: it ended while no server watched
	outOfMemory bool
}

// command is all that it takes to start a process, besides its record.
type command struct {
	self   string // the program that contains Exec
	record string // path
	argv   []string
	env    []string
	dir    string
	out    string // path of the spool for standard output
	err    string // path of the spool for standard error; may be the same
}

// start runs the command in a session of its own. rec goes to disk first; the shim completes it. Output
// goes to files, never to pipes: a writer to a pipe dies with its reader.
func (c command) start(rec record) (*process, error) {
	rec.Server, rec.Started = os.Getpid(), time.Now()
	if err := saveJSON(c.record, rec); err != nil {
		return nil, err
	}
	cmd := exec.Command(c.self, append([]string{"_exec", c.record, "--"}, c.argv...)...)
	cmd.Env, cmd.Dir = c.env, c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	const mode = os.O_WRONLY | os.O_APPEND | os.O_CREATE
	out, err := os.OpenFile(c.out, mode, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the process has its own copy
	errs, err := os.OpenFile(c.err, mode, 0o600)
	if err != nil {
		return nil, err
	}
	defer errs.Close() //nolint:errcheck // the process has its own copy
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// From here on the process is waited for by its pidfd, as after a restart of the server.
	rec.PID = cmd.Process.Pid
	s, err := readStat(rec.PID)
	rec.Start = s.start
	p, err2 := attach(rec)
	if err := errors.Join(err, err2, cmd.Process.Release()); err != nil {
		_ = syscall.Kill(-rec.PID, syscall.SIGKILL) // nobody could watch it
		_, _ = syscall.Wait4(rec.PID, nil, 0, nil)
		return nil, err
	}
	return p, nil
}

// attach takes over a process that runs. It fails when the process of the record has ended.
func attach(rec record) (*process, error) {
	fd, err := unix.PidfdOpen(rec.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w", rec.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if s, err := readStat(rec.PID); err != nil || s.start != rec.Start {
		return nil, errors.Join(fmt.Errorf("pid %d is not the process that was recorded", rec.PID), err, f.Close())
	}
	return &process{rec: rec, pidfd: f, ended: make(chan struct{}), gone: make(chan struct{})}, nil
}

// watch waits until the process is gone or ctx ends, and cleans up behind it. One goroutine at a time may
// call it, and again only when ctx ended first.
func (p *process) watch(ctx context.Context) error {
	if !closed(p.ended) {
		if err := p.waitLeader(ctx); err != nil {
			return err
		}
		close(p.ended)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.mayFinish() && len(p.members()) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	p.kill()
	p.exit = p.reap(ctx)
	p.exit.outOfMemory = p.rec.Cgroup.ranOutOfMemory()
	p.rec.Cgroup.remove()
	close(p.gone)
	return p.pidfd.Close()
}

// waitLeader blocks until the leader ended.
func (p *process) waitLeader(ctx context.Context) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	if err := p.pidfd.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Now()) })
	defer stop()
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (p *process) mayFinish() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped && !p.killed
}

// stop asks everything that the process started to end. What happens when it does not is up to the caller.
func (p *process) stop(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if !closed(p.ended) { // afterwards its pid may belong to somebody else
		_ = syscall.Kill(-p.rec.PID, signal) // an error says that it is gone
	}
}

// kill ends everything that the process started.
func (p *process) kill() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	if closed(p.gone) {
		return
	}
	if s, err := readStat(p.rec.PID); err == nil && s.start == p.rec.Start { // also as a zombie it keeps its pid
		_ = syscall.Kill(-p.rec.PID, syscall.SIGKILL)
	}
	p.rec.killStrays()
}

// killStrays ends what a run left behind: everything in its control group, or without one everything that
// carries its mark.
func (r record) killStrays() {
	if len(r.Cgroup) > 0 {
		r.Cgroup.kill()
		return
	}
	for pid, mark := range marks(dirOf(r.Mark)) {
		if mark == r.Mark {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// members lists the live processes of the run.
func (p *process) members() []int {
	if len(p.rec.Cgroup) > 0 {
		return p.rec.Cgroup.members()
	}
	return sessionOf(p.rec.PID)
}

// reap collects how the leader ended: as its parent, or from the kernel's memory of it, which is filled
// when its parent has collected it (Linux 6.15 and newer).
func (p *process) reap(ctx context.Context) status {
	var ws syscall.WaitStatus
	if pid, err := syscall.Wait4(p.rec.PID, &ws, syscall.WNOHANG, nil); err == nil && pid == p.rec.PID {
		return statusOf(ws)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 20 {
		if s, ok := exitInfo(p.pidfd); ok {
			return s
		}
		select {
		case <-ctx.Done():
			return status{}
		case <-tick.C:
		}
	}
	return status{}
}

func statusOf(ws syscall.WaitStatus) status {
	if ws.Signaled() {
		return status{signal: ws.Signal(), known: true}
	}
	return status{code: ws.ExitStatus(), known: true}
}

// exitInfo asks a pidfd how its process ended (ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT, linux/pidfd.h).
func exitInfo(pidfd *os.File) (status, bool) {
	const (
		request = 0xC040FF0B // _IOWR(0xFF, 11, 64 bytes)
		exit    = 1 << 3     // PIDFD_INFO_EXIT
	)
	info := struct {
		mask, cgroup uint64
		ids          [11]uint32
		exitCode     int32
	}{mask: exit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, pidfd.Fd(), request, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.mask&exit == 0 {
		return status{}, false
	}
	return statusOf(syscall.WaitStatus(info.exitCode)), true
}

// reapStrangers collects zombies that were orphaned to this process: a server that is a subreaper, or
// pid 1 of a container, is given the grandchildren of its replicas. Only a zombie that was one at the
// previous look is taken: other parts of the program wait for their own children and do so soon.
func reapStrangers(before []int, waitedFor func(pid int) bool) (zombies []int) {
	for _, pid := range allPIDs() {
		s, err := readStat(pid)
		if err != nil || s.parent != os.Getpid() || s.state != 'Z' || waitedFor(pid) {
			continue
		}
		if slices.Contains(before, pid) {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			continue
		}
		zombies = append(zombies, pid)
	}
	return zombies
}
