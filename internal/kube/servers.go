package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// origin is a server that Spillway does not run, as a gateway can be led to it.
type origin struct {
	host string // a name or an address
	port uint16
}

// originOf reads the URL of a server. A gateway is led to addresses and ports by the objects of the cluster, so there
// is nothing in them that could say more.
func originOf(text string) (origin, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return origin{}, fmt.Errorf("%q is not the URL of a server: %w", text, spillway.ErrInvalid)
	case u.Scheme == "https":
		return origin{}, fmt.Errorf("the server %s speaks TLS, which a gateway can be told by a BackendTLSPolicy only, and Spillway makes none: name it by http:// where it answers to that, or put a Service of your own before it: %w", text, spillway.ErrInvalid)
	case strings.Trim(u.Path, "/") != "":
		return origin{}, fmt.Errorf("the server %s has the path %s, which a gateway does not put before that of a request; leave it out here, and rewrite the prefix by a rule of routes: %w", text, u.Path, spillway.ErrInvalid)
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "80"), 10, 16)
	if err != nil {
		return origin{}, fmt.Errorf("the server %s has no port that there is: %w", text, spillway.ErrInvalid)
	}
	return origin{u.Hostname(), uint16(port)}, nil
}

// backendName is the name of the Service of a backend: that of a group, or "castle-www-legacy-servers".
func backendName(ref spillway.Ref, service string, b spillway.Backend) string {
	switch {
	case len(b.URLs) == 0:
		return groupName(ref, b.Group)
	case b.Track == externalTrack: // of a rule: the same for the same servers, whatever the rule
		return Name(ref, "servers", fmt.Sprintf("%.4x", sha256.Sum256([]byte(strings.Join(b.URLs, " ")))))
	}
	return Name(ref, service, b.Track, "servers")
}

// externalTrack is the track under which a route has the servers of a rule.
const externalTrack = "external"

// servers are the Services of the servers that Spillway does not run, and the EndpointSlices with their addresses: one
// for each port and family. A Service of type ExternalName would take names, but the Gateway API advises against it,
// and Traefik refuses it; so names are looked up by the server and followed (see addresses).
func (r *rendering) servers() ([]client.Object, error) {
	var objects []client.Object
	done := map[string]bool{}
	for _, e := range r.desired.Route.Edges {
		for _, b := range e.Backends {
			name := backendName(r.ref, e.Service, b)
			if len(b.URLs) == 0 || done[name] {
				continue
			}
			done[name] = true
			all := own(r.ref)
			all[TrackLabel] = b.Track
			port := portOf(b.Protocol)
			port.TargetPort = intstr.FromInt32(servicePort) // of no meaning: the slices say it
			objects = append(objects, &corev1.Service{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: r.meta(name, all),
				Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{port}},
			})
			slices, err := r.slices(name, all, port, b.URLs)
			if err != nil {
				return nil, fmt.Errorf("service %s: track %s: %w", e.Service, b.Track, err)
			}
			objects = append(objects, slices...)
		}
	}
	return objects, nil
}

