package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// The history keeps as many releases as the file says, and what it lists can be deployed, without a build;
// what it has forgotten is refused before anything is touched. The last ten that were good are kept in any case:
// they are the way back.
func TestHistory_WhatIsListedCanBeDeployed(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "annals")
	a.Watch = "0s"
	a.Top = []string{"keep: 2"}
	for range 14 {
		in.deploy(a.bump()).want(t, 0)
	}
	in.healthy(a.Name, 14, 30*time.Second)
	builds := func() int {
		entries, err := os.ReadDir(filepath.Join(in.dir, "builds"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	in.kill(syscall.SIGTERM) // it forgets at its start, and then every hour
	in.start()
	var listed []spillway.Release
	await(t, 20*time.Second, "old releases to be forgotten", func() bool {
		var err error
		listed, err = in.client.Releases(in.ctx(10*time.Second), "annals")
		return err == nil && len(listed) < 14
	})
	have := map[int]bool{}
	for _, r := range listed {
		have[r.Number] = true
	}
	for n := 4; n <= 14; n++ { // the one that serves, and ten behind it
		if !have[n] {
			t.Errorf("release %d is not among %v", n, have)
		}
	}
	stored := builds()
	for _, r := range listed {
		in.spillway("deploy", fmt.Sprint(r.Number), "--app", a.Name).want(t, 0)
		in.healthy(a.Name, r.Number, 30*time.Second)
		if status, text := in.get(a.Host(), "/"); status != 200 {
			t.Errorf("release %d: %d %s", r.Number, status, text)
		}
	}
	if n := builds(); n > stored {
		t.Errorf("deploying stored releases built something: %d artefacts, then %d", stored, n)
	}
	serves := in.overview(a.Name).Stable
	for n := 1; n <= 14; n++ {
		if !have[n] {
			in.spillway("deploy", fmt.Sprint(n), "--app", a.Name).want(t, 1).tells(t, fmt.Sprintf("no release %d", n), "spillway releases")
		}
	}
	in.healthy(a.Name, serves, 5*time.Second)
	t.Logf("of 14 releases, %d are listed", len(listed))
}
