package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
)

func TestEntrances_AreTheListenersThatServeUs(t *testing.T) {
	from := func(f gatewayv1.FromNamespaces) *gatewayv1.AllowedRoutes {
		return &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &f}}
	}
	all, shop := from(gatewayv1.NamespacesFromAll), gatewayv1.Hostname("*.shop.test")
	g := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"},
		Spec: gatewayv1.GatewaySpec{Listeners: []gatewayv1.Listener{
			{Name: "web", Port: 80, Protocol: gatewayv1.HTTPProtocolType, AllowedRoutes: all},
			{Name: "secure", Port: 443, Protocol: gatewayv1.HTTPSProtocolType, Hostname: &shop, AllowedRoutes: from(gatewayv1.NamespacesFromSelector)},
			{Name: "own", Port: 81, Protocol: gatewayv1.HTTPProtocolType}, // Same is the default
			{Name: "none", Port: 82, Protocol: gatewayv1.HTTPProtocolType, AllowedRoutes: from(gatewayv1.NamespacesFromNone)},
			{Name: "grpc", Port: 83, Protocol: gatewayv1.HTTPProtocolType, AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: all.Namespaces, Kinds: []gatewayv1.RouteGroupKind{{Kind: "GRPCRoute"}}}},
			{Name: "tcp", Port: 84, Protocol: gatewayv1.TCPProtocolType, AllowedRoutes: all},
			{Name: "broken", Port: 85, Protocol: gatewayv1.HTTPSProtocolType, AllowedRoutes: all},
		}},
		Status: gatewayv1.GatewayStatus{
			Addresses: []gatewayv1.GatewayStatusAddress{{Value: "10.0.0.7"}},
			Listeners: []gatewayv1.ListenerStatus{{Name: "broken", Conditions: []metav1.Condition{
				{Type: string(gatewayv1.ListenerConditionResolvedRefs), Status: metav1.ConditionFalse, Message: "there is no Secret x"},
			}}},
		},
	}
	for _, row := range []struct {
		section, namespace string
		want               []entrance
	}{
		{"", "shop", []entrance{{"http://10.0.0.7:80", ""}, {"https://10.0.0.7:443", "*.shop.test"}}},
		{"secure", "shop", []entrance{{"https://10.0.0.7:443", "*.shop.test"}}},
		{"own", "edge", []entrance{{"http://10.0.0.7:81", ""}}},
		{"own", "shop", nil},
		{"broken", "shop", nil},
	} {
		if got := entrancesOf(g, row.section, row.namespace); !slices.Equal(got, row.want) {
			t.Errorf("section %q, namespace %s: %v, want %v", row.section, row.namespace, got, row.want)
		}
	}
	if got := brokenListeners(g, ""); !slices.Equal(got, []string{"listener broken: there is no Secret x"}) {
		t.Errorf("broken: %q", got)
	}
}

func TestEntrance_TakesHosts(t *testing.T) {
	for _, row := range []struct {
		pattern, host string
		want          bool
	}{
		{"", "www.shop.test", true}, {"www.shop.test", "WWW.shop.test", true}, {"www.shop.test", "shop.test", false},
		{"*.shop.test", "www.shop.test", true}, {"*.shop.test", "a.b.shop.test", true}, {"*.shop.test", "shop.test", false}, {"*.shop.test", "myshop.test", false},
	} {
		if got := (entrance{host: row.pattern}).takes(row.host); got != row.want {
			t.Errorf("%q takes %s: %v", row.pattern, row.host, got)
		}
	}
}

// An API server that does not answer one who asks where the gateway is holds up nobody who knows it.
func TestEntrances_OneSlowAnswerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scheme, err := newScheme()
		if err != nil {
			t.Fatal(err)
		}
		g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}, Spec: gatewayv1.GatewaySpec{Listeners: []gatewayv1.Listener{
			{Name: "web", Port: 80, Protocol: gatewayv1.HTTPProtocolType, AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: new(gatewayv1.NamespacesFromAll)}}},
		}}, Status: gatewayv1.GatewayStatus{Addresses: []gatewayv1.GatewayStatusAddress{{Value: "10.0.0.7"}}}}
		asked, slow := 0, make(chan struct{})
		gets := func(ctx context.Context, through client.WithWatch, at client.ObjectKey, into client.Object, options ...client.GetOption) error {
			asked++
			<-slow
			return through.Get(ctx, at, into, options...)
		}
		live := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(g).Build(), interceptor.Funcs{Get: gets})
		p := &Platform{live: live, conf: Config{Namespace: "shop", Gateway: Gateway{Namespace: "edge", Name: "public"}}}
		knows := func() error {
			all, problem := p.entrances(t.Context())
			if len(all) != 1 || problem != "" {
				return fmt.Errorf("entrances %v, %q", all, problem)
			}
			return nil
		}
		first := make(chan error, 1)
		go func() { first <- knows() }() // the test waits for it
		synctest.Wait()
		if !p.doors.mu.TryLock() {
			t.Error("who knows an instance waits for the cluster")
		} else {
			p.doors.mu.Unlock()
		}
		close(slow)
		if err := <-first; err != nil || asked != 1 {
			t.Errorf("asked %d times: %v", asked, err)
		}

		<-time.After(doorTime)
		slow = make(chan struct{})
		go func() { first <- knows() }()
		synctest.Wait()
		if err := knows(); err != nil || asked != 2 {
			t.Errorf("who knows it, asked %d times: %v", asked, err)
		}
		close(slow)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

// Requests of our own come by HTTPS where there is a listener for it, and connect to an instance.
func TestWay_IsThatOfAUser(t *testing.T) {
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "for ", r.Host) }))
	t.Cleanup(instance.Close)
	at := strings.TrimPrefix(instance.URL, "http://")
	instances, err := NewInstances(&rest.Config{}, Places{HTTP: []string{at}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(at, ":")
	nowhere := "http://192.0.2.7:" + port
	p := &Platform{conf: Config{Gateway: Gateway{Namespace: "edge", Name: "public"}, Instances: instances}, log: slog.New(slog.DiscardHandler)}
	p.doors.learn([]entrance{{nowhere, ""}, {"https://192.0.2.7:443", "*.shop.test"}}, "")
	for host, want := range map[string]string{"www.shop.test": "https://192.0.2.7:443", "other.test": nowhere} {
		base, by, err := p.Way(t.Context(), host)
		if err != nil || base != want || by.TLSClientConfig.ServerName != host {
			t.Fatalf("to %s: %s %v, want %s", host, base, err, want)
		}
		if host != "other.test" {
			continue
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		answer, err := by.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "for "+host {
			t.Errorf("answered %q, %v", text, err)
		}
		_ = answer.Body.Close()
	}
	p.doors.learn([]entrance{{"https://192.0.2.7:443", "*.shop.test"}}, "")
	if _, _, err := p.Way(t.Context(), "other.test"); !errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("to a host that no listener takes: %v", err)
	}
	if _, _, err := (&Platform{}).Way(t.Context(), "other.test"); !errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("without a gateway: %v", err)
	}
}
