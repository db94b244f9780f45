package local

import (
	"context"
	"fmt"

	"github.com/spillway-dev/spillway"
)

// Replace starts the daemon's command a second time beside the running process, which is expected to hand
// over to the new one and to end by itself. ready returns nil once the new process does the daemon's
// work; then Run supervises that one. When ready fails, the new process is killed and the old one stays
// the daemon. It is called while Run runs.
func (d *Daemon) Replace(ctx context.Context, ready func(ctx context.Context, pid int) error) error {
	d.replacing.Lock()
	defer d.replacing.Unlock()
	d.mu.Lock()
	old := d.proc
	d.mu.Unlock()
	if old == nil || closed(old.ended) {
		return fmt.Errorf("replace %s: it does not run: %w", d.name, spillway.ErrUnavailable)
	}
	d.mu.Lock()
	next, err := d.spawn()
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := ready(ctx, next.rec.PID); err != nil {
		next.kill()
		d.attend(context.WithoutCancel(ctx), next) // SIGKILL is not refused
		return fmt.Errorf("replace %s: the new process (pid %d) is not ready: %w", d.name, next.rec.PID, err)
	}
	d.mu.Lock()
	d.proc = next
	d.mu.Unlock()
	select {
	case d.switched <- struct{}{}: // Run watches the new one now
	default:
	}
	d.p.conf.Log.Info("daemon replaced", "daemon", d.name, "old", old.rec.PID, "new", next.rec.PID)
	return nil
}
