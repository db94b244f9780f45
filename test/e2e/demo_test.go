package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The demonstration tells its whole story, loses no request and leaves nothing in its place.
func TestDemo_LosesNoRequestAndLeavesNothing(t *testing.T) {
	temp, err := os.MkdirTemp("", "sw") // short: a unix socket is below it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	demo := exec.CommandContext(ctx, binary, "demo")
	demo.Env = append(os.Environ(), "TMPDIR="+temp)
	out, err := demo.CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, want := range []string{"release 2 of demo serves everybody", "release 3 of demo was rolled back", "users saw 0 failed requests", "release 4 of demo serves everybody", "requests, 0 failed"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("demo does not say %q:\n%s", want, out)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("demo left %v (%v)", left, err)
	}
}
