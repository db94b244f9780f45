package kube

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// golden compares objects with those in testdata.
func golden(t *testing.T, name string, r rendering) {
	t.Helper()
	got := yamlOf(t, r)
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != string(got) {
		t.Errorf("%s differs (%v); look at what -update writes", path, err)
	}
}

// legacy is a service of which servers that Spillway does not run have 90 %.
func legacy() rendering {
	www := spillway.Group{Service: "www", Release: 1}
	old := spillway.Backend{Track: "legacy", Weight: 9000, URLs: []string{"http://10.1.0.1:8080", "http://10.1.0.2:8080", "http://old.example.com", "http://[fd00::1]:8080"}}
	return rendering{
		ref: "castle", namespace: "shop", gateway: Gateway{Namespace: "edge", Name: "gw"},
		releases:  map[int]spillway.Release{1: castle(1, map[string]int{"www": 1, "backend": 1})},
		addresses: map[string][]netip.Addr{"old.example.com": {netip.MustParseAddr("10.2.0.1")}},
		desired: rollout.Desired{
			Groups: []rollout.Want{{Group: www, Replicas: 1, Release: 1}},
			Route: spillway.Route{
				Generation: 3,
				Edges: []spillway.Edge{
					{Service: "files.example.com:81", Target: "http://10.3.0.1:81", Backends: []spillway.Backend{{Track: "external", Weight: spillway.Whole, URLs: []string{"http://10.3.0.1:81"}}}},
					{Service: "www", Target: "www", Hosts: []string{"www.castle.test"}, Rules: []spillway.Rule{
						{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "cookie", Name: "old"}, Value: "1"}, Track: "legacy"},
					}, Backends: []spillway.Backend{old, {Group: www, Release: 1, Weight: 1000, Within: spillway.Whole}}},
				},
				Rules: []spillway.HTTPRule{{Hosts: []string{"www.castle.test"}, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: "/files"}, To: []spillway.Target{{URLs: []string{"http://10.3.0.1:81"}, Weight: 1}}}},
			},
		},
	}
}

func TestRender_ServersThatSpillwayDoesNotRun(t *testing.T) { golden(t, "servers.yaml", legacy()) }

func TestRender_LeavesTheAddressesOfAServerWhoseNameIsNotAnsweredFor(t *testing.T) {
	r := legacy()
	before, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	r.addresses = nil
	kept := 0
	for _, o := range before {
		if r.unknown(o) {
			kept++
		}
	}
	after, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	if kept != 3 || len(before)-len(after) != kept {
		t.Errorf("%d objects are kept, and %d fewer are rendered; want 3", kept, len(before)-len(after))
	}
}

func TestOriginOf(t *testing.T) {
	for _, c := range []struct {
		url  string
		want origin
		says string // in the error
	}{
		{"http://10.0.0.1", origin{"10.0.0.1", 80}, ""},
		{"http://10.0.0.1:8080/", origin{"10.0.0.1", 8080}, ""},
		{"http://[fd00::1]:81", origin{"fd00::1", 81}, ""},
		{"http://old.example.com:8080", origin{"old.example.com", 8080}, ""},
		{"https://old.example.com", origin{}, "BackendTLSPolicy"},
		{"http://old.example.com/base", origin{}, "rewrite"},
		{"old", origin{}, "not the URL of a server"},
	} {
		got, err := originOf(c.url)
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want %v, %q", c.url, got, err, c.want, c.says)
		}
	}
}

// Names that users are led to are looked at beside the rounds: a DNS that is silent keeps no abort waiting.
func TestAddresses_WaitOnlyForANameThatUsersAreToBeLedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answers atomic.Bool
		p := &Platform{names: addresses{hosts: map[string]*named{}, due: make(chan struct{}, 1)}}
		p.names.lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			if !answers.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []netip.Addr{netip.MustParseAddr("10.2.0.1")}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		followed := make(chan struct{})
		go func() { // ends with ctx; waited for below
			p.followNames(ctx)
			close(followed)
		}()
		to := func(hosts ...string) spillway.Route {
			var urls []string
			for _, host := range hosts {
				urls = append(urls, "http://"+host)
			}
			return spillway.Route{Edges: []spillway.Edge{{Service: "www", Backends: []spillway.Backend{{Track: "legacy", URLs: urls}}}}}
		}
		old := to("a.test", "b.test")
		began := time.Now()
		if all := p.names.of(ctx, "castle", old, hostsOf(old)); len(all) != 0 || time.Since(began) != 0 {
			t.Errorf("it took %s to know %v", time.Since(began), all)
		}
		if p.names.of(ctx, "castle", to("a.test", "c.test", "d.test"), hostsOf(old)); time.Since(began) != lookLimit {
			t.Errorf("it took %s to look at two new names", time.Since(began))
		}
		answers.Store(true)
		<-time.After(lookEvery + time.Second)
		if all := p.names.of(ctx, "castle", old, hostsOf(old)); len(all["a.test"]) != 1 {
			t.Errorf("%v: a name is never looked at", all)
		}
		cancel()
		<-followed
	})
}

func TestPlaced_IsWhatHasAddressesInTheCluster(t *testing.T) {
	r := legacy()
	if hosts := hostsOf(placed(r.ref, r.desired.Route, nil)); len(hosts) != 0 {
		t.Errorf("before anything is there: %v", hosts)
	}
	objects, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	if hosts := hostsOf(placed(r.ref, r.desired.Route, there(objects...))); len(hosts) != 1 || hosts["old.example.com"] == nil {
		t.Errorf("when all is there: %v", hosts)
	}
}
