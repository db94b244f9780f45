package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSlowClients: hundreds of clients who are slow on purpose cost the others nothing, and the proxy no
// memory that stays. The profiles are those of slowhttptest.
func TestSlowClients(t *testing.T) {
	need(t, "slowhttptest")
	in := install(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "spillway.yaml"), fmt.Sprintf("app: slow\nservices:\n  web:\n    run: [%s, site]\n    host: localhost\n    scale: 2\n", self))
	in.spillway("deploy", dir).want(t, 0)
	url := strings.Replace("http://"+in.http+"/", "127.0.0.1", "localhost", 1)
	calm := in.send("localhost", keepAlive("GET", 100), newConnections("POST", 50))
	calm.answered(600)
	usual := calm.P99()
	calm.flawless(140)
	var memory []int
	for _, c := range []struct {
		name string
		args []string
	}{
		{"slow headers", []string{"-H", "-i", "1"}},
		{"slow bodies", []string{"-B", "-i", "1", "-s", "8192", "-x", "10"}},
		{"ranges", []string{"-R", "-a", "10", "-b", "3000"}},
		{"slow readers", []string{"-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "3"}},
		{"slow headers once more", []string{"-H", "-i", "1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			users := in.send("localhost", keepAlive("GET", 100), newConnections("POST", 50))
			users.T = t
			attack(t, append(c.args, "-c", "400", "-r", "200", "-l", "8", "-p", "3", "-u", url, "-v", "1")...)
			p99 := users.P99()
			users.flawless(120)
			// The attacker takes much of a small machine by itself. One who succeeds makes the others wait for seconds.
			if limit := max(4*usual, 600*time.Millisecond); p99 > limit {
				t.Errorf("p99 of the others: %v, usually %v, want %v or less", p99, usual, limit)
			}
			memory = append(memory, residentKB(t, in.proxyPID()))
			t.Logf("p99 of the others %v, usually %v; the proxy has %d KB", p99, usual, memory[len(memory)-1])
		})
	}
	if first, last := memory[0], memory[len(memory)-1]; last > first+first/3+8<<10 {
		t.Errorf("the proxy's memory in KB after each profile: %v, want it flat", memory)
	}
}

// attack runs slowhttptest. What it thinks of the server does not matter: the other users are asked.
func attack(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "slowhttptest", args...)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("slowhttptest %v: %v\n%s", args, err, lastLines(string(out), 20))
	}
}

// residentKB is the memory that a process has.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("process %d has no VmRSS", pid)
	return 0
}
