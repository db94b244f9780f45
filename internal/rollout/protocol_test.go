package rollout_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// stored is a release of web, which needs db, and db; every release changes both.
func stored(number int, change func(db *spillway.Service)) spillway.Release {
	db := spillway.Service{Name: "db", Scale: 2, Strategy: spillway.Rolling, Protocol: spillway.TCP, Listen: []string{":5432"}}
	change(&db)
	web := spillway.Service{Name: "web", Scale: 1, Strategy: spillway.Rolling, Protocol: spillway.HTTP, Needs: []string{"db"}, Host: []string{"shop.test"}}
	return spillway.Release{
		App: "shop", Number: number, Config: spillway.App{Name: "shop", Services: []spillway.Service{db, web}},
		Groups: map[string]int{"db": number, "web": number}, Artefacts: map[string]spillway.Artefact{},
	}
}

// ways describes every edge of the route asked for by what is spoken there.
func (w *world) ways() string {
	var lines []string
	for _, e := range w.status.Route.Edges {
		at := strings.Join(append(e.Hosts, e.Listen...), " ")
		if e.From != (spillway.Group{}) {
			at = e.From.String()
		}
		line := fmt.Sprintf("%s > %s %s:", at, e.Service, e.Protocol)
		for _, b := range e.Backends {
			line += fmt.Sprintf(" %s %s%s", b.Group, b.Weight, after(b.Announce))
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// after is the version of the PROXY protocol behind a blank.
func after(a spillway.Announce) string {
	if a == "" {
		return ""
	}
	return " " + string(a)
}

// An address moves with the weight, as a host does: to another strategy, another protocol, another service, and back.
func TestDecide_MovesAddressesLikeHosts(t *testing.T) {
	same := func(*spillway.Service) {}
	w := newWorld(t, stored(1, same), stored(2, func(db *spillway.Service) { db.Announce = spillway.AnnounceV2 }), stored(3, func(db *spillway.Service) {
		db.Protocol, db.Listen, db.Host = spillway.HTTP, nil, []string{"db.test"}
	}))
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 1}, 6)
	w.want("the first release", w.ways(), ":5432 > db tcp: db.1 100%\nweb.1 > db tcp: db.1 100%\nshop.test > web : web.1 100%")
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 2}, 1)
	for range 10 {
		if !strings.Contains(w.ways(), "db.1 50%") {
			w.run(1)
		}
	}
	w.want("half way", w.ways(), ":5432 > db tcp: db.1 50% db.2 50% v2\nweb.1 > db tcp: db.1 100%\nweb.2 > db tcp: db.2 100% v2\nshop.test > web : web.1 50% web.2 50%")
	w.run(30)
	w.want("the second release", w.ways(), ":5432 > db tcp: db.2 100% v2\nweb.2 > db tcp: db.2 100% v2\nshop.test > web : web.2 100%")
	w.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: 3}, 30)
	w.want("one that speaks HTTP", w.ways(), "db.test > db : db.3 100%\nweb.3 > db : db.3 100%\nshop.test > web : web.3 100%")
	w.ask(spillway.Intent{Verb: spillway.VerbRollback, Release: 1}, 30)
	w.want("and back", w.ways(), ":5432 > db tcp: db.1 100%\nweb.1 > db tcp: db.1 100%\nshop.test > web : web.1 100%")
}

// What an environment says of a service is part of what its replicas are: they begin anew when that speaks TCP from now on,
// and not when it is reached at another address.
func TestFingerprint_KnowsWhoSpeaksTCP(t *testing.T) {
	one := stored(1, func(*spillway.Service) {})
	moved := stored(2, func(db *spillway.Service) { db.Listen = []string{":5433"} })
	http := stored(3, func(db *spillway.Service) { db.Protocol, db.Listen = spillway.HTTP, nil })
	for _, service := range []string{"web", "db"} {
		if one.Fingerprint(service) != moved.Fingerprint(service) {
			t.Errorf("%s begins anew for another address", service)
		}
	}
	if one.Fingerprint("web") == http.Fingerprint("web") || one.Fingerprint("db") != http.Fingerprint("db") {
		t.Error("web is told tcp:// of what speaks HTTP, or db begins anew")
	}
}
