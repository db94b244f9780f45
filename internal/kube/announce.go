package kube

import (
	"context"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/spillway-dev/spillway/internal/kube/state"
)

// announcer makes Events of what the history of an app says, for those who look at the cluster: kubectl describe app.
// Each is made by the server that wrote the history, right after that, so nobody else makes it again; one that dies in
// between leaves it to the history alone. Before Run, and after it, it makes none.
type announcer struct {
	recorder atomic.Pointer[events.EventRecorderLogger]
}

var _ state.Recorder = (*announcer)(nil)

// Eventf tells one fact about an object. It does not block.
func (a *announcer) Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any) {
	if r := a.recorder.Load(); r != nil {
		(*r).Eventf(regarding, related, eventtype, reason, action, note, args...)
	}
}

// run writes Events until ctx ends.
func (a *announcer) run(ctx context.Context, sink events.EventSink, scheme *runtime.Scheme) error {
	b := events.NewBroadcaster(sink)
	defer b.Shutdown() // ends what it began, which ends with ctx too
	if err := b.StartRecordingToSinkWithContext(ctx); err != nil {
		return err
	}
	recorder := b.NewRecorder(scheme, Manager)
	a.recorder.Store(&recorder)
	defer a.recorder.Store(nil)
	<-ctx.Done()
	return nil
}
