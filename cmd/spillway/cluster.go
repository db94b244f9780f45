package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/kube/counts"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/metrics"
	"github.com/spillway-dev/spillway/internal/oci"
	"github.com/spillway-dev/spillway/internal/pipeline"
	"github.com/spillway-dev/spillway/internal/proxy"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// rounds is how many decisions are carried out at the same time: each is some calls to the one API server.
const rounds = 16

// clusterOptions are the flags of a server that runs apps on Kubernetes.
type clusterOptions struct {
	on          bool
	kubeconfig  string
	context     string
	namespace   string
	gateway     string // NAMESPACE/NAME, or NAMESPACE/NAME/LISTENER
	gatewayURL  string
	serviceType string // of public services without a gateway
	secret      string // with the credentials of registries
	flavour     string
	metrics     []string
	instances   []string
	prometheus  string
	images      oci.Config
}

func (o *clusterOptions) flags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.on, "kubernetes", false, "run the apps on a Kubernetes cluster instead of this machine")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "`FILE` that says how the cluster is reached (default: as kubectl; in a pod, its service account)")
	flags.StringVar(&o.context, "kube-context", "", "`NAME` of the context in it")
	flags.StringVar(&o.namespace, "namespace", "", "`NAME` of the namespace that everything is in (default: that of the context)")
	flags.StringVar(&o.gateway, "gateway", "", "`NAMESPACE/NAME[/LISTENER]` of the Gateway (Gateway API) that users come in by")
	flags.StringVar(&o.gatewayURL, "gateway-url", "", "`URL` at which the gateway is reached from here (default: the addresses in its status)")
	flags.StringVar(&o.serviceType, "service-type", "", "`TYPE` of the Services of public services where there is no gateway: ClusterIP, NodePort or LoadBalancer (default ClusterIP)")
	flags.StringVar(&o.flavour, "gateway-kind", "", "whose metrics the gateway has: traefik, envoy or nginx (default traefik)")
	flags.StringSliceVar(&o.metrics, "gateway-metrics", nil, "`URL` of the gateway's metrics, by which releases are judged: http://NAME.NAMESPACE:PORT/metrics of a Service, whose replicas are each read; or one of each instance")
	flags.StringSliceVar(&o.instances, "gateway-instances", nil, "`NAME.NAMESPACE:PORT` of the Service that users come by, whose replicas are each asked what they serve (default: the Service of --gateway-metrics, if it has the gateway's port)")
	flags.StringVar(&o.prometheus, "prometheus", "", "base `URL` of a Prometheus that has the gateway's metrics, instead")
	flags.StringVar(&o.images.Repository, "registry", "", "`HOST/PATH` where the images of what is built are put")
	flags.StringVar(&o.secret, "registry-secret", "", "`NAME` of the Secret (kubernetes.io/dockerconfigjson) in the namespace by which nodes pull images, and a server in the cluster puts them there")
	flags.StringSliceVar(&o.images.Insecure, "insecure-registry", nil, "`HOST` of a registry that is reached by plain HTTP")
	flags.StringVar(&o.images.Base, "base-image", "", "`IMAGE` that programs are put upon (default: none, so they have to be static)")
}

// check finds flags that do not fit together.
func (o *clusterOptions) check() error {
	if o.on {
		o.flavour = cmp.Or(o.flavour, string(counts.Traefik))
		if n := len(strings.Split(o.gateway, "/")); o.gateway != "" && (n < 2 || n > 3) {
			return usage("--gateway %s: write NAMESPACE/NAME, or NAMESPACE/NAME/LISTENER", o.gateway)
		}
		if _, err := kube.ServiceType(o.serviceType); err != nil && o.serviceType != "" {
			return usage("--service-type: %v", err)
		}
		if o.serviceType != "" && o.gateway != "" {
			return usage("--service-type is about public services without a gateway, and there is --gateway %s", o.gateway)
		}
		if o.flavour != string(counts.Traefik) && o.flavour != string(counts.Envoy) && o.flavour != string(counts.Nginx) {
			return usage("--gateway-kind %s: it is traefik, envoy or nginx", o.flavour)
		}
		if _, err := o.places().Services(); err != nil {
			return usage("%v", err)
		}
		return nil
	}
	for _, flag := range []struct{ name, value string }{
		{"kubeconfig", o.kubeconfig}, {"kube-context", o.context}, {"namespace", o.namespace}, {"gateway", o.gateway}, {"gateway-url", o.gatewayURL}, {"service-type", o.serviceType},
		{"gateway-metrics", strings.Join(o.metrics, "")}, {"gateway-instances", strings.Join(o.instances, "")}, {"prometheus", o.prometheus}, {"registry", o.images.Repository}, {"registry-secret", o.secret},
		{"gateway-kind", o.flavour}, {"insecure-registry", strings.Join(o.images.Insecure, "")}, {"base-image", o.images.Base},
	} {
		if flag.value != "" {
			return usage("--%s is about a cluster, and this server runs apps on its own machine; add --kubernetes", flag.name)
		}
	}
	return nil
}

