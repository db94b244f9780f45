//go:build kube

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/test/kube/image"
)

// TestLogsGoOn follows the logs of a program that ends and is started again, while the connections to the API server are
// cut: of two lives it tells each line once, in order.
func TestLogsGoOn(t *testing.T) {
	t.Parallel()
	door, config := apiDoor(t)
	in := installIn(t, namespace(t))
	in.kubeconfig = config
	in.start()
	name := registry() + "/" + in.namespace + "/chatter:1"
	if _, err := image.Push(in.ctx(time.Minute), name, program(t, "./chatter")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "spillway.yaml"), []byte("app: chatter\nservices: {web: {image: \""+name+"\"}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in.spillway("deploy", dir, "--detach").want(t, 0)
	await(t, 30*time.Second, "a replica", func() bool {
		o := in.overview("chatter")
		return len(o.Services) > 0 && in.run("/", "logs", "--app", "chatter").stdout != ""
	})

	ctx, cancel := context.WithCancel(in.ctx(40 * time.Second))
	defer cancel()
	var life, lives, next, cuts int
	err := in.client.Logs(ctx, "chatter", spillway.LogQuery{Lines: 10_000, Follow: true}, func(l spillway.LogLine) error {
		var of, n int
		if _, err := fmt.Sscan(l.Text, &of, &n); err != nil && !strings.HasSuffix(l.Text, " ends") {
			t.Errorf("said %q", l.Text)
			return nil
		}
		if strings.HasSuffix(l.Text, " ends") {
			n = -1
		}
		switch {
		case of != life && (next != 0 || n != 0):
			return fmt.Errorf("%q follows after line %d of %d", l.Text, next-1, life)
		case of != life:
			life, lives = of, lives+1
		case n < 0 && next == 300:
			next = 0
			return nil
		case n != next:
			return fmt.Errorf("%q follows after line %d", l.Text, next-1)
		}
		next = n + 1
		if next == 200 {
			cuts++
			door.shut()
			door.open()
		}
		if lives == 2 && next == 250 {
			cancel()
		}
		return nil
	})
	t.Logf("%d lives, %d cuts", lives, cuts)
	if !errors.Is(err, context.Canceled) || lives != 2 || cuts == 0 {
		t.Errorf("it ended with %v", err)
	}
}
