package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
)

func TestServiceOf(t *testing.T) {
	for host, want := range map[string]string{
		"traefik.edge": "edge/traefik", "traefik.edge.svc": "edge/traefik", "traefik.edge.svc.cluster.local": "edge/traefik", "traefik.edge.svc.k8s.example.com": "edge/traefik",
		"traefik": "", "traefik.edge.": "", "gateway.example.com": "", "10.0.0.7": "", "::1": "", "localhost": "", ".edge": "",
	} {
		got, ok := serviceOf(host)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v %v, want %q", host, got, ok, want)
		}
	}
}

func TestPlaces_RefusesWhatIsNone(t *testing.T) {
	for _, p := range []Places{
		{Metrics: []string{"traefik.edge:9100/metrics"}}, {Metrics: []string{"/metrics"}}, {Metrics: []string{"http://traefik.edge:x/metrics"}},
		{HTTP: []string{"traefik.edge"}}, {HTTP: []string{"http://traefik.edge:80"}}, {HTTP: []string{":80"}}, {HTTP: []string{"traefik.edge:0"}},
	} {
		if _, err := p.Services(); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "NAME.NAMESPACE:PORT") && len(p.Metrics) == 0 {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// port is one of a slice.
func port(name string, number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Port: &number}
}

// sliceOf has replicas at addresses; those with a "!" are not ready.
func sliceOf(name string, ports []discoveryv1.EndpointPort, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "edge", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "traefik"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: ports,
	}
	for _, a := range addresses {
		at, not := strings.CutPrefix(a, "!")
		ready := !not
		if strings.Contains(at, ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{at}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}

func traefik() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "traefik"}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "web", Port: 80}, {Name: "metrics", Port: 9100}},
	}}
}