// checkJudge says whether the server is told by what it can judge releases behind a gateway that is not its own.
func (o *clusterOptions) checkJudge() spillway.Check {
	c := spillway.Check{Name: "judge", State: "ok"}
	switch {
	case o.gateway == "": // the check of the gateway says it
		c.Text = "there is no gateway, so a person judges"
	case o.prometheus == "" && len(o.metrics) == 0:
		c.State = "warn"
		c.Text = "no release is judged, because the server does not know where the gateway's metrics are: a rollout waits at its first step, rests after its deadline, and only promote goes on"
		c.Remedy = "start the server with --gateway-metrics URL or --prometheus URL; one that was installed: spillway kube upgrade --gateway-metrics URL"
	}
	return c
}

// checkSources says whether what releases are judged by answers, and counts.
func (o *clusterOptions) checkSources(sources []counts.Source) spillway.Check {
	flag, where := "--gateway-metrics", "the gateway's metrics at "
	if o.prometheus != "" {
		flag, where = "--prometheus", "what the Prometheus has of the gateway at "
	}
	c := spillway.Check{Name: "judge", State: "ok"}
	var answer, silent, blank []string
	for _, s := range sources {
		switch {
		case s.Problem != "":
			silent = append(silent, s.URL+": "+s.Problem)
		case !s.Counts:
			blank = append(blank, s.URL)
		}
		if s.Problem == "" {
			answer = append(answer, s.URL)
		}
	}
	check := fmt.Sprintf("see whether the URL is right and the server may reach it (a NetworkPolicy?); another one: %s URL, and for a server that was installed spillway kube upgrade %[1]s URL", flag)
	switch {
	case len(answer) == 0:
		c.State, c.Remedy = "fail", check
		c.Text = "no release can be judged, and rollouts hold: " + strings.Join(silent, "; ")
	case len(silent) > 0:
		c.State, c.Remedy = "warn", check
		c.Text = fmt.Sprintf("releases are judged by a part of the gateway, %s; not by %s", strings.Join(answer, ", "), strings.Join(silent, "; "))
	case len(blank) == len(sources):
		c.State = "warn"
		c.Text = fmt.Sprintf("%s answers, and counts nothing by Service: it has no %s", strings.Join(blank, ", "), sources[0].Metric)
		c.Remedy = fmt.Sprintf("either nobody has asked the gateway anything since it started: ask it once, and look again; or it is not %s (--gateway-kind), or does not count by Service (Traefik: addServicesLabels)", o.flavour)
	default:
		c.Text = "releases are judged by " + where + strings.Join(answer, ", ")
	}
	return c
}

// divides is where and how the cluster divides users.
func (o *clusterOptions) divides() reconcile.Division {
	if o.gateway == "" {
		return reconcile.ByReplicas
	}
	return reconcile.PublicEdges
}

// places are where the instances of the gateway are found.
func (o *clusterOptions) places() kube.Places {
	return kube.Places{Metrics: o.metrics, HTTP: o.instances}
}

func (o *clusterOptions) theGateway() kube.Gateway {
	parts := append(strings.Split(o.gateway, "/"), "", "")
	return kube.Gateway{Namespace: parts[0], Name: parts[1], Section: parts[2]}
}