// slices are the EndpointSlices of servers; none, and those that are there stay, while the address of one is not known.
//
// Every port is told by a slice of its own. Not every gateway takes an address twice then: see Fits.
func (r *rendering) slices(name string, labels map[string]string, port corev1.ServicePort, urls []string) ([]client.Object, error) {
	type kind struct {
		port uint16
		six  bool
	}
	found := map[kind][]netip.Addr{}
	for _, text := range urls {
		s, err := originOf(text)
		if err != nil {
			return nil, err
		}
		addresses := r.addresses[s.host]
		if address, err := netip.ParseAddr(s.host); err == nil {
			addresses = []netip.Addr{address}
		}
		if len(addresses) == 0 {
			return nil, nil
		}
		for _, a := range addresses {
			if ownMachine(a) { // refused by the API server; see Fits
				continue
			}
			found[kind{s.port, a.Is6()}] = append(found[kind{s.port, a.Is6()}], a)
		}
	}
	labels = maps.Clone(labels)
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = name, Manager
	var objects []client.Object
	for _, k := range slices.SortedFunc(maps.Keys(found), func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(strconv.FormatBool(a.six), strconv.FormatBool(b.six)))
	}) {
		family, part := discoveryv1.AddressTypeIPv4, fmt.Sprintf("%s-%d", name, k.port)
		if k.six {
			family, part = discoveryv1.AddressTypeIPv6, part+"-v6"
		}
		number, protocol := int32(k.port), corev1.ProtocolTCP
		slice := &discoveryv1.EndpointSlice{
			TypeMeta: metav1.TypeMeta{APIVersion: discoveryv1.SchemeGroupVersion.String(), Kind: "EndpointSlice"}, ObjectMeta: r.meta(part, labels),
			AddressType: family, Ports: []discoveryv1.EndpointPort{{Name: &port.Name, Port: &number, Protocol: &protocol, AppProtocol: port.AppProtocol}},
		}
		slices.SortFunc(found[k], netip.Addr.Compare)
		ready := true // nobody probes it
		for _, a := range slices.Compact(found[k]) {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		}
		objects = append(objects, slice)
	}
	return objects, nil
}

// ownMachine reports whether an address means another machine to everybody who uses it.
func ownMachine(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast()
}

// addresses are those of hosts by name, looked up from time to time.
type addresses struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error) // nil = that of this machine
	due    chan struct{}                                                         // buffered by one: a name was never looked at

	mu    sync.Mutex
	hosts map[string]*named
}

// named is a host and who uses it.
type named struct {
	known   []netip.Addr // sorted; as last answered, also when nobody answers any more
	problem string       // of the last look; "" = none
	at      time.Time    // of it
	apps    map[spillway.Ref]bool
}

const (
	lookEvery = 30 * time.Second // at names of servers
	lookLimit = 2 * time.Second  // for one answer
)

// hostsOf are the names in the URLs of a route.
func hostsOf(route spillway.Route) map[string][]string {
	urls := map[string][]string{}
	for _, e := range route.Edges {
		for _, b := range e.Backends {
			for _, text := range b.URLs {
				s, err := originOf(text)
				if _, number := netip.ParseAddr(s.host); err == nil && number != nil {
					urls[s.host] = append(urls[s.host], text)
				}
			}
		}
	}
	return urls
}

// placed is the part of a route whose servers have addresses in the cluster. Where a name in it is new beside others, users
// are led to the old ones until it is answered for.
func placed(ref spillway.Ref, route spillway.Route, there map[string]client.Object) spillway.Route {
	have := map[string]bool{}
	for _, o := range there {
		if _, ok := o.(*discoveryv1.EndpointSlice); ok {
			have[o.GetLabels()[discoveryv1.LabelServiceName]] = true
		}
	}
	var edges []spillway.Edge
	for _, e := range route.Edges {
		e.Backends = slices.DeleteFunc(slices.Clone(e.Backends), func(b spillway.Backend) bool { return !have[backendName(ref, e.Service, b)] })
		edges = append(edges, e)
	}
	return spillway.Route{Edges: edges}
}

// of gives the addresses of the hosts that the route of an app names. What is not known is not there. A name that users
// are led to already is looked at beside the rounds, as it is later on: an abort waits for no DNS. One that they are to be
// led to is looked at first.
func (n *addresses) of(ctx context.Context, ref spillway.Ref, route spillway.Route, led map[string][]string) map[string][]netip.Addr {
	wanted := hostsOf(route)
	var crew sync.WaitGroup
	for _, host := range n.use(ref, wanted) {
		if led[host] == nil {
			crew.Go(func() { n.look(ctx, host) }) // of owns it; lookLimit ends it; waited for below
			continue
		}
		select {
		case n.due <- struct{}{}:
		default:
		}
	}
	crew.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[string][]netip.Addr{}
	for host := range wanted {
		if h := n.hosts[host]; h != nil && len(h.known) > 0 {
			all[host] = slices.Clone(h.known)
		}
	}
	return all
}

