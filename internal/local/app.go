package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// trash is the beginning of the name of an app's directory that is being deleted.
const trash = ".trash-"

// app is everything that this machine does for one app. One loop decides: it looks at what is wanted and
// at what is there, and takes the next steps. Nothing in it waits; whatever happens later wakes it. A
// second loop, the courier, talks to the data plane, which may take its time.
type app struct {
	p    *Platform
	ref  spillway.Ref
	dir  string // …/apps/REF
	log  *slog.Logger
	logs *logs

	wake chan struct{} // one slot: the loop has something to look at
	news chan struct{} // one slot: the courier has something to tell or to ask

	pushing sync.Mutex // one table at a time; taken before mu

	mu       sync.Mutex
	want     wanted
	state    appState
	replicas []*replica // sorted by group, then index
	tasks    []*task    // release commands that run, in the order of their start
	due      time.Time  // when the loop has to look again; zero = only when woken
	events   []spillway.Event
	seen     sight // what the watchers have been told of
	asked    bool  // want has been stored; until then nothing is known of the app
	idle     bool  // nothing is wanted, nothing runs, and the data plane has forgotten the app
	removed  bool  // the app is gone; this value is no longer in Platform.apps
	courier  courierState
}

// wanted is desired.json: the last thing that Apply was told.
type wanted struct {
	Version  int                      `json:"version"`
	Desired  rollout.Desired          `json:"desired"`
	Releases map[int]spillway.Release `json:"releases"`
}

// destroyed reports that nothing is left to run or to route.
func (w wanted) destroyed() bool {
	return len(w.Desired.Groups) == 0 && len(w.Desired.Route.Edges) == 0 && len(w.Desired.Tasks) == 0
}

// group says what is wanted of a group; false when it has to go.
func (w wanted) group(g spillway.Group) (rollout.Want, bool) {
	i := slices.IndexFunc(w.Desired.Groups, func(x rollout.Want) bool { return x.Group == g })
	if i < 0 {
		return rollout.Want{Group: g}, false
	}
	return w.Desired.Groups[i], true
}

// appState is state.json: what has to survive beside the runs.
type appState struct {
	Version   int                 `json:"version"`
	Revision  int64               `json:"revision"`  // of the last table that was pushed or tried
	Runs      int64               `json:"runs"`      // number of the last start
	Listeners map[string]int      `json:"listeners"` // "www.4>backend" → port
	Counters  map[string]counters `json:"counters"`  // "www.4" → its ends
	Tasks     []taskEnd           `json:"tasks,omitempty"`
}

// counters are what an observation says of the ends of a group's replicas.
type counters struct {
	Crashes  int `json:"crashes"`  // in a row, of replicas that never were ready
	Restarts int `json:"restarts"` // of replicas that had been ready
}

func newApp(p *Platform, ref spillway.Ref) *app {
	dir := filepath.Join(p.dir, "apps", string(ref))
	return &app{
		p: p, ref: ref, dir: dir, log: p.conf.Log.With("app", ref), logs: newLogs(filepath.Join(dir, "logs"), p.conf.tune),
		wake: make(chan struct{}, 1), news: make(chan struct{}, 1),
		state: appState{Listeners: map[string]int{}, Counters: map[string]counters{}},
	}
}

// openApp reads an app from disk and takes over its replicas that run.
func openApp(p *Platform, ref spillway.Ref) (*app, error) {
	a := newApp(p, ref)
	a.asked = true
	if err := os.MkdirAll(a.runs(), 0o700); err != nil {
		return nil, err
	}
	if err := loadJSON(filepath.Join(a.dir, "desired.json"), &a.want); err != nil && !missing(err) {
		return nil, err
	}
	if err := loadJSON(filepath.Join(a.dir, "state.json"), &a.state); err != nil && !missing(err) {
		return nil, err
	}
	for _, port := range a.state.Listeners {
		p.ports.claim(port)
	}
	entries, err := os.ReadDir(a.runs())
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(a.runs(), e.Name())
		switch {
		case strings.HasPrefix(e.Name(), unfinished):
			err = removeUnfinished(path)
		case strings.HasSuffix(e.Name(), ".json"):
			err = a.takeOver(path)
		}
		if err != nil {
			return nil, err
		}
	}
	return a, a.saveState()
}

func (a *app) runs() string { return filepath.Join(a.dir, "runs") }

