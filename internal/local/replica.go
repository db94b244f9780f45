package local

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// replica is one name of a group, "www.4-1", and the process that bears it now. It goes through
//
//	Waiting → Starting → Ready → Draining → Stopping → Waiting or gone
//
// and may leave out what it does not need: one that never was ready does not drain.
type replica struct {
	name    string
	group   spillway.Group
	index   int
	state   spillway.ReplicaState
	leaving bool // it will not come back

	proc    *process      // nil when Waiting
	rec     record        // of proc; as it is on disk
	told    chan struct{} // closed when the output of proc is not needed any more
	exposed bool          // it may be in a table that the router has
	good    int           // probes in a row
	bad     int
	ready   time.Time // since when
	acked   int64     // revision of an acknowledged table in which it drains; 0 = none yet
	drained bool      // the router reported no open request after that
	ackedAt time.Time
	asked   time.Time // when it was signalled
	killed  bool

	crashes  int // ends in a row without having been ready
	quick    int // ends in a row soon after it became ready
	restarts int
	restart  int64     // Want.Restart of its last start
	next     time.Time // Waiting: when to start
	problem  string
	fatal    bool
	verdict  string    // why it was stopped though it is wanted; replaces what its end says
	astray   time.Time // since when it listens on another port only

	cpu    time.Duration // used until seen; for the average
	seen   time.Time
	usage  usage
	looked time.Time // when usage was taken
}

// adopted makes a replica of a process that ran before this server. One that has been ready counts as
// ready until its probes say otherwise: the start of a server must not empty the pool.
func adopted(p *process) *replica {
	r := &replica{
		name: p.rec.Name, group: p.rec.Group, index: indexOf(p.rec.Name), state: spillway.Starting, leaving: p.rec.Leaving,
		proc: p, rec: p.rec, told: make(chan struct{}), exposed: p.rec.Ready, restarts: p.rec.Restarts, restart: p.rec.Restart,
	}
	switch {
	case r.leaving:
		r.state = spillway.Draining
	case p.rec.Ready:
		r.state, r.ready = spillway.Ready, time.Now()
	}
	return r
}

// indexOf gives 1 for "www.4-1".
func indexOf(name string) int {
	n, _ := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	return n
}

// closed reports whether a channel that only is ever closed is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// up reports whether the replica may get new requests.
func (r *replica) up() bool { return r.state == spillway.Ready && !closed(r.proc.ended) }

// advance takes the steps of one replica that its own state asks for.
func (a *app) advance(now time.Time, r *replica) {
	switch {
	case r.proc == nil:
	case closed(r.proc.gone):
		a.ended(now, r)
	case r.state == spillway.Starting && !closed(r.proc.ended):
		limit := r.rec.Started.Add(time.Duration(r.rec.Health.Start))
		if now.Before(limit) {
			a.at(limit)
			return
		}
		r.verdict = fmt.Sprintf("was not ready within %s: %s", r.rec.Health.Start, cmp.Or(r.problem, "it was not probed"))
		a.ask(now, r)
	case r.state == spillway.Draining:
		if a.mayStop(now, r) {
			a.ask(now, r)
		}
	case r.state == spillway.Stopping && !r.killed:
		limit := r.asked.Add(time.Duration(r.rec.Stop.Grace))
		if now.Before(limit) {
			a.at(limit)
			return
		}
		r.killed = true
		a.tellEvent(r.group, fmt.Sprintf("%s was killed: it did not end within %s of %s", r.name, r.rec.Stop.Grace, r.rec.Stop.Signal))
		r.proc.kill()
	}
}

// mayStop reports whether nothing is lost when the draining replica is signalled: the data plane has
// acknowledged that it gives it nothing, and its requests have ended or had their time. While the data
// plane does not answer nobody knows, and it waits.
func (a *app) mayStop(now time.Time, r *replica) bool {
	switch {
	case !r.exposed || r.drained || closed(r.proc.ended):
		return true
	case r.acked == 0 || a.courier.deaf:
		return false
	}
	limit := r.ackedAt.Add(time.Duration(r.rec.Stop.Drain))
	a.at(limit)
	return !now.Before(limit)
}

// ask sends the stop signal.
func (a *app) ask(now time.Time, r *replica) {
	r.state, r.asked = spillway.Stopping, now
	a.at(now.Add(time.Duration(r.rec.Stop.Grace)))
	r.proc.stop(stopSignal(r.rec.Stop))
}

