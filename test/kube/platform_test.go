//go:build kube

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube"
	"github.com/spillway-dev/spillway/internal/sim/platformtest"
)

// newPlatform opens a platform in a namespace of the test's own, and runs it. It names the namespace. The instances of the
// gateway are those of the Service traefik; url is where users reach them, "" = at the gateway's address.
func newPlatform(t *testing.T, url string) (p *kube.Platform, in string) {
	t.Helper()
	namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{GenerateName: "platform-"}}
	create(t.Context(), t, connect(t), namespace)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	instances, err := kube.NewInstances(config(t), kube.Places{HTTP: []string{"traefik.gateway:80"}}, log)
	if err != nil {
		t.Fatal(err)
	}
	p, err = kube.Open(kube.Config{
		Rest: config(t), Namespace: namespace.Name, Gateway: kube.Gateway{Namespace: "gateway", Name: "public"}, GatewayURL: url, Instances: instances, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }() // owned by the test; ends with ctx; waited for in Cleanup
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, namespace.Name
}

// through reaches the gateway at an address whatever host a URL names.
func through(address string) *http.Client {
	return &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(address, "80"))
		},
		MaxIdleConnsPerHost: 4,
	}}
}

func TestKube_KeepsThePromisesOfAPlatform(t *testing.T) {
	keepsThePromises(t, gatewayAddress(t.Context(), t, connect(t)), "")
}

// The same where users meet any of several instances of the gateway, behind a Service.
func TestKube_KeepsThePromisesBehindSeveralInstances(t *testing.T) {
	var service core.Service
	var slice discovery.EndpointSlice
	at := client.ObjectKey{Namespace: "gateway", Name: "traefik"}
	if err := errors.Join(connect(t).Get(t.Context(), at, &service), connect(t).Get(t.Context(), at, &slice)); err != nil {
		t.Fatal(err)
	}
	if n := len(slice.Endpoints); n < 2 {
		t.Fatalf("the gateway has %d instances behind Service traefik, the test needs several: KUBE_WITH=gateways make kube-up", n)
	}
	keepsThePromises(t, service.Spec.ClusterIP, "http://"+service.Spec.ClusterIP)
}

// keepsThePromises runs the conformance suite with users who come by an address.
func keepsThePromises(t *testing.T, address, url string) {
	pinned := push(t.Context(), t, "answer")
	p, _ := newPlatform(t, url)
	platformtest.Run(t, platformtest.Bench{
		Platform: p, Client: through(address), Patience: 90 * time.Second, Pass: func() { <-time.After(100 * time.Millisecond) },
		Prefix: fmt.Sprintf("k%x-", time.Now().Unix()%0xfffff),
		Fit: func(r *spillway.Release) {
			for i := range r.Config.Services {
				s := &r.Config.Services[i]
				s.Run = spillway.Command{Exec: []string{"/program"}}
				r.Artefacts[s.Name] = spillway.Artefact{Image: pinned}
			}
		},
		Lacks: platformtest.Lacks{InFlight: true, Traffic: true, Tripwire: true, Trials: true, Generations: true, Closed: true, Templates: true},
	})
}
