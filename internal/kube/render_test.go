package kube

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

var update = flag.Bool("update", false, "write the golden files anew")

// castle is release n of two tiers, of which the backend is private.
func castle(n int, groups map[string]int) spillway.Release {
	www := spillway.Service{
		Name: "www", Host: []string{"www.castle.test"}, Needs: []string{"backend"}, Env: map[string]string{"GREETING": "costs $(5)"},
		Health: spillway.DefaultProbe(), Stop: spillway.DefaultStop(), Scale: 2, Limits: spillway.Limits{CPU: 250, Memory: 64 << 20},
	}
	www.Health.Path = "/healthz"
	backend := spillway.Service{Name: "backend", Health: spillway.DefaultProbe(), Stop: spillway.DefaultStop(), Scale: 1, Release: spillway.Command{Exec: []string{"/app/migrate", "up"}}}
	image := func(name string) spillway.Artefact {
		return spillway.Artefact{Image: fmt.Sprintf("registry.test/castle-%s@sha256:%064d", name, groups[name])}
	}
	return spillway.Release{
		App: "castle", Number: n, Groups: groups, Config: spillway.App{Name: "castle", Services: []spillway.Service{backend, www}},
		Artefacts: map[string]spillway.Artefact{"www": image("www"), "backend": image("backend")},
	}
}

// canary is a rollout of release 2 at 5 %, with a track beside it.
func canary() rendering {
	g := func(service string, n int) spillway.Group { return spillway.Group{Service: service, Release: n} }
	private := func(n int) spillway.Edge {
		return spillway.Edge{Service: "backend", From: g("www", n), Backends: []spillway.Backend{{Group: g("backend", n), Release: n, Weight: spillway.Whole}}}
	}
	public := spillway.Edge{Service: "www", Target: "www", Hosts: []string{"www.castle.test"}, Rules: []spillway.Rule{
		{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "cookie", Name: "beta"}, Value: "1"}, Track: "beta"},
		{Match: spillway.Match{KeySource: spillway.KeySource{Kind: "header", Name: "X-Beta"}, Value: "*"}, Track: "beta"},
	}, Backends: []spillway.Backend{
		{Group: g("www", 3), Release: 3, Weight: 0, Track: "beta", Within: spillway.Whole},
		{Group: g("www", 1), Release: 1, Weight: 9500, Within: 9500},
		{Group: g("www", 2), Release: 2, Weight: 500, Within: 500},
	}}
	want := func(service string, n, replicas int) rollout.Want {
		return rollout.Want{Group: g(service, n), Replicas: replicas, Release: n}
	}
	both := func(n int) map[string]int { return map[string]int{"www": n, "backend": n} }
	three := castle(3, both(3))
	three.Track = "beta"
	return rendering{
		ref: "castle", namespace: "shop", gateway: Gateway{Namespace: "edge", Name: "gw", Section: "web"},
		releases: map[int]spillway.Release{1: castle(1, both(1)), 2: castle(2, both(2)), 3: three},
		desired: rollout.Desired{
			Groups: []rollout.Want{want("backend", 1, 1), want("backend", 2, 1), want("backend", 3, 1), want("www", 1, 2), want("www", 2, 1), want("www", 3, 1)},
			Route:  spillway.Route{Generation: 7, Edges: []spillway.Edge{private(1), private(2), private(3), public}},
			Tasks:  []rollout.Task{{Rollout: 2, Service: "backend", Release: 2, Limit: spillway.Duration(600e9)}},
		},
	}
}

func yamlOf(t *testing.T, r rendering) []byte {
	t.Helper()
	objects, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, o := range objects {
		u, _, err := bare(o)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString("---\n")
		all.Write(text)
	}
	return all.Bytes()
}

