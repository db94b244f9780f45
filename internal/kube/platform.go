package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// Config is what a Platform needs.
type Config struct {
	Rest      *rest.Config // of the cluster; required
	Namespace string       // the one that everything is in; required
	Gateway   Gateway      // that public routes are attached to; zero = there is none
	// PublicType is that of the Services of public services where there is no gateway; "" = ClusterIP.
	PublicType string
	// PullSecret is the Secret of the namespace with the credentials by which nodes pull images; "" = none.
	PullSecret string
	Registry   string // where images are put, "HOST/PATH"; "" = it is not known
	// GatewayURL is where the gateway is asked whether it serves a route: "http://10.0.0.7". "" = at the addresses
	// and ports that its status tells.
	GatewayURL string
	Instances  *Instances           // of the gateway; nil = they are not known, so it is asked for a while
	Log        *slog.Logger         // nil = discard
	Events     func(spillway.Event) // takes facts for the history and must not block; nil = nobody does
	Judge      *counts.Judge        // of candidates, by what the gateway counts; nil = nobody judges
	Patience   time.Duration        // between two questions whether a gateway serves a route; 0 = 100 ms
}

// Platform runs the replicas of all apps of a namespace as Deployments. Open makes one; Run has to run for it to
// see anything.
type Platform struct {
	conf    Config
	log     *slog.Logger
	cache   cache.Cache
	client  client.Client        // reads from the cache
	live    client.Client        // reads from the API server
	typed   kubernetes.Interface // for what neither does: logs, Events
	http    *http.Client
	names   addresses // of servers that we do not run
	routes  bool      // the cluster knows HTTPRoute
	asks    discovery.ServerResourcesInterface
	defined chan struct{} // closed when the cluster knows App and Release

	mu      sync.Mutex
	apps    map[spillway.Ref]*app
	pending chan *app // whose route has to be acknowledged
	unknown chan *app // with groups of which it is not known whether the gateway reaches them

	watchers reconcile.Watchers

	doors     doors
	others    others
	announcer announcer
}

// Open connects to the cluster. It reads nothing but what kinds the API server knows.
func Open(c Config) (*Platform, error) {
	if c.Rest == nil || c.Namespace == "" {
		return nil, fmt.Errorf("kubernetes platform without a cluster or a namespace: %w", spillway.ErrInvalid)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	klog.SetSlogLogger(c.Log) // what the libraries say
	ctrllog.SetLogger(klog.Background())
	if c.Gateway.Name == "" {
		c.Judge = nil // nobody counts
	}
	if c.Patience == 0 {
		c.Patience = 100 * time.Millisecond
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	live, err := client.New(limited(c.Rest), client.Options{Scheme: scheme})
	if err != nil {
		return nil, explain("connect to the cluster", err)
	}
	p := &Platform{
		conf: c, log: c.Log, live: live, apps: map[spillway.Ref]*app{}, defined: make(chan struct{}), pending: make(chan *app, 1<<16), unknown: make(chan *app, 1<<16), names: addresses{hosts: map[string]*named{}, due: make(chan struct{}, 1)},
		http: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialOpening}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	_, err = live.RESTMapper().RESTMapping(schema.GroupKind{Group: gatewayv1.GroupName, Kind: "HTTPRoute"}, "v1")
	switch {
	case err == nil:
		p.routes = true
	case !meta.IsNoMatchError(err):
		return nil, explain("ask the cluster for HTTPRoute", err)
	case c.Gateway.Name != "":
		return nil, fmt.Errorf("the cluster does not know the kind HTTPRoute, and gateway %s is to be used: install the Gateway API's standard channel first: %w", c.Gateway.Name, spillway.ErrUnavailable)
	}
	if p.asks, err = discovery.NewDiscoveryClientForConfig(c.Rest); err != nil {
		return nil, explain("connect to the cluster", err)
	}
	if defined, err := asksDefined(p.asks); err != nil {
		return nil, err
	} else if defined {
		close(p.defined)
	}
	if p.typed, err = kubernetes.NewForConfig(c.Rest); err != nil {
		return nil, explain("connect to the cluster", err)
	}
	if err := p.open(scheme); err != nil {
		return nil, err
	}
	return p, nil
}

// open makes the cache of what is ours, and the client that reads from it.
func (p *Platform) open(scheme *runtime.Scheme) (err error) {
	ours := cache.ByObject{Label: k8slabels.SelectorFromSet(k8slabels.Set{ManagedBy: Manager})}
	by := map[client.Object]cache.ByObject{}
	for _, kind := range p.kinds() {
		by[kind] = ours
		if _, ok := kind.(*discoveryv1.EndpointSlice); ok { // those of our Services have our labels too, and are the cluster's
			by[kind] = cache.ByObject{Label: k8slabels.SelectorFromSet(k8slabels.Set{discoveryv1.LabelManagedBy: Manager})}
		}
	}
	by[&corev1.Pod{}] = cache.ByObject{Label: ours.Label, Transform: slim}
	mapper := &learned{RESTMapper: p.live.RESTMapper()}
	p.cache, err = cache.New(p.conf.Rest, cache.Options{
		Scheme: scheme, Mapper: mapper, DefaultNamespaces: map[string]cache.Config{p.conf.Namespace: {}}, ByObject: by, DefaultTransform: keepAuthors,
	})
	if err != nil {
		return explain("watch the cluster", err)
	}
	p.client, err = client.New(limited(p.conf.Rest), client.Options{Scheme: scheme, Mapper: mapper, Cache: &client.CacheOptions{Reader: p.cache}})
	return explain("connect to the cluster", err)
}

// kinds are what the platform makes, in the order in which what is not wanted any more goes.
func (p *Platform) kinds() []client.Object {
	kinds := []client.Object{
		&autoscalingv2.HorizontalPodAutoscaler{}, &policyv1.PodDisruptionBudget{}, &networkingv1.NetworkPolicy{}, &batchv1.Job{}, &appsv1.Deployment{},
		&discoveryv1.EndpointSlice{}, &corev1.Service{},
	}
	if p.routes {
		kinds = append([]client.Object{&gatewayv1.HTTPRoute{}}, kinds...)
	}
	return kinds
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), gatewayv1.Install(scheme), v1alpha1.AddToScheme(scheme))
}