func stopSignal(s spillway.Stop) syscall.Signal {
	if n := unix.SignalNum(s.Signal); n != 0 {
		return n
	}
	return syscall.SIGTERM
}

// leave lets a replica go for good.
func (a *app) leave(now time.Time, r *replica) {
	r.leaving = true
	if r.proc == nil {
		a.remove(r)
		return
	}
	if !r.exposed {
		if r.state != spillway.Stopping {
			a.ask(now, r)
		}
		return
	}
	r.state = spillway.Draining
	r.rec.Leaving = true // a later server must not give it requests again
	a.saveRecord(r)
}

func (a *app) saveRecord(r *replica) {
	if err := saveJSON(a.runPath(r.rec, ".json"), r.rec); err != nil {
		a.log.Warn("record is not saved", "replica", r.name, "error", err)
	}
}

// runPath names a file of one run.
func (a *app) runPath(rec record, ext string) string {
	return filepath.Join(a.runs(), fmt.Sprintf("%s.%d%s", rec.Name, rec.Run, ext))
}

// replace gives the place of a replica that answers no longer to a new one.
func (a *app) replace(now time.Time, r *replica, why string) {
	a.countEnd(r.group, true)
	a.saveStateOrWarn()
	a.tellEvent(r.group, fmt.Sprintf("%s is replaced: %s", r.name, why))
	fresh := a.add(r.group)
	fresh.restarts, fresh.quick, fresh.problem = r.restarts+1, r.quick, why
	fresh.next = now.Add(a.delayAfterReady(now, fresh, r.ready))
	r.problem = why
	a.leave(now, r)
}

// delayAfterReady is how long to wait with the next start after the end of a replica that had been
// ready: not at all, unless that happens soon after it became ready and again and again.
func (a *app) delayAfterReady(now time.Time, r *replica, ready time.Time) time.Duration {
	if now.Sub(ready) >= a.p.conf.tune.settled {
		r.quick = 0
		return 0
	}
	r.quick++
	return a.p.conf.tune.delay(r.quick - 1)
}

// delay is the back-off before the next start after n failures: nothing after none, 0.5 s after the
// first, then twice as long each time up to 30 s, each ±25 % so that replicas do not start in step.
func (t tuning) delay(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	d := t.backoffMax
	if n < 20 { // beyond that the shift alone is longer than any cap
		d = min(d, t.backoff<<(n-1))
	}
	return d*3/4 + time.Duration(rand.Int64N(int64(d)/2+1))
}

// ended accounts for a process that is gone, and makes its replica wait for the next start.
func (a *app) ended(now time.Time, r *replica) {
	rec, exit := r.rec, r.proc.exit
	a.p.ports.release(rec.Port, now)
	if err := os.Remove(a.runPath(rec, ".json")); err != nil {
		a.log.Warn("record is not removed", "replica", r.name, "error", err)
	}
	lines := a.lastLines(rec)
	close(r.told) // the last lines have been read: the spool may go
	ready := r.ready
	r.proc, r.exposed, r.good, r.bad, r.acked, r.drained, r.killed = nil, false, 0, 0, 0, false, false
	r.astray, r.seen, r.looked = time.Time{}, time.Time{}, time.Time{}
	r.state = spillway.Waiting
	if r.leaving {
		a.remove(r)
		return
	}
	r.problem = cmp.Or(r.verdict, exit.describe(now.Sub(rec.Started), lines))
	r.verdict = ""
	a.countEnd(r.group, rec.Ready)
	a.saveStateOrWarn()
	if rec.Ready {
		r.restarts++
		r.next = now.Add(a.delayAfterReady(now, r, ready))
	} else {
		r.fatal = r.fatal || exit.hopeless()
		r.crashes++
		r.next = now.Add(a.p.conf.tune.delay(r.crashes))
	}
	a.tellEvent(r.group, r.name+" "+r.problem)
}

// lastLines gives what a process wrote last: to standard error, if it wrote there.
func (a *app) lastLines(rec record) []string {
	if lines := tail(a.runPath(rec, ".err")); len(lines) > 0 {
		return lines
	}
	return tail(a.runPath(rec, ".out"))
}

// hopeless reports that the command is not there or cannot be executed.
func (s status) hopeless() bool { return s.code == exitNotFound || s.code == exitNotExecutable }

// lastWords stands between the end of a process and the last lines that it wrote.
const lastWords = "; last lines:\n"

