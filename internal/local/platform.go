package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// Router is the data plane as the platform needs it. Errors wrap the sentinels of the root.
type Router interface {
	// Push returns when the table is visible to every new request and its listeners are bound. A
	// revision below the one that is served is ErrStale.
	Push(ctx context.Context, t spillway.Table) error
	// Remove forgets an app. One that it does not have is nil or ErrNotFound.
	Remove(ctx context.Context, app spillway.Ref) error
	// Report fails with ErrUnavailable when the data plane does not answer, and with ErrNotFound when
	// it has no such app.
	Report(ctx context.Context, app spillway.Ref) (spillway.Report, error)
	// Watch calls changed when a report may differ in more than counts: a trial tripped, a draining
	// replica became free. It blocks until ctx ends or the data plane goes away.
	Watch(ctx context.Context, changed func(spillway.Ref)) error
}

// Config is what a Platform needs.
type Config struct {
	Dir    string               // state directory; the platform owns Dir/local
	Router Router               // required
	Log    *slog.Logger         // nil = discard
	Self   string               // program whose "_exec" verb is Exec; "" = this program
	Events func(spillway.Event) // told when a replica became ready, ended or was killed; nil = nobody. It must not block
	Ports  [2]int               // range of loopback ports, [first, last); zero = 20000-32000

	tune tuning // zero fields are the defaults; only tests set it
}

// tuning is every duration and size that is not the app's to choose.
type tuning struct {
	probeMin, probeMax  time.Duration // between probes of a starting replica
	backoff, backoffMax time.Duration // before the next start of a replica that never became ready
	settled             time.Duration // a replica that ends sooner after it became ready did not really work
	wrongPort           time.Duration // listening elsewhere for so long is not going to change
	refresh             time.Duration // between reports asked of the router without a reason
	drain               time.Duration // between reports while a replica drains
	logs                time.Duration // between looks at the spools
	segment             int64         // bytes of one log segment
	segments            int           // segments kept of one group
}

// withDefaults fills in zero fields. The port range lies below that of Linux for outgoing connections
// (32768 and up); Nomad had to move its own for that (hashicorp/nomad#4285).
func (c Config) withDefaults() (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(spillway.Event) {}
	}
	if c.Ports == [2]int{} {
		c.Ports = [2]int{20000, 32000}
	}
	if c.Ports[0] < 1 || c.Ports[1] > 1<<16 || c.Ports[0] >= c.Ports[1] {
		return c, fmt.Errorf("port range %d-%d: must be within 1-65536 and not empty: %w", c.Ports[0], c.Ports[1], spillway.ErrInvalid)
	}
	if c.Router == nil {
		return c, fmt.Errorf("local platform without a router: %w", spillway.ErrInvalid)
	}
	var err error
	if c.Self == "" {
		c.Self, err = os.Executable()
	}
	if c.tune == (tuning{}) {
		c.tune = tuning{
			probeMin: 25 * time.Millisecond, probeMax: 250 * time.Millisecond,
			backoff: 500 * time.Millisecond, backoffMax: 30 * time.Second,
			settled: 5 * time.Second, wrongPort: 5 * time.Second,
			refresh: 2 * time.Second, drain: 50 * time.Millisecond, logs: 100 * time.Millisecond,
			segment: 4 << 20, segments: 8,
		}
	}
	return c, err
}

// Platform runs the replicas of all apps on this machine. Open makes one; Run supervises.
type Platform struct {
	conf   Config
	dir    string // Config.Dir/local, absolute
	id     string // names the directory in control groups and environments
	boot   string
	ports  *ports
	groups *cgroups

	mu    sync.Mutex // taken before app.mu, never after it
	apps  map[spillway.Ref]*app
	added chan struct{} // one slot: an app is new

	watchers reconcile.Watchers

	wait    sync.Mutex   // taken after any other
	leaders map[int]bool // pids that somebody waits for
}

