package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// Places say where the instances of a foreign gateway are found. A host in them is that of a Service (NAME.NAMESPACE, also
// with .svc and more after it), whose replicas are the instances; or another name, whose addresses are; or an address.
type Places struct {
	Metrics []string // URLs of what the gateway counts: "http://traefik.edge:9100/metrics"
	HTTP    []string // where instances take requests of users: "traefik.edge:80", with the port of the Service
}

// ServiceName names a Service of the cluster.
type ServiceName struct{ Namespace, Name string }

// String is NAMESPACE/NAME.
func (s ServiceName) String() string { return s.Namespace + "/" + s.Name }

// serviceOf reads the name of a Service from a host; ok is false for addresses and other names. A name that ends with a
// dot is never one of a Service.
func serviceOf(host string) (s ServiceName, ok bool) {
	parts := strings.Split(host, ".")
	if _, err := netip.ParseAddr(host); err == nil || len(parts) < 2 || slices.Contains(parts, "") || len(parts) > 2 && parts[2] != "svc" {
		return s, false
	}
	return ServiceName{Namespace: parts[1], Name: parts[0]}, true
}

// target is a place as it is asked.
type target struct {
	url  string // of metrics; "" = it takes requests of users
	host string
	port int
}

// targets reads places. ErrInvalid when one is none.
func (p Places) targets() (all []target, err error) {
	for _, text := range p.Metrics {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--gateway-metrics %s: it is not the URL of metrics; write http://NAME.NAMESPACE:PORT/metrics for a Service: %w", text, spillway.ErrInvalid)
		}
		port, err := strconv.Atoi(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]))
		if err != nil {
			return nil, fmt.Errorf("--gateway-metrics %s: %w: %w", text, err, spillway.ErrInvalid)
		}
		all = append(all, target{url: text, host: u.Hostname(), port: port})
	}
	for _, text := range p.HTTP {
		host, number, err := net.SplitHostPort(text)
		port, err2 := strconv.Atoi(number)
		if err != nil || err2 != nil || host == "" || port < 1 || port > 65535 {
			return nil, fmt.Errorf("--gateway-instances %s: write NAME.NAMESPACE:PORT of the Service that users come by, with its port: %w", text, spillway.ErrInvalid)
		}
		all = append(all, target{host: host, port: port})
	}
	return all, nil
}

