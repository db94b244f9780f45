package counts

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/spillway-dev/spillway"
)

// Config is what a Judge needs.
type Config struct {
	Flavour Flavour
	// Instances gives the instances of the gateway that take requests now, and what keeps it from knowing them, "" =
	// nothing. It is asked before each look, and must not wait for the network. nil = all apps are judged by a Prometheus.
	Instances func() (all []Instance, problem string)
	// Prometheus is the base URL of one that is asked instead; "" = Instances. Route.Prometheus goes before it.
	Prometheus string
	// Changed is told when evidence of an app is another: another verdict, data lost or found, or new answers. An app
	// without traffic is told of once. It must not block. nil = nobody.
	Changed func(app spillway.Ref)
	Log     *slog.Logger // nil = discard

	Every   time.Duration    // between two looks; 0 = 2 s
	Timeout time.Duration    // of one answer; 0 = 1 s
	Now     func() time.Time // nil = time.Now
}

// Instance is where one instance of a gateway shows its metrics.
type Instance struct {
	URL string // "http://10.0.0.7:9100/metrics"
	// Address is where it is reached if the host of the URL is a name that several have: "10.0.0.7:9100". "" = as the
	// URL says. It tells instances apart, also in the memory of a trial.
	Address string
}

// Route is what a Judge has to know of the route of an app.
type Route struct {
	Route spillway.Route
	// Services are the backends by Backend.Name: "www.4". All of public edges that the candidate or stable is
	// behind have to be here.
	Services map[string]Service
	// Acknowledged is since when the gateway deals requests by exactly this route. Zero = it is not known to: what
	// is answered meanwhile counts, and compares nothing. So a route is followed with zero before it is written, and
	// with the time when it is served.
	Acknowledged time.Time
	Prometheus   string // base URL of the one that knows the gateway of this app; "" = as Config says
}

// Judge keeps the evidence about candidates. New makes one; Run asks. It may be used by several goroutines.
type Judge struct {
	conf   Config
	client *http.Client
	wake   chan struct{} // one slot: look now
	seen   identities

	mu     sync.Mutex
	trials map[spillway.Ref]*followed
}

// followed is a trial and where its counters are.
type followed struct {
	*trial
	store string // a Prometheus; "" = the instances
	turn  int    // rises when there is something that nobody has looked for
}

