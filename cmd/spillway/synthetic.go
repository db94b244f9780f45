package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/rollout"
)

const (
	// lookEvery is how often is looked for trials that want requests of our own.
	lookEvery = time.Second
	// visitsAtOnce bounds the open requests of one tour: what does not answer is not asked more and more.
	visitsAtOnce = 8
	visitTimeout = 10 * time.Second
	visitBody    = 1 << 20 // bytes of an answer that are read
)

// tour is a stream of requests of our own to one public service, while its candidate is judged.
type tour struct {
	app   spillway.Ref
	trial int64
	host  string // of the service
	paths string // asked in turn, one a line
	rate  int    // requests a second
}

// visitor makes synthetic requests through the data plane, as users would, while trials want them.
type visitor struct {
	tours func(ctx context.Context) (map[tour]bool, error) // those that are wanted now, as far as it is known
	way   func(ctx context.Context, host string) (way, error)
	every time.Duration
	warn  func(text string, err error)
}

// way is how a user of a host comes to the data plane.
type way struct {
	base      string // "http://127.0.0.1:8080"
	mark      string // the X-Spillway-Synthetic header
	transport *http.Transport
}

// visits is the visitor of an installation. Our own proxy deals its requests half and half between candidate and stable.
func (in *installation) visits(dir string) *visitor {
	return in.visitsBy(func(ctx context.Context, _ string) (way, error) {
		key, err := proxy.SyntheticKey(filepath.Join(dir, "proxy"))
		if err != nil {
			return way{}, err
		}
		info, err := in.proxy.Info(ctx)
		return way{"http://" + reachable(info.HTTP), key, &http.Transport{}}, err
	})
}

// visitsTo is the visitor of an installation on a cluster. Its gateway deals the requests like those of all users; without
// one, where nobody counts, nobody visits.
func (in *installation) visitsTo(platform *kube.Platform) *visitor {
	if in.engine.options.cluster.gateway == "" {
		return nil
	}
	return in.visitsBy(func(ctx context.Context, host string) (way, error) {
		base, transport, err := platform.Way(ctx, host)
		return way{base, "1", transport}, err
	})
}

func (in *installation) visitsBy(by func(context.Context, string) (way, error)) *visitor {
	return &visitor{tours: in.tours, every: lookEvery, way: by, warn: func(text string, err error) { in.log.Warn(text, "error", err) }}
}

// trials are the apps whose trial wants requests of our own, as last decided.
type trials struct {
	mu   sync.Mutex
	apps map[spillway.Ref]bool
}

// note keeps whether what was decided of an app wants some.
func (t *trials) note(app spillway.Ref, d rollout.Desired) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if trial := d.Route.Trial; trial == nil || len(trial.Synthetic) == 0 {
		delete(t.apps, app)
		return
	}
	if t.apps == nil {
		t.apps = map[spillway.Ref]bool{}
	}
	t.apps[app] = true
}

func (t *trials) list() []spillway.Ref {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.apps))
}

// reachable is an address to connect to for one that is listened on: "[::]:8080" is reached at 127.0.0.1.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listen
}

// tours are the requests that the trials of all apps want. Those of an app that cannot be read are left out.
func (in *installation) tours(ctx context.Context) (map[tour]bool, error) {
	wanted, errs := map[tour]bool{}, []error(nil)
	for _, app := range in.trials.list() {
		saved, err := in.store.Load(ctx, app)
		if errors.Is(err, spillway.ErrNotFound) { // it was destroyed meanwhile
			in.trials.note(app, rollout.Desired{})
		} else if err != nil {
			errs = append(errs, err)
		}
		for _, t := range toursOf(app, saved.Status) {
			wanted[t] = true
		}
	}
	return wanted, errors.Join(errs...)
}

// toursOf are the requests that an app's trial wants: while its candidate has some of the users and climbs.
func toursOf(app spillway.Ref, st rollout.Status) []tour {
	trial := st.Route.Trial
	if trial == nil || st.Phase != spillway.Progressing || st.Rollout == nil || !st.Rollout.Acked {
		return nil
	}
	var list []tour
	for _, e := range st.Route.Edges {
		s, ok := trial.Synthetic[e.Service]
		if !ok || e.From != (spillway.Group{}) || e.Only != "" || len(e.Hosts) == 0 {
			continue
		}
		list = append(list, tour{app: app, trial: trial.ID, host: visited(e.Hosts), paths: strings.Join(s.Path, "\n"), rate: min(max(s.Rate, 1), 100)})
	}
	return list
}

