package kube

import (
	"context"
	"runtime"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// sink gives what is created.
type sink struct {
	events.EventSink
	made chan *eventsv1.Event
}

func (s sink) Create(_ context.Context, e *eventsv1.Event) (*eventsv1.Event, error) {
	s.made <- e
	return e, nil
}

func TestAnnouncer_MakesEventsOfAnAppWhileItRuns(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	castle := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "castle", UID: "1", ResourceVersion: "7"}}
	s, a := sink{made: make(chan *eventsv1.Event)}, &announcer{}
	a.Eventf(castle, nil, "Normal", "Started", "Started", "%s", "nobody listens yet")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx, s, scheme) }() // ends with ctx; waited for below
	for a.recorder.Load() == nil {
		runtime.Gosched()
	}
	a.Eventf(castle, nil, "Normal", "Step", "Step", "%s", "release 2 at 5%")
	e := <-s.made
	if e.Note != "release 2 at 5%" || e.Reason != "Step" || e.Namespace != "shop" || e.Regarding.Kind != "App" || e.Regarding.UID != "1" || e.ReportingController != Manager {
		t.Errorf("made %+v", e)
	}
	cancel()
	if err := <-ended; err != nil || a.recorder.Load() != nil {
		t.Errorf("it ended with %v", err)
	}
	a.Eventf(castle, nil, "Normal", "Step", "Step", "%s", "nobody listens any more")
}
