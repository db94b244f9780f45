package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/sim"
)

// simulated runs simulate on an app file, far away from any server.
func simulated(t *testing.T, args ...string) invocation {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "spillway.yaml")
	text := "app: castle\nservices:\n  www:\n    run: ./www\n    host: castle.localhost\n    strategy: canary\n    needs: [backend]\n  backend:\n    run: ./backend\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return invoke(t.Context(), dir, append([]string{"simulate", "-f", file}, args...)...)
}

func TestSimulate_DrawsHowADeployWouldEnd(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"good":       {[]string{"--rps", "20"}, []string{"release 2 at 1% (step 1 of 5)", "██████████   100%", "release 2 had all users after", "the budget is 20"}},
		"broken":     {[]string{"--errors", "100%"}, []string{"release 2 to 0%:", "rolled back after", "3 of its 3 requests failed"}},
		"slow":       {[]string{"--slow", "2x", "--rps", "5", "--strategy", "blue-green"}, []string{"takes 2x as long", "no gate of the file is about latency"}},
		"crashes":    {[]string{"--crash"}, []string{"ends before it is ready", "failed after", "0 of its 0 requests failed"}},
		"no traffic": {[]string{"--rps", "0"}, []string{"0 requests a second", "it waits for a person"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := simulated(t, c.args...)
			if got.code != exitDone || got.stderr != "" {
				t.Fatalf("exit %d, stderr %q", got.code, got.stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(got.stdout, want) {
					t.Errorf("no %q in\n%s", want, got.stdout)
				}
			}
			if again := simulated(t, c.args...); again.stdout != got.stdout {
				t.Error("the same question has another answer the second time")
			}
		})
	}
}

func TestSimulate_GivesALineOfJSONForEachMoment(t *testing.T) {
	got := simulated(t, "--errors", "100%", "--json")
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if got.code != exitDone || len(lines) < 3 {
		t.Fatalf("exit %d and %d lines\n%s", got.code, len(lines), got.stdout)
	}
	var first sim.Moment
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.Weight != 0 || first.Event == "" {
		t.Errorf("the first line is %+v, %v", first, err)
	}
	var end sim.Timeline
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &end); err != nil || end.Outcome != spillway.RolledBack || end.Failures != 3 {
		t.Errorf("the last line is %+v, %v", end, err)
	}
}

func TestSimulate_SaysWhatItCannotDo(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"--rps", "100000", "want 0 to 1000"},
		{"--errors", "many", "--errors"},
		{"--slow", "0.1", "want a number from 1x"},
		{"--slow", "NaN", "want a number from 1x"},
		{"--strategy", "big-bang", "big-bang"},
	} {
		if got := simulated(t, c.flag, c.value); got.code != exitUsage || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s %s: exit %d, %s", c.flag, c.value, got.code, got.stderr)
		}
	}
}
