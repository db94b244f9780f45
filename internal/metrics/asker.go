package metrics

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Config is what an Asker needs.
type Config struct {
	Log     *slog.Logger           // nil = discard
	Changed func(app spillway.Ref) // told when a gate has an answer of another kind than before; nil = nobody. It must not block

	tune tuning // zero fields are the defaults; only tests set it
}

// tuning is how often and how long to ask.
type tuning struct {
	every   time.Duration // from the beginning of one question to that of the next
	timeout time.Duration // of one question
}

// Asker asks the gates that it is told to, again and again, each by itself. New makes one; Run asks.
type Asker struct {
	conf   Config
	client *http.Client
	wake   chan struct{} // one slot: the gates are others now

	mu    sync.Mutex
	gates map[question]*gate
}

// question identifies a gate of a rollout and all that is asked with it.
type question struct {
	app   spillway.Ref
	watch rollout.Watch
	dir   string // where a command runs
}

// gate is one question and the last answer to it.
type gate struct {
	question
	gone    chan struct{} // closed when nobody wants to know any more
	started bool
	reading rollout.Reading // zero At = not asked yet
}

// New makes an Asker that asks nothing yet.
func New(c Config) *Asker {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Changed == nil {
		c.Changed = func(spillway.Ref) {}
	}
	if c.tune == (tuning{}) {
		c.tune = tuning{every: 5 * time.Second, timeout: 10 * time.Second}
	}
	return &Asker{
		conf: c, wake: make(chan struct{}, 1), gates: map[question]*gate{},
		client: &http.Client{
			Transport:     &http.Transport{}, // no proxy, whatever the environment says
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Set makes the gates of the app that are asked equal to watch. What is asked already goes on with what is
// known of it. The releases are those that watch names: a command runs in the artefact of the candidate's
// leading service. Set never waits for an answer.
func (a *Asker) Set(app spillway.Ref, watch []rollout.Watch, releases map[int]spillway.Release) {
	wanted := map[question]bool{}
	for _, w := range watch {
		wanted[question{app: app, watch: w, dir: directory(releases[w.Stable], releases[w.Release])}] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for q, g := range a.gates {
		if q.app == app && !wanted[q] {
			close(g.gone)
			delete(a.gates, q)
		}
	}
	for q := range wanted {
		if a.gates[q] == nil {
			a.gates[q] = &gate{question: q, gone: make(chan struct{})}
		}
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// directory gives the artefact of the service that leads a rollout.
func directory(stable, candidate spillway.Release) string {
	lead, _ := rollout.Lead(stable, candidate)
	return candidate.Artefacts[lead.Name].Dir
}

// Readings gives the last answer to each gate of the app that has been asked, sorted by rollout and gate.
func (a *Asker) Readings(app spillway.Ref) []rollout.Reading {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []rollout.Reading
	for q, g := range a.gates {
		if q.app == app && !g.reading.At.IsZero() {
			list = append(list, g.reading)
		}
	}
	slices.SortFunc(list, func(x, y rollout.Reading) int {
		if x.Rollout != y.Rollout {
			return int(x.Rollout - y.Rollout)
		}
		return strings.Compare(x.Gate, y.Gate)
	})
	return list
}

// Run asks until ctx ends.
func (a *Asker) Run(ctx context.Context) error {
	// Run owns the goroutines, one a gate. They end with ctx or when nobody wants to know; Run waits for them.
	var crew sync.WaitGroup
	defer a.client.CloseIdleConnections()
	defer crew.Wait()
	for {
		for _, g := range a.fresh() {
			crew.Go(func() { a.ask(ctx, g) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		}
	}
}

// fresh gives the gates that nobody asks yet, and marks them as asked.
func (a *Asker) fresh() []*gate {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := slices.Collect(maps.Values(a.gates))
	fresh = slices.DeleteFunc(fresh, func(g *gate) bool { return g.started })
	for _, g := range fresh {
		g.started = true
	}
	return fresh
}

// ask asks one gate again and again.
func (a *Asker) ask(ctx context.Context, g *gate) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// ask owns the goroutine; the end of ctx, which ask brings about, ends it. Nobody has to wait.
	go func() {
		select {
		case <-g.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(a.conf.tune.every)
	defer tick.Stop()
	for {
		answer := a.once(ctx, g.question)
		if ctx.Err() != nil {
			return // whatever came back says nothing
		}
		a.keep(g, answer)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// keep remembers an answer and tells of one that is of another kind.
func (a *Asker) keep(g *gate, n answer) {
	w := g.watch
	a.mu.Lock()
	before := g.reading
	g.reading = rollout.Reading{Rollout: w.Rollout, Gate: w.Gate.Text, OK: n.ok, NoData: n.silent, Text: n.text, At: time.Now().UTC()}
	a.mu.Unlock()
	if !before.At.IsZero() && before.OK == n.ok && before.NoData == n.silent {
		return
	}
	a.conf.Log.Info("gate answers", "app", g.app, "gate", w.Gate.Text, "holds", n.ok, "silent", n.silent, "answer", n.text)
	a.conf.Changed(g.app)
}
