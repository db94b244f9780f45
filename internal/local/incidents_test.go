package local_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Settings belong to their release: while two releases run, each has its own, and when the first one is
// started again, as a rollback does, it has what it had. (docs/incidents.md)
func TestApply_GivesEachReleaseItsOwnSettings(t *testing.T) {
	b := newBench(t)
	releases := shop("serve", func(s *spillway.Service) { s.Env["GREETING"] = "one" })
	next := shop("serve", func(s *spillway.Service) { s.Env["GREETING"] = "two" })[1]
	next.Number, next.Groups = 2, map[string]int{"www": 2}
	releases[2] = next
	both := www(1, 1)
	both.Groups = append(both.Groups, rollout.Want{Group: spillway.Group{Service: "www", Release: 2}, Replicas: 1, Release: 2})
	has := func(replica, want string) {
		t.Helper()
		var env []string
		if err := json.Unmarshal([]byte(b.ask(replica, "/env")), &env); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(env, "GREETING="+want) {
			t.Errorf("%s has not GREETING=%s: %q", replica, want, env)
		}
	}
	b.apply(releases, both)
	b.eventually("both ready", func() bool { return b.group("www.1").Ready == 1 && b.group("www.2").Ready == 1 })
	has("www.1-1", "one")
	has("www.2-1", "two")

	only := www(0, 2)
	only.Groups[0] = both.Groups[1]
	only.Route.Edges[0].Backends[0] = spillway.Backend{Group: both.Groups[1].Group, Release: 2, Weight: spillway.Whole}
	b.apply(releases, only)
	b.eventually("release 1 is gone", func() bool { return b.group("www.1").Running == 0 })
	back := www(1, 3)
	b.apply(releases, back)
	b.eventually("release 1 is back", func() bool { return b.group("www.1").Ready == 1 })
	has("www.1-1", "one")
}
