package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// Daemon is one auxiliary process of ours, such as the data plane, supervised like a replica: it lives in
// a session of its own, survives the server, is found again by its record, and is started again when it
// dies. It has no port, no probe and no control group.
type Daemon struct {
	p    *Platform
	name string
	argv []string
	env  []string
	dir  string
	book *logbook

	replacing sync.Mutex    // held by Replace; taken before mu
	switched  chan struct{} // one slot: proc is another one now

	mu      sync.Mutex
	run     int64
	proc    *process
	running bool // Run watches proc
	stopped bool
}

// Daemon opens the daemon of that name and finds its process when it runs. It starts nothing; Run does.
// The command is argv with env as its whole environment (nil: that of the server); a process that runs
// keeps those that it was started with. Its output is in Dir/local/daemons/NAME/logs.
func (p *Platform) Daemon(name string, argv, env []string) (*Daemon, error) {
	if len(argv) == 0 || name == "" || strings.ContainsAny(name, "/.") {
		return nil, fmt.Errorf("daemon %q: needs a command and a name without / and dots: %w", name, spillway.ErrInvalid)
	}
	if env == nil {
		env = os.Environ()
	}
	d := &Daemon{p: p, name: name, argv: argv, env: env, dir: filepath.Join(p.dir, "daemons", name), switched: make(chan struct{}, 1)}
	err := os.MkdirAll(d.dir, 0o700)
	if err != nil {
		return nil, err
	}
	if d.book, err = openLogbook(filepath.Join(d.dir, "logs"), p.conf.tune); err != nil {
		return nil, err
	}
	records, err := p.daemonRecords(name)
	if err != nil {
		return nil, err
	}
	for _, rec := range records { // during a Replace two may run: the later one is the daemon
		if rec.Run <= d.run {
			continue
		}
		d.run = rec.Run
		if !p.runs(rec) {
			continue
		}
		if d.proc, err = attach(rec); err != nil {
			d.proc = nil // it has just ended
		}
	}
	return d, nil
}

// path names a file of one process of the daemon.
func (d *Daemon) path(rec record, ext string) string {
	return filepath.Join(d.dir, fmt.Sprintf("%s.%d%s", d.name, rec.Run, ext))
}

// daemonRecords reads the records of the daemons whose name matches the pattern.
func (p *Platform) daemonRecords(pattern string) ([]record, error) {
	paths, err := filepath.Glob(filepath.Join(p.dir, "daemons", pattern, "*.json"))
	if err != nil {
		return nil, err
	}
	var list []record
	for _, path := range paths {
		var rec record
		if err := loadJSON(path, &rec); err != nil {
			return nil, err
		}
		list = append(list, rec)
	}
	return list, nil
}

// PID is that of the running process; 0 = it does not run.
func (d *Daemon) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.proc == nil || closed(d.proc.ended) {
		return 0
	}
	return d.proc.rec.PID
}

// Run keeps the daemon running until ctx ends, which leaves it running, or until Stop, which does not. It
// is started again at once when it dies, unless it does so soon after its start again and again.
func (d *Daemon) Run(ctx context.Context) error {
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.running = false
	}()
	d.tidy(ctx)
	// Run owns the goroutines and waits for them; they end with their process or with ctx.
	var crew sync.WaitGroup
	defer crew.Wait()
	for quick := 0; ; {
		proc, err := d.begin()
		if proc == nil || err != nil {
			return err // or stopped
		}
		end := make(chan []string, 1)
		crew.Go(func() { end <- d.attend(ctx, proc) })
		lines, ended := d.wait(proc, end)
		if ctx.Err() != nil {
			return nil
		}
		if !ended || !d.lost(proc) {
			continue // another process is the daemon now, or none has to be
		}
		ran := time.Since(proc.rec.Started)
		if quick++; ran >= d.p.conf.tune.settled {
			quick = 0
		}
		d.p.conf.Log.Error("daemon ended and is started again", "daemon", d.name, "end", proc.exit.describe(ran, lines))
		pause(ctx, d.p.conf.tune.delay(quick-1))
		if ctx.Err() != nil {
			return nil
		}
	}
}

// wait waits for the last lines of a process that ended. ended is false when another one has become the
// daemon meanwhile: the old one is attended on until its end, but nobody waits for that here.
func (d *Daemon) wait(proc *process, end <-chan []string) (lines []string, ended bool) {
	for {
		select {
		case lines = <-end:
			return lines, true
		case <-d.switched:
			d.mu.Lock()
			other := d.proc != proc
			d.mu.Unlock()
			if other {
				return nil, false
			}
		}
	}
}