// assembleCluster wires the parts of a server whose apps run on a cluster. It starts nothing; on an error everything
// that was opened is closed.
func assembleCluster(_ context.Context, o serverOptions, log *slog.Logger) (*installation, error) {
	in := &installation{log: log, facts: make(chan spillway.Event, 1000)}
	if c := o.cluster.checkJudge(); c.State == "warn" {
		log.Warn(c.Text, "remedy", c.Remedy)
	}
	config, namespace, err := kube.Connect(o.cluster.kubeconfig, o.cluster.context, o.cluster.namespace)
	if err != nil {
		return nil, err
	}
	instances, err := kube.NewInstances(config, o.cluster.places(), log)
	if err != nil {
		return nil, err
	}
	judge := counts.New(counts.Config{
		Flavour: counts.Flavour(o.cluster.flavour), Instances: instances.Metrics, Prometheus: o.cluster.prometheus,
		Changed: func(app spillway.Ref) { in.loop.Wake(app) }, Log: log,
	})
	platform, err := kube.Open(kube.Config{Rest: config, Namespace: namespace, Gateway: o.cluster.theGateway(), GatewayURL: o.cluster.gatewayURL, PublicType: o.cluster.serviceType, Instances: instances, PullSecret: o.cluster.secret, Registry: o.cluster.images.Repository, Judge: judge, Events: in.fact, Log: log})
	if err != nil {
		return nil, err
	}
	if in.builder, err = pipeline.NewBuilder(filepath.Join(o.dir, "builds"), log); err != nil {
		return nil, err
	}
	images := o.cluster.images
	in.builder.ForImages()
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" { // in a pod: nothing can be installed there
		in.builder.ToolsBy("put the server upon an image that has it: spillway kube upgrade --namespace " + namespace + " --server-base IMAGE, such as golang:1.26 for go,")
	}
	images.Temp, images.Log = filepath.Join(o.dir, "layers"), log
	if in.images, err = oci.New(images); err != nil {
		return nil, err
	}
	stored := platform.Store()
	in.proxy, in.doubts = foreign{o.cluster, platform}, platform.Doubts
	in.platform, in.store, in.wishes, in.asked = platform, stored, stored, platform.Asked
	in.asker = metrics.New(metrics.Config{Log: log, Changed: func(app spillway.Ref) { in.loop.Wake(app) }})
	in.loop = reconcile.NewLoop(in.store, gated{in.platform, in.asker, &in.trials}, log).Dividing(o.cluster.divides()).AtOnce(rounds)
	in.fits = func(app spillway.App) error { return kube.Fits(app, o.cluster.theGateway()) }
	in.taken, in.gone, in.putBack, in.lost = platform.HostsFree, stored.Gone, stored.PutBack, platform.Lost
	in.engine = &engine{installation: in, options: o}
	in.api = api.NewServer(api.Config{Engine: in.engine, Log: log, Dir: o.dir, Listen: o.listen})
	in.closers = append(in.closers, in.api.Close) // nobody asks any more when the rest is closed
	in.judge = judge
	host, _ := os.Hostname() // a name among servers; without one the pid has to do
	in.visit = in.visitsTo(platform)
	in.standing = func(ctx context.Context) (string, bool) { return platform.Standing(ctx, host) }
	in.leader = func(ctx context.Context) spillway.Check { return platform.CheckLeader(ctx, host, in.leads.Load) }
	in.lead = func(ctx context.Context, run func(context.Context) error) error {
		if platform.Defined(ctx) != nil { // while the cluster cannot remember, there is nothing to lead
			return nil
		}
		return kube.Lead(ctx, config, namespace, fmt.Sprintf("%s-%d-%d", host, os.Getpid(), time.Now().UnixNano()), log, func(ctx context.Context) error {
			stored.Anew()
			return run(ctx)
		})
	}
	return in, nil
}

// runCluster serves until ctx ends or a part fails. What decides, and what removes, runs in the server that leads; every
// server answers.
func (in *installation) runCluster(part func(string, func(context.Context) error)) {
	part("cluster", in.platform.Run)
	part("judge", in.judge.Run)
	part("gates", in.asker.Run)
	part("history", in.keepFacts)
	part("api", in.api.Run)
	part("loop", in.decide)
}