func TestReadyBehind(t *testing.T) {
	both := []discoveryv1.EndpointPort{port("web", 8000), port("metrics", 9100)}
	six := traefik()
	six.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	for name, test := range map[string]struct {
		service *corev1.Service
		slices  []*discoveryv1.EndpointSlice
		port    int
		want    string
		problem string
	}{
		"the port of the replicas, by its name": {traefik(), []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.2", "10.1.0.1")}, 80, "10.1.0.1:8000 10.1.0.2:8000", ""},
		"of all slices, each once":              {traefik(), []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.2"), sliceOf("b", both, "10.1.0.1", "10.1.0.2")}, 9100, "10.1.0.1:9100 10.1.0.2:9100", ""},
		"a port of its own in each slice":       {traefik(), []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.1"), sliceOf("b", []discoveryv1.EndpointPort{port("web", 8001)}, "10.1.0.1")}, 80, "10.1.0.1:8000 10.1.0.1:8001", ""},
		"who is not ready is left out":          {traefik(), []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.1", "!10.1.0.2")}, 80, "10.1.0.1:8000", ""},
		"two families are one replica":          {traefik(), []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.1"), sliceOf("b", both, "fd00::1")}, 80, "10.1.0.1:8000", ""},
		"the family of the Service first":       {six, []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.1"), sliceOf("b", both, "fd00::1")}, 80, "[fd00::1]:8000", ""},
		"no Service":                            {nil, []*discoveryv1.EndpointSlice{sliceOf("a", both, "10.1.0.1")}, 80, "", "there is no Service edge/traefik"},
		"another port":                          {traefik(), nil, 8080, "", "Service edge/traefik has no port 8080, but 80, 9100"},
		"nobody is ready":                       {traefik(), []*discoveryv1.EndpointSlice{sliceOf("a", both, "!10.1.0.1")}, 80, "", "Service edge/traefik has no replica that is ready behind port 80"},
	} {
		got, problem := readyBehind(ServiceName{"edge", "traefik"}, test.service, test.slices, test.port)
		if strings.Join(got, " ") != test.want || problem != test.problem {
			t.Errorf("%s: %q %q", name, got, problem)
		}
	}
}

// known are instances at places in a cluster that a test plays. They are followed until the test ends.
func known(t *testing.T, p Places, names map[string]string, objects ...runtime.Object) (*Instances, *fake.Clientset) {
	t.Helper()
	i, err := NewInstances(&rest.Config{Host: "http://127.0.0.1:1"}, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	cluster := fake.NewClientset(objects...)
	for s := range i.services {
		i.services[s] = newReplicas(cluster, s)
	}
	i.look = func(_ context.Context, host string) (all []netip.Addr, err error) {
		for _, text := range strings.Fields(names[host]) {
			all = append(all, netip.MustParseAddr(text))
		}
		return all, nil
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- i.Run(ctx) }() // owned by the test; ends with ctx; waited for in Cleanup
	t.Cleanup(func() { stop(); <-done })
	return i, cluster
}

// comes waits until something is so.
func comes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// addresses are where instances are read, in words.
func addressesOf(i *Instances) string {
	all, problem := i.Metrics()
	var at []string
	for _, one := range all {
		at = append(at, one.Address)
	}
	return strings.Join(append(at, problem), " ")
}

func TestInstances_FollowAService(t *testing.T) {
	both := []discoveryv1.EndpointPort{port("web", 8000), port("metrics", 9100)}
	i, cluster := known(t, Places{Metrics: []string{"http://traefik.edge:9100/metrics"}}, nil, traefik(), sliceOf("a", both, "10.1.0.1", "10.1.0.2"))
	comes(t, "two instances", func() bool { return addressesOf(i) == "10.1.0.1:9100 10.1.0.2:9100 " })
	if k := i.serving([]string{"http://lb", "https://lb"}); !k.all || len(k.at) != 1 || !slices.Equal(k.at["http://lb"], []string{"10.1.0.1:8000", "10.1.0.2:8000"}) {
		t.Errorf("requests are taken at %+v", k)
	}
	if k := i.serving([]string{"https://lb"}); k.all || len(k.at) > 0 || !strings.Contains(k.problem, "has no port 443") {
		t.Errorf("at a port that the Service has not: %+v", k)
	}
	if _, err := cluster.DiscoveryV1().EndpointSlices("edge").Update(t.Context(), sliceOf("a", both, "!10.1.0.1", "10.1.0.2", "10.1.0.3"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	comes(t, "one to go and one to come", func() bool { return addressesOf(i) == "10.1.0.2:9100 10.1.0.3:9100 " })
	if err := cluster.CoreV1().Services("edge").Delete(t.Context(), "traefik", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	comes(t, "none", func() bool { return addressesOf(i) == "there is no Service edge/traefik" })
}

// TestInstances_WithoutTheRight: the name is one like others then, and what is not known is said.
func TestInstances_WithoutTheRight(t *testing.T) {
	i, _ := known(t, Places{Metrics: []string{"http://traefik.edge:9100/metrics"}}, map[string]string{"traefik.edge": "10.96.0.9"})
	r := i.services[ServiceName{"edge", "traefik"}]
	forbidden := fake.NewClientset()
	forbidden.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("services"), "traefik", errors.New("no"))
	})
	lesser := newReplicas(kubernetes.Interface(forbidden), ServiceName{"edge", "traefik"})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { lesser.run(ctx); close(done) }() // owned by the test; ends with ctx; waited for below
	comes(t, "a refusal", func() bool { return strings.Contains(lesser.problem(), "forbidden") })
	stop()
	<-done
	comes(t, "the start", r.known)
	other := &Instances{metrics: i.metrics, services: map[ServiceName]*replicas{{"edge", "traefik"}: lesser}, names: map[string][]netip.Addr{}, look: i.look}
	other.lookUp(t.Context())
	if got := addressesOf(other); !strings.HasPrefix(got, "10.96.0.9:9100 Service edge/traefik cannot be read") {
		t.Errorf("read at %s", got)
	}
	if k := other.serving([]string{"http://lb"}); k.all || !strings.Contains(k.problem, "cannot be read") {
		t.Errorf("requests are taken at %+v", k)
	}
}

func TestInstances_OfNamesAndAddresses(t *testing.T) {
	for name, test := range map[string]struct {
		places  Places
		metrics string
		serving knowledge
	}{
		"all addresses of a name":       {Places{Metrics: []string{"http://gw.example.com:9100/metrics"}}, "10.2.0.1:9100 10.2.0.2:9100 ", knowledge{problem: "gw.example.com shows their metrics, and their port for requests is not known"}},
		"an instance has two families":  {Places{Metrics: []string{"http://dual.example.com:9100"}}, "10.2.0.7:9100 ", knowledge{all: true, problem: "dual.example.com shows their metrics, and their port for requests is not known"}},
		"the only one is the gateway":   {Places{Metrics: []string{"http://10.2.0.9:9100/metrics"}}, "10.2.0.9:9100 ", knowledge{all: true, problem: "10.2.0.9 shows their metrics, and their port for requests is not known"}},
		"two by address":                {Places{Metrics: []string{"http://10.2.0.8:9100", "http://10.2.0.9:9100"}}, "10.2.0.8:9100 10.2.0.9:9100 ", knowledge{problem: "10.2.0.8 shows their metrics, and their port for requests is not known"}},
		"named for requests":            {Places{HTTP: []string{"gw.example.com:8000", "10.2.0.3:8000"}}, "", knowledge{at: map[string][]string{"http://lb:8000": {"10.2.0.1:8000", "10.2.0.2:8000", "10.2.0.3:8000"}}, all: true}},
		"by another port":               {Places{HTTP: []string{"10.2.0.3:9000"}}, "", knowledge{at: map[string][]string{"https://lb": {"10.2.0.3:9000"}}, all: true}},
		"a name that nobody knows":      {Places{HTTP: []string{"none.example.com:80"}}, "", knowledge{problem: "none.example.com has no address here"}},
		"nothing":                       {Places{}, "", knowledge{problem: "nobody has said where its instances are"}},
		"a name with metrics of nobody": {Places{Metrics: []string{"http://none.example.com:9100"}}, " ", knowledge{problem: "none.example.com has no address here"}},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := known(t, test.places, map[string]string{"gw.example.com": "10.2.0.2 10.2.0.1", "dual.example.com": "fd00::7 10.2.0.7"})
			comes(t, test.metrics, func() bool { return addressesOf(i) == test.metrics })
			comes(t, "who takes requests", func() bool {
				return reflect.DeepEqual(i.serving([]string{"https://lb", "http://lb:8000", "http://lb:8001"}), test.serving)
			})
		})
	}
}

// behindDoors is a platform whose gateway has instances.
func behindDoors(t *testing.T, instances ...http.HandlerFunc) *Platform {
	p := &Platform{conf: Config{Gateway: Gateway{Name: "public"}, GatewayURL: "http://gateway.test"}, http: &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialOpening}}}
	var places Places
	for _, serve := range instances {
		s := httptest.NewServer(serve)
		t.Cleanup(s.Close)
		at, _ := url.Parse(s.URL)
		places.HTTP = append(places.HTTP, at.Host)
	}
	p.conf.Instances, _ = known(t, places, nil)
	return p
}

// answers gives a status, or 400 to who asks for another host than the gateway.
func answers(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "www.castle.test" {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
	}
}

// asked asks all doors of a platform for a status of 200.
func asked(t *testing.T, p *Platform) string {
	return p.everywhere(t.Context(), "www.castle.test", func(ctx context.Context, d opening) (string, error) {
		_, status, err := p.look(ctx, d, "/", "www.castle.test")
		if err == nil && status != 200 {
			return d.String() + " answers " + http.StatusText(status), nil
		}
		return "", err
	})
}

func TestEverywhere_AsksEveryInstance(t *testing.T) {
	p := behindDoors(t, answers(200), answers(200), answers(200))
	if problem := asked(t, p); problem != "" || p.calmTime(t.Context(), "www.castle.test") != 0 {
		t.Errorf("%q, calm for %v", problem, p.calmTime(t.Context(), "www.castle.test"))
	}
	p = behindDoors(t, answers(200), answers(200), answers(404))
	if problem := asked(t, p); !strings.Contains(problem, "the gateway's instance 127.0.0.1:") || !strings.HasSuffix(problem, "answers Not Found") {
		t.Errorf("an instance that is behind: %q", problem)
	}
	p.conf.Instances = nil
	if p.calmTime(t.Context(), "www.castle.test") != calmTime {
		t.Errorf("instances that are not known: calm for %v", p.calmTime(t.Context(), "www.castle.test"))
	}
}

// A route is believed to be served after a while where instances are not known, whoever has its hosts: a service, or rules
// alone.
func TestUnsure_OfEveryHTTPRoute(t *testing.T) {
	p := behindDoors(t, answers(200))
	for name, r := range map[string]rendering{"a service": shop([]string{"a.test"}), "rules alone": shop(nil, under("/v1", toAPI, "api.test"))} {
		var objects []client.Object
		for _, h := range routesOf(t, r) {
			objects = append(objects, h)
		}
		parts := routeParts(there(objects...))
		if long := p.unsure(t.Context(), parts); len(parts) != 1 || long != 0 {
			t.Errorf("hosts of %s: %d parts are believed after %v where instances are known", name, len(parts), long)
		}
		known := p.conf.Instances
		p.conf.Instances = nil
		if long := p.unsure(t.Context(), parts); long != calmTime {
			t.Errorf("hosts of %s: they are believed after %v", name, long)
		}
		p.conf.Instances = known
	}
}

// TestEverywhere_LeavesOutWhoIsGone: after some time, and never all.
func TestEverywhere_LeavesOutWhoIsGone(t *testing.T) {
	p := behindDoors(t, answers(200))
	there := fmt.Sprintf("127.0.0.1:%d", p.conf.Instances.http[0].port)
	p.conf.Instances, _ = known(t, Places{HTTP: []string{there, "127.0.0.1:1"}}, nil)
	problem := asked(t, p)
	if !strings.Contains(problem, "127.0.0.1:1 takes requests of users and cannot be asked") {
		t.Errorf("at first: %q", problem)
	}
	gone1 := opening{"http://gateway.test", "127.0.0.1:1"}
	p.doors.away[gone1] = absence{since: time.Now().Add(-gone), last: time.Now()}
	if problem := asked(t, p); problem != "" {
		t.Errorf("after 10 s: %q", problem)
	}
	p.doors.away[gone1] = absence{since: time.Now().Add(-time.Hour), last: time.Now().Add(-time.Minute)}
	if problem := asked(t, p); problem == "" {
		t.Error("what was gone an hour ago is left out at once")
	}
	p.conf.Instances, _ = known(t, Places{HTTP: []string{"127.0.0.1:1"}}, nil)
	p.doors.away[gone1] = absence{since: time.Now().Add(-gone), last: time.Now()}
	if problem := asked(t, p); !strings.Contains(problem, "none of the gateway's 1 instances can be asked") {
		t.Errorf("the only one: %q", problem)
	}
	if all, _, _ := p.openings(t.Context(), "www.castle.test"); !slices.Equal(all, []opening{{base: "http://gateway.test"}}) || p.calmTime(t.Context(), "www.castle.test") != calmTime {
		t.Errorf("then %v is asked, and believed after %v", all, p.calmTime(t.Context(), "www.castle.test"))
	}
}

// An instance that takes connections and is silent leads users, however long that lasts. That a program is silent is not
// said of the gateway.
func TestEverywhere_WaitsForWhoIsSilent(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	p := behindDoors(t, answers(200), silent)
	p.http.Timeout = 100 * time.Millisecond
	at := opening{"http://gateway.test", fmt.Sprintf("127.0.0.1:%d", p.conf.Instances.http[1].port)}
	p.doors.away = map[opening]absence{at: {since: time.Now().Add(-gone), last: time.Now()}}
	if problem := asked(t, p); !strings.Contains(problem, at.at+" takes requests of users and cannot be asked") {
		t.Errorf("an instance that is silent: %q", problem)
	}

	group := spillway.Group{Service: "www", Release: 4}
	p = behindDoors(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != routedPath(group) {
			silent(w, r)
		}
		http.Redirect(w, r, "http://"+reachHost("shop", "castle")+r.URL.Path, http.StatusFound)
	})
	p.http.Timeout, p.http.CheckRedirect = 100*time.Millisecond, func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if problem := p.reaches(t.Context(), reachable{group, "www.castle.test", reachHost("shop", "castle")}, time.Hour); !strings.Contains(problem, "gives no answer of www.4") {
		t.Errorf("a program that is silent: %q", problem)
	}
}

func TestCalm_BeginsAnewWithEachBadAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calm
		for _, good := range []bool{true, true, false, true, true, true, true} {
			if c.holds(good, 3*time.Second) {
				t.Error("it holds before its time")
			}
			if good && !new(calm).holds(true, 0) {
				t.Error("known instances are not believed at once")
			}
			<-time.After(time.Second - time.Millisecond)
		}
		if <-time.After(time.Second); !c.holds(true, 3*time.Second) {
			t.Error("it does not hold")
		}
	})
}