// Services are those that are named, each once. ErrInvalid when a place cannot be read.
func (p Places) Services() ([]ServiceName, error) {
	all, err := p.targets()
	var names []ServiceName
	for _, t := range all {
		if s, ok := serviceOf(t.host); ok && !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	return names, err
}

// Instances knows the instances of a gateway that take requests now. NewInstances makes one; Run has to run for it to
// know any but those that are named by their address.
type Instances struct {
	metrics, http []target
	log           *slog.Logger
	services      map[ServiceName]*replicas
	look          func(ctx context.Context, host string) ([]netip.Addr, error)

	mu    sync.Mutex
	names map[string][]netip.Addr // by host, sorted; as last answered, also when nobody answers any more
}

// NewInstances makes one for places, and asks nobody yet.
func NewInstances(c *rest.Config, p Places, log *slog.Logger) (*Instances, error) {
	all, err := p.targets()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, explain("connect to the cluster", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	i := &Instances{log: log, services: map[ServiceName]*replicas{}, names: map[string][]netip.Addr{}}
	i.look = func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	for _, t := range all {
		if t.url != "" {
			i.metrics = append(i.metrics, t)
		} else {
			i.http = append(i.http, t)
		}
		if s, ok := serviceOf(t.host); ok && i.services[s] == nil {
			i.services[s] = newReplicas(client, s)
		}
	}
	return i, nil
}

// Services are those that are followed, sorted.
func (i *Instances) Services() []ServiceName {
	if i == nil {
		return nil
	}
	return slices.SortedFunc(maps.Keys(i.services), func(a, b ServiceName) int { return cmp.Compare(a.String(), b.String()) })
}

// namesEvery is the time between two looks at names that are not those of Services.
const namesEvery = 10 * time.Second

// Run follows Services and names until ctx ends.
func (i *Instances) Run(ctx context.Context) error {
	var crew sync.WaitGroup
	defer crew.Wait()
	for _, r := range i.services {
		crew.Go(func() { r.run(ctx) }) // Run owns it; ctx ends it; Run waits for it
	}
	every := time.NewTicker(namesEvery)
	defer every.Stop()
	for {
		i.lookUp(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// lookUp asks for the addresses of all names. Those of Services are asked for too: where the server may not read a
// Service, its name is one like others.
func (i *Instances) lookUp(ctx context.Context) {
	for _, t := range slices.Concat(i.metrics, i.http) {
		if _, err := netip.ParseAddr(t.host); err == nil {
			continue
		}
		if s, ok := serviceOf(t.host); ok && i.services[s].known() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, lookLimit)
		found, err := i.look(asking, t.host)
		cancel()
		if err != nil || len(found) == 0 {
			continue // who asks there says why
		}
		for n := range found {
			found[n] = found[n].Unmap()
		}
		slices.SortFunc(found, netip.Addr.Compare) // IPv4 before IPv6
		first := found[0].Is4()
		found = slices.DeleteFunc(found, func(a netip.Addr) bool { return a.Is4() != first }) // an instance has an address of each, and is one
		i.mu.Lock()
		i.names[t.host] = slices.Compact(found)
		i.mu.Unlock()
	}
}

// at are the addresses of the instances of a target, and why they are not known. sure: they are all that there are.
func (i *Instances) at(t target) (all []string, sure bool, problem string) {
	if _, err := netip.ParseAddr(t.host); err == nil {
		return []string{net.JoinHostPort(t.host, strconv.Itoa(t.port))}, true, ""
	}
	if s, ok := serviceOf(t.host); ok {
		if i.services[s].known() {
			all, problem = i.services[s].at(t.port)
			return all, true, problem
		}
		problem = i.services[s].problem()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.names[t.host] {
		all = append(all, net.JoinHostPort(a.String(), strconv.Itoa(t.port)))
	}
	return all, len(all) > 1, problem
}

// Metrics are the instances as the judge asks them: see counts.Config.Instances.
func (i *Instances) Metrics() (all []counts.Instance, problem string) {
	if i == nil {
		return nil, ""
	}
	for _, t := range i.metrics {
		at, _, why := i.at(t)
		if len(at) == 0 && why == "" {
			all = append(all, counts.Instance{URL: t.url}) // a name that has not been answered: asking it says why
		}
		for _, a := range at {
			all = append(all, counts.Instance{URL: t.url, Address: a})
		}
		problem = cmp.Or(problem, why)
	}
	return all, problem
}

// knowledge is what is known of the instances that take requests.
type knowledge struct {
	at      map[string][]string // their addresses by the URL of a listener; none = they are asked at the URL
	all     bool                // by one listener at least, every instance
	problem string              // why not
}

// serving are the instances that take requests at URLs of the gateway's listeners. They are those of the places that were
// named for it, else of the Services with the metrics, as far as these have the ports. An only instance is met wherever the
// gateway is.
func (i *Instances) serving(bases []string) knowledge {
	switch {
	case i == nil || len(i.http)+len(i.metrics) == 0:
		return knowledge{problem: "nobody has said where its instances are"}
	case len(bases) == 0:
		return knowledge{problem: "its listeners are not known"}
	case len(i.http) > 0:
		return i.named(bases)
	}
	k, only := knowledge{at: map[string][]string{}}, 0
	for _, t := range i.metrics {
		at, sure, why := i.at(t)
		if !sure && len(at) != 1 || why != "" {
			return knowledge{problem: cmp.Or(why, t.host+" has no address here")}
		}
		only += len(at)
		if s, ok := serviceOf(t.host); !ok || !i.services[s].known() {
			k.problem = cmp.Or(k.problem, t.host+" shows their metrics, and their port for requests is not known")
		}
	}
	if k.problem != "" {
		return knowledge{all: only == 1, problem: k.problem}
	}
	for _, base := range bases {
		why := ""
		for _, t := range i.metrics {
			s, _ := serviceOf(t.host)
			at, missing := i.services[s].at(portOfURL(base))
			k.at[base], why = append(k.at[base], at...), cmp.Or(why, missing)
		}
		if why != "" {
			delete(k.at, base)
			k.problem = cmp.Or(k.problem, why)
		}
	}
	k.all = len(k.at) > 0 || only == 1
	return k
}

// named are the instances at the places that were named for requests, each by the listener whose port it has, else by the
// first.
func (i *Instances) named(bases []string) knowledge {
	k := knowledge{at: map[string][]string{}, all: true}
	for _, t := range i.http {
		at, sure, why := i.at(t)
		if len(at) == 0 || !sure && why != "" {
			return knowledge{problem: cmp.Or(why, t.host+" has no address here")}
		}
		base := bases[max(0, slices.IndexFunc(bases, func(base string) bool { return portOfURL(base) == t.port }))]
		k.at[base] = append(k.at[base], at...)
	}
	return k
}