// decide decides whenever this server leads, until ctx ends. A server that cannot renew its lease, because the API
// server is away, has to stop deciding; then it waits to lead again, as it did at its start.
func (in *installation) decide(ctx context.Context) error {
	for {
		err := in.lead(ctx, func(leading context.Context) error {
			ctx, cancel := context.WithCancel(leading)
			defer cancel()
			in.leads.Store(true)
			defer in.leads.Store(false)
			wishes := make(chan error, 1)
			// Owned by this call; ends with ctx; waited for below. Its end ends the loop: the lease is for both.
			go func() {
				defer cancel()
				wishes <- in.engine.fulfil(ctx)
			}()
			small := make(chan error, 1)
			// Owned by this call; ends with ctx; waited for below. Who does not lead may be late with what it knows of
			// releases, and removes nothing.
			go func() { small <- in.keepSmall(ctx) }()
			visits, lost := make(chan error, 1), make(chan error, 1)
			// Both owned by this call; they end with ctx; waited for below. Who does not lead makes no requests of our own, and
			// puts nothing back: the one that leads does.
			go func() { visits <- in.visit.run(ctx) }()
			go func() { lost <- in.followLost(ctx) }()
			err := in.loop.Run(ctx)
			cancel()
			err = errors.Join(err, <-wishes, <-small, <-visits, <-lost)
			if leading.Err() != nil { // it does not lead any more, and what was under way was broken off
				return nil
			}
			return err
		})
		if ctx.Err() != nil || !errors.Is(err, kube.ErrNotLeader) && !errors.Is(err, spillway.ErrUnavailable) {
			return err
		}
		in.log.Warn("this server does not lead any more, and waits to lead again", "why", err, "in", againAfter)
		select {
		case <-ctx.Done():
		case <-time.After(againAfter):
		}
	}
}

// foreign is a data plane that is not ours: a gateway of the cluster. It tells less than our own proxy does.
type foreign struct {
	options  clusterOptions
	platform *kube.Platform
}

var _ dataPlane = foreign{}

// loose says that users are not bound to a release by their key on a cluster.
func (o *clusterOptions) loose() string {
	if o.gateway == "" {
		return "nobody is bound by it here: without a gateway each connection goes to any replica, whoever makes it; only the shares are so"
	}
	return fmt.Sprintf("nobody is bound by it here: the gateway %s deals each request anew, whoever makes it, and only the shares are so; what a rule names is always led there", o.gateway)
}

// untold is that a foreign data plane cannot be asked for something, and what there is instead.
func (f foreign) untold(what, instead string) error {
	who := "the gateway " + f.options.gateway + " is not Spillway's own proxy"
	if f.options.gateway == "" {
		who = "there is no gateway, and no proxy of Spillway's own"
	}
	return fmt.Errorf("%s on Kubernetes: %s; %s: %w", what, who, instead, spillway.ErrUnavailable)
}

// routesOf is the command that shows the routes of an app as the gateway is given them.
func (f foreign) routesOf(app spillway.Ref) string {
	if f.options.gateway == "" {
		return fmt.Sprintf("what leads to it: kubectl get services -n %s -l %s=%s", f.platform.Namespace(), kube.AppLabel, v1alpha1.Label(app))
	}
	return fmt.Sprintf("what it is given: kubectl get httproutes -n %s -l %s=%s -o yaml; whether it took that: spillway status -a %s", f.platform.Namespace(), kube.AppLabel, v1alpha1.Label(app), app)
}

// Info says at which ports users reach the gateway.
func (f foreign) Info(ctx context.Context) (proxy.Info, error) {
	plain, secure := f.platform.Ports(ctx)
	return proxy.Info{HTTP: plain, HTTPS: secure}, nil
}

// Report is not had.
func (f foreign) Report(context.Context, spillway.Ref) (spillway.Report, error) {
	return spillway.Report{}, f.untold("what each replica is asked is not known", "its own metrics tell")
}

// Routes are not had.
func (f foreign) Routes(_ context.Context, app spillway.Ref) ([]spillway.RouteLine, error) {
	return nil, f.untold("the list of routes is not known", "what the file says: spillway routes -f spillway.yaml; "+f.routesOf(app))
}

// Explain is not had.
func (f foreign) Explain(_ context.Context, app spillway.Ref, _ spillway.RouteQuery) (spillway.RouteAnswer, error) {
	return spillway.RouteAnswer{}, f.untold("what becomes of a request is not known", "by the file: spillway routes test URL -f spillway.yaml; "+f.routesOf(app))
}

// Hold cannot be done.
func (f foreign) Hold(context.Context, spillway.Ref, time.Duration) (spillway.Hold, error) {
	return spillway.Hold{}, f.untold("requests cannot be held", "have the app itself answer 503 with Retry-After meanwhile, or put a proxy before the gateway that can hold them; to keep a rollout from going on: spillway pause")
}
