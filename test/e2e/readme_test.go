package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The first command of README.md: everything starts, both tiers answer, and Ctrl-C leaves nothing behind.
func TestReadme_FirstCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := installOn(t, filepath.Join(dir, "s"))
	up := exec.Command(binary, "up", "--http", in.http, "--listen", in.listen, filepath.Join(root(), "examples", "castle"))
	up.Env, up.SysProcAttr = in.env(), &syscall.SysProcAttr{Setsid: true}
	output := new(lockedText)
	up.Stdout, up.Stderr = output, output
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }() // ends with the process, which is interrupted or killed below
	defer up.Process.Kill()

	if !within(time.Minute, func() bool { status, _ := in.get("www.castle.localhost", "/"); return status == 200 }) {
		t.Fatalf("www.castle.localhost does not answer 200 after a minute; up wrote:\n%s", output)
	}
	_, page := in.get("www.castle.localhost", "/")
	for _, text := range []string{"Welcome to the castle", "www.1-", "backend.1-"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not contain %q:\n%s", text, page)
		}
	}
	var hello struct {
		Release string
		Backend struct{ Release, Service string }
	}
	if _, text := in.get("www.castle.localhost", "/api/hello"); json.Unmarshal([]byte(text), &hello) != nil || hello.Release != "1" || hello.Backend.Release != "1" || hello.Backend.Service != "backend" {
		t.Errorf("/api/hello: want release 1 of both tiers, got %s", text)
	}
	await(t, 10*time.Second, "up to say how to stop", func() bool { return strings.Contains(output.String(), "Ctrl-C stops it all") })

	if err := up.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(haltWithin):
		t.Fatalf("up has not ended %v after Ctrl-C; it wrote:\n%s", haltWithin, output)
	}
	if code := up.ProcessState.ExitCode(); code != 0 {
		t.Errorf("up ended with code %d after Ctrl-C; it wrote:\n%s", code, output)
	}
	in.nothingLeft()
	if status, text := in.get("www.castle.localhost", "/"); status != 0 {
		t.Errorf("somebody still answers: %d %s", status, text)
	}
}