// New makes a Judge that follows nobody.
func New(c Config) *Judge {
	if c.Changed == nil {
		c.Changed = func(spillway.Ref) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Instances == nil {
		c.Instances = func() ([]Instance, string) { return nil, "" }
	}
	c.Every, c.Timeout = cmp.Or(c.Every, 2*time.Second), cmp.Or(c.Timeout, time.Second)
	return &Judge{
		conf: c, wake: make(chan struct{}, 1), trials: map[spillway.Ref]*followed{}, seen: identities{all: map[string]*identity{}},
		client: &http.Client{
			// No proxy, whatever the environment says. No connection stays: it would lead to one instance of several.
			Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Follow judges the candidate of a route, or nobody if the route has no trial. A trial that is followed already
// goes on; one that is not begins with the evidence in Trial.Memory. The counters are looked at at once, and what
// they show then is where counting begins. An error is about the memory, and the trial has begun without it; or
// (ErrInvalid) about a backend without a Service, and everything is as before.
func (j *Judge) Follow(app spillway.Ref, r Route) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.Route.Trial == nil {
		delete(j.trials, app)
		return nil
	}
	f, forgot := j.trials[app], error(nil)
	if f == nil || f.terms.ID != r.Route.Trial.ID {
		f = &followed{}
		f.trial, forgot = newTrial(j.conf.Flavour, *r.Route.Trial)
	}
	store := cmp.Or(r.Prometheus, j.conf.Prometheus)
	histogram, _ := j.conf.Flavour.times()
	c, err := f.follow(r, histogram != "" && store == "")
	if err != nil {
		return err
	}
	if store != f.store && f.turn > 0 {
		clear(f.seen) // the same counters have other names there
	}
	if c.more || store != f.store || f.turn == 0 {
		c.dealing = true
		f.turn++
	}
	f.store = store
	j.trials[app] = f
	if c.dealing {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	return forgot
}

// Evidence gives the evidence about the candidate of an app, the memory of it for Trial.Memory, and why there
// are no data, "" = there are. The evidence is nil when the app's candidate is not followed: a Platform that has
// just started must not make one up, so that it is given the memory. Without data the verdict is NoData, with the
// same sentence as Reason, unless the candidate is known to be harmful.
func (j *Judge) Evidence(app spillway.Ref) (e *spillway.Evidence, memory json.RawMessage, noData string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.trials[app]
	if f == nil {
		return nil, nil, ""
	}
	now := f.evidence()
	return &now, f.memory(), f.lost
}

// Run asks until ctx ends. While nobody is followed, nobody is asked.
func (j *Judge) Run(ctx context.Context) error {
	defer j.client.CloseIdleConnections()
	tick := time.NewTicker(j.conf.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-j.wake:
		case <-tick.C:
		}
		j.look(ctx)
	}
}

// look asks all sources once, at the same time, and tells who wants to know.
func (j *Judge) look(ctx context.Context) {
	questions := map[string]*wanted{}
	turns := map[spillway.Ref]int{}
	j.mu.Lock()
	for app, f := range j.trials {
		if questions[f.store] == nil {
			questions[f.store] = &wanted{names: map[string]bool{}}
		}
		f.names(questions[f.store])
		turns[app] = f.turn
	}
	j.mu.Unlock()
	answers := make(map[string]reading, len(questions))
	var crew sync.WaitGroup
	var mu sync.Mutex
	for store, want := range questions {
		// look owns the goroutine; its timeout ends it; look waits for it.
		crew.Go(func() {
			r := j.read(ctx, store, *want)
			r.index = j.conf.Flavour.index(r.instances)
			mu.Lock()
			defer mu.Unlock()
			answers[store] = r
		})
	}
	crew.Wait()
	if ctx.Err() != nil {
		return // whatever came back says nothing
	}
	for _, app := range j.take(answers, turns) {
		j.conf.Changed(app)
	}
}

// take gives the answers to those who asked, and tells which apps have news. Who is followed differently by now
// waits for the next look: nobody looked for all of its backends.
func (j *Judge) take(answers map[string]reading, turns map[spillway.Ref]int) (news []spillway.Ref) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for app, f := range j.trials {
		r, ok := answers[f.store]
		if !ok || turns[app] != f.turn {
			continue
		}
		lost := f.lost
		if f.take(r, 3*j.conf.Every) {
			news = append(news, app)
		}
		if (lost == "") != (f.lost == "") {
			j.conf.Log.Warn("counts of the gateway", "app", app, "lost", f.lost)
		}
	}
	return news
}

// read asks one source: a Prometheus, or "" for the instances.
func (j *Judge) read(ctx context.Context, store string, want wanted) reading {
	ctx, cancel := context.WithTimeout(ctx, j.conf.Timeout)
	defer cancel()
	now := j.conf.Now()
	if store != "" {
		r, err := ask(ctx, j.client, store, j.conf.Flavour, want, now)
		if err != nil {
			return reading{at: now, failed: map[string]string{place(store): err.Error()}, lagging: true}
		}
		return r
	}
	r := reading{at: now, instances: map[string]instance{}, failed: map[string]string{}}
	all, problem := j.conf.Instances()
	if len(all) == 0 {
		r.failed["gateway"] = cmp.Or(problem, "it has no instance that the server was told of: --gateway-metrics or --prometheus")
	}
	var crew sync.WaitGroup
	var mu sync.Mutex
	for _, i := range all {
		name := i.name()
		// read owns the goroutine; the timeout ends it; read waits for it.
		crew.Go(func() {
			s, err := scrape(ctx, j.client, i, j.conf.Flavour, want, now)
			if err == nil {
				err = j.seen.check(name, s.Started, now)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.failed[name] = err.Error()
				return
			}
			r.instances[name] = s.instance
			r.known = r.known || s.known
		})
	}
	crew.Wait()
	return r
}
