package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
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

// visitor makes synthetic requests through the proxy, as users would, while trials want them.
type visitor struct {
	tours func(ctx context.Context) (map[tour]bool, error)           // those that are wanted now
	way   func(ctx context.Context) (address, key string, err error) // to the proxy
	every time.Duration
	warn  func(text string, err error)
}

// visits is the visitor of an installation.
func (in *installation) visits(dir string) *visitor {
	return &visitor{
		tours: in.tours, every: lookEvery,
		way: func(ctx context.Context) (string, string, error) {
			key, err := proxy.SyntheticKey(filepath.Join(dir, "proxy"))
			if err != nil {
				return "", "", err
			}
			info, err := in.proxy.Info(ctx)
			return reachable(info.HTTP), key, err
		},
		warn: func(text string, err error) { in.log.Warn(text, "error", err) },
	}
}

// reachable is an address to connect to for one that is listened on: "[::]:8080" is reached at 127.0.0.1.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listen
}

// tours are the requests that the trials of all apps want.
func (in *installation) tours(ctx context.Context) (map[tour]bool, error) {
	apps, err := in.store.Apps(ctx)
	if err != nil {
		return nil, err
	}
	wanted := map[tour]bool{}
	for _, app := range apps {
		saved, err := in.store.Load(ctx, app)
		if errors.Is(err, spillway.ErrNotFound) {
			continue // it was destroyed meanwhile
		}
		if err != nil {
			return nil, err
		}
		for _, t := range toursOf(app, saved.Status) {
			wanted[t] = true
		}
	}
	return wanted, nil
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

// run makes the requests that are wanted until ctx ends, and waits for those under way.
func (v *visitor) run(ctx context.Context) error {
	var crew sync.WaitGroup
	defer crew.Wait()
	tick := time.NewTicker(v.every)
	defer tick.Stop()
	running := map[tour]context.CancelFunc{}
	for {
		wanted, err := v.tours(ctx)
		if err != nil && ctx.Err() == nil {
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

// travel makes the requests of one tour at its rate until ctx ends. When nobody answers it makes fewer.
func (v *visitor) travel(ctx context.Context, t tour) {
	address, key, err := v.way(ctx)
	if err != nil {
		if ctx.Err() == nil {
			v.warn("no requests of our own can be made", err)
		}
		<-ctx.Done()
		return
	}
	client := &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: visitsAtOnce},
		Timeout:       visitTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	var crew sync.WaitGroup
	defer crew.Wait()
	free := make(chan struct{}, visitsAtOnce)
	tick := time.NewTicker(time.Second / time.Duration(t.rate))
	defer tick.Stop()
	paths := strings.Split(t.paths, "\n")
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case free <- struct{}{}:
		default:
			continue
		}
		// Owned by travel; ends with its answer, its timeout or ctx; waited for by crew.
		crew.Go(func() {
			defer func() { <-free }()
			visit(ctx, client, "http://"+address+paths[n%len(paths)], t.host, key)
		})
	}
}

// visit makes one request. What comes of it is counted by the proxy; here nobody wants to know.
func visit(ctx context.Context, client *http.Client, url, host, key string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return // the path of the app file was checked
	}
	r.Host = host
	r.Header.Set("X-Spillway-Synthetic", key)
	r.Header.Set("User-Agent", fmt.Sprintf("spillway/%s (synthetic)", version()))
	answer, err := client.Do(r)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, io.LimitReader(answer.Body, visitBody)) // read to the end: a cut answer is a failure
}
