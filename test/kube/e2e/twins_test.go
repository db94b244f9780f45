//go:build kube

package e2e

import (
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// elder is a gateway as it is for an app whose host another one had first: it answers as for the host of that one.
type elder struct {
	host   string
	gone   atomic.Bool // every host is its own again
	asked  atomic.Int64
	really http.Transport
}

func (e *elder) RoundTrip(request *http.Request) (*http.Response, error) {
	e.asked.Add(1)
	if !e.gone.Load() {
		request = request.Clone(request.Context())
		request.Host = e.host
	}
	return e.really.RoundTrip(request)
}

// Two namespaces have an app of the same name, and of the same numbers of releases and routes. Where the gateway answers
// for the first, its answers are not taken for the second: that one lets nothing out until the gateway answers for it.
func TestSameAppInTwoNamespaces(t *testing.T) {
	t.Parallel()
	first := newCastle(install(t))
	first.deploy().want(t, 0)
	first.in.healthy("castle", 1, time.Minute)

	gateway := &elder{host: first.host}
	door := openDoor(t, &url.URL{Scheme: "http", Host: gatewayAddress()}, gateway)
	in := installIn(t, namespace(t))
	in.flags = []string{"--gateway-url", "http://" + door.address}
	in.start()
	second := newCastle(in)
	second.deploy("--detach").want(t, 0)
	// The number of its route is one that the first had before it: with the number alone all would be well.
	in.told(30*time.Second, []string{"status", "--app", "castle"}, "the gateway answers at "+second.host+" for another app, of another namespace")
	before := gateway.asked.Load()
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); <-time.After(200 * time.Millisecond) {
		if o := in.overview("castle"); o.Phase == spillway.Healthy || o.Stable != 0 || o.Rollout != nil && o.Rollout.Served > 0 {
			t.Fatalf("the gateway answers for the first alone, and the second says: %s", describe(o))
		}
	}
	if gateway.asked.Load() == before {
		t.Error("the gateway was not asked any more")
	}
	gateway.gone.Store(true)
	in.healthy("castle", 1, time.Minute)
	if status, _ := in.get(second.host, "/", nil); status != http.StatusOK {
		t.Errorf("users of the second are answered %d", status)
	}
}
