//go:build kube

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rules is an app of three programs that answer with their names, and of rules that lead to them.
func rules(in *installation, image, api, routes string) string {
	in.t.Helper()
	dir := in.t.TempDir()
	file := strings.NewReplacer("{IMAGE}", image, "{API}", api, "{NS}", in.namespace).Replace(`app: echo
watch: 1s
thin: promote
services:
  web: {image: "{IMAGE}", port: 8080, health: /, host: [a.{NS}.localhost, b.{NS}.localhost]}
  api: {image: "{API}", port: 8080, health: /}
  alt: {image: "{IMAGE}", port: 8080, health: /}
routes:
` + routes)
	if err := os.WriteFile(filepath.Join(dir, "spillway.yaml"), []byte(file), 0o644); err != nil {
		in.t.Fatal(err)
	}
	return dir
}

// met are the services that answer at a host and path, each with its release, or the status where none does.
func (in *installation) met(host, path string) string {
	in.t.Helper()
	have := map[string]bool{}
	for range 40 {
		status, body := in.get(host, path, nil)
		name := fmt.Sprint(status)
		if parts := strings.Split(body, "-"); status == 200 && len(parts) > 2 { // echo-web-1-7c9d8b6f5-x2x4z
			name = parts[1] + "." + parts[2]
		}
		have[name] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(have)), " ")
}

// Rules count for the hosts that they name, of a service with several and of none; who has the weight 0 gets nobody. While
// a rule moves from one host to the other, and the service that only rules lead to is released anew, no request fails.
func TestRoutes_CountForTheHostsThatTheyName(t *testing.T) {
	t.Parallel()
	in := install(t)
	images := echoes(t, in, "1", "2")
	a, b, alone := "a."+in.namespace+".localhost", "b."+in.namespace+".localhost", "rules."+in.namespace+".localhost"
	const always = `
  - {host: rules.{NS}.localhost, path: /api/*, to: [{to: api, weight: 1}, {to: alt, weight: 0}]}
  - {host: rules.{NS}.localhost, path: "~ ^/img/.*png", to: alt}
  - {host: rules.{NS}.localhost, path: /both, to: [{to: api, weight: 300}, {to: alt, weight: 100}]}`
	check := func(moment string, want ...string) {
		t.Helper()
		for i := 0; i < len(want); i += 3 {
			if got := in.met(want[i], want[i+1]); got != want[i+2] {
				t.Errorf("%s, at %s%s users meet %s; want %s", moment, want[i], want[i+1], got, want[i+2])
			}
		}
	}
	in.spillway("deploy", rules(in, images[0], images[0], "  - {host: b.{NS}.localhost, path: /api/*, to: api}"+always)).want(t, 0)
	check("at first", a, "/", "web.1", a, "/api/x", "web.1", b, "/", "web.1", b, "/api/x", "api.1",
		alone, "/api/x", "api.1", alone, "/both", "alt.1 api.1", alone, "/img/a.png?x", "alt.1", alone, "/", "404")

	home, by := readers(40), readers(40)
	by.URL = "http://" + in.gateway + "/api/x"
	users, others, guests := in.send(a, home), in.send(b, home), in.send(alone, by)
	users.answered(20)
	in.spillway("deploy", rules(in, images[0], images[1], "  - {host: a.{NS}.localhost, path: /api/*, to: api}"+always)).want(t, 0)
	in.healthy("echo", 2, 30*time.Second)
	check("when the rule has moved", a, "/", "web.1", a, "/api/x", "api.2", b, "/", "web.1", b, "/api/x", "web.1",
		alone, "/api/x", "api.2", alone, "/both", "alt.1 api.2", alone, "/", "404")
	users.flawless(30)
	others.flawless(30)
	guests.flawless(30)
}