// takeOver makes a replica of a record, or accounts for its end.
func (a *app) takeOver(path string) error {
	var rec record
	if err := loadJSON(path, &rec); err != nil {
		return err
	}
	if rec.Task != nil {
		return a.takeOverTask(path, rec)
	}
	if a.p.runs(rec) {
		proc, err := attach(rec)
		if err == nil {
			a.p.ports.claim(rec.Port)
			a.insert(adopted(proc))
			return nil
		}
	}
	rec.killStrays()
	rec.Cgroup.remove()
	if rec.PID != 0 && rec.Boot == a.p.boot && !rec.Leaving {
		a.countEnd(rec.Group, rec.Ready)
		a.tellEvent(rec.Group, rec.Name+" ended while no server watched")
	}
	return os.Remove(path)
}

// countEnd adds the end of a replica to the counters of its group.
func (a *app) countEnd(g spillway.Group, ready bool) {
	c := a.state.Counters[g.String()]
	if ready {
		c.Restarts++
	} else {
		c.Crashes++
	}
	a.state.Counters[g.String()] = c
}

func (a *app) saveState() error {
	a.state.Version = format
	return saveJSON(filepath.Join(a.dir, "state.json"), a.state)
}

// saveStateOrWarn is for counters: losing the last of them is not worth stopping for.
func (a *app) saveStateOrWarn() {
	if err := a.saveState(); err != nil {
		a.log.Warn("state is not saved", "error", err)
	}
}

// nudge fills a channel of one slot.
func (a *app) nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// at asks the loop to look again at t.
func (a *app) at(t time.Time) {
	if a.due.IsZero() || t.Before(a.due) {
		a.due = t
	}
}

// tellEvent keeps an event until the loop holds no lock. Last lines of a replica are left out.
func (a *app) tellEvent(g spillway.Group, text string) {
	text, _, _ = strings.Cut(text, lastWords)
	a.events = append(a.events, spillway.Event{
		App: a.ref, At: time.Now().UTC(), Kind: spillway.EventReplica, Release: g.Release, Service: g.Service, Text: text,
	})
}

func (a *app) isRemoved() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.removed
}

// loop supervises the app until ctx ends or the app is gone.
func (a *app) loop(ctx context.Context) {
	// The loop owns every goroutine of the app; cancel ends them, and it waits for them.
	var crew sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer crew.Wait()
	defer cancel()
	crew.Go(func() { a.carry(ctx) })
	a.mu.Lock()
	a.saveSpools(ctx)
	for _, r := range a.replicas {
		a.attend(ctx, &crew, r)
	}
	for _, t := range a.tasks {
		a.attendTask(ctx, &crew, t)
	}
	a.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-timer.C:
		}
		due := a.turn(ctx, &crew, time.Now())
		if a.isRemoved() {
			return
		}
		a.retire(ctx)
		if !due.IsZero() {
			timer.Reset(max(0, time.Until(due)))
		}
	}
}

// turn takes every step that can be taken now and gives the time of the next one that is known.
func (a *app) turn(ctx context.Context, crew *sync.WaitGroup, now time.Time) time.Time {
	a.mu.Lock()
	a.due = time.Time{}
	for _, r := range slices.Clone(a.replicas) {
		a.advance(now, r)
	}
	if err := a.listen(now); err != nil {
		a.log.Error("private addresses cannot be given", "error", err)
		a.at(now.Add(time.Second))
	}
	for _, w := range a.allWants() {
		a.size(now, w)
	}
	for _, r := range a.replicas {
		if r.state == spillway.Waiting {
			a.startWhenDue(ctx, crew, now, r)
		}
	}
	a.advanceTasks(ctx, crew, now)
	a.forgetGroups(now)
	if a.tableChanged() {
		a.nudge(a.news)
	}
	seen := a.visible()
	changed := !reflect.DeepEqual(seen, a.seen)
	events, due := a.events, a.due
	a.events, a.seen = nil, seen
	a.mu.Unlock()
	for _, e := range events {
		a.p.conf.Events(e)
	}
	if changed {
		a.p.watchers.Changed(a.ref)
	}
	return due
}

// sight is what others may want to look at again when it changes.
type sight struct {
	groups []rollout.Group
	deaf   bool
	served int64
	tasks  []rollout.TaskState
	dead   map[string]string
}

// visible gives the present sight. Of the open requests it says only whether there are any.
func (a *app) visible() sight {
	s := sight{
		groups: a.observeGroups(), deaf: a.courier.deaf, served: a.courier.served.Generation,
		tasks: a.observeTasks(), dead: a.courier.dead,
	}
	for i := range s.groups {
		s.groups[i].InFlight = min(s.groups[i].InFlight, 1)
	}
	return s
}

// allWants lists what is wanted of every group that is wanted or there, sorted by group.
func (a *app) allWants() []rollout.Want {
	wants := slices.Clone(a.want.Desired.Groups)
	for _, r := range a.replicas {
		if !slices.ContainsFunc(wants, func(w rollout.Want) bool { return w.Group == r.group }) {
			wants = append(wants, rollout.Want{Group: r.group})
		}
	}
	slices.SortFunc(wants, func(x, y rollout.Want) int { return compareGroups(x.Group, y.Group) })
	return wants
}