// TestServer_MayReadTheServicesOfItsGateway: in their namespaces, and no more there.
func TestServer_MayReadTheServicesOfItsGateway(t *testing.T) {
	s := Server{Namespace: "shop", Image: "i", Gateway: Gateway{Namespace: "edge", Name: "public"}, Flags: []string{
		"--gateway-metrics=http://traefik-metrics.edge:9100/metrics,http://10.0.0.7:9100/metrics", "--gateway-instances=traefik.doors.svc:80",
	}}
	rules := map[string][]rbacv1.PolicyRule{}
	for _, o := range s.objects() {
		if r, ok := o.(*rbacv1.Role); ok && r.Namespace != "shop" {
			rules[r.Namespace] = append(rules[r.Namespace], r.Rules...)
		}
	}
	watch := []string{"get", "list", "watch"}
	want := map[string][]rbacv1.PolicyRule{
		"edge": {
			{APIGroups: []string{"gateway.networking.k8s.io"}, Resources: []string{"gateways"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"services"}, ResourceNames: []string{"traefik-metrics"}, Verbs: watch},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
		},
		"doors": {
			{APIGroups: []string{""}, Resources: []string{"services"}, ResourceNames: []string{"traefik"}, Verbs: watch},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
		},
	}
	if !reflect.DeepEqual(rules, want) {
		t.Errorf("rights: %+v", rules)
	}
}