// Open reads the state in c.Dir, finds the replicas that still run, and ends every process that was
// started from this directory and that no record claims. It starts nothing; Run does.
func Open(ctx context.Context, c Config) (*Platform, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Platform{
		conf: c, ports: newPorts(c.Ports[0], c.Ports[1]), apps: map[spillway.Ref]*app{},
		added: make(chan struct{}, 1), leaders: map[int]bool{},
	}
	if p.dir, err = filepath.Abs(filepath.Join(c.Dir, "local")); err != nil {
		return nil, err
	}
	p.id = fmt.Sprintf("%x", sha256.Sum256([]byte(p.dir)))[:12]
	p.groups = findCgroups("spillway-" + p.id)
	if p.boot, err = bootID(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"apps", "daemons"} {
		if err := os.MkdirAll(filepath.Join(p.dir, dir), 0o700); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(filepath.Join(p.dir, "apps"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		ref := spillway.Ref(e.Name())
		if strings.HasPrefix(e.Name(), trash) {
			err = os.RemoveAll(filepath.Join(p.dir, "apps", e.Name()))
		} else {
			p.apps[ref], err = openApp(p, ref)
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", ref, err)
		}
	}
	return p, p.sweep(ctx)
}

// sweep ends the processes of this directory that no record claims, and what they left behind.
func (p *Platform) sweep(ctx context.Context) error {
	keep, names := map[string]bool{}, map[string]bool{}
	claim := func(r record) {
		keep[r.Mark] = true
		names[cgroupName(r.Mark)] = true
	}
	for _, a := range p.apps {
		for _, r := range a.replicas {
			if r.proc != nil {
				claim(r.rec)
			}
		}
		for _, t := range a.tasks {
			claim(t.rec)
		}
	}
	daemons, err := p.daemonRecords("*")
	if err != nil {
		return err
	}
	for _, rec := range daemons {
		if p.runs(rec) {
			claim(rec)
		}
	}
	for pid, mark := range marks(p.id) {
		if !keep[mark] {
			p.conf.Log.Warn("orphan killed", "pid", pid, "run", mark)
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
		}
	}
	p.groups.sweep(names)
	return ctx.Err()
}

// runs reports whether the process of a record is still there.
func (p *Platform) runs(r record) bool {
	return r.PID != 0 && r.Boot == p.boot && alive(r.PID, r.Start)
}

// mark makes the value of SPILLWAY_RUN for one run.
func (p *Platform) mark(owner string, run int64) string {
	return fmt.Sprintf("%s/%s/%d", p.id, owner, run)
}

// dirOf gives the directory's name in a mark.
func dirOf(mark string) string { id, _, _ := strings.Cut(mark, "/"); return id }

// cgroupName makes "shop@staging.17" of "3f2a…/shop@staging/17".
func cgroupName(mark string) string {
	_, rest, _ := strings.Cut(mark, "/")
	return strings.ReplaceAll(rest, "/", ".")
}

// Run supervises the replicas of all apps until ctx ends. Then they go on without supervision; the next
// Run, of this or a later process, takes them over.
func (p *Platform) Run(ctx context.Context) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		p.conf.Log.Warn("orphans of replicas cannot be collected", "error", err)
	}
	// Run owns every goroutine started here; the end of ctx ends them, and it waits for them.
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.watchRouter(ctx) })
	zombies := []int(nil)
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	running := map[*app]bool{}
	for {
		p.mu.Lock()
		for _, a := range p.apps {
			if !running[a] {
				running[a] = true
				wg.Go(func() { a.loop(ctx) }) // ends with ctx or when the app is gone
			}
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-p.added:
		case <-tick.C:
			zombies = reapStrangers(zombies, p.waitedFor)
			maps.DeleteFunc(running, func(a *app, _ bool) bool { return a.isRemoved() })
		}
	}
}

// waitedFor reports whether some goroutine waits for the process.
func (p *Platform) waitedFor(pid int) bool {
	p.wait.Lock()
	defer p.wait.Unlock()
	return p.leaders[pid]
}

// await watches a process to its end, keeping reapStrangers away from it.
func (p *Platform) await(ctx context.Context, proc *process) {
	p.wait.Lock()
	p.leaders[proc.rec.PID] = true
	p.wait.Unlock()
	if err := proc.watch(ctx); err != nil && ctx.Err() == nil {
		p.conf.Log.Error("replica cannot be watched", "replica", proc.rec.Name, "pid", proc.rec.PID, "error", err)
	}
	p.wait.Lock()
	delete(p.leaders, proc.rec.PID)
	p.wait.Unlock()
}

// watchRouter passes on what the data plane says, until ctx ends.
func (p *Platform) watchRouter(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.conf.Router.Watch(ctx, func(ref spillway.Ref) {
			if a := p.app(ref); a != nil {
				a.nudge(a.news)
			}
			p.watchers.Changed(ref)
		})
		if err != nil && ctx.Err() == nil {
			p.conf.Log.Debug("data plane is not watched", "error", err)
		}
		pause(ctx, time.Second/4)
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// app gives the app of a ref, or nil.
func (p *Platform) app(ref spillway.Ref) *app {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.apps[ref]
}

// Watch calls changed whenever an observation of an app may differ. It blocks until ctx ends.
func (p *Platform) Watch(ctx context.Context, changed func(app spillway.Ref)) error {
	return p.watchers.Watch(ctx, changed)
}

// Halt stops every replica of every app, as fast as their stop signal and grace allow, without changing
// what is wanted: the next Run starts them again. A release command that runs is killed, and failed. It must
// not be called while Run runs.
func (p *Platform) Halt(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	stop := func(name string, halt func() error) {
		// Halt owns it and waits; it ends with the process, or with ctx.
		wg.Go(func() {
			if err := halt(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
			}
		})
	}
	p.mu.Lock()
	for _, a := range p.apps {
		for _, r := range a.replicas {
			stop(r.name, func() error { return a.halt(ctx, r) })
		}
		for _, t := range slices.Clone(a.tasks) { // those that end are taken out of the list
			stop(t.rec.Name, func() error { return a.haltTask(ctx, t) })
		}
	}
	p.mu.Unlock()
	wg.Wait()
	p.groups.removeRoots()
	return errors.Join(errs...)
}