// Run sees the cluster until ctx ends.
func (p *Platform) Run(ctx context.Context) error {
	if err := p.index(ctx); err != nil {
		return err
	}
	for _, kind := range append(p.kinds(), &corev1.Pod{}) {
		informer, err := p.cache.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err == nil {
			_, err = informer.AddEventHandler(p.handler())
		}
		if err != nil {
			return explain("watch the cluster", err)
		}
	}
	// Run owns these goroutines; the end of ctx ends them, and it waits for them.
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	wg.Go(func() { failed <- p.cache.Start(ctx) })
	if !p.isDefined() {
		wg.Go(func() { p.awaitDefinitions(ctx, p.asks) })
	} else if err := p.watchApps(ctx); err != nil {
		return err
	}
	wg.Go(func() { p.followNames(ctx) })
	if p.conf.Instances != nil {
		wg.Go(func() { _ = p.conf.Instances.Run(ctx) }) // it ends with ctx only
	}
	wg.Go(func() { p.lookCloser(ctx) })
	wg.Go(func() { p.followRivals(ctx) })
	wg.Go(func() {
		if err := p.announcer.run(ctx, &events.EventSinkImpl{Interface: p.typed.EventsV1()}, p.client.Scheme()); err != nil {
			p.log.Warn("what happens is in the history alone: no Events are made of it", "error", err)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return explain("watch the cluster", err)
		case a := <-p.pending:
			wg.Go(func() { p.acknowledge(ctx, a) }) // ends with ctx or when the route is acknowledged
		case a := <-p.unknown:
			wg.Go(func() { p.reach(ctx, a) }) // ends with ctx or when every group is reached
		}
	}
}

// handler tells the watchers of an app that something of it is different.
func (p *Platform) handler() toolscache.ResourceEventHandler {
	tell := func(object any) {
		switch o := object.(type) {
		case *v1alpha1.App:
			p.watchers.Changed(v1alpha1.RefOf(o.Name))
		case client.Object:
			p.watchers.Changed(refOf(o))
		}
	}
	update := func(before, now any) {
		if !saving(before, now) && !unchanged(before, now) {
			tell(now)
		}
	}
	gone := func(object any) {
		if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		if o, ok := object.(*v1alpha1.App); ok {
			p.drop(o)
		}
		tell(object)
	}
	return toolscache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: update, DeleteFunc: gone}
}

