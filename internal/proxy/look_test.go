package proxy

import (
	"net"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

// taken is a table with a private address that another program has, and the function that frees it.
func taken(t *testing.T, revision int64, address string) (table spillway.Table, free func()) {
	t.Helper()
	squatter, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { squatter.Close() })
	return withPrivate(alone(revision, replica(t, text("shop"))), address), func() { squatter.Close() }
}

// expectMissing checks that all but the private address is served, and that this is told until it is free.
func expectMissing(t *testing.T, r *running, revision int64, address string, free func()) {
	t.Helper()
	if a := r.get("/"); a.body != "shop" {
		t.Errorf("the public edge waits for the private one: %+v", a)
	}
	report := r.report()
	if report.Revision != revision || !strings.Contains(report.Dead[address], "address already in use") {
		t.Errorf("revision %d, dead %v", report.Revision, report.Dead)
	}
	free()
	eventually(t, "the address is bound", func() bool { return len(r.report().Dead) == 0 })
	if a, err := do(newClient(), "http://"+address, "GET", "/", nil); err != nil || a.body != "shop" {
		t.Errorf("private edge: %+v %v", a, err)
	}
}

func TestPush_ServesTheRestWhenAPrivateAddressIsTaken(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	address := unused(t)
	table, free := taken(t, 1, address)
	r.push(table)
	expectMissing(t, r, 1, address, free)
}

func TestRun_ServesTheRestOfASnapshotWhenAPrivateAddressIsTaken(t *testing.T) {
	t.Parallel()
	dir, address := tempDir(t), unused(t)
	r := start(t, dir, false)
	r.push(withPrivate(alone(3, replica(t, text("shop"))), address))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	_, free := taken(t, 3, address)
	expectMissing(t, start(t, dir, false), 3, address, free)
}

func TestPush_LetsNoPromotionOutrunATrip(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	stable, candidate := replica(t, text("old")), replica(t, status(500))
	trip := func(table spillway.Table) {
		t.Helper()
		r.push(table)
		for i := 0; !r.report().Evidence.Tripped; i++ {
			r.get("/", "X-User", usersAt(0, 500, 30)[i])
		}
	}
	trip(divided(1, spillway.Percent(5), stable, candidate))

	promoted := divided(2, spillway.Whole, stable, candidate)
	promoted.Route.Trial = nil
	wantError(t, r.Push(t.Context(), promoted), spillway.ErrConflict, "release 2 was found harmful")
	next := divided(2, spillway.Percent(1), stable, candidate)
	next.Route.Trial.ID = 8
	wantError(t, r.Push(t.Context(), next), spillway.ErrConflict, "release 2 was found harmful")
	ruled := divided(2, 0, stable, candidate)
	ruled.Route.Trial = nil
	ruled.Route.Edges[0].Backends[1].Track = "canary"
	ruled.Route.Edges[0].Rules = canary(1, 0, "", "").Route.Edges[0].Rules
	wantError(t, r.Push(t.Context(), ruled), spillway.ErrConflict, "release 2 was found harmful")
	if e := r.report(); e.Revision != 1 || !e.Evidence.Tripped {
		t.Errorf("report %+v", e)
	}

	same := divided(2, spillway.Percent(25), stable, candidate) // its maker will see the trip in the report
	r.push(same)
	back := withPrivate(divided(3, 0, stable, candidate), unused(t)) // the candidate drains, and calls its peers
	back.Route.Trial = nil
	back.Route.Edges[1].From, back.Listeners[0].From = www2, www2
	back.Route.Edges[1].Backends = []spillway.Backend{{Group: www2, Release: 2, Weight: spillway.Whole}}
	back.Route.Edges = append(back.Route.Edges, spillway.Edge{Service: "www", Hosts: []string{"off.test"}, Only: "standby", Backends: back.Route.Edges[1].Backends})
	r.push(back)
	next.Revision = 4 // now it is tried once more
	r.push(next)
	if e := r.report().Evidence; e.Tripped || e.Trial != 8 {
		t.Errorf("evidence %+v", e)
	}
}
