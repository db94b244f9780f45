package kube

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
)

// replicas follows the replicas of a Service that we did not make, in a namespace where the server may read that one
// Service and EndpointSlices.
type replicas struct {
	name             ServiceName
	services, slices toolscache.SharedIndexInformer

	mu     sync.Mutex
	failed error // of the last list or watch
}

func newReplicas(c kubernetes.Interface, s ServiceName) *replicas {
	r := &replicas{name: s}
	services := &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, s.Name).String()
			return c.CoreV1().Services(s.Namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, s.Name).String()
			return c.CoreV1().Services(s.Namespace).Watch(ctx, o)
		},
	}
	slices := &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = discoveryv1.LabelServiceName + "=" + s.Name
			return c.DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = discoveryv1.LabelServiceName + "=" + s.Name
			return c.DiscoveryV1().EndpointSlices(s.Namespace).Watch(ctx, o)
		},
	}
	r.services = r.informer(c, services, &corev1.Service{})
	r.slices = r.informer(c, slices, &discoveryv1.EndpointSlice{})
	return r
}

func (r *replicas) informer(c kubernetes.Interface, lw *toolscache.ListWatch, kind runtime.Object) toolscache.SharedIndexInformer {
	made := toolscache.NewSharedIndexInformer(toolscache.ToListWatcherWithWatchListSemantics(lw, c), kind, 0, toolscache.Indexers{})
	err := made.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed = err
	})
	if err != nil {
		panic(err) // it is not running yet
	}
	return made
}

// run follows the Service until ctx ends.
func (r *replicas) run(ctx context.Context) {
	var crew sync.WaitGroup
	crew.Go(func() { r.services.RunWithContext(ctx) }) // run owns it; ctx ends it; run waits for it
	r.slices.RunWithContext(ctx)
	crew.Wait()
}

// known reports whether the cluster has told what there is. What it told last is believed while it cannot be asked.
func (r *replicas) known() bool { return r.services.HasSynced() && r.slices.HasSynced() }

// problem says why it is not known.
func (r *replicas) problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return fmt.Sprintf("Service %s cannot be read: %v", r.name, r.failed)
	}
	return fmt.Sprintf("the cluster has not told yet which replicas Service %s has", r.name)
}

// at are the addresses of the replicas that are ready, behind a port of the Service; without any, why.
func (r *replicas) at(port int) (all []string, problem string) {
	var s *corev1.Service
	for _, o := range r.services.GetStore().List() {
		s = o.(*corev1.Service)
	}
	var parts []*discoveryv1.EndpointSlice
	for _, o := range r.slices.GetStore().List() {
		parts = append(parts, o.(*discoveryv1.EndpointSlice))
	}
	return readyBehind(r.name, s, parts, port)
}

// readyBehind are the addresses of the replicas of a Service that are ready, sorted; without any, why. Those that are
// ending get no new requests and are left out.
func readyBehind(name ServiceName, s *corev1.Service, parts []*discoveryv1.EndpointSlice, port int) (all []string, problem string) {
	if s == nil {
		return nil, fmt.Sprintf("there is no Service %s", name)
	}
	n := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return int(p.Port) == port })
	if n < 0 {
		var has []string
		for _, p := range s.Spec.Ports {
			has = append(has, strconv.Itoa(int(p.Port)))
		}
		return nil, fmt.Sprintf("Service %s has no port %d, but %s", name, port, cmp.Or(strings.Join(has, ", "), "none"))
	}
	families := []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
	if f := s.Spec.IPFamilies; len(f) > 0 && f[0] == corev1.IPv6Protocol {
		slices.Reverse(families)
	}
	for _, family := range families { // a replica has an address of each, and is one
		if len(all) == 0 {
			all = readyOf(family, parts, s.Spec.Ports[n].Name)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Sprintf("Service %s has no replica that is ready behind port %d", name, port)
	}
	slices.Sort(all)
	return slices.Compact(all), ""
}

// readyOf are the addresses of a family, with the port of a name.
func readyOf(family discoveryv1.AddressType, parts []*discoveryv1.EndpointSlice, port string) (all []string) {
	for _, part := range parts {
		for _, p := range part.Ports {
			if part.AddressType != family || p.Port == nil || deref(p.Name) != port {
				continue
			}
			for _, e := range part.Endpoints {
				if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					all = append(all, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	return all
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
