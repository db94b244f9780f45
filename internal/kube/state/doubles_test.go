package state_test

import (
	"context"
	"sync"

	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// faulty is a client whose writes of a status fail, while it has an error for them.
type faulty struct {
	client.Client
	status error
}

func (f *faulty) Status() client.SubResourceWriter { return faultyStatus{f.Client.Status(), f.status} }

type faultyStatus struct {
	client.SubResourceWriter
	err error
}

func (f faultyStatus) Update(ctx context.Context, o client.Object, options ...client.SubResourceUpdateOption) error {
	if f.err == nil {
		return f.SubResourceWriter.Update(ctx, o, options...)
	}
	return f.err
}

// unanswered is a client whose writes of a status arrive, and their answers do not.
type unanswered struct {
	client.Client
	err error // instead; nil = that the API server gave up
}

func (u *unanswered) Status() client.SubResourceWriter {
	return unansweredStatus{u.Client.Status(), u.err}
}

type unansweredStatus struct {
	client.SubResourceWriter
	err error
}

func (u unansweredStatus) Update(ctx context.Context, o client.Object, options ...client.SubResourceUpdateOption) error {
	if err := u.SubResourceWriter.Update(ctx, o, options...); err != nil {
		return err
	}
	if u.err != nil {
		return u.err
	}
	return apierrors.NewTimeoutError("no answer", 1)
}

// lateCache reads apps as they were at a moment.
type lateCache struct {
	client.Client
	mu  sync.Mutex
	app *v1alpha1.App
}

func (l *lateCache) freeze(app *v1alpha1.App) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.app = app
}

func (l *lateCache) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if app, ok := into.(*v1alpha1.App); ok && l.app != nil {
		*app = *l.app.DeepCopy()
		return nil
	}
	return l.Client.Get(ctx, key, into, options...)
}

func (l *lateCache) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if apps, ok := into.(*v1alpha1.AppList); ok && l.app != nil {
		apps.Items = []v1alpha1.App{*l.app.DeepCopy()}
		return nil
	}
	return l.Client.List(ctx, into, options...)
}

var _ state.Recorder = events.EventRecorder(nil)

type recorder func(kind, reason, note string)

func (r recorder) Eventf(_, _ runtime.Object, kind, reason, _, _ string, args ...any) {
	r(kind, reason, args[0].(string))
}