// lost takes in the end of a process and reports whether it has to be started again: not when another
// one has replaced it, which may be known only some time after its end, and not when it was stopped.
func (d *Daemon) lost(proc *process) bool {
	d.replacing.Lock() // wait for the result of a Replace
	defer d.replacing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.proc != proc {
		return false
	}
	d.proc = nil
	return !d.stopped
}

// begin starts the daemon when it does not run. The result is nil when it was stopped.
func (d *Daemon) begin() (*process, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil, nil
	}
	d.running = true
	if d.proc != nil {
		return d.proc, nil
	}
	proc, err := d.spawn()
	if err != nil {
		return nil, err
	}
	d.proc = proc
	return proc, nil
}

// spawn starts a process of the daemon and makes its record the daemon's. d.mu is held.
func (d *Daemon) spawn() (*process, error) {
	d.run++
	rec := record{Version: format, Name: d.name, Run: d.run, Mark: d.p.mark("daemon:"+d.name, d.run), Boot: d.p.boot}
	out := d.path(rec, ".out")
	env := append(slices.Clone(d.env), markName+"="+rec.Mark)
	proc, err := command{self: d.p.conf.Self, record: d.path(rec, ".json"), argv: d.argv, env: env, out: out, err: out}.start(rec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	d.p.conf.Log.Info("daemon started", "daemon", d.name, "pid", proc.rec.PID)
	return proc, nil
}

// attend watches the process and copies its output until it is gone or ctx ends. It gives the last lines.
func (d *Daemon) attend(ctx context.Context, proc *process) []string {
	path, told := d.path(proc.rec, ".out"), make(chan struct{})
	// attend owns the goroutine and waits; it ends with the process or with ctx.
	var crew sync.WaitGroup
	defer crew.Wait()
	crew.Go(func() { d.keepOutput(ctx, path, told) })
	d.p.await(ctx, proc)
	if !closed(proc.gone) {
		return nil // ctx ended: the output stays in the spool
	}
	defer close(told)
	if err := os.Remove(d.path(proc.rec, ".json")); err != nil {
		d.p.conf.Log.Warn("record is not removed", "daemon", d.name, "error", err)
	}
	return tail(path)
}

func (d *Daemon) keepOutput(ctx context.Context, path string, ended <-chan struct{}) {
	s := &spool{path: path, replica: d.name, book: d.book, notify: func() {}}
	s.follow(ctx, ended, d.p.conf.tune.logs, d.p.conf.Log)
}

// tidy copies what processes that are gone have left in their spools, and removes their records.
func (d *Daemon) tidy(ctx context.Context) {
	live := map[string]bool{}
	records, err := d.p.daemonRecords(d.name)
	for _, rec := range records {
		if d.p.runs(rec) {
			live[d.path(rec, ".out")] = true
		} else {
			err = errors.Join(err, os.Remove(d.path(rec, ".json")))
		}
	}
	spools, err2 := filepath.Glob(filepath.Join(d.dir, "*.out"))
	if err := errors.Join(err, err2); err != nil {
		d.p.conf.Log.Error("what ended processes left cannot be tidied up", "daemon", d.name, "error", err)
	}
	over := make(chan struct{})
	close(over)
	for _, path := range spools {
		if !live[path] {
			d.keepOutput(ctx, path, over)
		}
	}
}

// Stop ends the daemon: SIGTERM, and SIGKILL when ctx ends first. It is not started again by this value. It
// is called while Run runs, or when it does not; not while its context ends.
func (d *Daemon) Stop(ctx context.Context) error {
	d.mu.Lock()
	d.stopped = true
	proc, running := d.proc, d.running
	d.mu.Unlock()
	if proc == nil {
		return nil
	}
	proc.stop(syscall.SIGTERM)
	defer context.AfterFunc(ctx, proc.kill)() // not after the process is gone
	if !running {
		d.attend(context.WithoutCancel(ctx), proc)
	}
	select {
	case <-proc.gone: // SIGKILL is not refused: at the latest soon after ctx ends
		return nil
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), routerTimeout)
	defer cancel()
	select {
	case <-proc.gone:
		return nil
	case <-last.Done():
		return fmt.Errorf("stop %s: pid %d does not end: %w", d.name, proc.rec.PID, ctx.Err())
	}
}