func compareGroups(g, h spillway.Group) int {
	switch {
	case g.Less(h):
		return -1
	case h.Less(g):
		return 1
	}
	return 0
}

// insert adds a replica at its place.
func (a *app) insert(r *replica) {
	i, _ := slices.BinarySearchFunc(a.replicas, r, func(x, y *replica) int {
		if c := compareGroups(x.group, y.group); c != 0 {
			return c
		}
		return x.index - y.index
	})
	a.replicas = slices.Insert(a.replicas, i, r)
}

// remove takes a replica that has no process out of the list.
func (a *app) remove(r *replica) {
	a.replicas = slices.DeleteFunc(a.replicas, func(x *replica) bool { return x == r })
}

// has reports whether the group has a replica in any state.
func (a *app) has(g spillway.Group) bool {
	return slices.ContainsFunc(a.replicas, func(r *replica) bool { return r.group == g })
}

// forgetGroups drops what is kept of groups that are neither wanted nor there.
func (a *app) forgetGroups(now time.Time) {
	changed := false
	gone := func(g spillway.Group) bool {
		_, wanted := a.want.group(g)
		return !wanted && !a.has(g) && !slices.Contains(a.taskGroups(), g)
	}
	for name, port := range a.state.Listeners {
		if e, ok := parseListener(name); ok && gone(e.From) {
			delete(a.state.Listeners, name)
			a.p.ports.release(port, now)
			changed = true
		}
	}
	for name := range a.state.Counters {
		if g, ok := parseGroup(name); ok && gone(g) {
			delete(a.state.Counters, name)
			changed = true
		}
	}
	if changed {
		a.saveStateOrWarn()
	}
}

// retire takes an app that has nothing to run and nothing to route from the data plane. Its logs stay,
// because the reason why nothing runs may be in them, until Forget.
func (a *app) retire(ctx context.Context) {
	a.mu.Lock()
	idle := a.idle
	a.mu.Unlock()
	if idle || !a.over() {
		return
	}
	a.pushing.Lock() // no table after the removal
	defer a.pushing.Unlock()
	err := a.unroute(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.courier.acked = nil
	if err != nil {
		a.log.Warn("data plane did not forget the app", "error", err)
		time.AfterFunc(time.Second, func() { a.nudge(a.wake) })
		return
	}
	a.idle = a.want.destroyed() // else it was asked for again meanwhile
	a.nudge(a.wake)
}

// unroute makes the data plane forget the app.
func (a *app) unroute(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, routerTimeout)
	defer cancel()
	if err := a.p.conf.Router.Remove(ctx, a.ref); err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	return nil
}

// over reports that nothing of the app runs or is wanted.
func (a *app) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked && a.want.destroyed() && len(a.replicas)+len(a.tasks) == 0
}

// Forget deletes everything that is kept of an app that was destroyed, its logs too. ErrConflict when
// some of it still runs. An app that is not known is forgotten already.
func (p *Platform) Forget(ctx context.Context, ref spillway.Ref) error {
	a := p.app(ref)
	if a == nil {
		return nil
	}
	a.pushing.Lock()
	defer a.pushing.Unlock()
	if !a.over() {
		return fmt.Errorf("forget %s: some of it is wanted or still runs: %w", ref, spillway.ErrConflict)
	}
	if err := a.unroute(ctx); err != nil {
		return fmt.Errorf("forget %s: %w", ref, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.want.destroyed() {
		return fmt.Errorf("forget %s: it has just been asked for again: %w", ref, spillway.ErrConflict)
	}
	a.removed = true
	delete(p.apps, ref)
	a.nudge(a.wake) // its loop ends
	return a.erase()
}

// erase deletes the state of the app; after its first step the app is gone also when the rest fails.
func (a *app) erase() error {
	for _, port := range a.state.Listeners {
		a.p.ports.release(port, time.Now())
	}
	old, err := os.MkdirTemp(filepath.Dir(a.dir), trash)
	if err != nil {
		return err
	}
	if err := os.Rename(a.dir, filepath.Join(old, "app")); err != nil {
		return errors.Join(err, os.Remove(old))
	}
	return os.RemoveAll(old)
}

// sameJSON compares two values by what would be stored of them.
func sameJSON(x, y any) (bool, error) {
	a, err := json.Marshal(x)
	if err != nil {
		return false, fmt.Errorf("compare: %w", err)
	}
	b, err := json.Marshal(y)
	return string(a) == string(b), err
}