// describe says in words how a process ended: "exited with code 3 after 0.2s; last lines: …".
func (s status) describe(ran time.Duration, lines []string) string {
	after := " after " + ran.Round(100*time.Millisecond).String()
	var text string
	switch {
	case s.outOfMemory:
		text = "ran out of memory and was killed" + after
	case !s.known:
		text = "ended, nobody knows how (the server was down)"
	case s.signal != 0:
		text = fmt.Sprintf("was ended by %s%s", unix.SignalName(s.signal), after)
	case s.code == exitNotFound:
		text = "exited with code 127, command not found"
	case s.code == exitNotExecutable:
		text = "exited with code 126, command cannot be executed"
	default:
		text = fmt.Sprintf("exited with code %d%s", s.code, after)
	}
	if len(lines) > 0 {
		text += lastWords + strings.Join(lines, "\n")
	}
	return text
}

// oneLine keeps, of the last lines in a problem, the very last: what a group's problem says goes into the
// reason of a rollout, which is read as one sentence in a status, an event and a list.
func oneLine(problem string) string {
	head, lines, found := strings.Cut(problem, lastWords)
	if !found {
		return problem
	}
	return head + "; last line: " + lines[strings.LastIndexByte(lines, '\n')+1:]
}

// size brings the number of replicas of one group to what is wanted, and replaces those that were started
// before the last restart was asked for: a new one becomes ready first, then an old one goes.
func (a *app) size(now time.Time, w rollout.Want) {
	var live, old []*replica
	settled := true // all new ones are ready
	for _, r := range slices.Clone(a.replicas) {
		switch {
		case r.group != w.Group || r.leaving:
		case r.proc != nil && r.restart < w.Restart && !r.up():
			a.leave(now, r) // it serves nobody, so nothing is lost by starting anew
		case r.proc != nil && r.restart < w.Restart:
			live, old = append(live, r), append(old, r)
		default:
			live = append(live, r)
			settled = settled && r.up()
		}
	}
	slices.SortStableFunc(live, func(x, y *replica) int { return keep(y, w) - keep(x, w) })
	spare := 0
	if len(old) > 0 && !settled {
		spare = 1
	}
	for w.Replicas >= 0 && len(live) > w.Replicas+spare {
		a.leave(now, live[len(live)-1])
		live = live[:len(live)-1]
	}
	for len(live) < w.Replicas {
		live = append(live, a.add(w.Group))
	}
	if len(old) > 0 && settled && len(live) == w.Replicas && slices.ContainsFunc(live, func(r *replica) bool { return r.restart < w.Restart && r.proc != nil }) {
		a.add(w.Group)
	}
}

// keep says how much a replica is worth keeping: ready ones more than others, new ones more than those to
// be replaced, low indexes more than high ones.
func keep(r *replica, w rollout.Want) int {
	const most = 1 << 20
	worth := most - r.index
	if r.restart >= w.Restart {
		worth += most
	}
	if r.up() {
		worth += 2 * most
	}
	return worth
}

// add makes a new replica with the smallest free index; it waits to be started.
func (a *app) add(g spillway.Group) *replica {
	index := 1
	for slices.ContainsFunc(a.replicas, func(r *replica) bool { return r.group == g && r.index == index }) {
		index++
	}
	r := &replica{name: fmt.Sprintf("%s-%d", g, index), group: g, index: index, state: spillway.Waiting}
	a.insert(r)
	return r
}

// startWhenDue starts a waiting replica when its time has come, at once when a restart is asked for.
func (a *app) startWhenDue(ctx context.Context, crew *sync.WaitGroup, now time.Time, r *replica) {
	w, _ := a.want.group(r.group)
	if r.restart < w.Restart {
		r.next, r.crashes, r.quick, r.fatal = now, 0, 0, false
	}
	if now.Before(r.next) {
		a.at(r.next)
		return
	}
	r.restart = w.Restart
	if err := a.start(now, r, w); err != nil {
		r.problem = a.p.cannotStart(err)
		r.crashes++
		r.next = now.Add(a.p.conf.tune.delay(r.crashes))
		a.at(r.next)
		a.countEnd(r.group, false)
		a.saveStateOrWarn()
		a.tellEvent(r.group, r.name+" "+r.problem)
		return
	}
	a.attend(ctx, crew, r)
	a.at(now.Add(time.Duration(r.rec.Health.Start)))
}