// visited is the host that is asked for: one by its name, or else any below a wildcard.
func visited(hosts []string) string {
	for _, host := range hosts {
		if !strings.HasPrefix(host, "*") {
			return host
		}
	}
	return "spillway" + strings.TrimPrefix(hosts[0], "*")
}

// run makes the requests that are wanted until ctx ends, and waits for those under way. No visitor makes none.
func (v *visitor) run(ctx context.Context) error {
	if v == nil {
		return nil
	}
	var crew sync.WaitGroup
	defer crew.Wait()
	tick := time.NewTicker(v.every)
	defer tick.Stop()
	running, told := map[tour]context.CancelFunc{}, ""
	for {
		wanted, err := v.tours(ctx)
		if err == nil {
			told = ""
		} else if ctx.Err() == nil && err.Error() != told {
			told = err.Error() // once: it may last
			v.warn("it is not known which trials want requests of our own", err)
		}
		for t, stop := range running {
			if !wanted[t] {
				stop()
				delete(running, t)
			}
		}
		for t := range wanted {
			if running[t] != nil {
				continue
			}
			own, stop := context.WithCancel(ctx)
			running[t] = stop
			// Owned by run; ends with ctx or when the trial does; waited for by crew.
			crew.Go(func() { v.travel(own, t) })
		}
		select {
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return nil
		case <-tick.C:
		}
	}
}

// travel makes the requests of one tour at its rate until ctx ends. When nobody answers it makes fewer, and looks for another
// way.
func (v *visitor) travel(ctx context.Context, t tour) {
	var by *guide
	defer func() { by.end() }()
	var crew sync.WaitGroup
	defer crew.Wait()
	free := make(chan struct{}, visitsAtOnce)
	tick := time.NewTicker(time.Second / time.Duration(t.rate))
	defer tick.Stop()
	paths, warned, looked := strings.Split(t.paths, "\n"), false, time.Time{}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if by == nil || by.lost.Load() {
			if time.Since(looked) < v.every {
				continue
			}
			looked = time.Now()
			w, err := v.way(ctx, t.host)
			if err != nil {
				if ctx.Err() == nil && !warned {
					v.warn("no requests of our own can be made to "+t.host+" for now", err)
				}
				warned = true
				continue
			}
			by.end()
			by = newGuide(w)
		}
		select {
		case free <- struct{}{}:
		default:
			continue
		}
		g := by
		// Owned by travel; ends with its answer, its timeout or ctx; waited for by crew.
		crew.Go(func() {
			defer func() { <-free }()
			g.visit(ctx, paths[n%len(paths)], t.host)
		})
	}
}

// guide makes requests by one way.
type guide struct {
	way
	client *http.Client
	lost   atomic.Bool // it leads nowhere any more
}

func newGuide(w way) *guide {
	w.transport.MaxIdleConnsPerHost, w.transport.IdleConnTimeout = visitsAtOnce, time.Minute
	return &guide{way: w, client: &http.Client{
		Transport:     w.transport,
		Timeout:       visitTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// end closes what is open and not in use.
func (g *guide) end() {
	if g != nil {
		g.client.CloseIdleConnections()
	}
}

// visit makes one request. What comes of it is counted by the data plane; here nobody wants to know.
func (g *guide) visit(ctx context.Context, path, host string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+path, nil)
	if err != nil {
		return // the path of the app file was checked
	}
	r.Host = host
	r.Header.Set("X-Spillway-Synthetic", g.mark)
	r.Header.Set("User-Agent", fmt.Sprintf("spillway/%s (synthetic)", version()))
	answer, err := g.client.Do(r)
	if err != nil {
		g.lost.Store(true)
		return
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, io.LimitReader(answer.Body, visitBody)) // read to the end: a cut answer is a failure
}