func TestRender_ACanaryWithATrackAndATask(t *testing.T) {
	got := yamlOf(t, canary())
	path := filepath.Join("testdata", "canary.yaml")
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

func TestRender_AReleaseThatChangesAnotherServiceLeavesTheReplicasAlone(t *testing.T) {
	r := canary()
	before := yamlOf(t, r)
	next := castle(4, map[string]int{"www": 4, "backend": 1})
	r.releases[4] = next
	r.desired.Groups[0].Release = 4 // the same group, started by the newer release
	if after := yamlOf(t, r); !bytes.Equal(before, after) {
		t.Error("the Deployment of a group differs with the release that starts it")
	}
}

func TestRender_SaysWhatItCannot(t *testing.T) {
	r := canary()
	delete(r.releases[1].Artefacts, "www")
	if _, err := r.objects(); err == nil || !strings.Contains(err.Error(), "made for one machine") {
		t.Errorf("a release without an image: %v", err)
	}
	r = canary()
	r.desired.Route.Rules = []spillway.HTTPRule{{Hosts: []string{"www.castle.test"}, Users: map[string]string{"a": "b"}, To: []spillway.Target{{Service: "www"}}}}
	if _, err := r.objects(); err == nil || !strings.Contains(err.Error(), "users") {
		t.Errorf("a rule with users: %v", err)
	}
	r = canary()
	r.gateway = Gateway{}
	r.desired.Route.Edges[len(r.desired.Route.Edges)-1].Only = "beta"
	if _, err := r.objects(); err == nil || !strings.Contains(err.Error(), "gateway") {
		t.Errorf("hosts of a track without a gateway: %v", err)
	}
}

// A replica that leaves serves those who are still led to it, whatever its drain is, and then has all of its grace.
func TestRender_AReplicaThatLeavesServesUntilNobodyIsLedToIt(t *testing.T) {
	for _, c := range []struct {
		protocol     spillway.Protocol
		drain, grace time.Duration
		sleep, whole int64
	}{
		{spillway.HTTP, 0, 10 * time.Second, 3, 13},
		{"", time.Second, 0, 3, 4},
		{spillway.GRPC, 0, 0, 3, 4},
		{spillway.HTTP, 30 * time.Second, 10 * time.Second, 30, 40},
		{spillway.TCP, 0, time.Second, 1, 2},
		{spillway.TCP, 250 * time.Millisecond, time.Second, 1, 2},
	} {
		r := canary()
		s := r.releases[1].Config.Services[1]
		s.Protocol, s.Stop.Drain, s.Stop.Grace = c.protocol, spillway.Duration(c.drain), spillway.Duration(c.grace)
		pod, err := r.pod(r.desired.Groups[3], s)
		if err != nil {
			t.Fatal(err)
		}
		stop := pod.Spec.Containers[0].Lifecycle
		if stop == nil || stop.PreStop.Sleep.Seconds != c.sleep || *pod.Spec.TerminationGracePeriodSeconds != c.whole {
			t.Errorf("%s, drain %v, grace %v: it sleeps %+v of %d s, want %d of %d", c.protocol, c.drain, c.grace, stop, *pod.Spec.TerminationGracePeriodSeconds, c.sleep, c.whole)
		}
	}
}

func TestName_StaysShortAndDistinct(t *testing.T) {
	long := spillway.Ref(strings.Repeat("a", 40) + "@" + strings.Repeat("e", 30))
	seen := map[string]bool{Name("my-shop", "www", "1"): true}
	if got := Name("my", "shop-www", "1"); seen[got] {
		t.Errorf("two apps have %s", got)
	}
	for _, service := range []string{strings.Repeat("s", 30), strings.Repeat("s", 29) + "t"} {
		for _, n := range []string{"1", "12"} {
			name := Name(long, service, n)
			if len(name) > maxName || seen[name] {
				t.Errorf("%s has %d characters, seen before: %v", name, len(name), seen[name])
			}
			seen[name] = true
		}
	}
	if got := Name("castle@staging", "www", "4"); !strings.HasPrefix(got, "castle--staging-www-4-") {
		t.Error(got)
	}
}

func TestDuration_IsWrittenAsTheGatewayAPIReadsIt(t *testing.T) {
	for d, want := range map[time.Duration]gatewayv1.Duration{
		1500 * time.Millisecond: "1s500ms", 90 * time.Second: "1m30s", 10 * time.Second: "10s", time.Microsecond: "1ms", 25*time.Hour + time.Second: "25h1s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestCovers_IsAskedForWhatIsWantedOnly(t *testing.T) {
	m := func(kv ...any) map[string]any {
		all := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			all[kv[i].(string)] = kv[i+1]
		}
		return all
	}
	for _, c := range []struct {
		there, want any
		covers      bool
	}{
		{m("a", int64(1), "b", "x"), m("a", int64(1)), true},
		{m("a", int64(2)), m("a", int64(1)), false},
		{m(), m("a", m()), true},
		{m("a", []any{m("n", "1", "d", "x")}), m("a", []any{m("n", "1")}), true},
		{m("a", []any{m("n", "1"), m("n", "2")}), m("a", []any{m("n", "1")}), false},
		{m(), m("a", []any{}), true},
	} {
		if got := covers(c.there, c.want); got != c.covers {
			t.Errorf("covers(%v, %v) = %v", c.there, c.want, got)
		}
		if got := lacking(c.there, c.want); (got == "") != c.covers {
			t.Errorf("lacking(%v, %v) = %q", c.there, c.want, got)
		}
	}
}

// What leaves of a release whose resource somebody deleted stays as it is until it is not wanted, and holds up nothing.
func TestRender_LeavesAGroupWhoseReleaseIsGone(t *testing.T) {
	r := canary()
	before, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	delete(r.releases, 3)
	after, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	there := func(name string) func(client.Object) bool {
		return func(o client.Object) bool { return key(o) == name }
	}
	for _, o := range before {
		left := o.GetLabels()[ReleaseLabel] == "3"
		if left != r.unknown(o) {
			t.Errorf("%s: left as it is %v, want %v", key(o), !left, left)
		}
		if !left && !slices.ContainsFunc(after, there(key(o))) {
			t.Errorf("%s is not wanted any more", key(o))
		}
	}
	if slices.ContainsFunc(after, there("Deployment/castle-www-3")) {
		t.Error("nobody knows what it runs, and it is rendered")
	}
	r.desired.Groups = r.desired.Groups[:2]
	if slices.ContainsFunc(before, r.unknown) {
		t.Error("it stays when it is not wanted")
	}
}
