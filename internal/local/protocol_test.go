package local_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// A replica is told of what it needs how it is spoken to, and the table that is pushed says the same.
func TestApply_TellsWhoSpeaksTCP(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) { s.Needs = []string{"cache", "page"} })
	for n, r := range releases {
		r.Config.Services = append(r.Config.Services, spillway.Service{Name: "cache", Protocol: spillway.TCP}, spillway.Service{Name: "page", Protocol: spillway.HTTP})
		releases[n] = r
	}
	d := www(1, 1)
	d.Route.Edges = append(d.Route.Edges, spillway.Edge{Service: "cache", From: d.Groups[0].Group, Protocol: spillway.TCP, Closed: "not yet"})
	b.apply(releases, d)
	b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
	var env []string
	if err := json.Unmarshal([]byte(b.ask("www.1-1", "/env")), &env); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CACHE_URL=tcp://127.0.0.1:", "PAGE_URL=http://127.0.0.1:"} {
		if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, want) }) {
			t.Errorf("%s… is missing in %q", want, env)
		}
	}
	b.router.mu.Lock()
	defer b.router.mu.Unlock()
	if !slices.ContainsFunc(b.router.tables["shop"].Route.Edges, func(e spillway.Edge) bool {
		return e.Service == "cache" && e.Protocol == spillway.TCP
	}) {
		t.Errorf("the table has the edges %+v", b.router.tables["shop"].Route.Edges)
	}
}

// A replica is asked in what it speaks to users: one that speaks HTTP/2 only becomes ready, and stops being so.
func TestProbe_SpeaksTheProtocolOfTheService(t *testing.T) {
	for _, protocol := range []spillway.Protocol{spillway.H2C, spillway.GRPC} {
		t.Run(string(protocol), func(t *testing.T) {
			b := newBench(t)
			b.apply(shop("h2c", func(s *spillway.Service) { s.Health.Path, s.Protocol = "/healthz", protocol }), www(1, 1))
			b.eventually("ready", func() bool { return b.group("www.1").Ready == 1 })
			sick := http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
			sick.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
			resp, err := sick.Get("http://" + b.replica("www.1-1").Address + "/sick")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			b.eventually("a replacement of the sick one", func() bool {
				return b.said("www.1-1 is replaced: GET /healthz answered 503 Service Unavailable")
			})
		})
	}
}

// One that speaks the other version of HTTP never becomes ready, and its problem says what to write.
func TestProbe_SaysWhenTheProtocolIsAnother(t *testing.T) {
	for name, c := range map[string]struct {
		program  string
		protocol spillway.Protocol
		want     string
	}{
		"HTTP/2 by HTTP/1": {"h2c", spillway.HTTP, "GET /healthz: it speaks HTTP/2, and not HTTP/1.1; write protocol: h2c, or grpc"},
		"HTTP/1 by h2c":    {"serve", spillway.H2C, "GET /healthz: it speaks HTTP/1.1, and not HTTP/2 as protocol: h2c says; write protocol: http"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.apply(shop(c.program, func(s *spillway.Service) { s.Health.Path, s.Protocol = "/healthz", c.protocol }), www(1, 1))
			b.eventually("the problem says it", func() bool { return strings.Contains(b.group("www.1").Problem, c.want) })
		})
	}
}