// use notes which hosts an app uses, and gives those that nobody has looked at yet.
func (n *addresses) use(ref spillway.Ref, wanted map[string][]string) (fresh []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for host, h := range n.hosts {
		if delete(h.apps, ref); wanted[host] == nil && len(h.apps) == 0 {
			delete(n.hosts, host)
		}
	}
	for _, host := range sortedKeys(wanted) {
		h := n.hosts[host]
		if h == nil {
			h = &named{apps: map[spillway.Ref]bool{}}
			n.hosts[host] = h
		}
		h.apps[ref] = true
		if h.at.IsZero() {
			fresh = append(fresh, host)
		}
	}
	return fresh
}

// look asks for the addresses of a host, and gives the apps that use it if they are others than before.
func (n *addresses) look(ctx context.Context, host string) (changed []spillway.Ref) {
	asking, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	lookup := n.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	found, err := lookup(asking, "ip", host)
	if ctx.Err() != nil {
		return nil
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	slices.SortFunc(found, netip.Addr.Compare)
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[host]
	if h == nil {
		return nil
	}
	was, problem := h.known, h.problem
	h.at, h.problem = time.Now(), ""
	if err != nil {
		h.problem = spillway.Text(err)
	} else if len(found) > 0 {
		h.known = found
	}
	if !slices.Equal(was, h.known) || problem != h.problem {
		changed = slices.Collect(maps.Keys(h.apps))
	}
	return changed
}

// refresh looks at all names that are used.
func (n *addresses) refresh(ctx context.Context) (changed []spillway.Ref) {
	n.mu.Lock()
	hosts := sortedKeys(n.hosts)
	n.mu.Unlock()
	for _, host := range hosts {
		changed = append(changed, n.look(ctx, host)...)
	}
	return changed
}

// dead says which servers of a route cannot be used because their names lead nowhere. Whether one that has an address
// answers is not known here: only the gateway asks it.
func (n *addresses) dead(route spillway.Route) map[string]string {
	var all map[string]string
	for host, urls := range hostsOf(route) {
		n.mu.Lock()
		if h := n.hosts[host]; h != nil && h.problem != "" {
			for _, text := range urls {
				if all == nil {
					all = map[string]string{}
				}
				all[text] = "its name has no address here: " + h.problem
				if len(h.known) > 0 {
					all[text] += "; it is asked at its last ones"
				}
			}
		}
		n.mu.Unlock()
	}
	return all
}

// followNames looks at the names of servers until ctx ends.
func (p *Platform) followNames(ctx context.Context) {
	every := time.NewTicker(lookEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case <-p.names.due:
		}
		for _, ref := range p.names.refresh(ctx) {
			p.watchers.Changed(ref)
		}
	}
}

// unknown reports whether it is not known what an object should be like: it has addresses of a name that is not answered
// for now, or is of a group that is untold. It stays as it is.
func (r *rendering) unknown(o client.Object) bool {
	if g, ok := groupOf(o.GetLabels()); ok && slices.ContainsFunc(r.desired.Groups, func(w rollout.Want) bool { return w.Group == g && w.Replicas > 0 && r.untold(w) }) {
		return true
	}
	if _, ok := o.(*discoveryv1.EndpointSlice); !ok {
		return false
	}
	for _, e := range r.desired.Route.Edges {
		for _, b := range e.Backends {
			if len(b.URLs) == 0 || backendName(r.ref, e.Service, b) != o.GetLabels()[discoveryv1.LabelServiceName] {
				continue
			}
			slices, err := r.slices("", own(r.ref), corev1.ServicePort{}, b.URLs)
			return err == nil && len(slices) == 0
		}
	}
	return false
}