// saving reports whether what changed of an App is what a round of the loop saves. That asks for no other round, which
// would save the time since: a rollout that waits would write as fast as the API server answers.
func saving(before, now any) bool {
	a, ok := before.(*v1alpha1.App)
	b, ok2 := now.(*v1alpha1.App)
	return ok && ok2 && a.UID == b.UID && a.Generation == b.Generation && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		a.Status.NewestIntent == b.Status.NewestIntent && a.Status.NewestRelease == b.Status.NewestRelease && a.ResourceVersion != b.ResourceVersion
}

// Changed wakes the loop of an app: somebody who is not the cluster knows something new of it.
func (p *Platform) Changed(app spillway.Ref) { p.watchers.Changed(app) }

// Watch calls changed whenever an observation of an app may differ. It blocks until ctx ends.
func (p *Platform) Watch(ctx context.Context, changed func(app spillway.Ref)) error {
	return p.watchers.Watch(ctx, changed)
}

// app is what is remembered of one app; all of it can be lost.
type app struct {
	ref spillway.Ref

	mu       sync.Mutex
	uid      types.UID      // of the App that all of this is about; "" = it was not looked at yet
	asked    spillway.Route // of the last Apply
	parts    int            // how many objects that is
	served   spillway.Route // of the last acknowledgement
	since    time.Time      // of it
	own      bool           // asked is what this process applied, not what it found
	known    bool           // served was acknowledged to this process
	asking   bool           // somebody waits for an acknowledgement
	problem  string         // why there is none
	refused  string         // why the gateway does not take any more what was acknowledged, until it does; "" = it does
	begun    time.Time      // when it was asked for another route
	failed   error          // of the last Apply
	failedAt time.Time      // when that ended
	reached  map[spillway.Group]bool
	lost     map[spillway.Group]string // why a group is not reached
	silent   map[types.UID]silent      // pods whose Events are asked for
	leads    map[string]leading        // Services of private edges, by name
	ready    map[types.UID]time.Time   // replicas of private groups, since when they are seen ready; nil = not looked yet
	settles  bool                      // a look is due when new replicas have settled
	looks    bool                      // a look is due when the cache has seen what was written
	missed   bool                      // a group was seen that is not reached, since who asks for groups looked
	reaching bool                      // somebody asks the gateway whether it reaches groups
	applied  map[string]applied
	sizes    map[string]applied   // the numbers of Deployments, likewise; print is the number
	edits    map[string]time.Time // of others that were set back, when they were told: "Service/castle-www-4 spec.ports"
	contest  contest
	acts     int    // of all Applies
	done     string // sum of what the last Apply that had nothing to write was given and found
}

// applied is what an object was like before and after it was applied last.
type applied struct {
	print         string
	before, after string // resource versions; "" = it was not there
	uid           types.UID
	at            time.Time
}

// app gives what is remembered of an app, and begins to.
func (p *Platform) app(ref spillway.Ref) *app {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.apps[ref]
	if a == nil {
		a = &app{ref: ref, applied: map[string]applied{}, reached: map[spillway.Group]bool{}, lost: map[spillway.Group]string{}, leads: map[string]leading{}}
		p.apps[ref] = a
	}
	return a
}

// allApps are the apps of which something is remembered, sorted by name.
func (p *Platform) allApps() []*app {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.apps), func(a, b *app) int { return cmp.Compare(a.ref, b.ref) })
}

// Forget removes what is kept of an app that is gone.
func (p *Platform) Forget(_ context.Context, ref spillway.Ref) error { return p.forget(ref) }

// drop forgets what is kept of an App that is gone, unless there is another one of its name already: a server that does not
// lead is told to by nobody else.
func (p *Platform) drop(gone *v1alpha1.App) {
	ref := v1alpha1.RefOf(gone.Name)
	p.mu.Lock()
	a := p.apps[ref]
	p.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	same := a.uid == gone.UID
	a.mu.Unlock()
	if same {
		_ = p.forget(ref) // nobody is judged any more, so no memory can be wrong
	}
}

// forgotten reports whether an app is another one by now, or none.
func (p *Platform) forgotten(a *app) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.apps[a.ref] != a
}

func (p *Platform) forget(ref spillway.Ref) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.apps, ref)
	if p.conf.Judge != nil {
		return p.conf.Judge.Follow(ref, counts.Route{})
	}
	return nil
}
