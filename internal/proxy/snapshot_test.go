package proxy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
)

func TestRun_ServesItsSnapshotBeforeAnybodySpeaksToIt(t *testing.T) {
	t.Parallel()
	dir, address := tempDir(t), unused(t)
	r := start(t, dir, false)
	table := alone(3, replica(t, text("shop")))
	table.Listeners = []spillway.EdgeListener{{Service: "www", From: www2, Address: address}}
	table.Route.Edges = append(table.Route.Edges, spillway.Edge{Service: "www", From: www2, Backends: table.Route.Edges[0].Backends})
	r.push(table)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, socketName)); err == nil {
		t.Error("the control socket is left behind")
	}
	r = start(t, dir, false)
	if a := r.get("/"); a.body != "shop" {
		t.Errorf("%+v", a)
	}
	if a, err := do(newClient(), "http://"+address, "GET", "/", nil); err != nil || a.body != "shop" {
		t.Errorf("private edge: %+v %v", a, err)
	}
	wantError(t, r.Push(t.Context(), alone(2)), spillway.ErrStale, "revision 3")
	if err := r.Remove(t.Context(), shop); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if a := start(t, dir, false).get("/"); a.status != 404 {
		t.Errorf("a removed app came back: %+v", a)
	}
}

func TestRun_SavesFailuresSoon(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	r := start(t, dir, false)
	r.push(divided(1, spillway.Percent(50), replica(t, text("old")), replica(t, status(500))))
	r.get("/", "X-User", usersAt(0, 5000, 1)[0])
	eventually(t, "the failure is saved", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "snapshot.json"))
		return err == nil && strings.Contains(string(text), `"failures":1`)
	})
}

func TestRun_RefusesASnapshotThatItCannotRead(t *testing.T) {
	t.Parallel()
	stored, err := os.ReadFile("testdata/snapshot_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"newer":           {`{"version": 2, "apps": []}`, "version 2"},
		"none":            {`{}`, "version 0"},
		"damaged":         {string(stored[:len(stored)/2]), "is damaged"},
		"empty":           {"", "is damaged"},
		"unknown field":   {strings.Replace(string(stored), `"apps"`, `"more": 1, "apps"`, 1), "cannot be read"},
		"impossible":      {strings.Replace(string(stored), `"weight": "95%"`, `"weight": "96%"`, 1), "101%"},
		"newer memory":    {strings.Replace(string(stored), `"memory": {"version": 1`, `"memory": {"version": 9`, 1), "version 9"},
		"memory no trial": {strings.Replace(string(stored), `"memory": {`, `"memory": 1, "x": {`, 1), "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			path := filepath.Join(dir, "snapshot.json")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := Run(ctx, Config{Dir: dir, HTTP: "127.0.0.1:0", Ready: cancel})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if left, _ := os.ReadFile(path); string(left) != c.text {
				t.Errorf("the snapshot was overwritten: %q", left)
			}
		})
	}
}

// TestRun_ReadsAStoredSnapshot: testdata/snapshot_v1.json was written by the first version.
func TestRun_ReadsAStoredSnapshot(t *testing.T) {
	t.Parallel()
	stored, err := os.ReadFile("testdata/snapshot_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "snapshot.json"), stored, 0o600); err != nil {
		t.Fatal(err)
	}
	report := start(t, dir, false).report()
	if e := report.Evidence; report.Revision != 1 || e.Trial != 7 || e.Failures != 3 || !e.Tripped {
		t.Errorf("report %+v, evidence %+v", report, e)
	}
}

func TestRun_RefusesADirectoryThatIsServed(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	err := Run(t.Context(), Config{Dir: r.dir, HTTP: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), "another proxy serves on "+r.dir) {
		t.Errorf("second proxy: %v", err)
	}
	if _, err := r.Info(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}
