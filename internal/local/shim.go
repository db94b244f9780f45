package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// markName is the environment variable by which processes of a run are found without control groups. Its
// value is "DIRID/REF/RUN".
const markName = "SPILLWAY_RUN"

// maxFiles is how many open files a process may have, unless the machine's hard limit is lower.
const maxFiles = 1 << 18

// Exit codes of the shim, the same as those of a shell.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// record is what is on disk of one started process. It exists before the program runs: the server writes
// it without a pid, and the shim adds the pid before it becomes the program.
type record struct {
	Version  int               `json:"version"`
	App      spillway.Ref      `json:"app"`
	Name     string            `json:"name"` // "www.4-1"; of a daemon its name
	Group    spillway.Group    `json:"group,omitzero"`
	Release  int               `json:"release,omitempty"` // whose configuration it was started with
	Restart  int64             `json:"restart,omitempty"` // Want.Restart when it was started
	Run      int64             `json:"run"`               // rises with every start in this app
	Port     int               `json:"port,omitempty"`
	Health   spillway.Probe    `json:"health,omitzero"`
	Protocol spillway.Protocol `json:"protocol,omitempty"` // in which it is probed
	Stop     spillway.Stop     `json:"stop,omitzero"`
	Mark     string            `json:"mark"` // value of SPILLWAY_RUN
	Cgroup   cgroup            `json:"cgroup,omitempty"`
	Enforced bool              `json:"enforced,omitempty"` // its limits are set in Cgroup
	Boot     string            `json:"boot"`
	Server   int               `json:"server"` // pid of the server that started it
	PID      int               `json:"pid,omitempty"`
	Start    uint64            `json:"start,omitempty"` // start time of PID, in clock ticks after boot
	Started  time.Time         `json:"started"`
	Ready    bool              `json:"ready,omitempty"`    // it has been ready
	Leaving  bool              `json:"leaving,omitempty"`  // it drains or was signalled, and will not come back
	Restarts int               `json:"restarts,omitempty"` // of this name before this run
	Task     *rollout.Task     `json:"task,omitempty"`     // of a release command; nil = a replica or a daemon
	Began    bool              `json:"began,omitempty"`    // a release command: it may have done something
	End      *end              `json:"end,omitempty"`      // of a release command that has ended, also while no server ran
}

// end is how a release command ended.
type end struct {
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"` // 0 = it exited by itself
	Ran    time.Duration  `json:"ran"`
}

// Exec is the program "spillway _exec RECORD -- COMMAND [ARG…]": the first moments of every replica. It
// writes its own pid into the record, enters the control group, gives up what a replica must not have,
// and becomes the command. It returns only when that failed; the error has been written to standard
// error, and ExitCode says how to end.
//
// Of a release command it stays the parent, because the end of that has to be known also when no server
// watches: it writes the end into the record and returns nil.
func Exec(args []string) error {
	err := become(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "spillway:", err)
	}
	return err
}

// ExitCode is the code with which a program has to end after Exec returned: 127 when the command does
// not exist, 126 when it could not be started, 0 without an error.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, spillway.ErrNotFound):
		return exitNotFound
	}
	return exitNotExecutable
}

func become(args []string) error {
	if len(args) < 3 || args[1] != "--" {
		return fmt.Errorf("usage: _exec RECORD -- COMMAND [ARG...]: %w", spillway.ErrInvalid)
	}
	runtime.LockOSThread() // no_new_privs belongs to the thread that execs
	rec, err := sign(args[0])
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) == nil {
		files.Cur = min(files.Max, maxFiles)
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) // any value up to Max is always allowed
	}
	path, err := exec.LookPath(args[2])
	switch {
	case errors.Is(err, exec.ErrNotFound) || missing(err):
		return fmt.Errorf("command not found: %s: %w", args[2], spillway.ErrNotFound)
	case err != nil:
		return fmt.Errorf("cannot execute %s: %w", args[2], err)
	case rec.Task != nil:
		return accompany(args[0], rec, path, args[2:])
	}
	return fmt.Errorf("cannot execute %s: %w", args[2], syscall.Exec(path, args[2:], os.Environ()))
}

// sign adds the calling process to the record and enters the control group. A server that dies between
// writing the record and this point would leave a process that the next server does not know: so the
// process ends itself when the server that started it is gone.
func sign(path string) (rec record, err error) {
	if err := loadJSON(path, &rec); err != nil {
		return rec, err
	}
	self, err := readStat(os.Getpid())
	if err != nil {
		return rec, err
	}
	orphan := fmt.Errorf("the server that started this process (pid %d) is gone", rec.Server)
	if os.Getppid() != rec.Server {
		return rec, orphan
	}
	rec.PID, rec.Start = os.Getpid(), self.start
	if rec.App != "" { // a replica: the kernel shall rather end it than the server or a daemon
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("100"), 0) // raising it is always allowed
	}
	if err := rec.Cgroup.join(); err != nil {
		rec.Enforced = false
	}
	if err := saveJSON(path, rec); err != nil {
		return rec, err
	}
	if os.Getppid() != rec.Server {
		return rec, orphan
	}
	return rec, nil
}

// accompany runs a release command and writes its end into the record. Who wants it to stop kills the
// whole session or control group, this process included: then there is no end in the record.
func accompany(path string, rec record, program string, argv []string) error {
	rec.Began = true
	if err := saveJSON(path, rec); err != nil {
		return err
	}
	cmd := exec.Cmd{Path: program, Args: argv, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot execute %s: %w", argv[0], err)
	}
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return fmt.Errorf("cannot wait for %s: %w", argv[0], err)
	}
	s := statusOf(cmd.ProcessState.Sys().(syscall.WaitStatus))
	rec.End = &end{Code: s.code, Signal: s.signal, Ran: time.Since(rec.Started)}
	return saveJSON(path, rec)
}
